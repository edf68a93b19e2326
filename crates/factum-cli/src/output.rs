//! The only place that prints: results on standard output, notes and errors on standard error.

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use crate::exit::Failure;

/// Where the program's words go, and how much of them is wanted.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    paint: Paint,
    width: Option<usize>,
    notes: Notes,
}

/// What may be said on standard error beside errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notes {
    /// Nothing.
    None,
    /// Plain lines: nobody watches, or the terminal can't move its cursor.
    Lines,
    /// A bar that moves.
    Live,
}

impl Notes {
    fn fitting(is_quiet: bool, is_live: bool) -> Self {
        match (is_quiet, is_live) {
            (true, _) => Self::None,
            (false, true) => Self::Live,
            (false, false) => Self::Lines,
        }
    }
}

impl Output {
    /// Standard output and error as they are.
    pub(crate) fn new(is_quiet: bool) -> Self {
        let stdout = io::stdout();
        let terminal = console::Term::stdout().size_checked().filter(|_| stdout.is_terminal());
        let is_capable = is_capable(|name| std::env::var_os(name));
        Self {
            paint: Paint { is_on: stdout.is_terminal() && is_capable },
            width: terminal.map(|(_, columns)| columns.into()),
            notes: Notes::fitting(is_quiet, io::stderr().is_terminal() && is_capable),
            stdout: BufWriter::with_capacity(64 << 10, stdout),
        }
    }

    /// Colours, where they are wanted.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// The terminal's width in columns; `None` where the output is no terminal.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// What may be said beside the result.
    pub(crate) fn notes(&self) -> Notes {
        self.notes
    }

    /// Writes a line of the result.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").map_err(broken)
    }

    /// Writes a part of the result as it is.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(broken)
    }

    /// Hands over what was written.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(broken)
    }
}

fn broken(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::PipeClosed,
        _ => Failure::internal(format!("standard output can't be written: {error}")),
    }
}

/// Whether the terminal has colours and a cursor, and its owner wants them: <https://no-color.org>.
fn is_capable(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let forbids_colour = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !forbids_colour && variable("TERM").is_none_or(|term| term != "dumb")
}

/// Says something beside the result. Nobody may be listening, and that is fine.
pub(crate) fn note(notes: Notes, text: impl Display) {
    if notes != Notes::None {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// The line that says why the program ends. Nobody may be listening, and that is fine.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "factum: {text}");
}

/// Prints help or a version.
pub(crate) fn help(help: &clap::Error) -> Result<(), Failure> {
    help.print().map_err(broken)
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    is_on: bool,
}

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { is_on: false };

    fn with(self, code: &str, text: impl Display) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// What the eye is to find first.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    /// What can be passed over.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    /// What is as it should be.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.with("32", text)
    }

    /// What is not.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.with("1;31", text)
    }

    /// The name of a type.
    pub(crate) fn name(self, text: impl Display) -> String {
        self.with("36", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_that_has_them_and_an_owner_who_wants_them() {
        let with = |set: (&'static str, &'static str)| {
            is_capable(move |name| (name == set.0).then(|| set.1.into()))
        };
        assert!(with(("TERM", "xterm-256color")));
        assert!(with(("NO_COLOR", "")), "empty does not count");
        assert!(!with(("NO_COLOR", "1")));
        assert!(!with(("TERM", "dumb")));
        assert_eq!(Paint { is_on: true }.bold("x"), "\x1b[1mx\x1b[0m");
        assert_eq!(Paint::NONE.bold("x"), "x");
    }

    #[test]
    fn quiet_is_quieter_than_any_terminal() {
        assert_eq!(Notes::fitting(true, true), Notes::None);
        assert_eq!(Notes::fitting(false, true), Notes::Live);
        assert_eq!(Notes::fitting(false, false), Notes::Lines);
    }
}
