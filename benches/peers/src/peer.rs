//! The engines that are measured, and the calls that each must support.

pub(crate) mod channel;
pub(crate) mod factum;
pub(crate) mod fjall;
pub(crate) mod floor;
#[cfg(feature = "journal")]
pub(crate) mod journal;
pub(crate) mod redb;
pub(crate) mod sqlite;
pub(crate) mod umadb;

use std::{fmt, path::Path};

use crate::load::Record;

/// One engine, open in a folder of its own. Every call is durable when it returns.
pub(crate) trait Peer: Sized + Send + Sync + 'static {
    /// Opens a fresh engine that will hold at most this many events.
    fn open(folder: &Path, events: usize) -> impl Future<Output = Self> + Send;

    /// Stores these events, all or none.
    fn append(&self, records: Vec<Record>) -> impl Future<Output = ()> + Send;

    /// Reads all events in order, each decoded; returns their number.
    fn scan(&self) -> impl Future<Output = usize> + Send;

    /// Reads a stream's events in order, each decoded; returns their number.
    fn read_stream(&self, stream: usize) -> impl Future<Output = usize> + Send;

    fn close(self) -> impl Future<Output = ()> + Send;
}

/// The name of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Store {
    Journal,
    Sqlite,
    Floor,
    Growing,
    Channel,
    Umadb,
    UmadbCached,
    Fjall,
    Redb,
}

impl Store {
    /// All engines of this build, in the order of the report.
    pub(crate) const ALL: &[Self] = &[
        #[cfg(feature = "journal")]
        Self::Journal,
        Self::Sqlite,
        Self::Floor,
        Self::Growing,
        Self::Channel,
        Self::Umadb,
        Self::UmadbCached,
        Self::Fjall,
        Self::Redb,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Sqlite => "sqlite",
            Self::Floor => "floor",
            Self::Growing => "growing",
            Self::Channel => "channel",
            Self::Umadb => "umadb",
            Self::UmadbCached => "umadb-cached",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|store| store.name() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|store| store.name()).collect();
            format!("this build knows {}", names.join(", "))
        })
    }

    /// The way in which it makes an append durable, in a few words.
    pub(crate) fn sync_policy(self) -> &'static str {
        match self {
            Self::Journal => "fdatasync per group, its own group commit",
            Self::Sqlite => "WAL, synchronous=FULL, its own group commit",
            Self::Floor => "one write + one fdatasync per group, one thread, zero-written file",
            Self::Growing => "one write + one fdatasync per group, one thread, growing file",
            Self::Channel => "the floor with a bounded channel before it, answers by oneshot",
            Self::Umadb | Self::UmadbCached => {
                "fdatasync of pages, then of the header, its own group commit"
            }
            Self::Fjall => "PersistMode::SyncAll per group, groups as of `channel`",
            Self::Redb => "Durability::Immediate per group, groups as of `channel`",
        }
    }

    /// Returns true if one thread writes whole groups, instead of clients.
    pub(crate) fn writes_groups(self) -> bool {
        matches!(self, Self::Floor | Self::Growing)
    }

    /// Returns whether its reads are measured; they are not if another engine's are the same.
    pub(crate) fn is_read(self) -> bool {
        !matches!(self, Self::Growing | Self::Channel)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
