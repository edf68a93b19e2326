//! What can go wrong with consumers.

use std::{error::Error, fmt, time::Duration};

use factum_kernel::{ErrorKind, Position, StoreError, StreamId};

use crate::{
    health::StopReason,
    name::{ConsumerName, InvalidConsumerName},
};

/// What a handler says when it can't handle an event; any error will do.
pub type HandleError = Box<dyn Error + Send + Sync>;

/// Why a consumer does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] InvalidConsumerName),
    /// One of this name runs already; it is the one to use.
    #[error("a consumer of this name runs already in this program: consumer={0}")]
    Running(ConsumerName),
    /// The consumers are closed.
    #[error("the consumers are closed: consumer={0}")]
    Closed(ConsumerName),
    /// Its target is written by one at a time: a model in memory, a SQLite file.
    #[error("the target is written by one at a time, start it with one partition: consumer={0}")]
    OnePartition(ConsumerName),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StartError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Running(_) | Self::OnePartition(_) => ErrorKind::Invalid,
            Self::Closed(_) => ErrorKind::Closed,
            Self::Store(error) => error.kind().into(),
        }
    }
}

/// Why a parked event was not released, or not all that waits after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Nothing of the stream is parked.
    #[error("nothing of this stream is parked: stream={0}")]
    NothingParked(StreamId),
    /// The event has failed again, or a later one of its stream; the stream waits for that one.
    #[error("{0}")]
    Failed(String),
    /// It can't be done now, or was interrupted: see the dead letters, and try again.
    #[error("{0}")]
    NotNow(String),
    /// The consumer has stopped. Start it again.
    #[error("the consumer has stopped")]
    Stopped,
}

impl ReleaseError {
    /// That of a release which something else ended.
    #[doc(hidden)]
    pub fn interrupted() -> Self {
        Self::NotNow("it was interrupted, see what is parked still".into())
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NothingParked(_) => ErrorKind::Invalid,
            Self::Failed(_) => ErrorKind::Internal,
            Self::NotNow(_) => ErrorKind::Unavailable,
            Self::Stopped => ErrorKind::Closed,
        }
    }
}

/// Why a consumer has not come to a position.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WaitError {
    /// It is behind. Serve what there is, or wait again.
    Behind {
        /// Which one.
        consumer: ConsumerName,
        /// Where it was to come to.
        position: Position,
        /// Where it is.
        reached: Position,
        /// How long was waited.
        waited: Duration,
    },
    /// It has stopped, and will not come there.
    Stopped {
        /// Which one.
        consumer: ConsumerName,
        /// Why.
        reason: StopReason,
    },
    /// Nobody has this name.
    Unknown(String),
    /// The store does not say what is kept under the name.
    Store(StoreError),
}

impl WaitError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Behind { .. } => ErrorKind::TimedOut,
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
                "the consumer has not come so far: consumer={consumer} position={position} \
                 reached={reached} waited={waited:?}"
            ),
            Self::Stopped { consumer, reason } => {
                write!(f, "the consumer has stopped: consumer={consumer} reason={reason}")
            }
            Self::Unknown(name) => write!(
                f,
                "no consumer or projection of this name was started in this program, and no \
                 documents of one are kept in the store: name={name}"
            ),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl Error for WaitError {
    /// Found also where a transparent error hides this type: see [`ErrorKind::of`].
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
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
