//! What the planning of a group asks, answered inside the group's transaction.

use factum_backend::{Facts, FoundEvent, Span};
use factum_core::{
    AppendCondition, Direction, ErasedRange, EventId, Position, StoreError, StreamBounds, StreamId,
    StreamVersion, Timestamp,
};
use rusqlite::{Connection, Row};

use crate::{
    cache::Cache,
    error::Result,
    names::Kind,
    number::{signed, unsigned},
    posting::{Candidate, Matches},
    sql,
};

/// The state that a group will be stored behind.
#[derive(Debug)]
pub(crate) struct LogFacts<'t> {
    pub(crate) connection: &'t Connection,
    pub(crate) cache: &'t mut Cache,
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
        let Self { connection, cache } = self;
        let find = |kind, name: &str| match kind {
            Kind::Type => cache.types.find(connection, name),
            Kind::Tag => cache.tags.find(connection, name),
            Kind::Category => kind.find(connection, name),
        };
        let query = &condition.fail_if_events_match;
        let mut matches = Matches::of_query(query, Direction::Forward, usize::MAX, find)?;
        let first = condition.after.value().saturating_add(1);
        Ok(match matches.seek(connection, first)? {
            Some(Candidate::Match(position)) => Some(Position::new(position)),
            Some(Candidate::Paused(_)) => unreachable!("the budget is without end"),
            None => None,
        })
    }

    fn found(&mut self, stream: &StreamId, ids: &[EventId], span: Span) -> Result<Vec<FoundEvent>> {
        let Some(entry) = self.cache.stream(self.connection, stream)? else {
            return Ok(Vec::new());
        };
        let mut statement = self.connection.prepare_cached(sql::FIND_IDS)?;
        let mut rows = statement.query([entry.number, signed(span.last.value())])?;
        let mut found = Vec::new();
        // From the newest on: the span is short, the stream may be long.
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
        let mut is_erased = self.connection.prepare_cached(sql::IS_ERASED)?;
        let positions = [signed(first.value()), signed(last.value())];
        Ok(is_erased.query_row(positions, |row| row.get(0))?)
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
