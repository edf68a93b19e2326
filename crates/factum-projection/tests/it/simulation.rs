//! Thousands of lives of a consumer. Its documents fail in every way at any call; its events fail,
//! panic, kill or can't be decoded; orders come at any time. In the end, each event took effect
//! once, in the order of its stream.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use factum_consumer::{
    ConsumerHandle, ConsumerHealth, ConsumerOptions, ConsumerState, Consumers, DeadLetter,
    FailurePolicy, HandleError, StopReason, stored_consumers,
};
use factum_kernel::{
    AppendBatch, Content, EventId, EventName, EventStore, ExpectedVersion, Kernel, NewEvent,
    Position, RecordedEvent, StreamId, Timestamp,
};
use factum_memory::MemoryStore;
use factum_projection::{Documents, DocumentsTx, Fold, Projection, Projections};
use factum_testing::{FaultRates, FaultyStore, SeededIds, VirtualClock, bank::AccountEvent};

use crate::{
    bench::in_documents,
    disk::{Chance, Disk, Process},
};

/// The handled events of each stream, by version.
type Model = BTreeMap<String, Vec<u64>>;

/// The version of the first poisoned event of each stream; all events before it must be there.
type Waiting = Arc<Mutex<HashMap<String, u64>>>;

const STREAMS: u64 = 4;
const IN_DOCUMENTS: &str = "$model/simulated@1/";

/// The effect of an event on its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poison {
    /// Fails N times, or until the cause is removed.
    Fails(u32),
    Kills,
}

/// The poisoned events, shared by all processes.
#[derive(Debug, Clone, Default)]
struct Poisons(Arc<Mutex<HashMap<Position, Poison>>>);

impl Poisons {
    /// The effect of the event on this attempt.
    fn take(&self, position: Position) -> Option<Poison> {
        let mut poisons = self.0.lock().unwrap();
        let poison = poisons.get_mut(&position)?;
        let now = *poison;
        if let Poison::Fails(left) = poison {
            *left = left.saturating_sub(1);
            if *left == 0 {
                poisons.remove(&position);
            }
        }
        Some(now)
    }

    async fn suffer(&self, position: Position, process: &Process) -> Result<(), HandleError> {
        match self.take(position) {
            None => Ok(()),
            Some(Poison::Fails(_)) => Err("poison".into()),
            Some(Poison::Kills) => process.die().await,
        }
    }
}

struct InDocuments(Poisons, Process);

impl Projection for InDocuments {
    const NAME: &'static str = "simulated";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        _: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let version = recorded.version().value();
        tx.update(recorded.stream().key(), |seen: &mut Vec<u64>| seen.push(version)).await?;
        self.0.suffer(recorded.position(), &self.1).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        documents.remove(deletion.stream().key());
        Ok(())
    }
}

/// The same projection as a model in memory.
fn remembered(
    poisons: Poisons,
    process: Process,
) -> Fold<Model, AccountEvent, impl Fn(&mut Model, AccountEvent, &RecordedEvent) + Send + Sync> {
    Fold::new("simulated", 1, move |model: &mut Model, _, recorded: &RecordedEvent| {
        let version = recorded.version().value();
        model.entry(recorded.stream().key().into()).or_default().push(version);
        match poisons.take(recorded.position()) {
            None => {}
            Some(Poison::Fails(_)) => panic!("poison"),
            Some(Poison::Kills) => process.die_at_once(),
        }
    })
}

/// One run: a log, documents, and one consumer that lives again and again.
struct World {
    chance: Chance,
    log: Arc<MemoryStore>,
    disk: Disk,
    poisons: Poisons,
    poisoned: Waiting,
    versions: HashMap<String, u64>,
    is_in_memory: bool,
    watcher: Option<tokio::task::JoinHandle<()>>,
    appended: u64,
}

#[derive(Debug, PartialEq)]
enum Ended {
    Died,
    Stopped(StopReason),
}

impl World {
    fn new(seed: u64) -> Self {
        let log = Arc::new(MemoryStore::new());
        let mut chance = Chance::new(seed);
        let is_in_memory = chance.percent(50);
        Self {
            disk: Disk::new(log.clone(), seed),
            log,
            chance,
            poisons: Poisons::default(),
            poisoned: Waiting::default(),
            versions: HashMap::new(),
            is_in_memory,
            watcher: None,
            appended: 0,
        }
    }

    /// Appends events: a few are poisoned, a few are not handled.
    async fn append(&mut self) {
        for _ in 0..=self.chance.below(3) {
            let key = format!("s{}", self.chance.below(STREAMS));
            let stream = StreamId::new("account", &key).unwrap();
            let count = 1 + self.chance.below(5);
            let events: Vec<_> = (0..count).map(|_| self.event(&key)).collect();
            let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, events);
            self.log.append(batch).await.unwrap();
        }
    }

    fn event(&mut self, key: &str) -> NewEvent {
        self.appended += 1;
        let id = EventId::derived(Timestamp::EPOCH, &self.appended.to_be_bytes());
        let version = self.versions.entry(key.into()).or_default();
        *version += 1;
        let position = Position::new(self.appended);
        let mut name = "account.deposited";
        if self.chance.percent(8) {
            let poison = match self.chance.below(5) {
                0 => Poison::Kills,
                1 => Poison::Fails(u32::MAX),
                _ => Poison::Fails(1 + self.chance.below(4) as u32),
            };
            self.poisons.0.lock().unwrap().insert(position, poison);
            self.poisoned.lock().unwrap().entry(key.into()).or_insert(*version);
        } else if self.chance.percent(15) {
            name = "other.noted";
        }
        NewEvent::new(id, EventName::parse(name).unwrap(), Content::Json, r#"{"cents":1}"#)
    }

    /// Waits for an append in flight that a death cut off, and counts the events again.
    async fn settle(&mut self) {
        let note = self.event("settled");
        let stream = StreamId::new("account", "settled").unwrap();
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [note]);
        self.appended = self.log.append(batch).await.unwrap().first.value();
        for (key, version) in &mut self.versions {
            let stream = StreamId::new("account", key).unwrap();
            *version = self.log.stream_info(&stream).await.unwrap().bounds.version.value();
        }
    }

    /// The expected read model: every deposit of each stream. The model may lack the events from a
    /// poisoned one on.
    async fn expected(&self) -> Model {
        let mut model = Model::new();
        let page = self.log.read(factum_kernel::ReadQuery::log().with_events_max(10_000)).await;
        for event in page.unwrap().events {
            if event.name() == "account.deposited" {
                let key = event.stream().key().to_owned();
                model.entry(key).or_default().push(event.version().value());
            }
        }
        model
    }

    fn options(&mut self) -> ConsumerOptions {
        let pause = Duration::from_millis(1);
        let failure = FailurePolicy::new().with_retries_max(2).with_pause(pause, pause);
        ConsumerOptions::new()
            .with_failure(failure)
            .with_batch_events_max(1 + self.chance.below(12) as usize)
    }

    /// One life of the process, with `faults` failures in a hundred calls.
    fn live(&mut self, faults: u64, dies_in: Option<u64>, is_wild: bool) -> Ended {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(VirtualClock::auto_advancing(Timestamp::EPOCH));
            let seed = self.chance.next();
            let disk = self.disk.boot(faults, dies_in);
            let process = disk.process();
            let rates = FaultRates { fail_read: faults as f64 / 200.0, ..FaultRates::none() };
            let events = FaultyStore::new(self.log.clone(), seed, rates, clock.clone());
            let kernel = Kernel::new(Arc::new(events), Arc::new(disk))
                .with_clock(clock)
                .with_ids(Arc::new(SeededIds::new(seed)));
            let ended = tokio::select! {
                biased;
                () = process.died() => Ended::Died,
                ended = self.act(kernel, process.clone(), is_wild) => Ended::Stopped(ended),
            };
            // The watcher ends early only if it found an error.
            match self.watcher.take() {
                Some(watcher) if ended != Ended::Died || watcher.is_finished() => {
                    watcher.await.unwrap();
                }
                _ => {}
            }
            ended
        })
    }

    async fn act(&mut self, kernel: Kernel, process: Process, is_wild: bool) -> StopReason {
        let consumers = Consumers::new(kernel.clone());
        let options = self.options();
        let poisons = self.poisons.clone();
        let snapshot_events = 1 + self.chance.below(20) as usize;
        let (handle, model) = if self.is_in_memory {
            let fold = remembered(poisons, process).with_options(options);
            let model = consumers.fold(fold.with_snapshot_events(snapshot_events)).await.unwrap();
            (model.consumer().clone(), Some(model))
        } else {
            let target = Documents::new(&kernel);
            let work = InDocuments(poisons, process);
            (
                consumers.start_projection(work, target, options).await.unwrap().consumer().clone(),
                None,
            )
        };
        let watched = handle.clone();
        let log = self.log.clone();
        let poisoned = self.poisoned.clone();
        self.watcher = Some(tokio::spawn(async move {
            let mut health = watched.watch();
            let mut before = 0;
            while health.changed().await.is_ok() {
                let seen = health.borrow_and_update().clone();
                if matches!(seen.state, ConsumerState::Stopped(_)) {
                    break;
                }
                let found = match &model {
                    Some(model) => match model.read().await {
                        Ok(model) => model.clone(),
                        // The consumer stopped while its model was being restored.
                        Err(_) => break,
                    },
                    None => in_documents(&*log, IN_DOCUMENTS).await,
                };
                if matches!(watched.health().state, ConsumerState::Stopped(_)) {
                    // The consumer may have stopped while its model was being restored.
                    break;
                }
                let count: usize = found.values().map(Vec::len).sum();
                assert!(count >= before, "a model went back: {count} after {before}");
                before = count;
                has_all(&log, &found, &poisoned, seen.position).await;
            }
        }));
        if is_wild {
            for _ in 0..self.chance.below(6) {
                self.order(&handle).await;
                if self.chance.percent(40) {
                    self.append().await;
                }
                tokio::task::yield_now().await;
            }
        }
        handle.resume().await;
        let head = *self.log.head().borrow();
        until(&handle, |health| health.position >= head).await;
        if !is_wild && self.poisons.0.lock().unwrap().is_empty() {
            for letter in handle.dead_letters().await {
                let told = handle.retry(&letter.stream).await;
                assert_eq!(told, Ok(()), "nothing is poisoned any more: {letter:?}");
            }
        }
        handle.stop().await
    }

    async fn order(&mut self, handle: &ConsumerHandle) {
        match self.chance.below(8) {
            0 => handle.pause().await,
            1 => handle.resume().await,
            2 => {
                for letter in handle.dead_letters().await {
                    let _ = handle.retry(&letter.stream).await;
                }
            }
            _ => {
                let seen = handle.health().position;
                let head = *self.log.head().borrow();
                let further = seen.plus(1 + self.chance.below(20)).min(head);
                until(handle, |health| {
                    health.position >= further || health.state == ConsumerState::Paused
                })
                .await;
            }
        }
    }
}

/// Waits until a condition holds for a consumer, or it has stopped.
async fn until(handle: &ConsumerHandle, is_so: impl Fn(&ConsumerHealth) -> bool) {
    let mut health = handle.watch();
    let is_over = |it: &ConsumerHealth| is_so(it) || matches!(it.state, ConsumerState::Stopped(_));
    let come = tokio::time::timeout(Duration::from_secs(10), health.wait_for(is_over)).await;
    assert!(come.is_ok(), "the consumer does not get there: {:?}", handle.health());
}

/// Checks that the model contains every event up to a position and nothing out of order. Events
/// from a poisoned or a parked one on may be missing. An event during which the process happened to
/// die three times is parked although it is sound.
async fn has_all(log: &MemoryStore, found: &Model, poisoned: &Waiting, through: Position) {
    for (key, seen) in found {
        assert!(seen.is_sorted_by(|a, b| a < b), "doubled or out of order: {key} {seen:?}");
    }
    let stored = stored_consumers(log).await.unwrap();
    let parked: Vec<_> = stored.iter().flat_map(|it| &it.dead_letters).collect();
    let page = log.read(factum_kernel::ReadQuery::log().with_events_max(10_000)).await.unwrap();
    for event in page.events.iter().filter(|event| event.position() <= through) {
        let key = event.stream().key();
        let version = event.version().value();
        let is_poisoned = poisoned.lock().unwrap().get(key).is_some_and(|first| version >= *first);
        let is_parked = |it: &&DeadLetter| it.stream.key() == key && version >= it.version.value();
        let is_poisoned = is_poisoned || parked.iter().any(is_parked);
        let is_there = found.get(key).is_some_and(|seen| seen.contains(&version));
        let is_due = event.name() == "account.deposited" && !is_poisoned;
        assert!(is_there || !is_due, "told of {through}, but {key} {version} is not there");
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for _ in 0..1 + world.chance.below(5) {
        runtime.block_on(world.append());
        let faults = world.chance.below(4) * 8;
        let dies_in = world.chance.percent(70).then(|| 1 + world.chance.below(40));
        let ended = world.live(faults, dies_in, true);
        runtime.block_on(world.settle());
        assert!(matches!(ended, Ended::Died | Ended::Stopped(StopReason::Asked)), "{ended:?}");
    }
    // Events that kill still kill: each of them is found and parked after some deaths.
    let killers =
        world.poisons.0.lock().unwrap().values().filter(|it| **it == Poison::Kills).count();
    let mut deaths = 0;
    while world.live(0, None, false) == Ended::Died {
        deaths += 1;
        assert!(deaths <= 12 * (killers + 1), "an event kills it for ever");
    }
    // After the causes are removed, every event is handled.
    world.poisons.0.lock().unwrap().clear();
    assert_eq!(world.live(0, None, false), Ended::Stopped(StopReason::Asked));
    let found = runtime.block_on(world.found());
    assert_eq!(found, runtime.block_on(world.expected()));
}

impl World {
    async fn found(&self) -> Model {
        if !self.is_in_memory {
            return in_documents(&*self.log, IN_DOCUMENTS).await;
        }
        let kernel = Kernel::new(self.log.clone(), self.log.clone());
        let fold = remembered(self.poisons.clone(), Process::default());
        let model = Consumers::new(kernel).fold(fold).await.unwrap();
        let head = *self.log.head().borrow();
        let mut health = model.watch();
        health.wait_for(|health| health.position >= head).await.unwrap();
        let found = model.read().await.unwrap().clone();
        model.stop().await;
        found
    }
}

#[test]
fn whatever_fails_and_whenever_it_dies_each_event_takes_effect_once() {
    let (first, runs) = match std::env::var("FACTUM_SIMULATE") {
        Ok(text) => (text.parse().unwrap(), 1),
        Err(_) if std::env::var_os("FACTUM_TEST_FULL").is_some() => (0, 20_000),
        Err(_) => (0, 500),
    };
    for seed in first..first + runs {
        let ended = std::panic::catch_unwind(|| run(seed));
        assert!(ended.is_ok(), "again with FACTUM_SIMULATE={seed}");
    }
}
