//! How the program ends: the exit codes, and the one line that says why and what to do.

use std::error::Error;

use factum::{
    AppendError, EntityError, ErrorKind, LoadError, OpenError, ReadError, SendError, StoreError,
    StoreErrorKind, WriteError, sentence,
};

/// What the program's exit code says. Part of its interface: `factum --help` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Success = 0,
    /// It looked, and what it found is not right: money created, a hole in the log.
    CheckFailed = 1,
    /// What was asked can't be: an unknown option, a store that is not there.
    Usage = 2,
    /// The store does not answer now; try again.
    Unavailable = 3,
    /// Stored data contradict themselves; stop and look.
    Corrupt = 4,
    /// Something unforeseen, in the program, the store or where the output goes.
    Internal = 5,
    /// Somebody pressed Ctrl-C: 128 and the number of SIGINT, as shells have it.
    Interrupted = 130,
    /// Somebody, a supervisor for instance, sent SIGTERM.
    Terminated = 143,
}

impl From<StoreErrorKind> for Exit {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::Invalid => Self::Usage,
            StoreErrorKind::Unavailable | StoreErrorKind::Closed => Self::Unavailable,
            StoreErrorKind::Corrupt => Self::Corrupt,
            _ => Self::Internal,
        }
    }
}

/// Why the program ends before it is done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read the output has had enough, as `head` does. Not an error.
    PipeClosed,
    /// Anything else.
    Stopped {
        /// What the exit code says.
        exit: Exit,
        /// What, and what to do.
        text: String,
    },
}

impl Failure {
    /// Ends with this code and line.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::Stopped { exit, text: text.into() }
    }

    /// Something unforeseen.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(Exit::Internal, text)
    }

    /// Ends with this code, and with all that the error and its sources say.
    pub(crate) fn of(exit: impl Into<Exit>, error: &dyn Error) -> Self {
        Self::new(exit.into(), sentence(error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(error.kind(), &error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => error.into(),
            other => Self::of(Exit::Internal, &other),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        error.into_store_error().into()
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Store(error) => error.into(),
            LoadError::Key(_) => Self::of(Exit::Usage, &error),
            other => Self::of(Exit::Corrupt, &other),
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        let exit = match &error {
            AppendError::Store(error) => error.kind().into(),
            AppendError::Indeterminate(_) => Exit::Unavailable,
            _ => Exit::Internal,
        };
        Self::of(exit, &error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Store(error) => error.into(),
            other => Self::of(Exit::Unavailable, &other),
        }
    }
}

impl<R: Error + 'static> From<SendError<R>> for Failure {
    fn from(error: SendError<R>) -> Self {
        let exit = match error.kind() {
            ErrorKind::Invalid => Exit::Usage,
            ErrorKind::Corrupt => Exit::Corrupt,
            ErrorKind::Unavailable
            | ErrorKind::Unknown
            | ErrorKind::TimedOut
            | ErrorKind::Closed => Exit::Unavailable,
            _ => Exit::Internal,
        };
        Self::of(exit, &error)
    }
}

impl From<EntityError> for Failure {
    fn from(error: EntityError) -> Self {
        match error {
            EntityError::Store(error) => error.into(),
            EntityError::Load(error) => error.into(),
            EntityError::Busy(_)
            | EntityError::Deadline(_)
            | EntityError::Indeterminate(_)
            | EntityError::Lost(_) => Self::of(Exit::Unavailable, &error),
            other => Self::of(Exit::Internal, &other),
        }
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::internal("a part of the program panicked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(failure: Failure) -> (Exit, String) {
        match failure {
            Failure::Stopped { exit, text } => (exit, text),
            Failure::PipeClosed => panic!("a closed pipe is no store's error"),
        }
    }

    #[test]
    fn sources_are_joined_in_one_line_and_said_once() {
        let driver = std::io::Error::other("disk I/O\nerror");
        let error = StoreError::unavailable("the file can't be read: path=x").with_source(driver);
        let (exit, text) = parts(AppendError::Indeterminate(error).into());
        assert_eq!(exit, Exit::Unavailable);
        assert_eq!(
            text,
            "the outcome of the append is unknown: the file can't be read: path=x: disk I/O error"
        );
        let wrapped = LoadError::Store(StoreError::corrupt("damaged"));
        assert_eq!(parts(wrapped.into()), (Exit::Corrupt, "damaged".into()));
    }

    #[test]
    fn the_codes_follow_what_the_caller_can_do() {
        let exit = |kind| parts(StoreError::new(kind, "x").into()).0 as u8;
        assert_eq!(exit(StoreErrorKind::Invalid), 2);
        assert_eq!(exit(StoreErrorKind::Unavailable), 3);
        assert_eq!(exit(StoreErrorKind::Closed), 3);
        assert_eq!(exit(StoreErrorKind::Corrupt), 4);
        assert_eq!(exit(StoreErrorKind::Internal), 5);
    }
}
