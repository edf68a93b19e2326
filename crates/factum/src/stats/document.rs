//! Published stats: a JSON document for each running application, under keys that begin with `$`.

mod consumer;
mod moment;

use std::time::Duration;

use bytes::Bytes;
use factum_kernel::{
    DocumentStore, KeyRange, ScanQuery, StoreError, StreamVersion, Timestamp, Uuid,
};
use factum_runtime::{EntityInfo, EntityStats, WorkerHealth, WorkerState};
use serde::{Deserialize, Serialize};

use super::{AppStats, ConsumerStats, KindStats};
pub use consumer::PublishedConsumer;

/// The prefix of the documents' keys. The id of the instance follows.
const PREFIX: &str = "$factum/stats/";
/// The most workers in a document. Workers that don't run come first.
const WORKERS_PUBLISHED: usize = 256;
/// The number of missed intervals after which an instance counts as dead.
const MISSED_MAX: u32 = 10;
/// The shortest time after which an instance counts as dead. It allows for differences between the
/// machines' clocks.
const SILENT_MIN: Duration = Duration::from_secs(600);
/// The delay up to which an instance does not count as silent. It allows for slow writes and
/// differences between clocks.
const LATE_MAX: Duration = Duration::from_secs(5);

/// The stats that a running application published last. Times are RFC 3339 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedStats {
    /// The id of the instance. Each opening of an application gets a new one.
    pub instance: Uuid,
    /// The process id on the instance's machine.
    pub process: u32,
    /// The time of the stats, by the instance's clock.
    #[serde(with = "moment")]
    pub written_at: Timestamp,
    /// The interval between two publications.
    pub every_ms: u64,
    /// The time since the application was opened.
    pub uptime_ms: u64,
    /// The totals of the entities of all kinds.
    pub total: PublishedTotals,
    /// The kinds of entities, by category.
    pub kinds: Vec<PublishedKind>,
    /// The workers, at most 256. Workers that don't run come first.
    pub workers: Vec<PublishedWorker>,
    /// The consumers and projections, at most 256. Those that need attention come first. Empty in
    /// documents that an earlier version wrote.
    #[serde(default)]
    pub consumers: Vec<PublishedConsumer>,
}

/// The counters and numbers of entities: see [`EntityStats`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are those of `EntityStats`")]
pub struct PublishedTotals {
    pub active: u64,
    pub resident: u64,
    pub resident_bytes: u64,
    pub quarantined: u64,
    pub commands: u64,
    pub rejected: u64,
    pub failed: u64,
    pub conflicts: u64,
    pub stale: u64,
    pub loads: u64,
    pub deaths: u64,
    pub passivated: u64,
    pub mailbox_high_water: u64,
}

/// The entities of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedKind {
    /// The category of the entities' streams.
    pub category: String,
    /// The counters and numbers of the kind.
    #[serde(flatten)]
    pub totals: PublishedTotals,
    /// Quarantined entities, at most ten.
    pub quarantined_entities: Vec<PublishedEntity>,
    /// The heaviest idle entities, at most ten.
    pub heaviest: Vec<PublishedEntity>,
    /// The most recently used entities, at most ten.
    pub recent: Vec<PublishedEntity>,
}

/// The known facts about one entity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedEntity {
    /// The entity's stream.
    pub stream: String,
    /// The time of the last use.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "moment::known")]
    pub used_at: Option<Timestamp>,
    /// The version of the entity's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The version of the newest known snapshot; 0 if none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_version: Option<u64>,
    /// The weight of the entity's state, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    /// The cause of its last death, if it is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedWorker {
    /// The worker's name.
    pub name: String,
    /// `running`, `backing-off`, `waiting`, `stopping`, `stopped` or `given-up`.
    pub state: String,
    /// The time at which the worker entered this state.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// The number of restarts since the worker was added.
    pub restarts: u64,
    /// The last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The stats that the applications on a store published last, in the order in which the
/// applications were opened. The list contains instances that ended without a shutdown for a while:
/// see [`PublishedStats::silence`]. Documents of a later version that can't be read are left out.
///
/// # Errors
/// An error of the store.
pub async fn published_stats(
    documents: &dyn DocumentStore,
) -> Result<Vec<PublishedStats>, StoreError> {
    let mut found = Vec::new();
    let mut rest = Some(KeyRange::prefix(PREFIX));
    while let Some(range) = rest {
        let page = documents.scan(ScanQuery::new(range)).await?;
        found.extend(page.documents.iter().filter_map(|it| PublishedStats::read(&it.value)));
        rest = page.rest;
    }
    Ok(found)
}

pub(super) fn key(instance: Uuid) -> Bytes {
    format!("{PREFIX}{instance}").into()
}

pub(super) fn all() -> KeyRange {
    KeyRange::prefix(PREFIX)
}

impl PublishedStats {
    pub(super) fn of(stats: &AppStats, instance: Uuid, every: Duration) -> Self {
        let is_up = |worker: &&WorkerHealth| worker.state == WorkerState::Running;
        let (up, down): (Vec<_>, Vec<_>) = stats.workers.iter().partition(is_up);
        let workers = down.into_iter().chain(up).take(WORKERS_PUBLISHED);
        Self {
            instance,
            process: std::process::id(),
            written_at: stats.at,
            every_ms: millis(every),
            uptime_ms: millis(stats.uptime),
            total: PublishedTotals::of(&stats.total),
            kinds: stats.kinds.iter().map(PublishedKind::of).collect(),
            workers: workers.map(PublishedWorker::of).collect(),
            consumers: consumer::published(&stats.consumers),
        }
    }

    pub(super) fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(super) fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("all keys are text").into()
    }

    /// The time by which the next publication is late; zero while it is on time.
    pub fn silence(&self, now: Timestamp) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
        let age = now.saturating_since(self.written_at);
        age.saturating_sub(Duration::from_millis(self.every_ms))
    }

    /// True if the instance may have ended: its next publication is late by more than one interval
    /// and by more than five seconds.
    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.silence(now) > Duration::from_millis(self.every_ms).max(LATE_MAX)
    }

    /// True if the instance certainly ended without a shutdown: its publication is late by more
    /// than ten intervals and by more than ten minutes, or its time is that far in the future.
    /// Running instances remove such documents. An instance that is alive after all writes its
    /// document again.
    pub fn is_dead(&self, now: Timestamp) -> bool {
        let every = Duration::from_millis(self.every_ms);
        let limit = every.saturating_mul(MISSED_MAX).max(SILENT_MIN);
        self.silence(now) > limit || self.written_at > now.saturating_add(limit)
    }
}

impl PublishedTotals {
    fn of(stats: &EntityStats) -> Self {
        Self {
            active: stats.active as u64,
            resident: stats.resident as u64,
            resident_bytes: stats.resident_bytes as u64,
            quarantined: stats.quarantined as u64,
            commands: stats.commands,
            rejected: stats.rejected,
            failed: stats.failed,
            conflicts: stats.conflicts,
            stale: stats.stale,
            loads: stats.loads,
            deaths: stats.deaths,
            passivated: stats.passivated,
            mailbox_high_water: stats.mailbox_high_water as u64,
        }
    }
}

impl PublishedKind {
    fn of(kind: &KindStats) -> Self {
        let dead = |it: &factum_runtime::QuarantinedEntity| PublishedEntity {
            stream: it.stream.to_string(),
            cause: Some(it.cause.to_string()),
            ..PublishedEntity::default()
        };
        Self {
            category: kind.category.to_owned(),
            totals: PublishedTotals::of(&kind.stats),
            quarantined_entities: kind.quarantined.iter().map(dead).collect(),
            heaviest: kind.heaviest.iter().map(PublishedEntity::of).collect(),
            recent: kind.recent.iter().map(PublishedEntity::of).collect(),
        }
    }
}

impl PublishedEntity {
    fn of(info: &EntityInfo) -> Self {
        Self {
            stream: info.stream.to_string(),
            used_at: Some(info.used_at),
            version: info.version.map(StreamVersion::value),
            snapshot_version: info.snapshot_version.map(StreamVersion::value),
            weight: info.weight.map(|weight| weight as u64),
            cause: None,
        }
    }
}

impl PublishedWorker {
    fn of(worker: &WorkerHealth) -> Self {
        let state = match worker.state {
            WorkerState::Running => "running",
            WorkerState::BackingOff(_) => "backing-off",
            WorkerState::Waiting => "waiting",
            WorkerState::Stopping => "stopping",
            WorkerState::GivenUp => "given-up",
            _ => "stopped",
        };
        Self {
            name: worker.name.to_string(),
            state: state.to_owned(),
            since: worker.since,
            restarts: worker.restarts,
            cause: worker.cause.as_deref().map(str::to_owned),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
