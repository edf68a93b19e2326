//! Errors of entities.

use std::{error::Error, fmt};

use factum_kernel::{
    EncodeError, ErrorKind, ExecuteError, IdTaken, InvalidStreamId, LoadError, StoreError,
    StreamId, VersionConflict,
};

/// The reason why a message has no outcome. Cheap to clone: all messages of a burst may get the
/// same.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EntityError {
    /// The mailbox was full until the deadline. The message took no effect; send at a lower rate.
    Busy(StreamId),
    /// The deadline passed after the message was accepted, so it may take effect or not. Load the
    /// state to see.
    Deadline(StreamId),
    /// The entities were shut down. The message took no effect.
    Closed(StreamId),
    /// The entity died repeatedly and takes no messages until it is released. The message took no
    /// effect.
    Quarantined {
        /// The cause of its last death.
        cause: Box<EntityError>,
    },
    /// `decide` or `evolve` panicked, which counts as a death of the entity; or the closure that
    /// computes the reply panicked, which is only the caller's fault. The message took no effect.
    Panicked {
        /// The stream of the entity.
        stream: StreamId,
        /// The text of the panic.
        message: Box<str>,
    },
    /// The command is stored, by an earlier attempt with this id, and keeps its effect. Only the
    /// closure panicked that computes the reply. Don't send the command with another id: load the
    /// state, or repeat it with a reply that does not panic.
    ReplyPanicked {
        /// The stream of the entity.
        stream: StreamId,
        /// The text of the panic.
        message: Box<str>,
    },
    /// The id names another command in the log. Nothing was stored.
    IdTaken(Box<IdTaken>),
    /// The task of the entity panicked or was dropped, so the message may have taken effect or not.
    /// Load the state to see.
    Lost(StreamId),
    /// The entity could not be loaded.
    Load(LoadError),
    /// An event or a guard can't be encoded.
    Encode(EncodeError),
    /// Other writers were first at each attempt. Nothing was stored; try again later.
    Conflict(VersionConflict),
    /// The append failed with an unknown outcome, and so did every repeat. Load the state to see.
    Indeterminate(StoreError),
    /// The store failed. Nothing was stored.
    Store(StoreError),
}

impl EntityError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy(_) => ErrorKind::Unavailable,
            Self::Deadline(_) => ErrorKind::TimedOut,
            Self::Closed(_) => ErrorKind::Closed,
            Self::Quarantined { .. } | Self::Panicked { .. } | Self::ReplyPanicked { .. } => {
                ErrorKind::Internal
            }
            Self::IdTaken(error) => error.kind(),
            Self::Lost(_) | Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Load(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Conflict(error) => error.kind(),
            Self::Store(error) => error.kind().into(),
        }
    }
}

impl fmt::Display for EntityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(stream) => write!(f, "the mailbox is full, try later: stream={stream}"),
            Self::Deadline(stream) => write!(
                f,
                "no answer within the deadline, the command may still take effect: stream={stream}"
            ),
            Self::Closed(stream) => write!(f, "the entities are shut down: stream={stream}"),
            Self::Quarantined { cause } => {
                write!(f, "the entity is quarantined, release it when the cause is gone: {cause}")
            }
            Self::Panicked { stream, message } => {
                write!(f, "the rules or the reply panicked: stream={stream} panic={message:?}")
            }
            Self::ReplyPanicked { stream, message } => write!(
                f,
                "the command is stored, but its reply panicked: stream={stream} panic={message:?}"
            ),
            Self::IdTaken(error) => error.fmt(f),
            Self::Lost(stream) => write!(
                f,
                "the entity's task ended before it answered, load to see: stream={stream}"
            ),
            Self::Load(error) => error.fmt(f),
            Self::Encode(error) => error.fmt(f),
            Self::Conflict(error) => error.fmt(f),
            Self::Indeterminate(_) => f.write_str("the outcome is unknown"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for EntityError {
    /// Returned also if a transparent error wraps this one: see [`ErrorKind::of`].
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Load(error) => error.source(),
            Self::Indeterminate(error) => Some(error),
            Self::Store(error) => error.source(),
            other => Some(other.kind().cause()),
        }
    }
}

impl From<LoadError> for EntityError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

impl From<EncodeError> for EntityError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<StoreError> for EntityError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IdTaken> for EntityError {
    fn from(error: IdTaken) -> Self {
        Self::IdTaken(Box::new(error))
    }
}

impl From<InvalidStreamId> for EntityError {
    fn from(error: InvalidStreamId) -> Self {
        Self::Load(error.into())
    }
}

/// The reason why a command was not executed, or why it is not known whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AskError<R: Error + 'static> {
    /// The domain rejected the command. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// Any other failure.
    #[error(transparent)]
    Failed(#[from] EntityError),
}

impl<R: Error + 'static> AskError<R> {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Failed(error) => error.kind(),
        }
    }

    /// The rejection, if the error is one.
    pub fn rejection(&self) -> Option<&R> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

impl<R: Error + 'static> From<ExecuteError<R>> for AskError<R> {
    fn from(error: ExecuteError<R>) -> Self {
        Self::Failed(match error {
            ExecuteError::Rejected(rejection) => return Self::Rejected(rejection),
            ExecuteError::Conflict(conflict) => EntityError::Conflict(conflict),
            ExecuteError::Load(error) => EntityError::Load(error),
            ExecuteError::Encode(error) => EntityError::Encode(error),
            ExecuteError::Indeterminate(error) => EntityError::Indeterminate(error),
            ExecuteError::Store(error) => EntityError::Store(error),
            other => EntityError::Store(StoreError::internal(other.to_string())),
        })
    }
}

#[cfg(test)]
mod tests;
