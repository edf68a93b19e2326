//! Runs the program in a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use serde_json::Value;

/// The longest wait. Only a program that hangs needs longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program with a line of arguments, which spaces separate.
pub(crate) fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_factum"));
    command.args(line.split_whitespace()).env_remove("NO_COLOR");
    command
}

/// The output and the exit code of the program.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the program to its end.
pub(crate) fn run(line: &str) -> Ran {
    command(line).output().expect("the program starts").into()
}

/// Runs the program, which must succeed.
pub(crate) fn succeed(line: &str) -> String {
    let ran = run(line);
    assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    ran.stdout
}

/// Runs the program, which must succeed, and parses the object on its last line.
pub(crate) fn json(line: &str) -> Value {
    let stdout = succeed(line);
    let last = stdout.lines().last().expect("there is a last line");
    serde_json::from_str(last).expect("the last line is an object")
}

/// Runs the program, which must fail with this code and a message of one line.
pub(crate) fn fail(line: &str, code: i32) -> String {
    let ran = run(line);
    assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
    assert_eq!(ran.stdout, "", "{line}");
    assert!(ran.stderr.starts_with("factum: "), "{line}: {}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
    ran.stderr
}

/// The URL of a SQLite store in a folder.
pub(crate) fn sqlite_in(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("events.db").display())
}

/// A running program. It is killed when the test ends.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts the program and a thread that reads its standard output.
    pub(crate) fn start(line: &str) -> Self {
        let mut command = command(line);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for the next line of its output.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it prints another line")
    }

    /// Waits for a line of its output, or its end, but no longer than `most`.
    pub(crate) fn line_within(&self, most: Duration) -> Option<String> {
        self.lines.recv_timeout(most).ok()
    }

    /// Sends a signal to the program, such as `INT`, which Ctrl-C sends too.
    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let signal = format!("-{name}");
        let process = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, process]).status().expect("kill is there");
        assert!(sent.success());
    }

    /// Waits until the program ends and has closed its output.
    pub(crate) fn wait(&mut self) -> Ran {
        let mut stdout = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => stdout.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
        let code = self.child.wait().expect("it ends").code();
        let mut stderr = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut stderr).expect("it writes UTF-8");
        }
        Ran { code, stdout: stdout.join("\n"), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Most programs have ended by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
