//! What an application is doing: its entities of all kinds, its workers and consumers; and the same
//! published in the store, for other processes to see.

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

/// The most entities of a kind in each of the lists of [`AppStats`].
pub const LISTED: usize = 10;

/// What an application has done since it was opened, and what it is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AppStats {
    /// When that was so.
    pub at: Timestamp,
    /// How long it has been open.
    pub uptime: Duration,
    /// The entities of all kinds together. Their mailbox high water is that of the highest.
    pub total: EntityStats,
    /// The kinds that were asked for by [`App::entities`](crate::App::entities), by category.
    pub kinds: Vec<KindStats>,
    /// The workers of its supervisor.
    pub workers: Vec<WorkerHealth>,
    /// The consumers and projections that were started here, by name.
    pub consumers: Vec<ConsumerStats>,
}

/// One consumer, or a partition of one: of a projection that is maintained, each of its builds is
/// one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Its name, under which its progress is stored: of a projection with its build, of one in
    /// partitions with the partition.
    pub name: ConsumerName,
    /// How it fares.
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
    /// The category of their streams.
    pub category: &'static str,
    /// What they have done, and are doing.
    pub stats: EntityStats,
    /// The quarantined ones: [`LISTED`] of them.
    pub quarantined: Vec<QuarantinedEntity>,
    /// The idle ones that weigh most, the heaviest first: [`LISTED`] of them.
    pub heaviest: Vec<EntityInfo>,
    /// Those that were used last, the last one first: [`LISTED`] of them.
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
