//! The stats of an application: its entities of all kinds, its workers and consumers. They can also
//! be published in the store, for other processes.

mod document;
mod publisher;

use std::time::Duration;

use factum_consumer::{ConsumerHandle, ConsumerHealth, ConsumerName};
use factum_kernel::{Aggregate, Timestamp};
use factum_runtime::{Entities, EntityInfo, EntityStats, QuarantinedEntity, WorkerHealth};

pub use document::{
    PublishedConsumer, PublishedEntity, PublishedKind, PublishedStats, PublishedTotals,
    PublishedWorker, published_stats,
};
pub use publisher::STATS_EVERY_MIN;
pub(crate) use publisher::publisher;

/// The most entities of a kind in each list of [`AppStats`].
pub const LISTED: usize = 10;

/// Counters of an application since it was opened, and its present state.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppStats {
    /// The time at which the stats were taken.
    pub at: Timestamp,
    /// The time since the application was opened.
    pub uptime: Duration,
    /// The totals of the entities of all kinds. `mailbox_high_water` is the highest of all kinds.
    pub total: EntityStats,
    /// The kinds whose entities were used, by category.
    pub kinds: Vec<KindStats>,
    /// The workers of the application's supervisor.
    pub workers: Vec<WorkerHealth>,
    /// The consumers and projections that this application started, by name.
    pub consumers: Vec<ConsumerStats>,
}

/// One consumer, one partition of a consumer, or one build of a maintained projection.
/// one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// The name under which the progress is stored. It includes the build of a projection, and the
    /// partition.
    pub name: ConsumerName,
    /// The health of the consumer.
    pub health: ConsumerHealth,
}

impl ConsumerStats {
    pub(crate) fn of(consumer: &ConsumerHandle) -> impl Iterator<Item = Self> + use<> {
        consumer.partitions().into_iter().map(|(name, health)| Self { name, health })
    }
}

/// The entities of one kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KindStats {
    /// The category of the entities' streams.
    pub category: &'static str,
    /// Counters and present numbers of the entities.
    pub stats: EntityStats,
    /// The quarantined entities, at most [`LISTED`].
    pub quarantined: Vec<QuarantinedEntity>,
    /// The heaviest idle entities, the heaviest first; at most [`LISTED`].
    pub heaviest: Vec<EntityInfo>,
    /// The most recently used entities, the last used first; at most [`LISTED`].
    pub recent: Vec<EntityInfo>,
}

impl KindStats {
    pub(crate) fn of<A: Aggregate>(entities: &Entities<A>) -> Self {
        let mut quarantined = entities.quarantined();
        quarantined.truncate(LISTED);
        Self {
            category: A::CATEGORY,
            stats: entities.stats(),
            quarantined,
            heaviest: entities.heaviest(LISTED),
            recent: entities.recent(LISTED),
        }
    }
}

/// The sum over all kinds.
pub(crate) fn total(kinds: &[KindStats]) -> EntityStats {
    let mut total = EntityStats::default();
    for KindStats { stats, .. } in kinds {
        total.uptime = total.uptime.max(stats.uptime);
        total.active += stats.active;
        total.resident += stats.resident;
        total.resident_bytes += stats.resident_bytes;
        total.quarantined += stats.quarantined;
        total.commands += stats.commands;
        total.rejected += stats.rejected;
        total.failed += stats.failed;
        total.conflicts += stats.conflicts;
        total.stale += stats.stale;
        total.loads += stats.loads;
        total.deaths += stats.deaths;
        total.passivated += stats.passivated;
        total.mailbox_high_water = total.mailbox_high_water.max(stats.mailbox_high_water);
    }
    total
}
