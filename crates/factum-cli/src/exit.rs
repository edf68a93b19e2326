//! The end of the program: its exit code, and one line with the reason and the remedy.

use std::error::Error;

use factum::{
    ErrorKind, OpenError, SendError, StoreError,
    aggregate::LoadError,
    read::ReadError,
    runtime::EntityError,
    sentence,
    store::{AppendError, StoreErrorKind, WriteError},
};

/// The exit code. It is a part of the program's interface: `factum --help` lists the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The program did what was asked.
    Success = 0,
    /// A check found a fault: money from nowhere, a hole in the log.
    CheckFailed = 1,
    /// The request can't succeed: an unknown option, a store that does not exist.
    Usage = 2,
    /// The store does not answer now. Try again.
    Unavailable = 3,
    /// Stored data contradict themselves. Stop, and examine the store.
    Corrupt = 4,
    /// An unforeseen failure of the program, the store, or the output.
    Internal = 5,
    /// A person pressed Ctrl-C. 128 plus the number of SIGINT, as shells expect.
    Interrupted = 130,
    /// A person or a supervisor sent SIGTERM. 128 plus its number.
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

/// The reason why the program ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The program that read the output closed it, as `head` does. Not an error.
    PipeClosed,
    /// Every other reason.
    Stopped {
        /// The exit code.
        exit: Exit,
        /// The reason and the remedy.
        text: String,
    },
}

impl Failure {
    /// A failure with this code and line.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self::Stopped { exit, text: text.into() }
    }

    /// An unforeseen failure.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(Exit::Internal, text)
    }

    /// A failure with this code and the texts of an error and its sources.
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
