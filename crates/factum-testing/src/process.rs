//! A second process of a test: what it says, and its end by SIGKILL.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

/// What a line begins with that the other process tells. The test harness prints lines of its own.
const MARK: &[u8] = b"told ";

/// A `#[test]` that does nothing by itself, and is run in a process of its own by other tests.
///
/// ```
/// use factum_testing::{ChildTest, tell};
///
/// const CHILD: ChildTest = ChildTest::new("process::child");
///
/// // In the module `process`, with `#[test]` before it.
/// fn child() {
///     let Some(path) = CHILD.order() else { return };
///     // Here it opens the store at `path`, and appends; then, for each answer:
///     tell(&format!("appended {path}"));
/// }
///
/// child(); // In the process of the tests it has no order.
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ChildTest {
    name: &'static str,
}

impl ChildTest {
    /// The test with this name, with its modules as the harness shows them.
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }

    /// The order with which this process was started to run the test; `None` in other processes,
    /// where the test returns at once.
    ///
    /// # Panics
    /// If the order is not UTF-8.
    pub fn order(&self) -> Option<String> {
        let order = env::var_os(self.variable())?;
        Some(order.into_string().expect("a test gives an order in UTF-8"))
    }

    /// Runs the test in another process, with this order; and what that process tells.
    ///
    /// # Panics
    /// If the process can't be started.
    pub fn start(&self, order: impl AsRef<OsStr>) -> (ChildProcess, Told) {
        let mut process = self
            .complete(Command::new(program()), order.as_ref())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a test can start itself again");
        let lines = process.stdout.take().expect("it was asked for");
        (ChildProcess { process }, Told { lines: BufReader::new(lines) })
    }

    /// Runs the test to its end after these commands of a shell, such as `ulimit -n 100`, in the
    /// same process. Answers with all that it printed.
    ///
    /// # Panics
    /// If the shell can't be started.
    pub fn run_after(&self, commands: &str, order: impl AsRef<OsStr>) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{commands}; exec \"$0\" \"$@\"")]).arg(program());
        self.complete(shell, order.as_ref()).output().expect("a shell is there")
    }

    fn complete(&self, mut command: Command, order: &OsStr) -> Command {
        command.args(["--exact", self.name, "--nocapture", "--test-threads=1"]);
        command.env(self.variable(), order);
        command
    }

    /// Each test has a variable of its own, so that a child starts no other one's work.
    fn variable(&self) -> String {
        format!("FACTUM_CHILD_{}", self.name.replace("::", "_").to_uppercase())
    }
}

/// The tests that this process runs.
fn program() -> std::path::PathBuf {
    env::current_exe().expect("a test runs from a file")
}

/// A running second process. It is killed when this is dropped.
#[derive(Debug)]
pub struct ChildProcess {
    process: Child,
}

impl ChildProcess {
    /// Ends it by SIGKILL, at whatever it is doing, and waits until it has ended.
    ///
    /// # Panics
    /// If it had ended by itself: then it was not killed at work.
    pub fn kill(mut self) {
        let ended = self.process.try_wait().expect("it is a child of this process");
        assert!(ended.is_none(), "the other process ended before it was killed: {ended:?}");
        self.process.kill().expect("it is a child of this process");
        self.process.wait().expect("it is a child of this process");
    }

    /// Waits until it ends by itself. Read what it tells first: a full pipe stops it.
    ///
    /// # Panics
    /// If it failed.
    pub fn finish(mut self) {
        let status = self.process.wait().expect("it is a child of this process");
        assert!(status.success(), "the other process failed: {status}");
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What another process tells, in order, until it ends. A line that its end cut in two is left out.
#[derive(Debug)]
pub struct Told {
    lines: BufReader<ChildStdout>,
}

impl Iterator for Told {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = Vec::new();
            self.lines.read_until(b'\n', &mut line).expect("a pipe is read");
            let whole = line.strip_suffix(b"\n")?;
            if let Some(told) = whole.strip_prefix(MARK) {
                return Some(String::from_utf8_lossy(told).into_owned());
            }
        }
    }
}

/// Tells a line to the process that started this one, before anything else is done.
///
/// # Panics
/// If that process has closed its end.
pub fn tell(line: &str) {
    // One piece, on a line of its own: several threads tell, and the harness prints as well.
    let mark = String::from_utf8_lossy(MARK);
    let whole = format!("\n{mark}{line}\n");
    std::io::stdout().write_all(whole.as_bytes()).expect("the other end is open");
}
