//! How far a consumer has come, and in which history.

use serde::{Deserialize, Serialize};

use crate::{
    id::EventId,
    kind::ErrorKind,
    position::{Lineage, Position},
};

/// The last position that a consumer has durably handled, with what it takes to notice that the
/// log is another one now: its lineage, and the id of the event there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The history.
    pub lineage: Lineage,
    /// The place in it.
    pub position: Position,
    /// The event at that place.
    pub event_id: EventId,
}

/// The log is not the one that the checkpoint is from: it was restored, forked, failed over, or
/// replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log is not the one the checkpoint is from, {reason}; rebuild the consumer or move its \
     checkpoint to a position that both histories share: position={}", checkpoint.position
)]
pub struct Diverged {
    /// The checkpoint that does not fit.
    pub checkpoint: Checkpoint,
    /// What was found instead.
    pub reason: DivergedReason,
}

impl Diverged {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

/// What was found instead of a checkpoint's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DivergedReason {
    /// The lineage is another.
    #[error("its lineage is {0}")]
    Lineage(Lineage),
    /// Another event is at the position.
    #[error("another event is there: {0}")]
    Event(EventId),
    /// The log ends before the position.
    #[error("it ends at {0}")]
    Short(Position),
}

impl DivergedReason {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}
