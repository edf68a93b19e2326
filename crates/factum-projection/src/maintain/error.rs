//! What can go wrong with builds.

use factum_consumer::{ConsumerName, InvalidConsumerName, StartError, StopReason};
use factum_kernel::{ErrorKind, StoreError};

use crate::model_build::{Build, Unfit};

/// Why a projection is not maintained, or a build not begun, swapped in, or dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The projection's name is none.
    #[error(transparent)]
    Name(#[from] InvalidConsumerName),
    /// A consumer of the build does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The store; try again where it says so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One is under way, here or in another process.
    #[error(
        "a build is under way, wait for it or cancel it: projection={projection} build={build}"
    )]
    Building {
        /// Of which projection.
        projection: ConsumerName,
        /// Which one.
        build: Build,
    },
    /// It was cancelled, or another one took its place.
    #[error(
        "the build was given up for another or cancelled: projection={projection} build={build}"
    )]
    Superseded {
        /// Of which projection.
        projection: ConsumerName,
        /// Which one.
        build: Build,
    },
    /// It stands still.
    #[error(
        "the build has stopped, resume the projection when the cause is mended, or cancel it: \
         projection={projection} build={build} reason={reason}"
    )]
    Stopped {
        /// Of which projection.
        projection: ConsumerName,
        /// Which one.
        build: Build,
        /// Why.
        reason: StopReason,
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
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(error) => error.kind(),
            Self::Start(error) => error.kind(),
            Self::Store(error) => error.kind().into(),
            Self::Building { .. } | Self::Superseded { .. } => ErrorKind::Conflict,
            Self::NothingKept(_) => ErrorKind::Invalid,
            Self::Stopped { .. } | Self::Closed(_) | Self::RuntimeEnded(_) => ErrorKind::Closed,
        }
    }

    pub(crate) fn of(unfit: Unfit, projection: &ConsumerName) -> Self {
        let projection = projection.clone();
        match unfit {
            Unfit::Building(build) => Self::Building { projection, build },
            Unfit::Superseded(build) => Self::Superseded { projection, build },
            Unfit::NothingKept => Self::NothingKept(projection),
        }
    }
}

#[cfg(test)]
mod tests;
