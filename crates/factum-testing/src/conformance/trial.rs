//! An opened store, and the short calls that cases make on it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, Clock, Content, Durability, EventId, EventName, EventStore,
    ExpectedVersion, Guarantees, IdSource, Monotonic, NewEvent, Page, Position, ReadQuery,
    RecordedEvent, StoreErrorKind, StreamChange, StreamId, StreamInfo, StreamVersion, SystemClock,
    Tag, Timestamp, Writers,
};

use super::{
    case::MakeSubject,
    failure::{CaseResult, Stop, Within, ensure, ensure_eq},
    subject::{OpenError, Setup, Stores, Subject},
    walk::{Walk, walk},
};
use crate::{clock::VirtualClock, id::SeededIds, random::Random};

/// The time at which cases on a virtual clock begin.
pub(crate) const START: Timestamp = Timestamp::from_micros(1_772_355_600_000_000);

/// The longest delay before a commit: several polls of a reader, but short enough for many rounds.
const COMMIT_DELAY_MAX: Duration = Duration::from_micros(1_500);

/// Shows the time that a case sets, but sleeps in real time. So a store that waits in the
/// background neither moves the case's time nor hangs.
#[derive(Debug)]
struct SteppedClock(VirtualClock);

#[async_trait]
impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Monotonic {
        SystemClock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

/// The start of a case: makes fresh stores.
pub(crate) struct Bench {
    make: MakeSubject,
}

impl Bench {
    pub(crate) fn new(make: MakeSubject) -> Self {
        Self { make }
    }

    /// A fresh store on a clock that only the case moves.
    pub(crate) async fn open(&self) -> CaseResult<Trial> {
        let clock = VirtualClock::new(START);
        let setup = Setup::new(Arc::new(SteppedClock(clock.clone())));
        let subject = (self.make)();
        // A store with a clock of its own must get ids of its own time.
        let clock = if subject.takes_clock() { Time::Virtual(clock) } else { Time::Real };
        Trial::open(subject, setup, clock).await
    }

    /// Like [`open`](Self::open), for cases that move the clock.
    pub(crate) async fn open_with_clock(&self) -> CaseResult<(Trial, VirtualClock)> {
        let trial = self.open().await?;
        match trial.virtual_clock() {
            Some(clock) => Ok((trial, clock)),
            None => Err(Stop::Skipped("the store has a clock of its own")),
        }
    }

    /// Like [`open`](Self::open), if the store claims to outlive its process.
    pub(crate) async fn open_durable(&self) -> CaseResult<Trial> {
        self.open().await?.if_durable()
    }

    /// Like [`open_racing`](Self::open_racing), if the store claims to outlive its process.
    pub(crate) async fn open_durable_racing(&self, seed: u64) -> CaseResult<Trial> {
        self.open_racing(seed).await?.if_durable()
    }

    /// Like [`open`](Self::open), with a second handle, if the store claims to allow writers in
    /// other processes.
    pub(crate) async fn open_shared(&self) -> CaseResult<(Trial, Trial)> {
        Self::share(self.open().await?).await
    }

    /// Like [`open_shared`](Self::open_shared), but both handles wait before each commit.
    pub(crate) async fn open_shared_racing(&self, seed: u64) -> CaseResult<(Trial, Trial)> {
        Self::share(self.open_racing(seed).await?).await
    }

    /// Like [`open`](Self::open), with a second handle for reading, if the store has such a mode.
    pub(crate) async fn open_with_reader(&self) -> CaseResult<(Trial, Trial)> {
        let writer = self.open().await?;
        match writer.reader().await? {
            Some(reader) => Ok((writer, reader)),
            None => Err(Stop::Skipped("the store has no mode for reading only")),
        }
    }

    async fn share(first: Trial) -> CaseResult<(Trial, Trial)> {
        if first.guarantees().writers == Writers::ThisProcess {
            return Err(Stop::Skipped("the store claims one writing process"));
        }
        let stores = first.subject.open_another(&first.setup).await.map_err(open_failed)?;
        let second = first.with_stores(stores, 2);
        Ok((first, second))
    }

    /// This many handles that open one fresh store at once, if it claims to allow writers in other
    /// processes. Each handle waits before each commit.
    pub(crate) async fn open_at_once(
        &self,
        count: u64,
        seed: u64,
    ) -> CaseResult<Vec<impl Future<Output = CaseResult<Trial>> + use<>>> {
        self.open_shared().await?;
        let subject = (self.make)();
        let setup = racing(seed);
        let opening = |seed| {
            let subject = subject.clone();
            let setup = setup.clone();
            async move {
                let stores = subject.open_another(&setup).await.map_err(open_failed)?;
                let ids = Arc::new(SeededIds::new(seed));
                Ok(Trial { subject, setup, time: Time::Real, ids, stores })
            }
        };
        Ok((1..=count).map(opening).collect())
    }

    /// A fresh store on the machine's clock, with a random delay before each commit.
    pub(crate) async fn open_racing(&self, seed: u64) -> CaseResult<Trial> {
        Trial::open((self.make)(), racing(seed), Time::Real).await
    }
}

/// The machine's clock, and a random delay before each commit.
fn racing(seed: u64) -> Setup {
    let random = std::sync::Mutex::new(Random::new(seed));
    let delay = move || {
        let mut random = random.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        COMMIT_DELAY_MAX.mul_f64(random.fraction())
    };
    Setup::new(Arc::new(SystemClock)).with_commit_delay(Arc::new(delay))
}

#[derive(Debug, Clone)]
enum Time {
    Virtual(VirtualClock),
    Real,
}

fn open_failed(error: OpenError) -> Stop {
    Stop::failed(format!("the store does not open: {error}"))
}

/// An opened store. Cheap to clone; clones make different ids.
#[derive(Clone)]
pub(crate) struct Trial {
    subject: Arc<dyn Subject>,
    setup: Setup,
    time: Time,
    ids: Arc<SeededIds>,
    pub(crate) stores: Stores,
}

impl Trial {
    async fn open(subject: Arc<dyn Subject>, setup: Setup, time: Time) -> CaseResult<Self> {
        let stores = subject.open(&setup).await.map_err(open_failed)?;
        Ok(Self { subject, setup, time, ids: Arc::new(SeededIds::new(1)), stores })
    }

    fn if_durable(self) -> CaseResult<Self> {
        match self.guarantees().durability {
            Durability::Volatile => Err(Stop::Skipped("the store claims no durability")),
            _ => Ok(self),
        }
    }

    /// Another handle on the same data, for reading; `None` if the store has no such mode.
    pub(crate) async fn reader(&self) -> CaseResult<Option<Self>> {
        let stores = self.subject.open_to_read(&self.setup).await.map_err(open_failed)?;
        Ok(stores.map(|stores| self.with_stores(stores, 3)))
    }

    fn with_stores(&self, stores: Stores, seed: u64) -> Self {
        Self { stores, ids: Arc::new(SeededIds::new(seed)), ..self.clone() }
    }

    /// Closes the store, drops it, and opens its data again.
    pub(crate) async fn reopen(self) -> CaseResult<Self> {
        self.stores.events.close().await.within(|| "close".into())?;
        let Self { subject, setup, time, ids, stores } = self;
        drop(stores);
        let stores = subject.open(&setup).await.map_err(open_failed)?;
        Ok(Self { subject, setup, time, ids, stores })
    }

    pub(crate) fn log(&self) -> &Arc<dyn EventStore> {
        &self.stores.events
    }

    pub(crate) fn guarantees(&self) -> Guarantees {
        self.log().guarantees()
    }

    pub(crate) fn now(&self) -> Timestamp {
        match &self.time {
            Time::Virtual(clock) => clock.now(),
            Time::Real => SystemClock.now(),
        }
    }

    pub(crate) fn virtual_clock(&self) -> Option<VirtualClock> {
        match &self.time {
            Time::Virtual(clock) => Some(clock.clone()),
            Time::Real => None,
        }
    }

    /// Lets time pass on the store's clock.
    pub(crate) async fn sleep(&self, duration: Duration) {
        match &self.time {
            Time::Virtual(clock) => clock.advance(duration),
            // A thousandth is enough for a test that only needs different times.
            Time::Real => SystemClock.sleep(duration / 1_000).await,
        }
    }

    pub(crate) fn id(&self) -> EventId {
        EventId::new(self.ids.uuid(self.now()))
    }

    /// An event with a unique payload.
    pub(crate) fn event(&self) -> NewEvent {
        let id = self.id();
        let name = EventName::from_static("account.deposited");
        NewEvent::new(id, name, Content::Json, format!("{{\"id\":\"{id}\"}}"))
    }

    /// An event of a writer whose clock shows this time.
    pub(crate) fn event_at(&self, time: Timestamp) -> NewEvent {
        NewEvent { id: EventId::new(self.ids.uuid(time)), ..self.event() }
    }

    pub(crate) fn events(&self, count: usize) -> Vec<NewEvent> {
        (0..count).map(|_| self.event()).collect()
    }

    pub(crate) fn named(&self, name: &'static str) -> NewEvent {
        NewEvent { name: EventName::from_static(name), ..self.event() }
    }

    pub(crate) fn tagged(&self, tags: &[&str]) -> NewEvent {
        tags.iter().fold(self.event(), |event, text| event.with_tag(tag(text)))
    }

    /// A batch of one event.
    pub(crate) fn one(&self, id: &str, expected: impl Into<ExpectedVersion>) -> AppendBatch {
        AppendBatch::new().write(stream(id), expected, [self.event()])
    }

    /// Appends a batch that must succeed, for the first time.
    pub(crate) async fn append(&self, batch: AppendBatch) -> CaseResult<Appended> {
        let streams: Vec<_> = batch.writes().iter().map(|write| write.stream.clone()).collect();
        let place = || format!("append to {streams:?}");
        let count = batch.event_count();
        let appended = self.log().append(batch).await.within(place)?;
        ensure!(!appended.replayed, "append to {streams:?}: said to be stored before, but was not");
        ensure_eq!(
            appended.last.value() + 1 - appended.first.value(),
            count as u64,
            "append to {streams:?}: positions {} to {} for {count} events",
            appended.first,
            appended.last
        );
        ensure_eq!(appended.versions.len(), streams.len(), "append to {streams:?}: versions");
        Ok(appended)
    }

    /// Appends some events to the end of a stream, each in a batch of its own.
    pub(crate) async fn grow(&self, id: &str, count: usize) -> CaseResult<Vec<NewEvent>> {
        let events = self.events(count);
        for event in &events {
            let batch = AppendBatch::new().write(stream(id), ExpectedVersion::Any, [event.clone()]);
            self.append(batch).await?;
        }
        Ok(events)
    }

    /// Appends events to the end of a stream, in batches as long as the store takes, up to 500.
    pub(crate) async fn fill(&self, id: &str, count: usize) -> CaseResult {
        let batch_max = self.guarantees().limits.batch_events_max.min(500);
        for events in self.events(count).chunks(batch_max) {
            let batch = AppendBatch::new().write(stream(id), ExpectedVersion::Any, events.to_vec());
            self.append(batch).await?;
        }
        Ok(())
    }

    /// Appends a batch that must fail because of a version, and checks the error.
    pub(crate) async fn conflicts(
        &self,
        batch: AppendBatch,
        id: &str,
        expected: ExpectedVersion,
        actual: u64,
    ) -> CaseResult {
        match self.log().append(batch).await {
            Err(AppendError::Conflict(conflict)) => {
                ensure_eq!(conflict.stream, stream(id), "conflict's stream");
                ensure_eq!(conflict.expected, expected, "conflict on {id}: expected version");
                let actual = StreamVersion::new(actual);
                ensure_eq!(conflict.actual, actual, "conflict on {id}: actual version");
                Ok(())
            }
            other => Err(Stop::failed(format!(
                "append to {id} expecting {expected} at version {actual}: \
                 should conflict, was answered with {other:?}"
            ))),
        }
    }

    /// Appends a batch that the store itself must refuse, for this reason.
    pub(crate) async fn refuses(&self, what: &str, batch: AppendBatch) -> CaseResult {
        match self.log().append(batch).await {
            Err(AppendError::Store(error)) if error.kind() == StoreErrorKind::Invalid => Ok(()),
            other => Err(Stop::failed(format!("{what}: should be Invalid, but was {other:?}"))),
        }
    }

    pub(crate) async fn page(&self, query: ReadQuery) -> CaseResult<Page> {
        let place = format!("{query:?}");
        self.log().read(query).await.within(|| place)
    }

    /// Reads to the end, and checks every page on the way.
    pub(crate) async fn walk(&self, query: ReadQuery) -> CaseResult<Walk> {
        walk(self.log().as_ref(), query).await
    }

    pub(crate) async fn read(&self, query: ReadQuery) -> CaseResult<Vec<RecordedEvent>> {
        Ok(self.walk(query).await?.events)
    }

    pub(crate) async fn read_log(&self) -> CaseResult<Vec<RecordedEvent>> {
        self.read(ReadQuery::log()).await
    }

    /// Checks that the log holds exactly these events, in this order, from position 1 on.
    pub(crate) async fn holds(&self, events: &[NewEvent]) -> CaseResult {
        let found: Vec<_> = self.read_log().await?.iter().map(RecordedEvent::id).collect();
        let wanted: Vec<_> = events.iter().map(|event| event.id).collect();
        ensure_eq!(found, wanted, "ids of the events in the log");
        Ok(())
    }

    pub(crate) async fn info(&self, id: &str) -> CaseResult<StreamInfo> {
        self.log().stream_info(&stream(id)).await.within(|| format!("stream_info of {id}"))
    }

    pub(crate) async fn version(&self, id: &str) -> CaseResult<u64> {
        Ok(self.info(id).await?.bounds.version.value())
    }

    pub(crate) async fn change(&self, id: &str, change: StreamChange) -> CaseResult<StreamInfo> {
        let place = || format!("{change:?} of {id}");
        self.log().change(&stream(id), change).await.within(place)
    }

    /// A batch that deletes a stream.
    pub(crate) fn deletion(&self, id: &str, expected: impl Into<ExpectedVersion>) -> AppendBatch {
        AppendBatch::new().delete(stream(id), expected, self.id())
    }

    pub(crate) async fn delete(&self, id: &str) -> CaseResult<Appended> {
        self.append(self.deletion(id, ExpectedVersion::Any)).await
    }

    pub(crate) async fn head(&self) -> CaseResult<Position> {
        Ok(self.page(ReadQuery::log().from(factum_kernel::ReadFrom::End)).await?.head)
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("stores", &self.stores).finish_non_exhaustive()
    }
}

pub(crate) fn stream(id: &str) -> StreamId {
    id.parse().expect("cases name streams rightly")
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::parse(text).expect("cases name tags rightly")
}

pub(crate) fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(StreamVersion::new(version))
}
