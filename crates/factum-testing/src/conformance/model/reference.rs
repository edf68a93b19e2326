//! The model: a log, as simple as possible.

use std::collections::BTreeMap;

use factum_kernel::{
    AppendBatch, AppendError, Appended, Direction, EventHeader, EventId, ExpectedVersion, Position,
    ReadQuery, RecordedEvent, StreamChange, StreamId, StreamInfo, StreamVersion, StreamWrite,
    Timestamp, VersionConflict, Versions,
};

use super::super::{trial::stream, walk::is_meant};

/// An obstacle to storing a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Obstacle {
    Version(VersionConflict),
    Condition { condition: usize, positions: Vec<Position> },
}

impl Obstacle {
    /// Returns whether a store that met this obstacle may answer with this error.
    pub(super) fn explains(&self, error: &AppendError) -> bool {
        match (self, error) {
            (Self::Version(met), AppendError::Conflict(said)) => met == said,
            (
                Self::Condition { condition, positions },
                AppendError::ConditionFailed { condition: said, position },
            ) => condition == said && positions.contains(position),
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Reference {
    /// One entry for each position; `None` if it is erased.
    log: Vec<Option<RecordedEvent>>,
    streams: BTreeMap<StreamId, StreamInfo>,
    /// The answers to stored batches, by the first event's id.
    answers: BTreeMap<EventId, Appended>,
}

impl Reference {
    pub(super) fn head(&self) -> Position {
        Position::new(self.log.len() as u64)
    }

    fn kept(&self) -> impl DoubleEndedIterator<Item = &RecordedEvent> {
        self.log.iter().flatten()
    }

    pub(super) fn info(&self, id: &str) -> StreamInfo {
        let id = stream(id);
        let mut kept = self.kept().filter(|event| event.stream() == id);
        let first = kept.next();
        let last = kept.next_back().or(first);
        let info = self.streams.get(&id).copied().unwrap_or_default();
        info.with_times(first.map(RecordedEvent::recorded_at), last.map(RecordedEvent::recorded_at))
    }

    pub(super) fn read(&self, query: &ReadQuery) -> impl Iterator<Item = &RecordedEvent> {
        let meant = |event: &&RecordedEvent| is_meant(query, event);
        let mut events: Vec<_> = self.kept().filter(meant).collect();
        if query.direction == Direction::Backward {
            events.reverse();
        }
        events.into_iter()
    }

    pub(super) fn obstacles(&self, batch: &AppendBatch) -> Vec<Obstacle> {
        let written = batch.writes().iter().map(|write| (&write.stream, write.expected));
        let checked = batch.checks().iter().map(|check| (&check.stream, check.expected));
        let deleted = batch.deletions().map(|stream| (stream, ExpectedVersion::StreamExists));
        let versions = written.chain(checked).chain(deleted).filter_map(|(stream, expected)| {
            let bounds = self.info(stream.as_str()).bounds;
            let seen = match expected {
                ExpectedVersion::Exact(version) => version,
                _ => StreamVersion::ZERO,
            };
            let conflict = VersionConflict {
                stream: stream.clone(),
                expected,
                actual: bounds.version,
                deleted_at: Some(bounds.deleted_at).filter(|deleted_at| *deleted_at > seen),
            };
            (!bounds.matches(expected)).then_some(Obstacle::Version(conflict))
        });
        let conditions = batch.conditions().iter().enumerate().filter_map(|(condition, wanted)| {
            let query = &wanted.fail_if_events_match;
            let hits = self.kept().filter(|event| {
                event.position() > wanted.after && query.matches(event.name(), event.tags())
            });
            let positions: Vec<_> = hits.map(RecordedEvent::position).collect();
            (!positions.is_empty()).then_some(Obstacle::Condition { condition, positions })
        });
        versions.chain(conditions).collect()
    }

    /// Stores a batch, and returns the right answer.
    pub(super) fn store(&mut self, batch: &AppendBatch, recorded_at: Timestamp) -> Appended {
        let first = self.head().next();
        let mut versions = vec![];
        for write in batch.writes() {
            for new in &write.events {
                let info = self.streams.entry(write.stream.clone()).or_default();
                info.bounds.version = info.bounds.version.next();
                let header = EventHeader {
                    position: Position::new(self.log.len() as u64 + 1),
                    version: info.bounds.version,
                    recorded_at,
                    id: new.id,
                    schema_version: new.schema_version,
                    content: new.content,
                };
                let event = RecordedEvent::from_new(header, write.stream.as_ref(), new);
                self.log.push(Some(event));
                if new.is_deletion() {
                    self.delete(&write.stream);
                }
            }
            versions.push(self.info(write.stream.as_str()).bounds.version);
            self.apply_retention(&write.stream);
        }
        let answer =
            Appended::new(first, versions.into(), recorded_at).with_events(batch.event_count());
        self.answers.insert(first_id(batch), answer.clone());
        answer
    }

    /// The answer to the batch when it was stored, if it was.
    pub(super) fn answer(&self, batch: &AppendBatch) -> Option<Appended> {
        self.answers.get(&first_id(batch)).cloned()
    }

    fn is_kept(&self, id: EventId) -> bool {
        self.kept().any(|event| event.id() == id)
    }

    /// Returns whether it was stored and nothing of it is left.
    pub(super) fn is_erased(&self, batch: &AppendBatch) -> bool {
        self.answer(batch).is_some() && !batch.events().any(|event| self.is_kept(event.id))
    }

    /// Returns whether events that came after an expected version are erased, so that a store can't
    /// tell whether the batch was stored.
    pub(super) fn may_be_erased(&self, batch: &AppendBatch) -> bool {
        batch.writes().iter().any(|write| {
            let erased = self.info(write.stream.as_str()).bounds.erased_through;
            match write.expected {
                ExpectedVersion::Exact(expected) => erased > expected,
                ExpectedVersion::NoStream => erased > StreamVersion::ZERO,
                ExpectedVersion::Any | ExpectedVersion::StreamExists => false,
            }
        })
    }

    /// The versions of the first answer. For a stream without an expected version in which nothing
    /// of the batch is left, the version is no longer known, and the repeated answer's is taken.
    pub(super) fn versions_left(
        &self,
        batch: &AppendBatch,
        first: &Versions,
        again: &Versions,
    ) -> Versions {
        let is_known = |write: &StreamWrite| {
            let expected =
                matches!(write.expected, ExpectedVersion::Exact(_) | ExpectedVersion::NoStream);
            expected || write.events.iter().any(|event| self.is_kept(event.id))
        };
        let both = first.iter().zip(again.iter()).zip(batch.writes());
        both.map(|((first, again), write)| if is_known(write) { *first } else { *again }).collect()
    }

    /// Makes a change that [`StreamChange::check`] found possible.
    pub(super) fn change(&mut self, id: &str, change: StreamChange) {
        let id = stream(id);
        match change {
            StreamChange::Retain(retention) => {
                self.streams.entry(id.clone()).or_default().retention = retention;
                self.apply_retention(&id);
            }
            StreamChange::TruncateBefore(first) => self.erase(&id, first.previous()),
            other => unreachable!("steps have no such change: {other:?}"),
        }
    }

    /// Erases all that is before a deletion, whose own event is the stream's last.
    fn delete(&mut self, id: &StreamId) {
        let version = self.info(id.as_str()).bounds.version;
        self.erase(id, version.previous());
        if let Some(info) = self.streams.get_mut(id) {
            info.bounds.deleted_at = version;
        }
    }

    fn apply_retention(&mut self, id: &StreamId) {
        let info = self.info(id.as_str());
        let kept = self.kept().filter(|event| event.stream() == *id).count() as u64;
        let Some(most) = info.retention.events_max else { return };
        if kept > most {
            self.erase(id, StreamVersion::new(info.bounds.version.value() - most));
        }
    }

    fn erase(&mut self, id: &StreamId, through: StreamVersion) {
        for slot in &mut self.log {
            slot.take_if(|event| event.stream() == *id && event.version() <= through);
        }
        if let Some(info) = self.streams.get_mut(id) {
            info.bounds.erased_through = info.bounds.erased_through.max(through);
        }
    }
}

fn first_id(batch: &AppendBatch) -> EventId {
    batch.events().next().expect("a step's batch holds events").id
}
