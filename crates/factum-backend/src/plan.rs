//! The planning of a group: which members may be stored, and at which positions.
//!
//! Planning is pure: facts in, plan out. It resolves one member after another, against the store's
//! facts and the events of the members before it. The outcomes are therefore the same as if the
//! members were appended one by one.

use std::iter;

use factum_kernel::{
    AppendBatch, AppendCondition, AppendError, Appended, ErasedRange, EventHeader, EventId,
    ExpectedVersion, NewEvent, Position, StoreError, StreamBounds, StreamId, Timestamp, Versions,
};
use hashbrown::HashMap;

use crate::{
    facts::{Facts, FoundEvent},
    index::EventIndex,
    retry,
};

/// The end of the log before the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The last position.
    pub head: Position,
    /// The time of the last event.
    pub last_at: Timestamp,
    /// The time of the store's clock.
    pub now: Timestamp,
}

impl LogEnd {
    /// The time of the group's events: the clock's, but never before the log's last event.
    pub fn recorded_at(&self) -> Timestamp {
        self.now.max(self.last_at)
    }
}

/// An event of a group, with everything that the store writes.
#[derive(Debug, Clone, Copy)]
pub struct PlannedEvent<'g> {
    /// The position, the version, the time and the other fields of fixed size.
    pub header: EventHeader,
    /// The stream that it is appended to.
    pub stream: &'g StreamId,
    /// The content of the event.
    pub event: &'g NewEvent,
}

/// The events of a group to store, and the answers to its members after that.
#[derive(Debug)]
#[must_use]
pub struct GroupPlan<'g> {
    /// The events to store, in the order of their positions, without gaps.
    pub events: Vec<PlannedEvent<'g>>,
    /// One outcome per member, in order. Return them only after the events are durable.
    pub outcomes: Vec<Result<Appended, AppendError>>,
    /// The last position once the events are stored. Every event of a deletion in the group erases
    /// what its stream had before it; see [`deletions`](Self::deletions).
    pub head: Position,
}

/// Returns whether a batch must be the last of its group: one that deletes. The facts that a store
/// gives describe the log before the group, so they are wrong about what a member has erased.
pub fn ends_group(batch: &AppendBatch) -> bool {
    batch.deletions().next().is_some()
}

/// Plans a group of batches whose limits were checked. A batch that [ends the group](ends_group)
/// must be the last.
///
/// # Errors
/// Those of the facts. No member can be answered then.
pub fn plan_group<'g>(
    batches: impl IntoIterator<Item = &'g AppendBatch>,
    end: LogEnd,
    facts: &mut dyn Facts,
) -> Result<GroupPlan<'g>, StoreError> {
    let batches = batches.into_iter();
    let (batches_min, _) = batches.size_hint();
    let mut planner = Planner::new(end, facts, batches_min);
    let mut outcomes = Vec::with_capacity(batches_min);
    let mut ends = false;
    for batch in batches {
        assert!(!ends, "a batch with a deletion is the last of its group");
        ends = ends_group(batch);
        outcomes.push(planner.offer(batch)?);
    }
    let head = planner.head();
    let plan = GroupPlan { events: planner.events, outcomes, head };
    plan.assert_sound(end);
    Ok(plan)
}

impl<'g> GroupPlan<'g> {
    /// The events of deletions. When a store shows one, all older events of its stream are erased,
    /// those of the same group included, and the stream's bounds say so.
    pub fn deletions(&self) -> impl Iterator<Item = &PlannedEvent<'g>> {
        self.events.iter().filter(|planned| planned.event.is_deletion())
    }
    /// Asserts that answers and events fit, because different parts of the store use them.
    fn assert_sound(&self, end: LogEnd) {
        let mut answered = end.head;
        let stored = self.outcomes.iter().flatten().filter(|appended| !appended.replayed);
        for Appended { first, last, .. } in stored {
            assert_eq!(*first, answered.next(), "answers go on where the one before ends");
            answered = *last;
        }
        assert_eq!(answered, self.head, "every planned event is answered for");
        let last = self.events.last().map_or(end.head, |planned| planned.header.position);
        assert_eq!(last, self.head, "positions go on after the head");
        debug_assert!(self.is_gapless(end), "positions and versions are gapless");
    }

    fn is_gapless(&self, end: LogEnd) -> bool {
        let mut versions = HashMap::new();
        self.events.iter().zip(1..).all(|(PlannedEvent { header, stream, event }, nth)| {
            let before = versions.insert(*stream, header.version);
            header.position == end.head.plus(nth)
                && header.id == event.id
                && before.is_none_or(|before| before.next() == header.version)
        })
    }
}

/// The streams that a batch writes, checks or deletes, with the version that each must have. A
/// deletion needs something to delete, whatever version it expects.
pub fn expectations(batch: &AppendBatch) -> impl Iterator<Item = (&StreamId, ExpectedVersion)> {
    let written = batch.writes().iter().map(|write| (&write.stream, write.expected));
    let checked = batch.checks().iter().map(|check| (&check.stream, check.expected));
    let deleted = batch.deletions().map(|stream| (stream, ExpectedVersion::StreamExists));
    written.chain(checked).chain(deleted)
}

type Outcome = Result<Appended, AppendError>;

pub(crate) struct Planner<'g, 'f> {
    pub(crate) end: LogEnd,
    pub(crate) facts: &'f mut dyn Facts,
    pub(crate) events: Vec<PlannedEvent<'g>>,
    /// The bounds of streams after the members so far.
    streams: HashMap<&'g StreamId, StreamBounds>,
    /// The last planned event with each id and stream, filled only as far as was asked.
    ids: HashMap<(EventId, &'g StreamId), usize>,
    /// The planned event before this one with the same id and stream, if there is one.
    earlier: HashMap<usize, usize>,
    ids_known: usize,
    /// The planned events by type and tag, filled only as far as a condition asked.
    index: EventIndex<'g>,
}

impl<'g, 'f> Planner<'g, 'f> {
    fn new(end: LogEnd, facts: &'f mut dyn Facts, batches: usize) -> Self {
        let events = Vec::with_capacity(batches);
        let ids = HashMap::new();
        let earlier = HashMap::new();
        let streams = HashMap::with_capacity(batches);
        let index = EventIndex::default();
        Self { end, facts, events, streams, ids, earlier, ids_known: 0, index }
    }

    fn head(&self) -> Position {
        self.end.head.plus(self.events.len() as u64)
    }

    fn offer(&mut self, batch: &'g AppendBatch) -> Result<Outcome, StoreError> {
        if let Err(error) = retry::check_clock(batch, self.end.now) {
            return Ok(Err(error.into()));
        }
        if batch.is_repeated() {
            match retry::find(self, batch)? {
                retry::Finding::Stored(appended) => return Ok(Ok(appended)),
                retry::Finding::Refused(error) => return Ok(Err(error.into())),
                retry::Finding::Unknown => {}
            }
        }
        let Some(obstacle) = self.obstacle(batch)? else { return Ok(self.accept(batch)) };
        if !batch.is_repeated() {
            // A writer that lost an answer may repeat a batch without marking it as repeated.
            match retry::find(self, batch)? {
                retry::Finding::Stored(appended) => return Ok(Ok(appended)),
                retry::Finding::Refused(error) => return Ok(Err(error.into())),
                retry::Finding::Unknown => {}
            }
        }
        Ok(Err(obstacle))
    }

    /// The reason why the batch can't be stored, if there is one.
    fn obstacle(&mut self, batch: &'g AppendBatch) -> Result<Option<AppendError>, StoreError> {
        for (stream, expected) in expectations(batch) {
            if let Some(conflict) = self.bounds(stream)?.conflict(stream, expected) {
                return Ok(Some(conflict.into()));
            }
        }
        for (condition, wanted) in batch.conditions().iter().enumerate() {
            if let Some(position) = self.first_match(wanted)? {
                return Ok(Some(AppendError::ConditionFailed { condition, position }));
            }
        }
        Ok(None)
    }

    pub(crate) fn bounds(&mut self, stream: &'g StreamId) -> Result<StreamBounds, StoreError> {
        if let Some(bounds) = self.streams.get(stream) {
            return Ok(*bounds);
        }
        let bounds = self.facts.bounds(stream)?;
        self.streams.insert(stream, bounds);
        Ok(bounds)
    }

    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError> {
        if condition.after < self.end.head
            && let Some(position) = self.facts.first_match(condition)?
        {
            return Ok(Some(position));
        }
        for planned in &self.events[self.index.len()..] {
            self.index.push(planned.header.position, planned.event);
        }
        Ok(self.index.first_match(&condition.fail_if_events_match, condition.after))
    }

    fn accept(&mut self, batch: &'g AppendBatch) -> Outcome {
        let first = self.head().next();
        let count = batch.event_count();
        if Position::MAX.value() - first.value() < count as u64 {
            return Err(StoreError::invalid("the log is full").into());
        }
        let recorded_at = self.end.recorded_at();
        let versions = batch.writes().iter().map(|write| {
            let bounds = self.streams.get_mut(&write.stream).expect("looked up for its conflict");
            for event in &write.events {
                *bounds = match event.is_deletion() {
                    true => bounds.deleted(),
                    false => StreamBounds { version: bounds.version.next(), ..*bounds },
                };
                let header = EventHeader {
                    position: self.end.head.plus(self.events.len() as u64 + 1),
                    version: bounds.version,
                    recorded_at,
                    id: event.id,
                    schema_version: event.schema_version,
                    content: event.content,
                };
                self.events.push(PlannedEvent { header, stream: &write.stream, event });
            }
            bounds.version
        });
        let versions: Versions = versions.collect();
        Ok(Appended::new(first, versions, recorded_at).with_events(count))
    }

    /// The events of a stream with this id that earlier members of the group have, the last first:
    /// all of them, as the store finds all.
    pub(crate) fn planned(&mut self, id: EventId, stream: &'g StreamId) -> Vec<FoundEvent> {
        for (index, planned) in self.events.iter().enumerate().skip(self.ids_known) {
            if let Some(before) = self.ids.insert((planned.event.id, planned.stream), index) {
                self.earlier.insert(index, before);
            }
        }
        self.ids_known = self.events.len();
        let last = self.ids.get(&(id, stream)).copied();
        let indices = iter::successors(last, |index| self.earlier.get(index).copied());
        let found = indices.map(|index| {
            let EventHeader { position, version, recorded_at, .. } = self.events[index].header;
            FoundEvent { id, position, version, recorded_at }
        });
        found.collect()
    }

    /// Returns whether every event at these positions was erased. Events of the group are not.
    pub(crate) fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError> {
        Ok(positions.last <= self.end.head && self.facts.are_erased(positions)?)
    }
}

#[cfg(test)]
mod tests;
