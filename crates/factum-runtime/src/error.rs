//! Why an entity gave no outcome.

use factum_core::{
    EncodeError, ExecuteError, InvalidStreamId, LoadError, Position, StoreError, StreamId,
    VersionConflict,
};

/// Why a message has no outcome. Cheap to clone: all messages of a burst may be told the same.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EntityError {
    /// The mailbox is full, and stayed so until the deadline. Nothing happened; slow down.
    #[error("the mailbox is full, try later: stream={0}")]
    Busy(StreamId),
    /// The deadline passed after the message was accepted: it may or may not take effect. Load to
    /// see.
    #[error("no answer within the deadline, the command may still take effect: stream={0}")]
    Deadline(StreamId),
    /// The entities were shut down. The message took no effect.
    #[error("the entities are shut down: stream={0}")]
    Closed(StreamId),
    /// The entity kept dying, and takes nothing until it is released. The message took no effect.
    #[error("the entity is quarantined, release it when the cause is gone: {cause}")]
    Quarantined {
        /// What it died of last.
        cause: Box<EntityError>,
    },
    /// `decide` or `evolve` panicked, which counts as a death of the entity; or the closure that
    /// computes the reply did, which is the caller's fault alone. The message took no effect.
    #[error("the rules or the reply panicked: stream={stream} panic={message:?}")]
    Panicked {
        /// Of which entity.
        stream: StreamId,
        /// What the panic said.
        message: Box<str>,
    },
    /// The task that ran the entity died or was dropped: the message may or may not have taken
    /// effect. Load to see.
    #[error("the entity's task ended before it answered, load to see: stream={0}")]
    Lost(StreamId),
    /// The entity does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An event or a guard can't be written down.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Others were first, again and again. Nothing was stored; try later.
    #[error(transparent)]
    Conflict(VersionConflict),
    /// It may or may not be stored: every repeat failed too. Load to see.
    #[error("the outcome is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<InvalidStreamId> for EntityError {
    fn from(error: InvalidStreamId) -> Self {
        Self::Load(error.into())
    }
}

/// Why a command was not executed, or is not known to be.
#[derive(Debug, thiserror::Error)]
pub enum AskError<R: std::error::Error + 'static> {
    /// The domain says no. Nothing was stored.
    #[error(transparent)]
    Rejected(R),
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] EntityError),
}

impl<R: std::error::Error + 'static> AskError<R> {
    /// The rejection, if it is one.
    pub fn rejection(&self) -> Option<&R> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

impl<R: std::error::Error + 'static> From<ExecuteError<R>> for AskError<R> {
    fn from(error: ExecuteError<R>) -> Self {
        Self::Failed(match error {
            ExecuteError::Rejected(rejection) => return Self::Rejected(rejection),
            ExecuteError::Conflict(conflict) => EntityError::Conflict(conflict),
            ExecuteError::Load(error) => EntityError::Load(error),
            ExecuteError::Encode(error) => EntityError::Encode(error),
            ExecuteError::Indeterminate(error) => EntityError::Indeterminate(error),
            ExecuteError::Store(error) => EntityError::Store(error),
            ExecuteError::Along { position, .. } | ExecuteError::Overtaken { position } => {
                EntityError::Store(unforeseen(position))
            }
            other => EntityError::Store(StoreError::internal(other.to_string())),
        })
    }
}

/// Nothing rides along with an entity's events, and no query is read.
fn unforeseen(position: Position) -> StoreError {
    StoreError::internal(format!("the store refused a condition nobody made: position={position}"))
}
