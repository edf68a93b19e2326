//! The toy's log, and its changes by appends and other changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, EventHeader, ExpectedVersion, Lineage,
    NewEvent, Position, Query, RETRY_WINDOW, RecordedEvent, Retention, StoreError, StreamBounds,
    StreamChange, StreamId, StreamInfo, StreamVersion, StreamWrite, Timestamp, VersionConflict,
};

use super::{Flaw, STEP};

/// The number of items of a condition that a flawed toy searches for.
const FEW_ITEMS: usize = 32;

/// The content of a position.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    Event(RecordedEvent),
    /// Erased, but a flaw may still look at it.
    Erased(RecordedEvent),
    /// Taken by a flaw.
    Hole,
}

/// An event of a batch: its index in the batch, and the position at which the batch begins if it
/// was stored with it.
struct Found<'l> {
    first: u64,
    place: u64,
    event: &'l RecordedEvent,
}

#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) slots: Vec<Slot>,
    pub(super) lineage: Lineage,
    pub(super) streams: BTreeMap<StreamId, StreamInfo>,
    /// Flawed: tags that had no event left at some time.
    pub(super) gone_tags: BTreeSet<String>,
    last_time: Timestamp,
}

impl Log {
    pub(super) fn new(lineage: Lineage) -> Self {
        Self {
            slots: vec![],
            lineage,
            streams: BTreeMap::new(),
            gone_tags: BTreeSet::new(),
            last_time: Timestamp::EPOCH,
        }
    }

    pub(super) fn head(&self) -> Position {
        Position::new(self.slots.len() as u64)
    }

    pub(super) fn events(&self) -> impl DoubleEndedIterator<Item = &RecordedEvent> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Event(event) => Some(event),
            _ => None,
        })
    }

    pub(super) fn bounds(&self, stream: &StreamId) -> StreamBounds {
        self.streams.get(stream).map_or_else(StreamBounds::default, |info| info.bounds)
    }

    pub(super) fn info(&self, stream: &StreamId) -> StreamInfo {
        let info = self.streams.get(stream).copied().unwrap_or_default();
        let mut kept = self.events().filter(|event| event.stream() == *stream);
        let first = kept.next();
        let last = kept.next_back().or(first);
        info.with_times(first.map(RecordedEvent::recorded_at), last.map(RecordedEvent::recorded_at))
    }

    pub(super) fn forget_last(&mut self) {
        self.slots.pop();
        self.streams.clear();
        for event in self.events().cloned().collect::<Vec<_>>() {
            let info = self.streams.entry(event.stream().to_stream_id()).or_default();
            info.bounds.version = event.version();
        }
    }

    pub(super) fn append(
        &mut self,
        batch: &AppendBatch,
        now: Timestamp,
        flaw: Flaw,
    ) -> Result<Appended, AppendError> {
        let before = self.clone();
        self.append_if(batch, &before, now, flaw)
    }

    /// Appends, with conditions answered by `before`.
    pub(super) fn append_if(
        &mut self,
        batch: &AppendBatch,
        before: &Self,
        now: Timestamp,
        flaw: Flaw,
    ) -> Result<Appended, AppendError> {
        let made_at = batch.events().next().and_then(|event| event.id.time());
        if made_at.is_some_and(|at| at > now.saturating_add(RETRY_WINDOW))
            && flaw != Flaw::TakesAnyTime
        {
            return Err(StoreError::invalid("a batch is from after the window").into());
        }
        let conditions = before.failed_condition(batch, flaw);
        let obstacle = self.conflict(batch, flaw).and(conditions);
        let marked = batch.is_repeated() && flaw != Flaw::IgnoresMark;
        if (marked || obstacle.is_err())
            && let Some(answer) = self.known(batch, now, flaw)?
        {
            return Ok(answer);
        }
        if let Err(error) = obstacle {
            match flaw {
                Flaw::BurnsPositions => self.slots.push(Slot::Hole),
                Flaw::SplitsBatches => self.store_until_conflict(batch, now),
                _ => {}
            }
            return Err(error);
        }
        Ok(self.store(batch, now, flaw))
    }

    pub(super) fn obstacle(&self, batch: &AppendBatch, flaw: Flaw) -> Result<(), AppendError> {
        self.conflict(batch, flaw)?;
        self.failed_condition(batch, flaw)
    }

    fn conflict(&self, batch: &AppendBatch, flaw: Flaw) -> Result<(), AppendError> {
        let written = batch.writes().iter().map(|write| (&write.stream, write.expected));
        let checked = batch.checks().iter().map(|check| (&check.stream, check.expected));
        let deleted = batch.deletions().map(|stream| (stream, ExpectedVersion::StreamExists));
        let deleted = deleted.filter(|_| flaw != Flaw::DeletesNothing);
        for (stream, expected) in written.chain(checked).chain(deleted) {
            let bounds = self.bounds(stream);
            let forgotten = flaw == Flaw::ForgetsDeletion && bounds.is_deleted();
            let matches = if forgotten {
                matches!(expected, ExpectedVersion::Any | ExpectedVersion::NoStream)
            } else {
                bounds.matches(expected)
            };
            if !matches {
                let stream = stream.clone();
                let actual = bounds.version;
                let seen = match expected {
                    ExpectedVersion::Exact(version) => version,
                    _ => StreamVersion::ZERO,
                };
                let deleted_at = Some(bounds.deleted_at).filter(|deleted| *deleted > seen);
                let deleted_at = deleted_at.filter(|_| flaw != Flaw::HidesDeletion);
                return Err(VersionConflict { stream, expected, actual, deleted_at }.into());
            }
        }
        Ok(())
    }

    fn failed_condition(&self, batch: &AppendBatch, flaw: Flaw) -> Result<(), AppendError> {
        for (condition, wanted) in batch.conditions().iter().enumerate() {
            let after = if flaw == Flaw::IgnoresAfter { Position::ZERO } else { wanted.after };
            let few = if flaw == Flaw::JudgesFewItems { FEW_ITEMS } else { usize::MAX };
            let query = Query::new(wanted.fail_if_events_match.items().iter().take(few).cloned());
            let hit = self.slots.iter().find_map(|slot| {
                match slot {
                    Slot::Event(event) => Some(event),
                    Slot::Erased(event) if flaw == Flaw::MatchesErased => Some(event),
                    _ => None,
                }
                .filter(|event| event.position() > after)
                .filter(|event| matches(&query, event, flaw))
            });
            if let Some(event) = hit {
                return Err(AppendError::ConditionFailed { condition, position: event.position() });
            }
        }
        Ok(())
    }

    /// The answer to the first attempt, if there was one.
    pub(super) fn known(
        &self,
        batch: &AppendBatch,
        now: Timestamp,
        flaw: Flaw,
    ) -> Result<Option<Appended>, StoreError> {
        if flaw == Flaw::ForgetsRetries {
            return Ok(None);
        }
        let first_id = batch.events().next().expect("checked by the limits").id;
        let is_late = first_id.time().is_some_and(|at| now > at.saturating_add(RETRY_WINDOW));
        if is_late && flaw != Flaw::RetryWithoutEnd {
            let late = "a batch is repeated after the window";
            return if batch.is_repeated() { Err(StoreError::invalid(late)) } else { Ok(None) };
        }
        let found = self.found(batch, now, flaw);
        let Some(any) = found.first() else {
            let is_lost =
                batch.is_repeated() && batch.writes().iter().any(|it| self.may_be_gone(it));
            return match is_lost && flaw != Flaw::TakesErasedForNew {
                true => Err(StoreError::invalid("a batch is repeated that may be erased")),
                false => Ok(None),
            };
        };
        let mut firsts: Vec<_> = found.iter().map(|it| it.first).collect();
        firsts.sort_unstable();
        if flaw == Flaw::AnswersLastCopy {
            firsts.reverse();
        }
        let is_whole = |first: &u64| {
            let missing = (0..batch.event_count() as u64)
                .filter(|place| !found.iter().any(|it| (it.first, it.place) == (*first, *place)));
            let mut gone = missing.map(|place| self.is_gone(*first + place, flaw));
            let starts = found.iter().any(|it| (it.first, it.place) == (*first, 0));
            (flaw == Flaw::LooksAtFirstId && starts) || (*first > 0 && gone.all(|it| it))
        };
        let Some(first) = firsts.into_iter().find(is_whole) else {
            return Err(StoreError::invalid("some of the batch's ids are known, but not all"));
        };
        let mut end = 0;
        let version = |write: &StreamWrite| {
            end += write.events.len() as u64;
            self.version_at(first + end - 1).unwrap_or(any.event.version())
        };
        let versions = batch.writes().iter().map(version).collect();
        let answer = Appended::new(Position::new(first), versions, any.event.recorded_at());
        Ok(Some(answer.with_events(batch.event_count()).replayed()))
    }

    /// The stored events of a batch, with their indexes in it.
    fn found(&self, batch: &AppendBatch, now: Timestamp, flaw: Flaw) -> Vec<Found<'_>> {
        let since = batch.events().next().and_then(|event| event.id.time());
        let since = since.filter(|_| flaw == Flaw::TrustsClocks).unwrap_or_default().min(now);
        let mut found = vec![];
        let mut place = 0;
        for write in batch.writes() {
            let at_end = self.bounds(&write.stream).version.value().saturating_sub(8);
            let from = if flaw == Flaw::LooksAtTheEnd { at_end } else { 0 };
            for new in &write.events {
                let same = self.events().filter(|event| {
                    event.id() == new.id
                        && event.stream() == write.stream
                        && event.recorded_at() >= since
                        && event.version().value() > from
                });
                found.extend(same.filter_map(|event| {
                    let first = event.position().value().checked_sub(place)?;
                    Some(Found { first, place, event })
                }));
                place += 1;
            }
        }
        found
    }

    /// Whether an event was erased after the version that a write expected.
    fn may_be_gone(&self, write: &StreamWrite) -> bool {
        let erased = self.bounds(&write.stream).erased_through;
        match write.expected {
            ExpectedVersion::Exact(expected) => erased > expected,
            ExpectedVersion::NoStream => erased > StreamVersion::ZERO,
            _ => false,
        }
    }

    /// Whether the content of a position was erased.
    fn is_gone(&self, position: u64, flaw: Flaw) -> bool {
        match flaw {
            Flaw::NeedsTheWhole => false,
            Flaw::BlamesErasure => self.slots.iter().any(|slot| matches!(slot, Slot::Erased(_))),
            _ => matches!(self.slots.get(position as usize - 1), Some(Slot::Erased(_))),
        }
    }

    fn version_at(&self, position: u64) -> Option<StreamVersion> {
        match self.slots.get(position as usize - 1)? {
            Slot::Event(event) | Slot::Erased(event) => Some(event.version()),
            Slot::Hole => None,
        }
    }

    /// Stores a batch, whatever it expects.
    pub(super) fn store(&mut self, batch: &AppendBatch, now: Timestamp, flaw: Flaw) -> Appended {
        let now = if flaw == Flaw::TimeGoesBack { now } else { now.max(self.last_time) };
        self.last_time = now;
        let first = self.head().next();
        let mut order: Vec<usize> = (0..batch.writes().len()).collect();
        if flaw == Flaw::GathersStreams {
            let streams: Vec<_> = batch.writes().iter().map(|write| &write.stream).collect();
            order.sort_by_key(|at| streams.iter().position(|first| *first == streams[*at]));
        }
        let mut versions = vec![StreamVersion::ZERO; order.len()];
        for at in order {
            let write = &batch.writes()[at];
            for event in &write.events {
                self.push(&write.stream, event, now);
                if event.is_deletion() && flaw != Flaw::DeletesLate {
                    self.delete(&write.stream, flaw);
                }
            }
            versions[at] = self.bounds(&write.stream).version;
            if flaw != Flaw::ForgetsRetention {
                self.apply_retention(&write.stream, now, flaw);
            }
        }
        if flaw == Flaw::DeletesLate {
            batch.deletions().for_each(|stream| self.delete(stream, flaw));
        }
        if flaw == Flaw::VersionsOfTheEnd {
            let last = |write: &StreamWrite| self.bounds(&write.stream).version;
            versions = batch.writes().iter().map(last).collect();
        }
        Appended::new(first, versions.into(), now).with_events(batch.event_count())
    }

    fn store_until_conflict(&mut self, batch: &AppendBatch, now: Timestamp) {
        for write in batch.writes() {
            if !self.bounds(&write.stream).matches(write.expected) {
                return;
            }
            for event in &write.events {
                self.push(&write.stream, event, now);
            }
        }
    }

    fn push(&mut self, stream: &StreamId, event: &NewEvent, recorded_at: Timestamp) {
        let position = self.head().next();
        let info = self.streams.entry(stream.clone()).or_default();
        info.bounds.version = info.bounds.version.next();
        let header = EventHeader {
            position,
            version: info.bounds.version,
            recorded_at,
            id: event.id,
            schema_version: event.schema_version,
            content: event.content,
        };
        let event = RecordedEvent::from_new(header, stream.as_ref(), event);
        self.slots.push(Slot::Event(event));
    }

    pub(super) fn change(
        &mut self,
        stream: &StreamId,
        change: StreamChange,
        now: Timestamp,
        flaw: Flaw,
    ) -> Result<(), ChangeError> {
        change.check(self.bounds(stream).version)?;
        match change {
            StreamChange::Retain(retention) => {
                self.streams.entry(stream.clone()).or_default().retention = retention;
                self.apply_retention(stream, now, flaw);
            }
            StreamChange::TruncateBefore(first) => self.erase(stream, first.previous(), flaw),
            _ => return Err(StoreError::invalid("a change that toys don't know").into()),
        }
        Ok(())
    }

    /// Erases what a stream had before the deletion that was just appended to it.
    fn delete(&mut self, stream: &StreamId, flaw: Flaw) {
        let version = self.bounds(stream).version;
        let through = if flaw == Flaw::DeletesSilently { version } else { version.previous() };
        self.erase(stream, through, flaw);
        if let Some(info) = self.streams.get_mut(stream) {
            info.bounds.deleted_at = version;
            if flaw == Flaw::DeletesUncounted {
                info.bounds.version = version.previous();
            }
            if flaw == Flaw::RestartsVersions {
                *info = StreamInfo::default();
            }
        }
    }

    fn erase(&mut self, stream: &StreamId, through: StreamVersion, flaw: Flaw) {
        let mut left = if flaw == Flaw::ErasesOneStep { STEP } else { usize::MAX };
        for slot in &mut self.slots {
            if let Slot::Event(event) = slot
                && event.stream() == *stream
                && event.version() <= through
                && left > 0
            {
                left -= 1;
                *slot = Slot::Erased(event.clone());
            }
        }
        if let Some(info) = self.streams.get_mut(stream) {
            info.bounds.erased_through = info.bounds.erased_through.max(through);
        }
        if flaw == Flaw::TagsStayGone {
            let tags = |slot: &Slot| match slot {
                Slot::Erased(event) => event.tags().map(str::to_owned).collect(),
                _ => vec![],
            };
            let erased: BTreeSet<String> = self.slots.iter().flat_map(tags).collect();
            let left: BTreeSet<&str> = self.events().flat_map(RecordedEvent::tags).collect();
            let gone = erased.into_iter().filter(|tag| !left.contains(tag.as_str()));
            self.gone_tags.extend(gone.collect::<Vec<_>>());
        }
    }

    fn apply_retention(&mut self, stream: &StreamId, now: Timestamp, flaw: Flaw) {
        let info = self.info(stream);
        let Retention { events_max, age_max } = info.retention;
        let mut through = info.bounds.erased_through;
        if let Some(most) = events_max {
            let surplus = info.bounds.version.value().saturating_sub(most);
            through = through.max(StreamVersion::new(surplus));
        }
        // Flawed: an age that is too large for a signed number counts as none.
        let wraps = |age: Duration| i64::try_from(age.as_micros()).is_err();
        let age_max = match age_max {
            Some(age) if flaw == Flaw::WrapsNumbers && wraps(age) => Some(Duration::ZERO),
            age_max => age_max,
        };
        if let Some(age) = age_max {
            let old = self.events().filter(|event| {
                event.stream() == *stream && event.recorded_at() < now.saturating_sub(age)
            });
            through = old.map(RecordedEvent::version).fold(through, Ord::max);
        }
        if !info.bounds.is_deleted() {
            self.erase(stream, through.min(info.bounds.version.previous()), flaw);
        }
    }
}

/// Whether a condition with this query matches the event.
fn matches(query: &Query, event: &RecordedEvent, flaw: Flaw) -> bool {
    if flaw != Flaw::FalseConflicts {
        return query.matches(event.name(), event.tags());
    }
    // Flawed: the name of a tag is enough.
    let named = |tag: &factum_kernel::Tag| {
        event.tags().any(|label| label.split(':').next() == Some(tag.name()))
    };
    let typed = |types: &[factum_kernel::EventName]| {
        types.is_empty() || types.iter().any(|name| name.as_str() == event.name())
    };
    query.items().iter().any(|item| typed(&item.types) && item.tags.iter().all(named))
}
