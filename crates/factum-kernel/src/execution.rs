//! The outcomes and errors of executing commands.

use std::error::Error;

use crate::{
    aggregate::Aggregate,
    error::{AppendError, StoreError, VersionConflict},
    identity::IdTaken,
    kind::ErrorKind,
    load::LoadError,
    position::Position,
    proposal::{Along, Unsent},
    schema::EncodeError,
    stream::InvalidStreamId,
    transaction::StepRejected,
    version::StreamVersion,
};

/// The reason why a command was not executed, or why it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<R: Error + 'static> {
    /// The domain rejected the command. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// Other writers were first at each attempt. Nothing was stored; try again later, or raise
    /// [`conflicts_max`](crate::RetryPolicy::conflicts_max).
    #[error(transparent)]
    Conflict(VersionConflict),
    /// The aggregate could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event or a guard can't be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The append failed with an unknown outcome, and so did every repeat. Load the state to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store failed. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<R: Error + 'static> ExecuteError<R> {
    /// The kind of the error: what the caller can do about it.
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

/// The reason why a command and the caller's batch were not stored, or why it is not known whether
/// they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AlongError<R: Error + 'static> {
    /// The error of the command, or `Invalid` for a batch that can't be stored with it.
    #[error(transparent)]
    Execute(#[from] ExecuteError<R>),
    /// A stream that the batch writes or checks does not have the expected version. Nothing was
    /// stored.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// A condition of the batch does not hold. Nothing was stored.
    #[error(
        "a condition of the caller's batch does not hold: condition={condition} position={position}"
    )]
    Condition {
        /// The number of the condition in the batch, from 0.
        condition: usize,
        /// The position of an event that matches the condition.
        position: Position,
    },
}

impl<R: Error + 'static> AlongError<R> {
    /// The kind of the error: what the caller can do about it.
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

/// The reason why a transaction was not stored, or why it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A step was rejected. Nothing was stored.
    #[error(transparent)]
    Rejected(StepRejected),
    /// A step led to no event, although others did. Nothing was stored. If that is right, as for a
    /// step that only checks something, say so by `allowing_unchanged`.
    #[error(
        "a step of the transaction led to no event although others did, allow it with \
         allowing_unchanged if that is right: step={step}"
    )]
    Unchanged {
        /// The number of the first step without events, from 0.
        step: usize,
    },
    /// The id of the transaction names another command in the log. Nothing was stored.
    #[error(transparent)]
    IdTaken(#[from] IdTaken),
    /// Other writers were first at each attempt, or an aggregate does not have the version that the
    /// caller expects. Nothing was stored.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// Other writers appended events that match a model's query, at each attempt. Nothing was
    /// stored; try again later.
    #[error("others appended to what the decision depends on: position={position}")]
    Overtaken {
        /// The position of an event that the model had not read.
        position: Position,
    },
    /// An aggregate could not be loaded, or a decision writes to an invalid stream.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event, a guard or a query can't be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The append failed with an unknown outcome, and so did every repeat. Load the state to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store failed. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TransactionError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Rejected(error) => error.kind(),
            Self::Unchanged { .. } => ErrorKind::Rejected,
            Self::IdTaken(error) => error.kind(),
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

/// The reason why an aggregate was not deleted, or why it is not known whether it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// The key is invalid.
    #[error(transparent)]
    Key(#[from] InvalidStreamId),
    /// The aggregate does not have the expected version. Nothing was erased.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// The outcome is unknown: the aggregate may be erased or not. Run it again.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store failed. The events, or only the snapshots, are left. Run it again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DeleteError {
    /// The kind of the error: what the caller can do about it.
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

/// The error for a store that returns an error which the call rules out.
pub(crate) fn unforeseen() -> StoreError {
    StoreError::internal(
        "the store returned an error that this call rules out, report this to the store's authors",
    )
}

/// The outcome of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deleted {
    /// The version of the deleted aggregate, which a writer of its first event expects. 0 if it
    /// never existed.
    pub version: StreamVersion,
    /// The position of the deletion; `None` if there was nothing to delete. A read model that has
    /// reached this position has forgotten the aggregate.
    pub position: Option<Position>,
}

/// The outcome of a command.
#[derive(Debug)]
#[non_exhaustive]
pub struct Executed<A: Aggregate> {
    /// The state after the command's events.
    pub state: A,
    /// The version after the command's events.
    pub version: StreamVersion,
    /// The position of the last event; `None` if there was no event. A read model that has reached
    /// this position contains the command's effects.
    pub position: Option<Position>,
    /// The command's events.
    pub events: Vec<A::Event>,
}
