//! The answers of the log to the planning of a group.

use factum_backend::{Facts, FoundEvent, Span, Walk};
use factum_kernel::{
    AppendCondition, Direction, ErasedRange, EventId, Position, Retention, Scope, StoreError,
    StreamBounds, StreamId, StreamVersion,
};
use hashbrown::HashMap;

use crate::{
    log::{Log, Taken, View},
    read::{CandidateQuery, candidates},
    record::StreamState,
};

/// The number of events that the search for a repeated batch looks at together.
const SEARCH_STEP: usize = 64;

/// The answers of the log to the planning of a group.
#[derive(Debug)]
pub(crate) struct LogFacts<'l> {
    pub(crate) log: &'l Log,
    pub(crate) view: &'l View,
    /// The states of streams that the active segment has nothing of yet.
    pub(crate) streams: HashMap<StreamId, StreamState>,
    /// True if a stream that was asked for has a retention.
    pub(crate) has_retention: bool,
}

impl<'l> LogFacts<'l> {
    pub(crate) fn new(log: &'l Log, view: &'l View) -> Self {
        Self { log, view, streams: HashMap::new(), has_retention: false }
    }

    /// The state of a stream before the group.
    pub(crate) fn state(&mut self, stream: &StreamId) -> Result<StreamState, StoreError> {
        // The lock is released before anything else is asked: it must not be taken twice.
        let active = self.view.tables.active().read().state(stream.as_str());
        let state = match active {
            Some(state) => state,
            None => self.older_state(stream)?,
        };
        self.has_retention |= state.retention != Retention::default();
        Ok(state)
    }

    fn older_state(&mut self, stream: &StreamId) -> Result<StreamState, StoreError> {
        if let Some(state) = self.streams.get(stream) {
            return Ok(*state);
        }
        let state = self.view.tables.state(&self.log.cache, stream.as_str())?;
        self.streams.insert(stream.clone(), state);
        Ok(state)
    }
}

impl Facts for LogFacts<'_> {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        self.state(stream).map(|state| state.bounds)
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        let from = self.log.prechecks.after(condition).value().saturating_add(1);
        // Most often the precheck has looked at all of it.
        if from > self.view.head {
            return Ok(None);
        }
        let scope = Scope::Query(condition.fail_if_events_match.clone());
        let walk = Walk { from, direction: Direction::Forward };
        let query = CandidateQuery { scope: &scope, walk, positions_max: 1 };
        let mut looks = usize::MAX;
        let found = candidates(self.log, self.view, &query, &mut looks)?;
        Ok(found.positions.first().map(|position| Position::new(*position)))
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        let bounds = self.state(stream)?.bounds;
        let tables = &self.view.tables;
        let cache = &self.log.cache;
        let mut found = Vec::new();
        let mut from = bounds.version.min(span.last).value();
        // The search ignores erased events. The kept versions have no gaps.
        let before = bounds.erased_through.max(span.first.previous()).value();
        while from > before {
            let left = usize::try_from(from - before).unwrap_or(usize::MAX);
            let limit = left.min(SEARCH_STEP);
            let positions = tables.stream_positions(
                cache,
                stream.as_str(),
                from,
                Direction::Backward,
                limit,
            )?;
            let older =
                self.log.read_events(self.view, &positions, Direction::Backward, |event, _| {
                    let event = found_event(&event.header);
                    if span.is_before(&event) {
                        return Ok(Taken::Full);
                    }
                    if ids.contains(&event.id) {
                        found.push(event);
                    }
                    Ok(Taken::More)
                })?;
            if older.is_some() || positions.len() < limit {
                break;
            }
            from -= positions.len() as u64;
        }
        Ok(found)
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        let first = positions.first.value();
        let last = positions.last.value();
        Ok(self.view.erased.count(first, last) == last - first + 1)
    }
}

fn found_event(header: &factum_kernel::EventHeader) -> FoundEvent {
    FoundEvent {
        id: header.id,
        position: header.position,
        version: StreamVersion::new(header.version.value()),
        recorded_at: header.recorded_at,
    }
}

#[cfg(test)]
mod tests;
