//! What can go wrong with consumers.

use std::time::Duration;

use factum_core::{Position, StoreError};

use crate::{
    health::StopReason,
    name::{ConsumerName, InvalidConsumerName},
};

/// What a handler says when it can't handle an event; any error will do.
pub type HandleError = Box<dyn std::error::Error + Send + Sync>;

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

/// Why a consumer has not come to a position.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// It is behind. Serve what there is, or wait again.
    #[error(
        "the consumer has not come so far: consumer={consumer} position={position} \
         reached={reached} waited={waited:?}"
    )]
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
    #[error("the consumer has stopped: consumer={consumer} reason={reason}")]
    Stopped {
        /// Which one.
        consumer: ConsumerName,
        /// Why.
        reason: StopReason,
    },
    /// Nobody has this name: see [`Consumers::wait_for`](crate::Consumers::wait_for).
    #[error(
        "no consumer or projection of this name was started in this program, and no documents of \
         one are kept in the store: name={0}"
    )]
    Unknown(String),
    /// The store does not say what is kept under the name.
    #[error(transparent)]
    Store(#[from] StoreError),
}
