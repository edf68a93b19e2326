//! Truncation, retention, and what a deletion erases.

use bytes::Buf;
use factum_backend::{PlannedEvent, partition_point};
use factum_kernel::{
    ChangeError, Retention, StoreError, StreamChange, StreamId, StreamInfo, StreamVersion,
    Timestamp,
};
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::{
    append::Committer,
    cache::Cache,
    error::{Fault, Result},
    names::Kind,
    number::{signed, unsigned},
    sql,
    stream::StreamEntry,
    transaction::End,
};

impl Committer {
    /// Makes a change in a transaction of its own, and returns the information about the stream
    /// after it.
    pub(crate) fn change(
        &mut self,
        stream: &StreamId,
        change: StreamChange,
    ) -> std::result::Result<StreamInfo, ChangeError> {
        let now = self.clock.now();
        let done = self.session.transact(|connection, cache| {
            let done = apply(connection, cache, stream, change, now)?;
            Ok(if done.is_ok() { End::Commit(done) } else { End::Rollback(done) })
        });
        done?
    }
}

type Changed = std::result::Result<StreamInfo, ChangeError>;

fn apply(
    connection: &Connection,
    cache: &mut Cache,
    stream: &StreamId,
    change: StreamChange,
    now: Timestamp,
) -> Result<Changed> {
    let found = cache.stream(connection, stream)?;
    let bounds = found.map(|entry| entry.bounds).unwrap_or_default();
    if let Err(error) = change.check(bounds.version) {
        return Ok(Err(error.into()));
    }
    let mut entry = match (found, change) {
        (Some(entry), _) => entry,
        (None, StreamChange::Retain(_)) => cache.stream_or_new(connection, stream)?,
        // There is nothing to erase in a stream that never existed.
        (None, _) => return Ok(Ok(StreamInfo::default())),
    };
    match change {
        StreamChange::Retain(retention) => {
            entry.retain(connection, retention)?;
            retain(connection, &mut entry, now)?;
        }
        StreamChange::TruncateBefore(first) => erase(connection, &mut entry, first.previous())?,
        other => {
            let message = format!("the SQLite store can't do this change: change={other:?}");
            return Ok(Err(StoreError::invalid(message).into()));
        }
    }
    cache.set_stream(stream, entry);
    // Numbers of tags that no event has any more may be given again.
    cache.tags.forget();
    Ok(Ok(entry.info(connection)?))
}

/// Erases the events before a deletion, whose own event is stored.
pub(crate) fn delete(
    connection: &Connection,
    cache: &mut Cache,
    deletion: &PlannedEvent<'_>,
) -> Result<()> {
    let PlannedEvent { header, stream, .. } = deletion;
    let mut entry = cache.stream_or_new(connection, stream)?;
    entry.bounds.deleted_at = header.version;
    erase(connection, &mut entry, header.version.previous())?;
    cache.set_stream(stream, entry);
    // Numbers of tags that no event has any more may be given again.
    cache.tags.forget();
    Ok(())
}

/// Erases the events that a stream's retention no longer keeps, and returns whether there were any.
/// The last event always stays.
pub(crate) fn retain(
    connection: &Connection,
    entry: &mut StreamEntry,
    now: Timestamp,
) -> Result<bool> {
    let Retention { events_max, age_max } = entry.retention;
    let version = entry.bounds.version.value();
    let erased = entry.bounds.erased_through;
    let by_count = events_max.map_or(0, |max| version.saturating_sub(max));
    let by_age = match age_max {
        None => 0,
        Some(age) => {
            let oldest = now.saturating_sub(age);
            let is_kept =
                |version| Ok::<_, Fault>(entry.place(connection, version)?.recorded_at >= oldest);
            partition_point(erased.value() + 1, version + 1, is_kept)? - 1
        }
    };
    let through = StreamVersion::new(by_count.max(by_age).min(version.saturating_sub(1)));
    if through <= erased {
        return Ok(false);
    }
    erase(connection, entry, through)?;
    Ok(true)
}

/// Erases the events of a stream up to a version: the rows, their tags, and the texts of tags that
/// no other event has.
fn erase(connection: &Connection, entry: &mut StreamEntry, through: StreamVersion) -> Result<()> {
    let range = (entry.number, signed(through.value()));
    let mut last_at = 0_i64;
    if through > entry.bounds.erased_through {
        let mut gone = Erased::new();
        let mut tags = EventTags::new(connection)?;
        let mut statement = connection.prepare_cached(sql::TO_ERASE)?;
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            let position = row.get(0)?;
            last_at = row.get(1)?;
            tags.erase(connection, row.get_ref(2)?.as_blob()?, position)?;
            gone.add(connection, unsigned(position))?;
        }
        gone.finish(connection)?;
        entry.bounds.erased_through = through;
    }
    connection.prepare_cached(sql::ERASE_EVENTS)?.execute(range)?;
    connection.prepare_cached(sql::KEEP_TIME)?.execute([last_at])?;
    let erased = entry.bounds.erased_through;
    let deleted = entry.bounds.deleted_at;
    let bounds = (entry.number, signed(erased.value()), signed(deleted.value()));
    connection.prepare_cached(sql::SET_ERASED)?.execute(bounds)?;
    Ok(())
}

/// Removes events from the index of tags.
struct EventTags<'c> {
    erase: CachedStatement<'c>,
    erase_text: CachedStatement<'c>,
}

impl<'c> EventTags<'c> {
    fn new(connection: &'c Connection) -> Result<Self> {
        let erase = connection.prepare_cached(sql::ERASE_EVENT_TAG)?;
        Ok(Self { erase, erase_text: connection.prepare_cached(sql::ERASE_TAG)? })
    }

    /// Removes an event. `tags` are encoded as by `encode_tags`.
    fn erase(&mut self, connection: &Connection, mut tags: &[u8], position: i64) -> Result<()> {
        while let Ok(length) = tags.try_get_u16_le() {
            let Some((tag, rest)) = tags.split_at_checked(usize::from(length)) else { break };
            tags = rest;
            let tag = std::str::from_utf8(tag).unwrap_or_default();
            // An event may have the same tag twice; the second time its row is already gone.
            if let Some(number) = Kind::Tag.find(connection, tag)? {
                self.erase.execute([number, position])?;
                self.erase_text.execute([number])?;
            }
        }
        Ok(())
    }
}

/// Collects erased positions, which come in ascending order, into ranges.
struct Erased(Option<(u64, u64)>);

impl Erased {
    fn new() -> Self {
        Self(None)
    }

    fn add(&mut self, connection: &Connection, position: u64) -> Result<()> {
        match &mut self.0 {
            Some((_, last)) if *last + 1 == position => *last = position,
            _ => {
                self.finish(connection)?;
                self.0 = Some((position, position));
            }
        }
        Ok(())
    }

    /// Stores the current range, merged with the ranges that touch it.
    fn finish(&mut self, connection: &Connection) -> Result<()> {
        let Some((first, mut last)) = self.0.take() else { return Ok(()) };
        let next = [signed(last + 1)];
        let mut after = connection.prepare_cached(sql::ERASED_AT)?;
        if let Some(end) = after.query_row(next, |row| row.get(0)).optional()? {
            last = unsigned(end);
            connection.prepare_cached(sql::REMOVE_ERASED)?.execute(next)?;
        }
        let mut before = connection.prepare_cached(sql::ERASED_BEFORE)?;
        let before: Option<(i64, i64)> =
            before.query_row([signed(first)], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match before {
            Some((start, end)) if unsigned(end) + 1 == first => {
                connection.prepare_cached(sql::SET_ERASED_LAST)?.execute([start, signed(last)])?;
            }
            _ => {
                connection
                    .prepare_cached(sql::ADD_ERASED)?
                    .execute([signed(first), signed(last)])?;
            }
        }
        Ok(())
    }
}
