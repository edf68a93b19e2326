//! The position that a consumer has reached, and the history that the position belongs to.

use serde::{Deserialize, Serialize};

use crate::{
    id::EventId,
    kind::ErrorKind,
    position::{Lineage, Position},
};

/// The last position that a consumer has durably handled. It carries the lineage of the log and the
/// id of the event at that position, so that a consumer notices when the log is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The history that the position belongs to.
    pub lineage: Lineage,
    /// The position of the last handled event.
    pub position: Position,
    /// The id of the event at that position.
    pub event_id: EventId,
}

/// The log is not the one that the checkpoint was made in: it was restored, forked, failed over, or
/// replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log is not the one the checkpoint is from, {reason}; rebuild the consumer or move its \
     checkpoint to a position that both histories share: position={}", checkpoint.position
)]
pub struct Diverged {
    /// The checkpoint that does not fit.
    pub checkpoint: Checkpoint,
    /// The evidence that the log is another one.
    pub reason: DivergedReason,
}

impl Diverged {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

/// The difference between the log and the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DivergedReason {
    /// The log has another lineage.
    #[error("its lineage is {0}")]
    Lineage(Lineage),
    /// Another event is at the checkpoint's position.
    #[error("another event is there: {0}")]
    Event(EventId),
    /// The log ends before the checkpoint's position.
    #[error("it ends at {0}")]
    Short(Position),
}

impl DivergedReason {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}
