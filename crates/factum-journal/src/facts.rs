//! What the planning of a group asks of the log.

use factum_backend::{Facts, FoundEvent};
use factum_core::{
    AppendCondition, Direction, EventId, Position, Retention, Scope, StoreError, StreamBounds,
    StreamId, StreamVersion, Timestamp,
};
use hashbrown::HashMap;

use crate::{
    log::{Log, Taken, View},
    read::candidates,
    record::StreamState,
};

/// Events that are looked at together in the search for a repeated batch.
const SEARCH_STEP: usize = 64;

/// What the planning of a group asks of the log.
#[derive(Debug)]
pub(crate) struct LogFacts<'l> {
    pub(crate) log: &'l Log,
    pub(crate) view: &'l View,
    /// How streams are of which the active segment has nothing yet.
    pub(crate) streams: HashMap<StreamId, StreamState>,
    /// Whether any stream that was asked for is kept in part only.
    pub(crate) has_retention: bool,
}

impl<'l> LogFacts<'l> {
    pub(crate) fn new(log: &'l Log, view: &'l View) -> Self {
        Self { log, view, streams: HashMap::new(), has_retention: false }
    }

    /// How a stream is before the group.
    pub(crate) fn state(&mut self, stream: &StreamId) -> Result<StreamState, StoreError> {
        // Let go before anything else is asked: the lock must not be taken twice.
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
        let scope = Scope::Query(condition.fail_if_events_match.clone());
        let mut from = condition.after.value().saturating_add(1);
        loop {
            let at = (from, Direction::Forward);
            let found = candidates(self.log, self.view, &scope, at, 1)?;
            if let Some(position) = found.positions.first() {
                return Ok(Some(Position::new(*position)));
            }
            let Some(through) = found.through else { return Ok(None) };
            from = through + 1;
        }
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        since: Timestamp,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        let bounds = self.state(stream)?.bounds;
        let (tables, cache) = (&self.view.tables, &self.log.cache);
        let (mut found, mut from) = (Vec::new(), bounds.version.value());
        // What is erased is forgotten; what is kept has no jump in its versions.
        while from > bounds.erased_through.value() {
            let left = usize::try_from(from - bounds.erased_through.value()).unwrap_or(usize::MAX);
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
                    if event.header.recorded_at < since {
                        return Ok(Taken::Full);
                    }
                    if ids.contains(&event.header.id) {
                        found.push(found_event(&event.header));
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
}

fn found_event(header: &factum_core::EventHeader) -> FoundEvent {
    FoundEvent {
        id: header.id,
        position: header.position,
        version: StreamVersion::new(header.version.value()),
        recorded_at: header.recorded_at,
    }
}

#[cfg(test)]
mod tests;
