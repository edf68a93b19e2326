//! The errors of consumers.

use std::{error::Error, fmt, time::Duration};

use factum_kernel::{ErrorKind, Position, StoreError, StreamId};

use crate::{
    dead_letter::UnreadEvent,
    health::StopReason,
    name::{ConsumerName, InvalidConsumerName},
    target::TargetError,
};

/// The error of a handler that can't handle an event; any error type can be converted into it.
pub type HandleError = Box<dyn Error + Send + Sync>;

/// The reason why a consumer could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name is invalid.
    #[error(transparent)]
    Name(#[from] InvalidConsumerName),
    /// A consumer of this name runs already in this program: use that one.
    #[error("a consumer of this name runs already in this program: consumer={0}")]
    Running(ConsumerName),
    /// The consumers are closed.
    #[error("the consumers are closed: consumer={0}")]
    Closed(ConsumerName),
    /// The target allows one writer at a time, as a SQLite file does.
    #[error("the target allows one writer, start the consumer with one partition: consumer={0}")]
    OnePartition(ConsumerName),
    /// The partitions are by a key, and the consumer handles the deletions of streams, as every
    /// projection does. The partitions of a stream's events reach its deletion at different times,
    /// so the last one would forget what the stream has begun again.
    #[error("deletions of streams are handled, choose partitions by stream: consumer={0}")]
    PartitionedByKey(ConsumerName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The target failed, so the beginning of a consumer that begins now could not be stored. Start
    /// it again.
    #[error(transparent)]
    Target(#[from] TargetError),
}

impl StartError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Running(_) | Self::OnePartition(_) | Self::PartitionedByKey(_) => {
                ErrorKind::Invalid
            }
            Self::Closed(_) => ErrorKind::Closed,
            Self::Store(error) => error.kind().into(),
            Self::Target(error) => error.kind(),
        }
    }
}

/// The reason why a parked event, or a later event that waits for it, was not released.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// No event of the stream is parked.
    #[error("nothing of this stream is parked: stream={0}")]
    NothingParked(StreamId),
    /// The event or a later one of its stream has failed; the stream waits for that event.
    #[error("{0}")]
    Failed(String),
    /// The release is not possible now, or was interrupted. Look at the dead letters, then try
    /// again.
    #[error("{0}")]
    NotNow(String),
    /// The consumer has stopped. Start it again.
    #[error("the consumer has stopped")]
    Stopped,
}

impl ReleaseError {
    /// The error of a release that was interrupted.
    #[doc(hidden)]
    pub fn interrupted() -> Self {
        Self::NotNow("the release was interrupted, look at the dead letters and try again".into())
    }

    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NothingParked(_) => ErrorKind::Invalid,
            Self::Failed(_) => ErrorKind::Internal,
            Self::NotNow(_) => ErrorKind::Unavailable,
            Self::Stopped => ErrorKind::Closed,
        }
    }
}

/// The reason why a consumer has not reached a position.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WaitError {
    /// The consumer is behind. Serve the current state, or wait again.
    Behind {
        /// The consumer's name.
        consumer: ConsumerName,
        /// The position to reach.
        position: Position,
        /// The position that the consumer has reached.
        reached: Position,
        /// The time waited.
        waited: Duration,
    },
    /// An event up to the position can't be read by the program that runs the consumer, so its
    /// effects and those of the later events of its stream are missing. Start a program that knows
    /// the event.
    Unread {
        /// The consumer's name.
        consumer: ConsumerName,
        /// The event.
        event: UnreadEvent,
    },
    /// The consumer has stopped before the position.
    Stopped {
        /// The consumer's name.
        consumer: ConsumerName,
        /// The reason for the stop.
        reason: StopReason,
    },
    /// No consumer or projection has this name.
    Unknown(String),
    /// The store failed to read the progress under this name.
    Store(StoreError),
}

impl WaitError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Behind { .. } | Self::Unread { .. } => ErrorKind::TimedOut,
            Self::Stopped { .. } => ErrorKind::Closed,
            Self::Unknown(_) => ErrorKind::Invalid,
            Self::Store(error) => error.kind().into(),
        }
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { consumer, position, reached, waited } => write!(
                f,
                "the consumer has not reached the position: consumer={consumer} \
                 position={position} reached={reached} waited={waited:?}"
            ),
            Self::Unread { consumer, event } => write!(
                f,
                "the consumer waits for a program that can read an event, start one that knows its \
                 type at its schema version: consumer={consumer} stream={} position={} event={}",
                event.stream, event.position, event.event
            ),
            Self::Stopped { consumer, reason } => {
                write!(f, "the consumer has stopped: consumer={consumer} reason={reason}")
            }
            Self::Unknown(name) => write!(
                f,
                "no consumer or projection of this name was started in this program, and no \
                 documents of one are in the store: name={name}"
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for WaitError {
    /// The kind as a source, so that it is found even if a transparent error hides this type: see
    /// [`ErrorKind::of`].
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Stopped { reason, .. } => Some(match reason.cause() {
                Some(cause) => cause.as_closed(),
                None => self.kind().cause(),
            }),
            other => Some(other.kind().cause()),
        }
    }
}

impl From<StoreError> for WaitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests;
