//! The writing half of the log: plans a group and stores it in one transaction.

use std::{collections::HashSet, sync::Arc};

use bytes::BytesMut;
use factum_backend::{
    Commit, CommitDelay, CommitError, Committed, GroupPlan, LogEnd, PlannedEvent, Prechecks,
    delay_commit, plan_group,
};
use factum_kernel::{AppendBatch, Clock, EventParts, Retention, Timestamp, encode_tags};
use rusqlite::{CachedStatement, Connection};

use crate::{
    cache::Cache,
    change, checksum,
    error::Result,
    facts::LogFacts,
    number::signed,
    sql,
    stream::StreamEntry,
    transaction::{End, Session},
};

/// The writer's half, owned by the writer's thread.
pub(crate) struct Committer {
    pub(crate) session: Session,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commit_delay: Option<CommitDelay>,
    pub(crate) prechecks: Arc<Prechecks>,
}

impl Commit for Committer {
    fn commit(&mut self, batches: &[AppendBatch]) -> std::result::Result<Committed, CommitError> {
        let Self { session, clock, commit_delay, prechecks } = self;
        session.transact(|connection, cache| {
            let snapshot = cache.snapshot(connection)?;
            // Read under the lock, because time must not decrease with position.
            let now = clock.now();
            let end = LogEnd { head: snapshot.head, last_at: snapshot.last_at, now };
            let plan = plan_group(batches, end, &mut LogFacts { connection, cache, prechecks })?;
            delay_commit(commit_delay.as_ref());
            let is_empty = plan.events.is_empty();
            if !is_empty {
                store(connection, cache, &plan, now)?;
                cache.advance(plan.head, end.recorded_at());
            }
            let committed = Committed { outcomes: plan.outcomes, head: plan.head };
            Ok(if is_empty { End::Rollback(committed) } else { End::Commit(committed) })
        })
    }
}

fn store(
    connection: &Connection,
    cache: &mut Cache,
    plan: &GroupPlan<'_>,
    now: Timestamp,
) -> Result<()> {
    let mut inserter = Inserter::new(connection)?;
    let mut limited = HashSet::new();
    for planned in &plan.events {
        let entry = inserter.insert(cache, planned)?;
        if entry.retention != Retention::default() {
            limited.insert(planned.stream);
        }
    }
    for deletion in plan.deletions() {
        change::delete(connection, cache, deletion)?;
    }
    for stream in limited {
        let mut entry = cache.stream_or_new(connection, stream)?;
        if change::retain(connection, &mut entry, now)? {
            cache.set_stream(stream, entry);
            cache.tags.forget();
        }
    }
    Ok(())
}

/// Inserts the events of a group.
struct Inserter<'c> {
    connection: &'c Connection,
    add: CachedStatement<'c>,
    add_tag: CachedStatement<'c>,
    tags: BytesMut,
    metadata: BytesMut,
}

impl<'c> Inserter<'c> {
    fn new(connection: &'c Connection) -> Result<Self> {
        let add = connection.prepare_cached(sql::ADD_EVENT)?;
        let add_tag = connection.prepare_cached(sql::ADD_EVENT_TAG)?;
        Ok(Self { connection, add, add_tag, tags: BytesMut::new(), metadata: BytesMut::new() })
    }

    /// Inserts an event, and returns the stream's entry after it.
    fn insert(&mut self, cache: &mut Cache, planned: &PlannedEvent<'_>) -> Result<StreamEntry> {
        let PlannedEvent { header, stream, event } = planned;
        let entry = cache.advance_stream(self.connection, stream, header.version)?;
        self.tags.clear();
        encode_tags(&event.tags, &mut self.tags);
        self.metadata.clear();
        event.metadata.encode(&mut self.metadata);
        let parts = EventParts {
            stream: stream.as_str(),
            name: event.name.as_str(),
            tags: &self.tags,
            metadata: &self.metadata,
            payload: &event.payload,
        };
        let position = signed(header.position.value());
        self.add.execute((
            position,
            entry.number,
            signed(header.version.value()),
            cache.types.intern(self.connection, event.name.as_str())?,
            entry.category,
            signed(header.recorded_at.as_micros()),
            header.schema_version,
            header.content.number(),
            &header.id.as_uuid().as_bytes()[..],
            parts.tags,
            parts.metadata,
            parts.payload,
            checksum::of(header, &parts),
        ))?;
        for tag in &event.tags {
            let number = cache.tags.intern(self.connection, tag.as_str())?;
            self.add_tag.execute((number, position))?;
        }
        Ok(entry)
    }
}
