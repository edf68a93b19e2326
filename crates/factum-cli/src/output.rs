//! The only place that prints: results to standard output, notes and errors to standard error.

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use crate::exit::Failure;

/// The program's outputs, and the kind of notes that the user wants.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    paint: Paint,
    width: Option<usize>,
    notes: Notes,
}

/// The kind of notes on standard error. Errors are always printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notes {
    /// No notes.
    None,
    /// Plain lines, because standard error is no terminal or can't move its cursor.
    Lines,
    /// A moving progress bar.
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
    /// Standard output and error of the process.
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

    /// Colours, if the terminal has them and the user wants them.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// The terminal's width in columns; `None` if the output is no terminal.
    pub(crate) fn width(&self) -> Option<usize> {
        self.width
    }

    /// The kind of notes that may be printed.
    pub(crate) fn notes(&self) -> Notes {
        self.notes
    }

    /// Writes a line of the result.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").map_err(broken)
    }

    /// Writes a part of the result without a line end.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(broken)
    }

    /// Writes the buffered output.
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

/// True if the terminal has colours and a cursor, and the user allows them: <https://no-color.org>.
fn is_capable(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let forbids_colour = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    !forbids_colour && variable("TERM").is_none_or(|term| term != "dumb")
}

/// Prints a note. A failure is ignored, because the note is not a part of the result.
pub(crate) fn note(notes: Notes, text: impl Display) {
    if notes != Notes::None {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Prints the reason why the program ends. A failure is ignored: it can't be reported anywhere.
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

    /// Marks the most important text.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    /// Marks text that can be skipped.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    /// Marks a good result.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.with("32", text)
    }

    /// Marks a bad result.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.with("1;31", text)
    }

    /// Marks the name of a type.
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
