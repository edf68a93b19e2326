//! The writer's cache between two groups.
//!
//! It holds only committed data, and what the current transaction has written. A transaction that
//! fails clears it, and so does a commit of another process.

use std::collections::HashSet;

use factum_kernel::{Lineage, Position, StreamId, StreamVersion, Timestamp};
use rusqlite::Connection;

use crate::{
    error::Result,
    names::{Kind, Names},
    number::unsigned,
    recent::Recent,
    sql,
    stream::StreamEntry,
};

/// The most streams in the cache: about 6 MB.
const STREAMS_CACHED_MAX: usize = 32_768;

/// The numbers of one snapshot of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) lineage: Lineage,
    /// The last position that was ever given.
    pub(crate) head: Position,
    /// The latest time that was ever given.
    pub(crate) last_at: Timestamp,
}

impl Snapshot {
    pub(crate) fn read(connection: &Connection) -> Result<Self> {
        let mut read = connection.prepare_cached(sql::SNAPSHOT)?;
        let numbers = read.query_row([], |row| {
            let number = |index| row.get(index).map(|n: Option<i64>| n.map_or(0, unsigned));
            Ok(Self {
                lineage: Lineage::new(row.get(0).map(uuid::Uuid::from_bytes)?),
                head: Position::new(number(2)?.max(number(3)?)),
                last_at: Timestamp::from_micros(number(1)?.max(number(4)?)),
            })
        });
        Ok(numbers?)
    }
}

/// The data that the writer keeps in memory.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) types: Names,
    pub(crate) tags: Names,
    categories: Names,
    streams: Recent<StreamId, StreamEntry>,
    /// The streams that the current transaction has found to have no row.
    absent: HashSet<StreamId>,
    snapshot: Option<Snapshot>,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self {
            types: Names::new(Kind::Type),
            tags: Names::new(Kind::Tag),
            categories: Names::new(Kind::Category),
            streams: Recent::new(STREAMS_CACHED_MAX),
            absent: HashSet::new(),
            snapshot: None,
        }
    }

    /// The end of the log.
    pub(crate) fn snapshot(&mut self, connection: &Connection) -> Result<Snapshot> {
        match self.snapshot {
            Some(snapshot) => Ok(snapshot),
            None => Ok(*self.snapshot.insert(Snapshot::read(connection)?)),
        }
    }

    /// Records the end of the log after an append.
    pub(crate) fn advance(&mut self, head: Position, last_at: Timestamp) {
        if let Some(snapshot) = &mut self.snapshot {
            (snapshot.head, snapshot.last_at) = (head, last_at);
        }
    }

    /// Begins a transaction. Absent streams are remembered for one transaction only, so that their
    /// number is bounded.
    pub(crate) fn begin(&mut self) {
        self.absent.clear();
    }

    /// A stream, if it has a row. A stream without a row is remembered for this transaction only:
    /// lookups of streams that never existed must not drive out existing ones.
    pub(crate) fn stream(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
    ) -> Result<Option<StreamEntry>> {
        if let Some(entry) = self.streams.get(stream) {
            return Ok(Some(entry));
        }
        let found = StreamEntry::find(connection, stream)?;
        match found {
            Some(entry) => self.streams.insert(stream.clone(), entry),
            None => drop(self.absent.insert(stream.clone())),
        }
        Ok(found)
    }

    /// A stream, which gets a row if it has none.
    pub(crate) fn stream_or_new(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
    ) -> Result<StreamEntry> {
        if !self.absent.remove(stream)
            && let Some(entry) = self.stream(connection, stream)?
        {
            return Ok(entry);
        }
        let category = self.categories.intern(connection, stream.category())?;
        let mut add = connection.prepare_cached(sql::ADD_STREAM)?;
        Ok(StreamEntry::new(add.insert((stream.as_str(), category))?, category))
    }

    /// Records the current entry of a stream.
    pub(crate) fn set_stream(&mut self, stream: &StreamId, entry: StreamEntry) {
        self.streams.insert(stream.clone(), entry);
    }

    /// The entry of a stream after an event with this version, which was just appended to it.
    pub(crate) fn advance_stream(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
        version: StreamVersion,
    ) -> Result<StreamEntry> {
        // The plan has just asked for it, so it is here unless it is new.
        if let Some(entry) = self.streams.update(stream, |it| it.bounds.version = version) {
            return Ok(entry);
        }
        let mut entry = self.stream_or_new(connection, stream)?;
        entry.bounds.version = version;
        self.set_stream(stream, entry);
        Ok(entry)
    }

    /// Clears the cache.
    pub(crate) fn clear(&mut self) {
        self.types.forget();
        self.tags.forget();
        self.categories.forget();
        self.streams.clear();
        self.absent.clear();
        self.snapshot = None;
    }
}
