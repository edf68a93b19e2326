//! The writing half: facts for the plan, and the plan into the log.

use std::sync::{Arc, RwLock};

use factum_backend::{
    Commit, CommitDelay, CommitError, Committed, Facts, FoundEvent, LogEnd, Looked, Precheck,
    Prechecks, Span, delay_commit, plan_group,
};
use factum_kernel::{
    AppendBatch, AppendCondition, Clock, ErasedRange, EventId, Position, RecordedEvent, StoreError,
    StreamBounds, StreamId,
};

use crate::{change, log::Log};

/// The writer's half, owned by the writer's thread: no other thread writes.
pub(crate) struct Committer {
    pub(crate) log: Arc<RwLock<Log>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commit_delay: Option<CommitDelay>,
    pub(crate) prechecks: Arc<Prechecks>,
}

impl Commit for Committer {
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError> {
        let now = self.clock.now();
        let plan = {
            let log = self.log.read().expect("no holder of the lock panics");
            let end = LogEnd { head: log.head(), last_at: log.last_at, now };
            plan_group(batches, end, &mut LogFacts { log: &log, prechecks: &self.prechecks })?
        };
        delay_commit(self.commit_delay.as_ref());
        let mut log = self.log.write().expect("no holder of the lock panics");
        for planned in &plan.events {
            let event =
                RecordedEvent::from_new(planned.header, planned.stream.as_ref(), planned.event);
            log.push(planned.stream, event);
        }
        plan.deletions().for_each(|deletion| change::delete(&mut log, deletion));
        for planned in &plan.events {
            change::retain(&mut log, planned.stream, now);
        }
        Ok(Committed { outcomes: plan.outcomes, head: plan.head })
    }
}

struct LogFacts<'a> {
    log: &'a Log,
    prechecks: &'a Prechecks,
}

/// The first match of a condition after a position, among at most this many events.
fn first_match(
    log: &Log,
    condition: &AppendCondition,
    after: Position,
    events_max: usize,
) -> Looked {
    let behind = usize::try_from(after.value()).unwrap_or(usize::MAX);
    let query = &condition.fail_if_events_match;
    let mut events = log.slots.iter().skip(behind).take(events_max).flatten();
    let last = Position::new(after.value().saturating_add(events_max as u64));
    match events.find(|event| query.matches(event.name(), event.tags())) {
        Some(found) => Looked::Found(found.position()),
        None if last < log.head() => Looked::Paused(last),
        None => Looked::Clear,
    }
}

/// The work of one step of a precheck: the number of events times the items of a query.
const STEP_LOOKS: usize = 1 << 14;

/// Takes one step of the precheck of a batch's conditions.
pub(crate) fn precheck(log: &Log, batch: &AppendBatch, precheck: &mut Precheck) {
    let mut looks = STEP_LOOKS;
    let look = |condition: &AppendCondition, after: Position| {
        let items = condition.fail_if_events_match.items().len().max(1);
        let events_max = (looks / items).max(1);
        let looked = first_match(log, condition, after, events_max);
        let seen = usize::try_from(log.head().value() - after.value()).unwrap_or(usize::MAX);
        looks = looks.saturating_sub(seen.min(events_max) * items);
        Ok::<_, std::convert::Infallible>(looked)
    };
    match precheck.step(batch, log.head(), look) {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

impl Facts for LogFacts<'_> {
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError> {
        Ok(self.log.bounds(stream))
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        Ok(match first_match(self.log, condition, self.prechecks.after(condition), usize::MAX) {
            Looked::Found(position) => Some(position),
            Looked::Clear | Looked::Paused(_) => None,
        })
    }

    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError> {
        let Some(stream) = self.log.streams.get(stream) else { return Ok(Vec::new()) };
        let events = stream.kept_through(span.last).iter().rev();
        let found =
            events.filter_map(|position| self.log.event(*position)).map(|event| FoundEvent {
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
        Ok(positions.all(|position| self.log.event(Position::new(position)).is_none()))
    }
}
