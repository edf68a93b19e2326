//! The reason why a consumer has stopped.

use std::{error::Error, fmt, sync::Arc};

use factum_kernel::{Cause, ErrorKind, Position, sentence};

use crate::error::HandleError;

/// The most bytes of the text of a [`StopCause`], and of the error that a dead letter keeps.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// The reason why a consumer has stopped. As an error its source is the error that stopped the
/// consumer.
///
/// ```
/// use factum_consumer::{StopCause, StopReason};
/// use factum_kernel::{ErrorKind, StoreError, sentence};
///
/// let damaged = StoreError::corrupt("the last page is damaged");
/// let reason = StopReason::Broken(StopCause::new(damaged));
/// assert_eq!(reason.kind(), ErrorKind::Corrupt);
/// assert_eq!(sentence(&reason), "the consumer can't continue: the last page is damaged");
/// let source = reason.cause().map(StopCause::error);
/// assert!(source.is_some_and(|source| source.is::<StoreError>()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The caller stopped the consumer.
    Asked,
    /// An event failed, and the policy says to stop. Fix the cause, then start the consumer again.
    Failed {
        /// The event's position.
        position: Position,
        /// The error of the last attempt.
        error: StopCause,
    },
    /// More streams would wait than the policy allows, for a person or for a program that can read
    /// them. Retry or discard dead letters, or start that program.
    TooManyParked {
        /// The position of the event that would be parked.
        position: Position,
        /// The error of the last attempt.
        error: StopCause,
    },
    /// The log is not the one that the checkpoint belongs to. Move the checkpoint to a position
    /// that both logs share, or rebuild.
    Diverged(StopCause),
    /// The checkpoint was moved or removed while the consumer ran: by a rewind, by a build that
    /// took over, or, on a store with one writing process, by another start of the consumer.
    Fenced,
    /// The stored progress can't be read, the store is corrupt or closed, the target or the store
    /// panicked too often, or the runtime has ended.
    Broken(StopCause),
}

impl StopReason {
    /// The error that stopped the consumer; `None` if it was stopped or fenced.
    pub fn cause(&self) -> Option<&StopCause> {
        match self {
            Self::Failed { error, .. } | Self::TooManyParked { error, .. } => Some(error),
            Self::Diverged(error) | Self::Broken(error) => Some(error),
            Self::Asked | Self::Fenced => None,
        }
    }

    /// The kind of the error that stopped the consumer; `Closed` if the caller stopped it,
    /// `Conflict` if it was fenced.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Asked => ErrorKind::Closed,
            Self::Fenced => ErrorKind::Conflict,
            other => other.cause().map_or(ErrorKind::Internal, StopCause::kind),
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("the caller stopped it"),
            Self::Failed { position, .. } => write!(f, "an event failed: position={position}"),
            Self::TooManyParked { position, .. } => {
                write!(f, "too many streams wait already: position={position}")
            }
            Self::Diverged(_) => f.write_str("the log is not the one of the checkpoint"),
            Self::Fenced => {
                f.write_str("another process runs it, or its checkpoint was moved or removed")
            }
            Self::Broken(_) => f.write_str("the consumer can't continue"),
        }
    }
}

impl Error for StopReason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.cause() {
            Some(cause) => Some(cause.error()),
            None => Some(self.kind().cause()),
        }
    }
}

/// The error that stopped a consumer, with its sources. Cheap to clone. Two causes are equal if
/// they have the same text.
#[derive(Clone)]
pub struct StopCause {
    error: Arc<dyn Error + Send + Sync>,
    /// A link of the kind `Closed`, with the error as its source. An error of a caller that has
    /// waited for the consumer needs it.
    closed: Cause,
}

impl StopCause {
    /// The cause with this error.
    pub fn new(error: impl Into<HandleError>) -> Self {
        Self::of(Arc::from(error.into()))
    }

    pub(crate) fn of(error: Arc<dyn Error + Send + Sync>) -> Self {
        let closed = ErrorKind::Closed.caused_by(error.clone());
        Self { error, closed }
    }

    /// The error itself.
    pub fn error(&self) -> &(dyn Error + 'static) {
        &*self.error
    }

    /// The kind of the error; `Internal` if it shows none.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::of(self.error()).unwrap_or(ErrorKind::Internal)
    }

    /// The error as the source of an error whose kind is `Closed`.
    pub(crate) fn as_closed(&self) -> &Cause {
        &self.closed
    }
}

/// The error and all of its sources, in one line.
impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = sentence(self.error());
        f.write_str(&text[..text.floor_char_boundary(ERROR_BYTES_MAX)])
    }
}

impl fmt::Debug for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl PartialEq for StopCause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.error, &other.error) || self.to_string() == other.to_string()
    }
}

impl Eq for StopCause {}
