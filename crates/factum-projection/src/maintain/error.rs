//! The errors of maintained projections and their builds.

use factum_consumer::{ConsumerName, DeadLetter, InvalidConsumerName, StartError, StopReason};
use factum_kernel::{ErrorKind, StoreError};

use crate::model_build::{Build, Refusal};

/// The reason why a projection is not maintained, or a build is not begun, swapped in, or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The name of the projection is invalid.
    #[error(transparent)]
    Name(#[from] InvalidConsumerName),
    /// The consumer of the build does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store failed; its kind says whether to try again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another build is under way, in this process or another.
    #[error(
        "a build is under way, wait for it or cancel it: projection={projection} build={build}"
    )]
    Building {
        /// The projection.
        projection: ConsumerName,
        /// The build.
        build: Build,
    },
    /// The build was cancelled, or another build took its place.
    #[error(
        "the build was given up for another or cancelled: projection={projection} build={build}"
    )]
    Superseded {
        /// The projection.
        projection: ConsumerName,
        /// The build.
        build: Build,
    },
    /// The build has stopped.
    #[error(
        "the build has stopped, resume the projection when the cause is removed, or cancel it: \
         projection={projection} build={build}"
    )]
    Stopped {
        /// The projection.
        projection: ConsumerName,
        /// The build.
        build: Build,
        /// The reason why its consumer stopped.
        #[source]
        reason: StopReason,
    },
    /// An event is parked in the build, so the build does not take over.
    #[error(
        "an event is parked in the build, mend the projection and retry the event, or discard it, \
         or cancel the build: projection={projection} build={build} stream={} event={} \
         position={} error={}",
        letter.stream, letter.event, letter.position, letter.error
    )]
    Parked {
        /// The projection.
        projection: ConsumerName,
        /// The build.
        build: Build,
        /// The first parked event, with its stream and error.
        letter: Box<DeadLetter>,
    },
    /// No earlier build is kept.
    #[error("no earlier build is kept, rebuild instead: projection={0}")]
    NothingKept(ConsumerName),
    /// The consumers are closed.
    #[error("the consumers are closed: projection={0}")]
    Closed(ConsumerName),
    /// The runtime on which [`maintain`](crate::Projections::maintain) was called has ended.
    #[error("the runtime that maintained it has ended, maintain it again: projection={0}")]
    RuntimeEnded(ConsumerName),
}

impl BuildError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Start(error) => error.kind(),
            Self::Store(error) => error.kind().into(),
            Self::Building { .. } | Self::Superseded { .. } => ErrorKind::Conflict,
            Self::NothingKept(_) | Self::Parked { .. } => ErrorKind::Invalid,
            Self::Stopped { .. } | Self::Closed(_) | Self::RuntimeEnded(_) => ErrorKind::Closed,
        }
    }

    pub(crate) fn of(refusal: Refusal, projection: &ConsumerName) -> Self {
        let projection = projection.clone();
        match refusal {
            Refusal::Building(build) => Self::Building { projection, build },
            Refusal::Superseded(build) => Self::Superseded { projection, build },
            Refusal::NothingKept => Self::NothingKept(projection),
        }
    }
}

#[cfg(test)]
mod tests;
