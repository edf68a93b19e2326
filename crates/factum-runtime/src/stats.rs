//! Counters and states of entities.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use factum_kernel::{StreamId, StreamVersion, Timestamp};

use crate::error::EntityError;

/// Counters of the entities of a kind since they were made, and their present numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EntityStats {
    /// The time since the entities were made.
    pub uptime: Duration,
    /// The number of active entities.
    pub active: usize,
    /// The number of idle entities whose state is in memory.
    pub resident: usize,
    /// The weight of the idle entities together, in bytes.
    pub resident_bytes: usize,
    /// The number of entities that take no messages until they are released.
    pub quarantined: usize,
    /// The number of commands that were answered with an outcome or a rejection.
    pub commands: u64,
    /// The number of commands that were rejected.
    pub rejected: u64,
    /// The number of commands and state reads that were answered with an error.
    pub failed: u64,
    /// The number of appends that met a version conflict. Their bursts were decided again.
    pub conflicts: u64,
    /// The number of bursts that were decided on an outdated state, because of other writers, and
    /// were decided again.
    pub stale: u64,
    /// The number of loads of an entity.
    pub loads: u64,
    /// The number of panics and of histories that could not be folded.
    pub deaths: u64,
    /// The number of idle entities whose state was removed from memory.
    pub passivated: u64,
    /// The most messages that ever waited for one entity at the same time.
    pub mailbox_high_water: usize,
}

/// The known facts about one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntityInfo {
    /// The entity's stream.
    pub stream: StreamId,
    /// The present status of the entity.
    pub status: EntityStatus,
    /// The time of the last use.
    pub used_at: Timestamp,
    /// The number of messages that wait for the entity.
    pub queued: usize,
    /// The version of the entity's state; known if it is idle and in memory.
    pub version: Option<StreamVersion>,
    /// The version of the newest known snapshot; 0 if none is known.
    pub snapshot_version: Option<StreamVersion>,
    /// The weight of the entity's state, in bytes.
    pub weight: Option<usize>,
}

/// The status of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntityStatus {
    /// The entity works on messages.
    Active,
    /// The entity has no messages; its state is in memory.
    Idle,
    /// The entity failed recently. The next message loads its state again.
    Failed,
    /// The entity takes no messages until it is released.
    Quarantined,
}

/// An entity that takes no messages until it is released.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuarantinedEntity {
    /// The entity's stream.
    pub stream: StreamId,
    /// The cause of its last death.
    pub cause: EntityError,
}

/// The rest that a shutdown left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Shutdown {
    /// The entities that were still active when the time was over. The work that they had begun
    /// continues.
    pub unfinished: Vec<StreamId>,
    /// The number of messages that were answered with `Closed` when the time was over.
    pub refused: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commands: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) loads: AtomicU64,
    pub(crate) deaths: AtomicU64,
    pub(crate) high_water: AtomicUsize,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Relaxed);
        }
    }

    pub(crate) fn queued(&self, length: usize) {
        if length > self.high_water.load(Relaxed) {
            self.high_water.fetch_max(length, Relaxed);
        }
    }

    pub(crate) fn fill(&self, stats: &mut EntityStats) {
        stats.commands = self.commands.load(Relaxed);
        stats.rejected = self.rejected.load(Relaxed);
        stats.failed = self.failed.load(Relaxed);
        stats.conflicts = self.conflicts.load(Relaxed);
        stats.stale = self.stale.load(Relaxed);
        stats.loads = self.loads.load(Relaxed);
        stats.deaths = self.deaths.load(Relaxed);
        stats.mailbox_high_water = self.high_water.load(Relaxed);
    }
}
