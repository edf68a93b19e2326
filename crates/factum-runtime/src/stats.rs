//! What entities have done and are doing.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use factum_kernel::{StreamId, StreamVersion, Timestamp};

use crate::error::EntityError;

/// What the entities of a kind have done since they were made, and what they are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct EntityStats {
    /// How long they have been running.
    pub uptime: Duration,
    /// Entities at work.
    pub active: usize,
    /// Idle entities whose state is in memory.
    pub resident: usize,
    /// What the idle ones weigh together, in bytes.
    pub resident_bytes: usize,
    /// Entities that take no messages until they are released.
    pub quarantined: usize,
    /// Commands answered with an outcome, a rejection included.
    pub commands: u64,
    /// Commands rejected.
    pub rejected: u64,
    /// Commands and looks answered with an error.
    pub failed: u64,
    /// Appends that came too late: their bursts were decided again.
    pub conflicts: u64,
    /// Bursts whose answers had been overtaken by other writers, and were decided again.
    pub stale: u64,
    /// Loads of an entity.
    pub loads: u64,
    /// Panics and histories that could not be folded.
    pub deaths: u64,
    /// Idle entities whose state was let go.
    pub passivated: u64,
    /// The most messages that ever waited for one entity.
    pub mailbox_high_water: usize,
}

/// What is known of one entity.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntityInfo {
    /// Its stream.
    pub stream: StreamId,
    /// What it is doing.
    pub status: EntityStatus,
    /// When it was last used.
    pub used_at: Timestamp,
    /// Messages that wait for it.
    pub queued: usize,
    /// Where its state is at; known of an idle one in memory.
    pub version: Option<StreamVersion>,
    /// The version of its newest known snapshot; 0: none is known.
    pub snapshot_version: Option<StreamVersion>,
    /// What its state weighs, in bytes.
    pub weight: Option<usize>,
}

/// What an entity is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntityStatus {
    /// It has messages to work on.
    Active,
    /// Its state is in memory.
    Idle,
    /// It failed lately, and its state is to be loaded with the next message.
    Failed,
    /// It takes nothing until it is released.
    Quarantined,
}

/// An entity that takes no messages until it is released.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QuarantinedEntity {
    /// Its stream.
    pub stream: StreamId,
    /// What it died of last.
    pub cause: EntityError,
}

/// What a shutdown left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Shutdown {
    /// Entities that were still at work when the time was over. What they had begun goes on.
    pub unfinished: Vec<StreamId>,
    /// Messages that were answered with `Closed` when the time was over.
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
