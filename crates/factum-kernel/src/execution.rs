//! What comes of a command: events, a rejection, or an error.

use std::error::Error;

use crate::{
    aggregate::Aggregate,
    error::{AppendError, StoreError, VersionConflict},
    kind::ErrorKind,
    load::LoadError,
    position::Position,
    proposal::{Along, Unsent},
    schema::EncodeError,
    stream::InvalidStreamId,
    transaction::StepRejected,
    version::StreamVersion,
};

/// Why a command was not executed, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<R: Error + 'static> {
    /// The domain says no. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// Others were first, again and again. Nothing was stored; try later, or raise
    /// [`conflicts_max`](crate::RetryPolicy::conflicts_max).
    #[error(transparent)]
    Conflict(VersionConflict),
    /// The aggregate does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event or a guard can't be written down.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It may or may not be stored: every repeat failed too. Load to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<R: Error + 'static> ExecuteError<R> {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Conflict(error) => error.kind(),
            Self::Load(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}

impl<R: Error + 'static> From<Unsent<R>> for ExecuteError<R> {
    fn from(error: Unsent<R>) -> Self {
        match error {
            Unsent::Rejected(rejection) => Self::Rejected(rejection),
            Unsent::Conflict(conflict) => Self::Conflict(conflict),
            Unsent::Indeterminate(error) => Self::Indeterminate(error),
            Unsent::Store(error) => Self::Store(error),
            Unsent::Overtaken(_) | Unsent::Along(_) => Self::Store(unforeseen()),
        }
    }
}

/// Why a command and the batch that rode along with it were not stored, or are not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AlongError<R: Error + 'static> {
    /// As of a command alone. Of the batch: `Invalid`, where it must not ride along.
    #[error(transparent)]
    Execute(#[from] ExecuteError<R>),
    /// A stream that the batch writes or checks is not as it expects. Nothing was stored.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// A condition of the batch does not hold. Nothing was stored.
    #[error("a condition that rode along does not hold: condition={condition} position={position}")]
    Condition {
        /// Which of its conditions, from 0.
        condition: usize,
        /// An event that matches it.
        position: Position,
    },
}

impl<R: Error + 'static> AlongError<R> {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Execute(error) => error.kind(),
            Self::Conflict(_) | Self::Condition { .. } => ErrorKind::Conflict,
        }
    }
}

impl<R: Error + 'static> From<Unsent<R>> for AlongError<R> {
    fn from(error: Unsent<R>) -> Self {
        match error {
            Unsent::Along(Along::Conflict(conflict)) => Self::Conflict(conflict),
            Unsent::Along(Along::Condition { condition, position }) => {
                Self::Condition { condition, position }
            }
            other => Self::Execute(other.into()),
        }
    }
}

/// Why a transaction was not stored, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A step was rejected. Nothing was stored.
    #[error(transparent)]
    Rejected(StepRejected),
    /// Others were first, again and again, or an aggregate is not at the version that the caller
    /// expects. Nothing was stored.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// Others appended to what a model had read, again and again. Nothing was stored; try later.
    #[error("others appended to what the decision depends on: position={position}")]
    Overtaken {
        /// An event that it had not seen.
        position: Position,
    },
    /// An aggregate does not load, or a stream of a decision can't be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event, a guard or a query can't be written down.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// It may or may not be stored: every repeat failed too. Load to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransactionError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(error) => error.kind(),
            Self::Conflict(error) => error.kind(),
            Self::Overtaken { .. } => ErrorKind::Conflict,
            Self::Load(error) => error.kind(),
            Self::Encode(error) => error.kind(),
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}

impl From<Unsent<StepRejected>> for TransactionError {
    fn from(error: Unsent<StepRejected>) -> Self {
        match error {
            Unsent::Rejected(rejected) => Self::Rejected(rejected),
            Unsent::Conflict(conflict) => Self::Conflict(conflict),
            Unsent::Overtaken(position) => Self::Overtaken { position },
            Unsent::Indeterminate(error) => Self::Indeterminate(error),
            Unsent::Store(error) => Self::Store(error),
            Unsent::Along(_) => Self::Store(unforeseen()),
        }
    }
}

/// Why an aggregate was not deleted, or is not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The key can't be one.
    #[error(transparent)]
    Key(#[from] InvalidStreamId),
    /// It is not as expected. Nothing was erased.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// It may or may not be erased. Run it again.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store. The events, or only the snapshots, are left. Run it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DeleteError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Key(error) => error.kind(),
            Self::Conflict(error) => error.kind(),
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}

impl From<AppendError> for DeleteError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict(conflict) => Self::Conflict(conflict),
            AppendError::Indeterminate(error) => Self::Indeterminate(error),
            AppendError::Store(error) => Self::Store(error),
            AppendError::ConditionFailed { .. } => Self::Store(unforeseen()),
        }
    }
}

/// Of a store that breaks its laws.
pub(crate) fn unforeseen() -> StoreError {
    StoreError::internal("the store refuses what it was not asked, report this to its makers")
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
