//! What the writer remembers of the database between two groups.
//!
//! It holds only what is committed, or what the transaction at hand has written: a transaction
//! that fails forgets everything, and so does a commit of another process.

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

/// The most streams that the writer remembers: about 6 MB.
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

/// What the writer remembers.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) types: Names,
    pub(crate) tags: Names,
    categories: Names,
    streams: Recent<StreamId, StreamEntry>,
    /// Streams that the transaction at hand has found to have no row.
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

    /// Where the log ends.
    pub(crate) fn snapshot(&mut self, connection: &Connection) -> Result<Snapshot> {
        match self.snapshot {
            Some(snapshot) => Ok(snapshot),
            None => Ok(*self.snapshot.insert(Snapshot::read(connection)?)),
        }
    }

    /// Takes note of what was appended.
    pub(crate) fn advance(&mut self, head: Position, last_at: Timestamp) {
        if let Some(snapshot) = &mut self.snapshot {
            (snapshot.head, snapshot.last_at) = (head, last_at);
        }
    }

    /// Begins a transaction. What is absent is remembered for one only, so that it is bounded.
    pub(crate) fn begin(&mut self) {
        self.absent.clear();
    }

    /// A stream, if it has a row. One that has none is remembered for this transaction only:
    /// asking for streams that never were must not push out those that are.
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

    /// Takes note of how a stream is now.
    pub(crate) fn set_stream(&mut self, stream: &StreamId, entry: StreamEntry) {
        self.streams.insert(stream.clone(), entry);
    }

    /// A stream behind an event with this version, which was appended to it now.
    pub(crate) fn advance_stream(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
        version: StreamVersion,
    ) -> Result<StreamEntry> {
        // The plan has asked for it a moment ago, so it is here unless it is new.
        if let Some(entry) = self.streams.update(stream, |it| it.bounds.version = version) {
            return Ok(entry);
        }
        let mut entry = self.stream_or_new(connection, stream)?;
        entry.bounds.version = version;
        self.set_stream(stream, entry);
        Ok(entry)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.types.forget();
        self.tags.forget();
        self.categories.forget();
        self.streams.clear();
        self.absent.clear();
        self.snapshot = None;
    }
}
