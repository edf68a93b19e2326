//! The row of a stream: its number, its bounds, its retention.

use std::time::Duration;

use factum_kernel::{Retention, StreamBounds, StreamId, StreamInfo, StreamVersion, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    error::Result,
    number::{signed, unsigned},
    sql,
};

/// The row of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamEntry {
    pub(crate) number: i64,
    pub(crate) category: i64,
    pub(crate) bounds: StreamBounds,
    pub(crate) retention: Retention,
}

/// The position and the time of an event of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) recorded_at: Timestamp,
}

impl StreamEntry {
    /// The row of a new stream.
    pub(crate) fn new(number: i64, category: i64) -> Self {
        let bounds = StreamBounds::default();
        let retention = Retention::default();
        Self { number, category, bounds, retention }
    }

    /// Reads the row of a stream.
    pub(crate) fn find(connection: &Connection, stream: &StreamId) -> Result<Option<Self>> {
        let mut find = connection.prepare_cached(sql::FIND_STREAM)?;
        Ok(find.query_row([stream.as_str()], Self::read).optional()?)
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let version = |index| row.get(index).map(unsigned).map(StreamVersion::new);
        let erased_through = version(2)?;
        let deleted_at = version(3)?;
        let last: Option<i64> = row.get(6)?;
        let last = StreamVersion::new(last.map_or(0, unsigned));
        let age: Option<i64> = row.get(5)?;
        Ok(Self {
            number: row.get(0)?,
            category: row.get(1)?,
            bounds: StreamBounds { version: last.max(erased_through), erased_through, deleted_at },
            retention: Retention {
                events_max: row.get::<_, Option<i64>>(4)?.map(unsigned),
                age_max: age.map(|micros| Duration::from_micros(unsigned(micros))),
            },
        })
    }

    /// The place of the event with this version, which must not be erased.
    pub(crate) fn place(&self, connection: &Connection, version: u64) -> Result<Place> {
        let mut find = connection.prepare_cached(sql::STREAM_AT)?;
        Ok(find.query_row([self.number, signed(version)], |row| {
            let recorded_at = Timestamp::from_micros(unsigned(row.get(1)?));
            Ok(Place { position: unsigned(row.get(0)?), recorded_at })
        })?)
    }

    /// The information about the stream, as callers get it.
    pub(crate) fn info(&self, connection: &Connection) -> Result<StreamInfo> {
        let StreamBounds { version, erased_through, .. } = self.bounds;
        let info = StreamInfo::new(self.bounds).with_retention(self.retention);
        if version == erased_through {
            return Ok(info);
        }
        let first = self.place(connection, erased_through.next().value())?;
        let last = self.place(connection, version.value())?;
        Ok(info.with_times(Some(first.recorded_at), Some(last.recorded_at)))
    }

    /// Stores a retention.
    pub(crate) fn retain(&mut self, connection: &Connection, retention: Retention) -> Result<()> {
        let events = retention.events_max.map(signed);
        let age = retention.age_max.map(micros);
        connection.prepare_cached(sql::SET_RETENTION)?.execute((self.number, events, age))?;
        self.retention = retention;
        Ok(())
    }
}

/// A duration in microseconds. One that is longer than SQLite can count becomes the longest, which
/// keeps everything, as intended.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
