//! The writing half: facts for the plan, and the plan into the log.

use std::sync::{Arc, RwLock};

use factum_backend::{
    Commit, CommitDelay, CommitError, Committed, Facts, FoundEvent, LogEnd, Span, hold, plan_group,
};
use factum_core::{
    AppendBatch, AppendCondition, Clock, ErasedRange, EventId, Position, RecordedEvent, StoreError,
    StreamBounds, StreamId,
};

use crate::{change, log::Log};

/// Owned by the writer's thread: nobody else writes.
pub(crate) struct Committer {
    pub(crate) log: Arc<RwLock<Log>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commit_delay: Option<CommitDelay>,
}

impl Commit for Committer {
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError> {
        let now = self.clock.now();
        let plan = {
            let log = self.log.read().expect("no holder of the lock panics");
            let end = LogEnd { head: log.head(), last_at: log.last_at, now };
            plan_group(batches, end, &mut LogFacts(&log))?
        };
        hold(self.commit_delay.as_ref());
        let mut log = self.log.write().expect("no holder of the lock panics");
        for planned in &plan.events {
            let event =
                RecordedEvent::from_new(planned.header, planned.stream.as_ref(), planned.event);
            log.push(planned.stream, event);
        }
        for planned in &plan.events {
            change::retain(&mut log, planned.stream, now);
        }
        Ok(Committed { outcomes: plan.outcomes, head: plan.head })
    }
}

struct LogFacts<'a>(&'a Log);

impl Facts for LogFacts<'_> {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        Ok(self.0.bounds(stream))
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        let behind = usize::try_from(condition.after.value()).unwrap_or(usize::MAX);
        let query = &condition.fail_if_events_match;
        let mut events = self.0.slots.iter().skip(behind).flatten();
        Ok(events.find(|e| query.matches(e.name(), e.tags())).map(RecordedEvent::position))
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        let Some(stream) = self.0.streams.get(stream) else { return Ok(Vec::new()) };
        let events = stream.kept_through(span.last).iter().rev();
        let found = events.filter_map(|position| self.0.event(*position)).map(|event| FoundEvent {
            id: event.id(),
            position: event.position(),
            version: event.version(),
            recorded_at: event.recorded_at(),
        });
        let inside = found.take_while(|event| !span.is_before(event));
        Ok(inside.filter(|event| ids.contains(&event.id)).collect())
    }

    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        let mut positions = positions.first.value()..=positions.last.value();
        Ok(positions.all(|position| self.0.event(Position::new(position)).is_none()))
    }
}
