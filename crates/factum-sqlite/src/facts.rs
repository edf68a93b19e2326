//! The answers to the planning of a group, read inside the group's transaction.

use factum_backend::{Candidate, Facts, FoundEvent, Looked, Precheck, Prechecks, Span, Walk};
use factum_kernel::{
    AppendBatch, AppendCondition, Direction, ErasedRange, EventId, Position, Query, StoreError,
    StreamBounds, StreamId, StreamVersion, Timestamp,
};
use rusqlite::{Connection, Row};

use crate::{
    cache::{Cache, Snapshot},
    error::Result,
    names::Kind,
    number::{signed, unsigned},
    posting, sql,
};

/// The looks into the index in one step of a precheck: some tenths of a second, during which a
/// snapshot is held.
const STEP_LOOKS: usize = 1 << 17;

/// The state right before a group.
#[derive(Debug)]
pub(crate) struct LogFacts<'t> {
    pub(crate) connection: &'t Connection,
    pub(crate) cache: &'t mut Cache,
    pub(crate) prechecks: &'t Prechecks,
}

/// The first match of a query from a position on.
fn first_match(
    connection: &Connection,
    query: &Query,
    first: u64,
    find: impl FnMut(Kind, &str) -> Result<Option<i64>>,
    looks: &mut usize,
) -> Result<Looked> {
    let walk = Walk { from: first, direction: Direction::Forward };
    let mut matches = posting::of_query(connection, query, walk, find)?;
    Ok(match matches.seek(first, looks)? {
        Some(Candidate::Match(position)) => Looked::Found(Position::new(position)),
        Some(Candidate::Paused(position)) => Looked::Paused(Position::new(position - 1)),
        None => Looked::Clear,
    })
}

/// Continues the precheck of a batch's conditions, on a reader's connection.
pub(crate) fn precheck(
    connection: &Connection,
    batch: &AppendBatch,
    mut precheck: Precheck,
) -> Result<Precheck> {
    let head = Snapshot::read(connection)?.head;
    let mut looks = STEP_LOOKS;
    precheck.step(batch, head, |condition, after| {
        let find = |kind: Kind, name: &str| kind.find(connection, name);
        let query = &condition.fail_if_events_match;
        first_match(connection, query, after.value().saturating_add(1), find, &mut looks)
    })?;
    Ok(precheck)
}

impl Facts for LogFacts<'_> {
    fn bounds(&mut self, stream: &StreamId) -> std::result::Result<StreamBounds, StoreError> {
        let found = self.cache.stream(self.connection, stream);
        let entry = found.map_err(|fault| fault.in_file(self.connection))?;
        Ok(entry.map_or_else(StreamBounds::default, |entry| entry.bounds))
    }

    fn first_match(
        &mut self,
        condition: &AppendCondition,
    ) -> std::result::Result<Option<Position>, StoreError> {
        self.matching(condition).map_err(|fault| fault.in_file(self.connection))
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> std::result::Result<Vec<FoundEvent>, StoreError> {
        self.found(stream, ids, span).map_err(|fault| fault.in_file(self.connection))
    }

    fn are_erased(&mut self, positions: ErasedRange) -> std::result::Result<bool, StoreError> {
        self.is_erased(positions).map_err(|fault| fault.in_file(self.connection))
    }
}

impl LogFacts<'_> {
    fn matching(&mut self, condition: &AppendCondition) -> Result<Option<Position>> {
        let Self { connection, cache, prechecks } = self;
        let first = prechecks.after(condition).next();
        // Most often the precheck has looked at all of it, and not even the names must be looked
        // up.
        if first > cache.snapshot(connection)?.head {
            return Ok(None);
        }
        let find = |kind, name: &str| match kind {
            Kind::Type => cache.types.find(connection, name),
            Kind::Tag => cache.tags.find(connection, name),
            Kind::Category => kind.find(connection, name),
        };
        let mut looks = usize::MAX;
        let query = &condition.fail_if_events_match;
        match first_match(connection, query, first.value(), find, &mut looks)? {
            Looked::Found(position) => Ok(Some(position)),
            Looked::Clear => Ok(None),
            Looked::Paused(_) => unreachable!("the looks are without end"),
        }
    }

    fn found(&mut self, stream: &StreamId, ids: &[EventId], span: Span) -> Result<Vec<FoundEvent>> {
        let Some(entry) = self.cache.stream(self.connection, stream)? else {
            return Ok(Vec::new());
        };
        let mut statement = self.connection.prepare_cached(sql::FIND_IDS)?;
        let mut rows = statement.query([entry.number, signed(span.last.value())])?;
        let mut found = Vec::new();
        // From the newest event on: the span is short, but the stream may be long.
        while let Some(row) = rows.next()? {
            let event = found_event(row)?;
            if span.is_before(&event) {
                break;
            }
            if ids.contains(&event.id) {
                found.push(event);
            }
        }
        Ok(found)
    }

    fn is_erased(&self, ErasedRange { first, last }: ErasedRange) -> Result<bool> {
        let mut event = self.connection.prepare_cached(sql::EVENT_BETWEEN)?;
        Ok(!event.exists([signed(first.value()), signed(last.value())])?)
    }
}

fn found_event(row: &Row<'_>) -> rusqlite::Result<FoundEvent> {
    Ok(FoundEvent {
        id: EventId::new(uuid::Uuid::from_bytes(row.get(0)?)),
        position: Position::new(unsigned(row.get(1)?)),
        version: StreamVersion::new(unsigned(row.get(2)?)),
        recorded_at: Timestamp::from_micros(unsigned(row.get(3)?)),
    })
}
