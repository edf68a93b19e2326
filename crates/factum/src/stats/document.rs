//! Stats as they are published: a JSON document for each running application, under `$`-keys.

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

/// Under what follows is the document of each instance.
const PREFIX: &str = "$factum/stats/";
/// The most workers in a document; those that don't run come first.
const WORKERS_PUBLISHED: usize = 256;
/// An instance that missed so many of its own intervals is dead,
const MISSED_MAX: u32 = 10;
/// but not before this long: clocks of machines differ.
const SILENT_MIN: Duration = Duration::from_secs(600);
/// A write takes its time, and clocks differ: one that is late by no more is not called silent.
const LATE_MAX: Duration = Duration::from_secs(5);

/// What a running application published last. Times are RFC 3339 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedStats {
    /// Which opening of the application.
    pub instance: Uuid,
    /// Its process, on its machine.
    pub process: u32,
    /// When this was so, by its clock.
    #[serde(with = "moment")]
    pub written_at: Timestamp,
    /// How often it is written anew.
    pub every_ms: u64,
    /// How long it has been open.
    pub uptime_ms: u64,
    /// The entities of all kinds together.
    pub total: PublishedTotals,
    /// The kinds of entities, by category.
    pub kinds: Vec<PublishedKind>,
    /// The workers; the first 256, with those that don't run before the others.
    pub workers: Vec<PublishedWorker>,
    /// The consumers and projections; the first 256, with those that are not well before the
    /// others. Empty in what an earlier version wrote.
    #[serde(default)]
    pub consumers: Vec<PublishedConsumer>,
}

/// Entities in numbers: see [`EntityStats`].
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
    /// The category of their streams.
    pub category: String,
    /// In numbers.
    #[serde(flatten)]
    pub totals: PublishedTotals,
    /// Quarantined ones, ten at most.
    pub quarantined_entities: Vec<PublishedEntity>,
    /// The heaviest idle ones, ten at most.
    pub heaviest: Vec<PublishedEntity>,
    /// The last used, ten at most.
    pub recent: Vec<PublishedEntity>,
}

/// One entity: what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedEntity {
    /// Its stream.
    pub stream: String,
    /// When it was last used.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "moment::known")]
    pub used_at: Option<Timestamp>,
    /// Where its state is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The version of its newest known snapshot; 0: none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_version: Option<u64>,
    /// What its state weighs, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    /// What it died of, if it is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PublishedWorker {
    /// Its name.
    pub name: String,
    /// `running`, `backing-off`, `waiting`, `stopping`, `stopped` or `given-up`.
    pub state: String,
    /// Since when.
    #[serde(with = "moment")]
    pub since: Timestamp,
    /// How often it was started again.
    pub restarts: u64,
    /// What its last failure was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// What the applications on a store published last, those that were opened first in front.
/// Instances that ended without a word are among them for a while: look at
/// [`PublishedStats::silence`]. A document of a later version that can't be read is left out.
///
/// # Errors
/// Those of the store.
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

    /// How long ago it should have been written anew, and was not; zero while it is on time.
    pub fn silence(&self, now: Timestamp) -> Duration {
        #[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
        let age = now.saturating_since(self.written_at);
        age.saturating_sub(Duration::from_millis(self.every_ms))
    }

    /// Whether it is so late that what it says may be over: one interval and five seconds.
    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.silence(now) > Duration::from_millis(self.every_ms).max(LATE_MAX)
    }

    /// Whether its application has clearly ended without a word: ten intervals and ten minutes
    /// have passed, or it wrote while its clock was that far ahead, and not since. Those that run
    /// remove such documents; what lives writes its own again.
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
