//! What comes of a command: events, a rejection, or an error.

use crate::{
    aggregate::Aggregate,
    error::{StoreError, VersionConflict},
    kind::ErrorKind,
    load::LoadError,
    position::Position,
    schema::EncodeError,
    version::StreamVersion,
};

/// Why a command was not executed, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<R: std::error::Error + 'static> {
    /// The domain says no. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// Others were first, again and again, or a stream that rode along was not as expected.
    /// Nothing was stored; try later, or raise
    /// [`conflicts_max`](crate::RetryPolicy::conflicts_max).
    #[error(transparent)]
    Conflict(VersionConflict),
    /// A condition of the batch that rode along did not hold. Nothing was stored.
    #[error("a condition that rode along does not hold: condition={condition} position={position}")]
    Along {
        /// Which of its conditions, from 0.
        condition: usize,
        /// An event that matches it.
        position: Position,
    },
    /// The aggregate does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event or a guard can't be written down.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Others appended to what a decision model had read, again and again. Nothing was stored; try
    /// later, or raise
    /// [`conflicts_max`](crate::RetryPolicy::conflicts_max).
    #[error("others appended to what the decision depends on: position={position}")]
    Overtaken {
        /// An event that it had not seen.
        position: Position,
    },
    /// It may or may not be stored: every repeat failed too. Load to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<R: std::error::Error + 'static> ExecuteError<R> {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Conflict(_) | Self::Along { .. } | Self::Overtaken { .. } => ErrorKind::Conflict,
            Self::Load(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}

/// What came of a command.
#[derive(Debug)]
#[non_exhaustive]
pub struct Executed<A: Aggregate> {
    /// The state behind the events.
    pub state: A,
    /// The version behind the events.
    pub version: StreamVersion,
    /// The position of the last event; `None` if there was nothing to do. A read that has seen
    /// this position sees what the command did.
    pub position: Option<Position>,
    /// The events.
    pub events: Vec<A::Event>,
}
