//! Random steps. What a step refers to (versions, positions, earlier batches) is drawn from what
//! the first store has answered, so that most steps come near to something.

use std::time::Duration;

use factum::{
    ExpectedVersion, Position, ReadQuery, Retention,
    event::{
        Category, Content, EventId, EventName, NewEvent, StreamId, StreamVersion, Tag, Timestamp,
        Uuid,
    },
    read::{Query, QueryItem, ReadFrom},
    store::{
        AppendBatch, AppendCondition, Clock, IdSource, KeyRange, RETRY_WINDOW, ScanQuery,
        StreamChange,
    },
};
use factum_testing::{SeededIds, VirtualClock};

use super::answer::Subject;

pub(super) const STREAMS: [&str; 4] = ["account-ada", "account-bob", "bank-main", "hall-1"];
const NAMES: [&str; 2] = ["account.opened", "account.deposited"];
const TAGS: [&str; 3] = ["part:0", "part:1", "part:2"];
const KEYS: [&str; 5] = ["a", "a/1", "a/2", "b", "c"];
/// The most batches that a repetition is drawn from, the newest.
const REPEATED_MAX: usize = 24;

/// What is done to every store.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Queued in this order at once: the group must be its members one after another.
    Append(Vec<AppendBatch>),
    Change(StreamId, StreamChange),
    Read(ReadQuery),
    Info(StreamId),
    Write(Vec<Entry>),
    Get(&'static str),
    Scan(ScanQuery),
    Clear(KeyRange),
    /// The clock of all stores has been moved, forward or back.
    Clock,
}

/// A document in a write.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) expected: Expected,
    pub(super) value: Option<String>,
}

/// What is expected of a document. Stores may count revisions as they like, so that one is named
/// by the write that gave it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Any,
    Absent,
    /// `Exact(0)`.
    Zero,
    /// The revision that this write gave, counted from 0.
    Write(usize),
    /// A revision that no write will give.
    Largest,
}

/// What the steps so far have come to.
pub(super) struct Known {
    random: Random,
    /// Whether batches are queued together, with even seeds. Retention is applied after each group,
    /// so that where it is set the answers depend on what became a group.
    is_grouped: bool,
    ids: SeededIds,
    clock: VirtualClock,
    batches: Vec<AppendBatch>,
    versions: [u64; STREAMS.len()],
    head: u64,
    writes: usize,
}

impl Known {
    pub(super) fn new(seed: u64, clock: VirtualClock) -> Self {
        let random = Random(seed);
        let ids = SeededIds::new(seed);
        let batches = Vec::new();
        let versions = [0; STREAMS.len()];
        let is_grouped = seed.is_multiple_of(2);
        Self { random, is_grouped, ids, clock, batches, versions, head: 0, writes: 0 }
    }

    pub(super) async fn learn(&mut self, first: &Subject) {
        for (version, id) in self.versions.iter_mut().zip(STREAMS) {
            *version = first.version(&stream(id)).await;
        }
        (self.head, self.writes) = (first.head().await, first.writes());
    }

    pub(super) fn next_step(&mut self) -> Step {
        match self.random.below(100) {
            0..30 => {
                let batches: Vec<_> = (0..self.members()).map(|_| self.batch()).collect();
                self.batches.extend_from_slice(&batches);
                Step::Append(batches)
            }
            30..50 => Step::Append((0..self.members()).map(|_| self.repeat()).collect()),
            50..60 => Step::Change(self.stream(), self.change()),
            60..72 => Step::Read(self.query()),
            72..76 => Step::Info(self.stream()),
            76..86 => self.write(),
            86..88 => Step::Get(self.key()),
            88..91 => Step::Scan(self.scan()),
            91..92 => Step::Clear(KeyRange::prefix(self.key())),
            _ => self.pass(),
        }
    }

    fn members(&mut self) -> u64 {
        if self.is_grouped { 1 + self.random.below(3) } else { 1 }
    }

    fn stream(&mut self) -> StreamId {
        stream(self.random.one_of(&STREAMS))
    }

    fn key(&mut self) -> &'static str {
        self.random.one_of(&KEYS)
    }

    fn tag(&mut self) -> Tag {
        Tag::parse(self.random.one_of(&TAGS)).unwrap()
    }

    fn event(&mut self, made_at: Timestamp) -> NewEvent {
        let id = self.ids.uuid(made_at);
        let id = match self.random.below(20) {
            // Not of the kind that holds a time.
            0 => EventId::new(Uuid::from_u128(id.as_u128() & !(0xf << 76) | 4 << 76)),
            _ => EventId::new(id),
        };
        let name = EventName::from_static(self.random.one_of(&NAMES));
        let event = NewEvent::new(id, name, Content::Json, format!("{{\"id\":\"{id}\"}}"));
        if self.random.is_one_in(2) { event.with_tag(self.tag()) } else { event }
    }

    /// When a writer made its batch, by a clock that may be behind or ahead of the stores'.
    fn made_at(&mut self) -> Timestamp {
        let now = self.clock.now();
        let minute = Duration::from_secs(60);
        match self.random.below(16) {
            0 => now.saturating_sub(RETRY_WINDOW + minute),
            1 => now.saturating_sub(RETRY_WINDOW / 2),
            2 => now.saturating_add(RETRY_WINDOW / 2),
            3 => now.saturating_add(RETRY_WINDOW + minute),
            _ => now,
        }
    }

    fn expected(&mut self, at: usize) -> ExpectedVersion {
        let version = self.versions[at];
        let near = version.saturating_add(self.random.below(3)).saturating_sub(1);
        match self.random.below(12) {
            0..4 => ExpectedVersion::Any,
            4 => ExpectedVersion::NoStream,
            5 => ExpectedVersion::StreamExists,
            6 => ExpectedVersion::Exact(StreamVersion::new(near)),
            7 => ExpectedVersion::Exact(StreamVersion::new(self.random.below(version + 3))),
            _ => ExpectedVersion::Exact(StreamVersion::new(version)),
        }
    }

    fn batch(&mut self) -> AppendBatch {
        let made_at = self.made_at();
        let first = self.random.below(4) as usize;
        let streams = 1 + self.random.below(4) as usize / 2;
        let mut batch = AppendBatch::new();
        for at in (0..streams).map(|more| (first + more) % STREAMS.len()) {
            let mut events: Vec<_> =
                (0..1 + self.random.below(3)).map(|_| self.event(made_at)).collect();
            // Now and then an id of an earlier batch is among them.
            if self.random.is_one_in(12)
                && let Some(old) = self.batches.last().and_then(|last| last.events().next())
                && !batch.events().any(|event| event.id == old.id)
            {
                events.push(old.clone());
            }
            if self.random.is_one_in(12) {
                let id = EventId::new(self.ids.uuid(made_at));
                events.insert(0, NewEvent::deletion(id));
            }
            batch = batch.write(stream(STREAMS[at]), self.expected(at), events);
        }
        let checked = (first + streams) % STREAMS.len();
        if self.random.is_one_in(6) {
            batch = batch.check(stream(STREAMS[checked]), self.expected(checked));
        }
        for _ in 0..self.random.below(6) / 4 {
            batch = batch.unless(self.condition());
        }
        if self.random.is_one_in(8) { batch.repeated() } else { batch }
    }

    fn condition(&mut self) -> AppendCondition {
        let before = self.random.below(8);
        let after = if before > 5 { 0 } else { self.head.saturating_sub(before) };
        AppendCondition { fail_if_events_match: self.labels(), after: Position::new(after) }
    }

    fn labels(&mut self) -> Query {
        match self.random.below(3) {
            0 => Query::tag(self.tag()),
            1 => Query::new([QueryItem {
                types: vec![EventName::from_static(self.random.one_of(&NAMES))],
                tags: vec![self.tag()],
            }]),
            _ => Query::new([0, 1].map(|_| QueryItem { types: vec![], tags: vec![self.tag()] })),
        }
    }

    /// An earlier batch, mostly as it was.
    fn repeat(&mut self) -> AppendBatch {
        let recent = self.batches.len().min(REPEATED_MAX);
        if recent == 0 {
            return self.batch();
        }
        let which = self.batches.len() - 1 - self.random.below(recent as u64) as usize;
        let mut batch = self.batches[which].clone();
        // Its writer has loaded again.
        if self.random.is_one_in(8) {
            let writes = batch.writes().to_vec();
            batch = writes.into_iter().fold(AppendBatch::new(), |batch, write| {
                let at = STREAMS.iter().position(|id| *id == write.stream.as_str()).unwrap();
                batch.write(write.stream, StreamVersion::new(self.versions[at]), write.events)
            });
        }
        if self.random.is_one_in(3) { batch } else { batch.repeated() }
    }

    fn change(&mut self) -> StreamChange {
        let version = |random: &mut Random, most: u64| StreamVersion::new(random.below(most + 2));
        let most = *self.random.one_of(&self.versions.each_ref());
        match self.random.below(if self.is_grouped { 4 } else { 6 }) {
            0..4 => StreamChange::TruncateBefore(version(&mut self.random, most)),
            4 => StreamChange::Retain(Retention {
                events_max: Some(self.random.below(4)),
                age_max: None,
            }),
            _ => StreamChange::Retain(Retention {
                events_max: None,
                age_max: self.random.is_one_in(2).then_some(Duration::from_secs(200)),
            }),
        }
    }

    fn query(&mut self) -> ReadQuery {
        let query = match self.random.below(6) {
            0..2 => ReadQuery::log(),
            2..4 => ReadQuery::stream(self.stream()),
            4 => ReadQuery::category(Category::new(self.stream().category()).unwrap()),
            _ => ReadQuery::matching(self.labels()),
        };
        let head = self.head;
        let now = self.clock.now();
        let from = match self.random.below(8) {
            0..3 => ReadFrom::Start,
            3 => ReadFrom::End,
            4 => ReadFrom::Time(now.saturating_sub(Duration::from_secs(self.random.below(900)))),
            5 => ReadFrom::Version(StreamVersion::new(self.random.below(12))),
            _ => ReadFrom::Position(Position::new(self.random.below(head + 3))),
        };
        let query = query.from(from).with_events_max(self.random.below(7) as usize);
        if self.random.is_one_in(3) { query.backward() } else { query }
    }

    fn write(&mut self) -> Step {
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..self.random.below(4) {
            let key = self.key();
            let expected = match self.random.below(10) {
                0..3 => Expected::Any,
                3..5 => Expected::Absent,
                5..7 => Expected::Zero,
                7 => Expected::Largest,
                _ if self.writes == 0 => Expected::Zero,
                _ => Expected::Write(
                    self.writes - 1 - self.random.below(self.writes.min(4) as u64) as usize,
                ),
            };
            let value = (!self.random.is_one_in(3)).then(|| self.random.below(1_000).to_string());
            entries.push(Entry { key, expected, value });
        }
        Step::Write(entries)
    }

    fn scan(&mut self) -> ScanQuery {
        let range = match self.random.below(3) {
            0 => KeyRange::all(),
            1 => KeyRange::prefix(self.key()),
            _ => KeyRange::new(self.key(), self.key()),
        };
        let query = ScanQuery::new(range).with_documents_max(self.random.below(4) as usize);
        if self.random.is_one_in(2) { query.backward() } else { query }
    }

    fn pass(&mut self) -> Step {
        let seconds = Duration::from_secs(*self.random.one_of(&[&0, &1, &1, &60, &300, &700]));
        let micros = Duration::from_micros(self.random.below(1_000));
        let now = match self.random.below(8) {
            // Somebody sets the clock back.
            0 => self.clock.now().saturating_sub(seconds / 3),
            _ => self.clock.now().saturating_add(seconds + micros),
        };
        self.clock.set(now);
        Step::Clock
    }
}

fn stream(id: &str) -> StreamId {
    id.parse().unwrap()
}

/// SplitMix64: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn is_one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn one_of<'i, T: ?Sized>(&mut self, items: &[&'i T]) -> &'i T {
        items[self.below(items.len() as u64) as usize]
    }
}
