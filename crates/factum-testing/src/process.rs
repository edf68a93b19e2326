//! A second process of a test: the lines that it reports, and its end by SIGKILL.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
};

/// The beginning of a line that the other process reports. The test harness prints lines of its
/// own.
const MARK: &[u8] = b"told ";

/// A `#[test]` that other tests run in a process of its own. In the normal test run it does
/// nothing.
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

    /// The order that this process was started with to run the test; `None` in other processes,
    /// where the test returns at once.
    ///
    /// # Panics
    /// If the order is not UTF-8.
    pub fn order(&self) -> Option<String> {
        let order = env::var_os(self.variable())?;
        Some(order.into_string().expect("a test gives an order in UTF-8"))
    }

    /// Runs the test in another process, with this order. Returns the process and the lines that it
    /// reports.
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

    /// Runs the test to its end after these shell commands, such as `ulimit -n 100`, in the same
    /// process. Returns all of its output.
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

    /// Each test has a variable of its own, so that a child does not start another test's work.
    fn variable(&self) -> String {
        format!("FACTUM_CHILD_{}", self.name.replace("::", "_").to_uppercase())
    }
}

/// The test program of this process.
fn program() -> std::path::PathBuf {
    env::current_exe().expect("a test runs from a file")
}

/// A running second process. Its drop kills it.
#[derive(Debug)]
pub struct ChildProcess {
    process: Child,
}

impl ChildProcess {
    /// Kills it by SIGKILL in the middle of its work, and waits for its end.
    ///
    /// # Panics
    /// If it had already ended: then it was not killed at work.
    pub fn kill(mut self) {
        let ended = self.process.try_wait().expect("it is a child of this process");
        assert!(ended.is_none(), "the other process ended before it was killed: {ended:?}");
        self.process.kill().expect("it is a child of this process");
        self.process.wait().expect("it is a child of this process");
    }

    /// Waits until it ends by itself, and returns its status. Read its lines first: a full pipe
    /// stops it.
    ///
    /// # Panics
    /// If the system can't say how it ended.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait().expect("it is a child of this process")
    }

    /// Waits until it ends, like [`wait`](Self::wait).
    ///
    /// # Panics
    /// If it failed.
    pub fn finish(self) {
        let status = self.wait();
        assert!(status.success(), "the other process failed: {status}");
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines that another process reports, in order, until it ends. A line that its end cut in two
/// is left out.
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

/// Reports a line to the process that started this one, before it returns.
///
/// # Panics
/// If that process has closed its end.
pub fn tell(line: &str) {
    // In one piece, on a line of its own: several threads report, and the harness prints as well.
    let mark = String::from_utf8_lossy(MARK);
    let whole = format!("\n{mark}{line}\n");
    std::io::stdout().write_all(whole.as_bytes()).expect("the other end is open");
}
