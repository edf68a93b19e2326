//! The writing half of the log: plans a group, writes it as one frame, and shows it to readers.

use std::sync::Arc;

use bytes::BytesMut;
use factum_backend::{
    Commit, CommitDelay, CommitError, Committed, GroupPlan, LogEnd, PlannedEvent, delay_commit,
    plan_group,
};
use factum_kernel::{
    AppendBatch, Clock, Position, Retention, StoreError, StreamId, Tag, Timestamp,
};
use hashbrown::{HashMap, HashSet};

use crate::{
    change,
    documents::{DocumentKeeper, Documents},
    erased::{Erased, container_of},
    facts::LogFacts,
    frame::{self, FrameKind},
    keeper::Keeper,
    lock::Lock,
    log::{Log, View},
    recent::{Indexed, Recent},
    record::{self, RecordPlace, StreamState},
    replay,
    segment::Segment,
    tables::SharedRecent,
    tail::{LogTail, TailError},
};

/// The most bytes of an event's record besides the event's size: lengths and numbers, id and
/// checksum; and the record of its type's name.
pub(crate) const RECORD_BYTES_EXTRA: usize = 96;
/// The most bytes of a change's record.
const CHANGE_BYTES_MAX: usize = 1_024;
/// The most names of event types in a segment, before the names of its last group.
const NAMES_MAX: usize = 1 << 16;
/// A larger buffer is freed after the frame that needed it.
const BUFFER_BYTES_MAX: usize = 4 << 20;

/// The writer's half, owned by the writer's thread: no other thread writes. Its drop closes the
/// journal.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) log: Arc<Log>,
    pub(crate) tail: LogTail,
    pub(crate) keeper: Keeper,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) commit_delay: Delay,
    pub(crate) buffer: BytesMut,
    /// Closed together with the log.
    pub(crate) documents: Arc<Documents>,
    pub(crate) document_keeper: Option<DocumentKeeper>,
    /// Released after all files.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is held, not used"))]
    pub(crate) lock: Option<Lock>,
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.keeper.stop();
        self.document_keeper = None;
        // After a panic no state can be relied on, and the next opening checks the log itself. It
        // may come as soon as the lock is released, so nothing may be written from here on.
        if std::thread::panicking() {
            self.documents.abandon();
        } else {
            self.tail.close(self.log.view().head + 1);
            self.documents.close();
        }
    }
}

/// The delay between planning and storing a commit, for tests.
#[derive(Default)]
pub(crate) struct Delay(pub(crate) Option<CommitDelay>);

impl std::fmt::Debug for Delay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Delay").field(&self.0.is_some()).finish()
    }
}

impl From<TailError> for CommitError {
    fn from(error: TailError) -> Self {
        match error {
            TailError::NotWritten(error) => Self::NotStored(error),
            TailError::Unknown(error) => Self::Unknown(error),
        }
    }
}

impl Commit for Committer {
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError> {
        self.tail.check()?;
        self.keeper.make_room(&self.log)?;
        let now = self.clock.now();
        let log = self.log.clone();
        let view = log.view();
        let end = LogEnd { head: Position::new(view.head), last_at: view.last_at, now };
        let mut facts = LogFacts::new(&log, &view);
        let plan = plan_group(batches, end, &mut facts)?;
        delay_commit(self.commit_delay.0.as_ref());
        if !plan.events.is_empty() {
            let changes = changes(&mut facts, &plan, now)?;
            let states = std::mem::take(&mut facts.streams);
            self.store(&view, &plan, &states, changes)?;
        }
        Ok(Committed { outcomes: plan.outcomes, head: plan.head })
    }
}

/// The state of a stream from a frame on.
pub(crate) type Change = (StreamId, StreamState);

/// The changes by which the deletions in a group, and the retention of its streams, erase older
/// events.
fn changes(
    facts: &mut LogFacts<'_>,
    plan: &GroupPlan<'_>,
    now: Timestamp,
) -> Result<Vec<Change>, StoreError> {
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    let deleted: HashMap<_, _> =
        plan.deletions().map(|planned| (planned.stream, planned.header.version)).collect();
    if deleted.is_empty() && !facts.has_retention {
        return Ok(changes);
    }
    for planned in plan.events.iter().rev() {
        let before = facts.state(planned.stream)?;
        let deleted_at = deleted.get(planned.stream);
        let is_meant = deleted_at.is_some() || before.retention != Retention::default();
        if !is_meant || !seen.insert(planned.stream) {
            continue;
        }
        let mut state = before;
        // The loop goes backward through the group, so this is the stream's last event in it.
        state.bounds.version = planned.header.version;
        if let Some(deleted_at) = deleted_at {
            state.bounds.deleted_at = *deleted_at;
            state.bounds.erased_through = deleted_at.previous();
        }
        let through = change::retain(facts, planned.stream, &state, now)?;
        state.bounds.erased_through = through.max(state.bounds.erased_through);
        if deleted_at.is_some() || state.bounds.erased_through > before.bounds.erased_through {
            changes.push((planned.stream.clone(), state));
        }
    }
    Ok(changes)
}

impl Committer {
    /// Writes a group as one frame, durably, and then shows it to readers.
    fn store(
        &mut self,
        view: &View,
        plan: &GroupPlan<'_>,
        states: &HashMap<StreamId, StreamState>,
        changes: Vec<Change>,
    ) -> Result<(), CommitError> {
        let changed = Changed::new(&self.log, view, &plan.events, changes)?;
        let size = |planned: &PlannedEvent<'_>| {
            planned.event.size() + planned.stream.as_str().len() + RECORD_BYTES_EXTRA
        };
        self.begin(view, plan.events.iter().map(size).sum())?;
        let active = self.log.view().tables.active().clone();
        let encoded = self.encode(&active, &plan.events);
        let head = plan.head.value();
        self.put_changes(head + 1, &changed.changes);
        self.finish(view.head + 1)?;
        let erased = changed.containers.clone();
        let last_at = plan.events.last().map_or(view.last_at, |last| last.header.recorded_at);
        let before = &view.tables;
        plan.events.iter().for_each(|planned| self.log.hot.add(planned.stream.as_str()));
        self.show(&active, |view, recent| {
            encoded.show(recent, &plan.events, |stream| {
                // The plan asked for the state. If not, it is in the segment that was active then.
                let asked = states.get(stream).copied();
                asked.or_else(|| before.recent_state(stream.as_str())).unwrap_or_default()
            });
            changed.show(view, recent);
            (view.head, view.last_at) = (head, last_at);
        });
        self.keeper.reclaim(erased);
        Ok(())
    }

    /// Stores changes of streams in a frame of their own.
    pub(crate) fn store_changes(&mut self, changes: Vec<Change>) -> Result<(), CommitError> {
        self.tail.check()?;
        self.keeper.make_room(&self.log)?;
        let view = self.log.view();
        let changed = Changed::new(&self.log, &view, &[], changes)?;
        self.begin(&view, changed.changes.len() * CHANGE_BYTES_MAX)?;
        let active = self.log.view().tables.active().clone();
        self.put_changes(view.head + 1, &changed.changes);
        self.finish(view.head + 1)?;
        let erased = changed.containers.clone();
        self.show(&active, |view, recent| changed.show(view, recent));
        self.keeper.reclaim(erased);
        Ok(())
    }

    /// Begins a frame of about this many bytes, in the next segment if this one is full.
    fn begin(&mut self, view: &View, bytes: usize) -> Result<(), CommitError> {
        let names = view.tables.active().read().names.len();
        if self.tail.is_full(bytes, view.head + 1) || names > NAMES_MAX {
            self.tail.roll(view.head + 1, view.last_at)?;
            let recent = SharedRecent::new(Recent::new(self.tail.segment.clone()));
            self.log.update(|view| Arc::make_mut(&mut view.tables).recents.push(recent));
            self.log.hot.begin_segment();
            self.keeper.wake();
        }
        frame::begin(&mut self.buffer);
        Ok(())
    }

    fn record_place(&self, position: u64) -> RecordPlace {
        let Segment { header, seed, .. } = &self.tail.segment;
        RecordPlace { seed: *seed, base_at: header.base_at, position }
    }

    fn encode(&mut self, active: &SharedRecent, events: &[PlannedEvent<'_>]) -> Encoded {
        let recent = active.read();
        let mut encoded = Encoded::default();
        for planned in events {
            let place = self.record_place(planned.header.position.value());
            let name = planned.event.name.as_str();
            let number = recent.name_number(name).or_else(|| encoded.new_name(&recent, name));
            let number = number.unwrap_or_else(|| {
                record::put_name(&mut self.buffer, place, name);
                encoded.new_names.push(name.into());
                (recent.names.len() + encoded.new_names.len() - 1) as u32
            });
            let offset = self.tail.end + self.buffer.len() as u32;
            record::put_event(&mut self.buffer, place, planned, number);
            encoded.events.push((offset, number));
        }
        encoded
    }

    fn put_changes(&mut self, position: u64, changes: &[Change]) {
        let place = self.record_place(position);
        for (stream, state) in changes {
            record::put_change(&mut self.buffer, place, stream.as_str(), state);
        }
    }

    /// Makes the frame durable.
    fn finish(&mut self, first: u64) -> Result<(), CommitError> {
        frame::finish(&mut self.buffer, self.tail.place(), first, FrameKind::Group)?;
        self.tail.write(&self.buffer)?;
        if self.buffer.capacity() > BUFFER_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        if self.tail.request_spare() {
            self.keeper.prepare_spare(self.tail.next_capacity());
        }
        Ok(())
    }

    /// Shows what was written, for all readers at once. Call it only after the sync: a reader may
    /// act on the events, and they must survive a crash.
    fn show(&self, active: &SharedRecent, show: impl FnOnce(&mut View, &mut Recent)) {
        let end = self.tail.end;
        self.log.update(|view| {
            let mut recent = active.write();
            show(view, &mut recent);
            recent.end = end;
        });
    }
}

/// The result of encoding the events of a frame, for the index.
#[derive(Debug, Default)]
struct Encoded {
    /// The offset of each event's record, and the number of its type's name.
    events: Vec<(u32, u32)>,
    new_names: Vec<Box<str>>,
}

impl Encoded {
    fn new_name(&self, recent: &Recent, name: &str) -> Option<u32> {
        let index = self.new_names.iter().position(|new| **new == *name)?;
        Some((recent.names.len() + index) as u32)
    }

    fn show(
        &self,
        recent: &mut Recent,
        events: &[PlannedEvent<'_>],
        state_before: impl Fn(&StreamId) -> StreamState,
    ) {
        for name in &self.new_names {
            recent.add_name(name);
        }
        for ((offset, name), PlannedEvent { header, stream, event }) in
            self.events.iter().zip(events)
        {
            let indexed = Indexed {
                offset: *offset,
                stream: stream.as_str(),
                category: stream.category(),
                version: header.version,
                name: *name,
            };
            let tags = event.tags.iter().map(Tag::as_str);
            recent.push(indexed, tags, || state_before(stream));
        }
    }
}

/// The erasures of changes of streams, looked up before anything is written.
#[derive(Debug)]
struct Changed {
    changes: Vec<Change>,
    erased: Option<Erased>,
    containers: Vec<u64>,
}

impl Changed {
    fn new(
        log: &Log,
        view: &View,
        events: &[PlannedEvent<'_>],
        changes: Vec<Change>,
    ) -> Result<Self, StoreError> {
        if changes.is_empty() {
            return Ok(Self { changes, erased: None, containers: Vec::new() });
        }
        let mut erased = Erased::clone(&view.erased);
        let mut containers = Vec::new();
        for (stream, state) in &changes {
            let before = view.tables.state(&log.cache, stream.as_str())?.bounds;
            let through = state.bounds.erased_through;
            let versions = before.erased_through.value() + 1..=through.min(before.version).value();
            let erase =
                replay::erase(&view.tables, &log.cache, &mut erased, stream.as_str(), versions);
            containers.extend(erase?);
            let group = events.iter().filter(|planned| planned.stream == stream);
            for planned in group.filter(|planned| planned.header.version <= through) {
                let position = planned.header.position.value();
                erased.insert(position);
                containers.push(container_of(position));
            }
        }
        Ok(Self { changes, erased: Some(erased), containers })
    }

    fn show(self, view: &mut View, recent: &mut Recent) {
        for (stream, state) in &self.changes {
            recent.set_state(stream.as_str(), *state);
        }
        recent.erased_containers.extend(self.containers);
        if let Some(erased) = self.erased {
            view.erased = Arc::new(erased);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
