//! Several programs that run one consumer.

mod takeover;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use factum_consumer::{
    ConsumerHandle, ConsumerState, Consumers, FailurePolicy, HandleError, ReleaseError,
};
use factum_kernel::{
    Document, DocumentStore, Kernel, KeyRange, RecordedEvent, Revision, ScanPage, ScanQuery,
    StoreError, SystemClock, TagKey, WriteBatch, WriteError,
};
use factum_memory::MemoryStore;
use factum_projection::{Documents, DocumentsTx, Maintained, Projection, Projections};
use factum_testing::{FaultRates, FaultyDocuments, bank::AccountEvent};
use tokio::sync::watch;

use crate::{
    bench::{Bench, Count, Counts, Fails, LONG, in_documents, options},
    handover::Careful,
    ledger::{Gate, HOUR, Ledgers, documents, pause, reader, swift, until},
    partition::shared_out,
    rebuild::{load, watch_one},
};

fn bench() -> Bench {
    Bench::new().another()
}

fn count(bench: &Bench, fails: &Fails) -> ConsumerHandle {
    let target = Documents::new(&bench.kernel);
    let counts = bench.consumers.start_projection(Counts(fails.clone()), target, shared_out());
    counts.unwrap().consumer().clone()
}

async fn deposits(bench: &Bench) {
    for name in 0..12 {
        for cents in 100..104 {
            bench.deposit(&format!("a{name}"), cents).await;
        }
    }
}

/// The number of partitions that each program works on.
fn shares(of: &[&ConsumerHandle]) -> Vec<usize> {
    let here = |it: &&ConsumerHandle| it.health().partitions - it.health().elsewhere;
    of.iter().map(here).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_share_partitions_and_each_event_takes_effect_once_all_the_while() {
    let one = bench();
    for name in 0..12 {
        one.open(&format!("a{name}")).await;
    }
    let first = count(&one, &Fails::default());
    deposits(&one).await;
    until(|| async { shares(&[&first]) == [4] }).await;
    let two = one.another();
    let second = count(&two, &Fails::default());
    deposits(&one).await;
    until(|| async { shares(&[&first, &second]) == [2, 2] }).await;
    let three = one.another();
    let third = count(&three, &Fails::default());
    until(|| async { shares(&[&first, &second, &third]).iter().sum::<usize>() == 4 }).await;
    until(|| async { shares(&[&first, &second, &third]).iter().all(|it| *it > 0) }).await;
    deposits(&one).await;
    // A program without partitions waits for the other programs.
    for handle in [&first, &second, &third] {
        handle.wait_for(one.head(), LONG).await.unwrap();
    }
    two.consumers.close().await;
    until(|| async { shares(&[&first, &third]) == [2, 2] }).await;
    deposits(&one).await;
    third.wait_for(one.head(), LONG).await.unwrap();
    assert_eq!(one.counted().await, one.fold().await);
    three.consumers.close().await;
    one.consumers.close().await;
    let left = ScanQuery::new(KeyRange::prefix("$lease/"));
    assert_eq!(one.kernel.documents().scan(left).await.unwrap().documents, []);
}

#[tokio::test]
async fn the_partitions_of_a_dead_program_continue_in_a_standby_program() {
    let alive = bench();
    alive.open("ada").await;
    let dead = alive.another();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (die, dies) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let counts = dead.count(&Fails::default());
            counts.wait_for(dead.head(), LONG).await.unwrap();
            begun.send(()).unwrap();
            dies.await.unwrap();
        });
    });
    has_begun.await.unwrap();
    let counts = alive.count(&Fails::default());
    let mut health = counts.watch();
    health.wait_for(|health| health.state == ConsumerState::StandingBy).await.unwrap();
    alive.deposit("ada", 1).await;
    counts.wait_for(alive.head(), LONG).await.unwrap();
    assert_eq!(counts.health().handled, 0, "the other one did it");
    die.send(()).unwrap();
    tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    alive.deposit("ada", 2).await;
    counts.wait_for(alive.head(), LONG).await.unwrap();
    assert_eq!(counts.health().state, ConsumerState::Live);
    assert_eq!(alive.counted().await, alive.fold().await);
}

/// Documents whose leases can't be written when that is switched on, and with which a build takes
/// over only when it may.
#[derive(Debug)]
struct Silenced {
    documents: Arc<dyn DocumentStore>,
    is_silent: Arc<AtomicBool>,
    is_held: watch::Sender<bool>,
}

impl Silenced {
    fn new(documents: Arc<dyn DocumentStore>) -> Self {
        Self { documents, is_silent: Arc::default(), is_held: watch::Sender::new(false) }
    }
}

#[async_trait]
impl DocumentStore for Silenced {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        self.documents.get(key).await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        self.documents.scan(query).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        let is_lease = batch.entries().iter().any(|entry| entry.key.starts_with(b"$lease/"));
        if is_lease && self.is_silent.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("silenced").into());
        }
        if batch.entries().iter().any(|entry| entry.key.starts_with(b"$projection/")) {
            let _ = self.is_held.subscribe().wait_for(|is_held| !is_held).await;
        }
        self.documents.write(batch).await
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        self.documents.clear(range).await
    }
}

/// Counts deposits, each after its gate has let it through.
struct Slow(Gate);

impl Projection for Slow {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        self.0.pass().await;
        tx.update(recorded.stream().key(), |count: &mut Count| count.cents.push(cents)).await
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

#[tokio::test]
async fn a_program_that_loses_its_lease_in_a_batch_stores_nothing_of_it() {
    let store = Arc::new(MemoryStore::new());
    let silenced = Silenced::new(store.clone());
    let is_silent = silenced.is_silent.clone();
    let kernel = Kernel::new(store.clone(), Arc::new(silenced));
    let old = Bench::among_others(kernel.with_tag_key(TagKey::new([1; 32])));
    let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
    let new = Bench::among_others(kernel);
    new.open("ada").await;
    for cents in 1..=10 {
        new.deposit("ada", cents).await;
    }
    // It is in its first batch, at the fourth event.
    let gate = Gate::after(3);
    let open = Gate::open();
    let options = || options().with_batch_events_max(100);
    let target = Documents::new(&old.kernel);
    let loser = old.consumers.start_projection(Slow(gate.clone()), target, options()).unwrap();
    until(|| async { gate.is_closed() }).await;
    is_silent.store(true, Ordering::SeqCst);
    let target = Documents::new(&new.kernel);
    let winner = new.consumers.start_projection(Slow(open), target, options()).unwrap();
    winner.wait_for(new.head(), LONG).await.unwrap();
    assert!(winner.health().handled >= 11, "it did not wait for the other one's batch");
    // The old owner continues with all that it has begun.
    gate.let_pass(u64::MAX / 2);
    new.deposit("ada", 11).await;
    winner.wait_for(new.head(), LONG).await.unwrap();
    is_silent.store(false, Ordering::SeqCst);
    let mut health = loser.watch();
    health.wait_for(|health| health.state == ConsumerState::StandingBy).await.unwrap();
    assert_eq!(loser.health().handled, 0);
    loser.wait_for(new.head(), LONG).await.unwrap();
    let found = in_documents::<Count>(&**new.kernel.documents(), "$model/counts@1/").await;
    assert_eq!(found, new.fold().await);
}

#[tokio::test]
async fn a_program_without_partitions_passes_orders_on() {
    let one = bench();
    one.open("ada").await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    // Orders are read only from stores with several writing processes, so this one needs a call.
    let first = one.count(&fails);
    one.deposit("ada", 13).await;
    first.wait_for(one.head(), LONG).await.unwrap();
    let two = one.another();
    let second = two.count(&fails);
    let mut health = second.watch();
    health.wait_for(|health| health.state == ConsumerState::StandingBy).await.unwrap();
    let [letter] = &second.dead_letters().await[..] else { panic!("one is parked") };
    assert_eq!(letter.error, "thirteen");
    let stream = letter.stream.clone();
    let again = second.retry(&stream).await.unwrap_err();
    assert_eq!(again, ReleaseError::Failed("thirteen".into()));
    fails.errs.store(false, Ordering::SeqCst);
    second.retry(&stream).await.unwrap();
    assert_eq!(second.dead_letters().await, []);
    assert_eq!(one.counted().await, one.fold().await);
}

#[tokio::test]
async fn a_consumer_that_is_rewound_by_another_program_continues_from_there() {
    let one = bench();
    one.open("ada").await;
    one.deposit("ada", 1).await;
    let first = one.count(&Fails::default());
    first.wait_for(one.head(), LONG).await.unwrap();
    let handled = first.health().handled;
    let outside = one.another();
    outside.consumers.rewind(first.name(), factum_kernel::Position::new(1)).await.unwrap();
    one.deposit("ada", 2).await;
    until(|| async { first.health().handled == handled + 2 }).await;
    first.wait_for(one.head(), LONG).await.unwrap();
}

/// One of several programs, with a clock on which a second takes fifty milliseconds.
fn swift_one(kernel: &Kernel) -> Bench {
    let consumers = Consumers::new(kernel.clone()).with_lease(Duration::from_secs(3));
    Bench { consumers, ..Bench::on(kernel.clone()) }
}

async fn keep(bench: &Bench) -> Maintained<Documents> {
    let failure = FailurePolicy::new().with_pause(Duration::from_millis(40), HOUR);
    let targets = documents::<1>(&bench.kernel);
    let options = shared_out().with_failure(failure);
    bench.consumers.maintain(Ledgers::<1>(Gate::open()), targets, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_notice_nothing_of_rebuilds_that_two_programs_share() {
    let kernel = Bench::new().kernel.with_clock(Arc::new(swift()));
    let one = Arc::new(swift_one(&kernel));
    let two = swift_one(&kernel);
    for name in 0..8 {
        one.open(&format!("a{name}")).await;
        one.deposits(&format!("a{name}"), 5).await;
    }
    one.open("ada").await;
    for _ in 0..50 {
        one.deposit("ada", 1).await;
    }
    let first = keep(&one).await;
    let second = keep(&two).await;
    first.wait_for(one.head(), HOUR).await.unwrap();
    let works = |it: &Maintained<_>| it.consumer().is_some_and(|it| it.health().elsewhere == 2);
    until(|| async { works(&first) && works(&second) }).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let loading = load(&one, &is_over);
    let watching = [
        watch_one(reader(first.read_model()), "ada", &is_over),
        watch_one(reader(second.read_model()), "ada", &is_over),
        watch_one(one.ledgers(), "ada", &is_over),
    ];
    for turn in 0..4 {
        let rebuilds = if turn % 2 == 0 { &first } else { &second };
        let rebuild = rebuilds.rebuild().await.unwrap();
        rebuild.done().await.unwrap();
        let serving = rebuild.build();
        until(|| async { [&first, &second].iter().all(|it| it.serving() == serving) }).await;
    }
    is_over.store(true, Ordering::SeqCst);
    loading.await.unwrap();
    for watching in watching {
        assert!(watching.await.unwrap() > 10);
    }
    for it in [&first, &second] {
        it.wait_for(one.head(), HOUR).await.unwrap();
    }
    let read = one.ledgers();
    for name in 0..8 {
        assert_eq!(read.get(&format!("a{name}")).await.unwrap().unwrap().cents, 15);
    }
    let ada = read.get("ada").await.unwrap().unwrap();
    assert_eq!(ada.count, one.head().value() - 8 * 6 - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_is_being_replaced_gets_no_events_in_any_program() {
    let store = Arc::new(MemoryStore::new());
    let held = Arc::new(Silenced::new(store.clone()));
    let with_key = |kernel: Kernel| kernel.with_tag_key(TagKey::new([1; 32]));
    let one = Bench::among_others(with_key(Kernel::new(store.clone(), held.clone())));
    let two = Bench::among_others(with_key(Kernel::new(store.clone(), store)));
    for name in 0..8 {
        one.open(&format!("a{name}")).await;
        one.deposits(&format!("a{name}"), 5).await;
    }
    let gate = Gate::open();
    let keep = async |bench: &Bench, gate: &Gate| {
        let targets = documents::<1>(&bench.kernel);
        let work = Ledgers::<1>(gate.clone());
        bench.consumers.maintain(work, targets, shared_out()).await.unwrap()
    };
    let first = keep(&one, &gate).await;
    let second = keep(&two, &Gate::open()).await;
    first.wait_for(one.head(), LONG).await.unwrap();
    let works = |it: &Maintained<_>| it.consumer().is_some_and(|it| it.health().elsewhere == 2);
    until(|| async { works(&first) && works(&second) }).await;
    gate.let_pass(0);
    let rebuild = first.rebuild().await.unwrap();
    held.is_held.send_replace(true);
    gate.let_pass(u64::MAX / 2);
    // The build has caught up: the serving build is held, and the write that ends the hold does not
    // come. The program that works on it notices at its next write.
    let mut deposited = 15;
    let freezes = async {
        loop {
            for name in 0..8 {
                one.deposit(&format!("a{name}"), 1).await;
            }
            deposited += 1;
            pause().await;
            let parts = second.consumer().unwrap().partitions();
            let frozen = parts.iter().filter(|(_, it)| it.state == ConsumerState::Paused);
            if frozen.count() == 2 {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, freezes).await.expect("it continues");
    for name in 0..8 {
        one.deposit(&format!("a{name}"), 1_000).await;
    }
    rebuild.consumer().unwrap().wait_for(one.head(), LONG).await.unwrap();
    let sum = async || {
        let mut sum = 0;
        for name in 0..8 {
            sum += one.ledgers().get(&format!("a{name}")).await.unwrap().unwrap().cents;
        }
        sum
    };
    assert!(sum().await < 8 * 1_000, "the build that is being replaced went on");
    held.is_held.send_replace(false);
    rebuild.done().await.unwrap();
    until(|| async { second.serving() == rebuild.build() }).await;
    assert_eq!(sum().await, 8 * (1_000 + deposited));
}

/// A failed write used to make the next look forget its other decisions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_delays_sharing_and_loses_nothing() {
    for seed in 0..3 {
        let store = Arc::new(MemoryStore::new());
        let with_key = |kernel: Kernel| kernel.with_tag_key(TagKey::new([1; 32]));
        let sound = Bench::on(with_key(Kernel::new(store.clone(), store.clone())));
        for name in 0..12 {
            sound.open(&format!("a{name}")).await;
        }
        let rates = FaultRates { delay: 0.0, ..FaultRates::rough() };
        let program = |seed| {
            let clock = Arc::new(SystemClock);
            let documents = FaultyDocuments::new(store.clone(), seed, rates, clock);
            Bench::among_others(with_key(Kernel::new(store.clone(), Arc::new(documents))))
        };
        let programs = [program(seed), program(seed + 10), program(seed + 20)];
        let mut handles = Vec::new();
        for program in &programs {
            handles.push(count(program, &Fails::default()));
            deposits(&sound).await;
        }
        let handles: Vec<_> = handles.iter().collect();
        until(|| async {
            let shares = shares(&handles);
            shares.iter().sum::<usize>() == 4 && shares.iter().all(|it| *it > 0)
        })
        .await;
        deposits(&sound).await;
        for handle in &handles {
            handle.wait_for(sound.head(), LONG).await.unwrap();
            assert_eq!(handle.health().parked, 0);
        }
        assert_eq!(sound.counted().await, sound.fold().await, "seed {seed}");
        programs[0].consumers.close().await;
        until(|| async { shares(&handles[1..]) == [2, 2] }).await;
    }
}

/// The build used to stay on hold for half a minute, as it was when another build replaced it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_a_rollback_returns_to_continues_at_once() {
    let one = bench();
    one.open("ada").await;
    one.deposits("ada", 5).await;
    let ledgers = keep(&one).await;
    ledgers.wait_for(one.head(), LONG).await.unwrap();
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    ledgers.roll_back().await.unwrap();
    one.deposit("ada", 100).await;
    ledgers.wait_for(one.head(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(one.ledgers().get("ada").await.unwrap().unwrap().cents, 115);
}

/// The serving build used to be held and restarted each second, for a build that was not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_with_a_stream_parked_in_another_program_delays_no_reader() {
    let one = bench();
    for name in 0..8 {
        one.open(&format!("a{name}")).await;
        one.deposits(&format!("a{name}"), 5).await;
    }
    let two = one.another();
    let first = keep_careful::<1>(&one).await;
    let second = keep_careful::<1>(&two).await;
    first.wait_for(one.head(), LONG).await.unwrap();
    let works = |it: &Maintained<_>| it.consumer().is_some_and(|it| it.health().elsewhere == 2);
    until(|| async { works(&first) && works(&second) }).await;
    // An event fails in the new version, in one of the partitions.
    one.deposit("a0", 13).await;
    one.consumers.close().await;
    two.consumers.close().await;
    let two = one.another();
    let one = one.another();
    let first = keep_careful::<2>(&one).await;
    let second = keep_careful::<2>(&two).await;
    let parked = |it: &Maintained<Documents>| {
        let progress = it.building().and_then(|building| building.progress());
        progress.map_or(0, |progress| progress.parked)
    };
    until(|| async { parked(&first) + parked(&second) == 1 }).await;
    until(|| async {
        let building = |it: &Maintained<_>| it.building().and_then(|it| it.consumer());
        building(&first).is_some_and(|it| it.health().elsewhere == 2)
            && building(&second).is_some_and(|it| it.health().elsewhere == 2)
    })
    .await;
    let prefix = "$consumer/ledgers@1";
    let progress = async || {
        let scan = ScanQuery::new(KeyRange::prefix(prefix));
        let page = one.kernel.documents().scan(scan).await.unwrap();
        let is_progress = |it: &&Document| it.key.ends_with(b"/progress");
        page.documents.iter().filter(is_progress).map(|it| it.revision).max()
    };
    let before = progress().await;
    // Long enough for a keeper to make several attempts.
    one.kernel.clock().sleep(Duration::from_millis(2_500)).await;
    assert_eq!(progress().await, before, "nobody touches what serves");
}

async fn keep_careful<const VERSION: u32>(bench: &Bench) -> Maintained<Documents> {
    let target = bench.kernel.clone();
    let targets = move |_: &_| Documents::new(&target);
    let careful = Careful::<VERSION>::failing();
    bench.consumers.maintain(careful, targets, shared_out()).await.unwrap()
}
