//! Builds that take over while the store fails, builds that must not take over, and their
//! positions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{
    ConsumerOptions, ConsumerState, FailurePolicy, HandleError, Partitions, StartFrom,
};
use factum_kernel::{Category, Kernel, RecordedEvent, Scope, StreamId, TagKey, Timestamp};
use factum_memory::MemoryStore;
use factum_projection::{
    BuildError, Documents, DocumentsTx, ModelQuery, Projection, ProjectionFn, Projections,
};
use factum_testing::{Fault, FaultRates, FaultyDocuments, VirtualClock, bank::AccountEvent};

use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, HOUR, Ledgers, documents, pause, swift, until},
    rebuild::{build, is_right, load, watch},
};

/// Two benches on one store, one of them with documents that fail.
struct Failing {
    sound: Bench,
    failing: Bench,
    faulty: Arc<FaultyDocuments>,
}

fn failing(seed: u64, rates: FaultRates) -> Failing {
    let store = Arc::new(MemoryStore::new());
    let sound = Kernel::new(store.clone(), store.clone()).with_tag_key(TagKey::new([1; 32]));
    let clock = Arc::new(swift());
    let sound = sound.with_clock(clock.clone());
    let faulty = Arc::new(FaultyDocuments::new(store.clone(), seed, rates, clock.clone()));
    let failing = Kernel::new(store, faulty.clone()).with_tag_key(TagKey::new([1; 32]));
    let failing = failing.with_clock(clock);
    Failing { sound: Bench::on(sound), failing: Bench::on(failing), faulty }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_notice_nothing_while_a_failing_store_is_rebuilt_in() {
    for seed in 0..4 {
        let rates = FaultRates { delay: 0.0, ..FaultRates::rough() };
        let Failing { sound, failing, .. } = failing(seed, rates);
        let sound = Arc::new(sound);
        sound.open("ada").await;
        for _ in 0..50 {
            sound.deposit("ada", 1).await;
        }
        let ledgers = loop {
            match failing.try_keep::<1>(&Gate::open()).await {
                Ok(ledgers) => break ledgers,
                Err(error) => assert!(matches!(error, BuildError::Store(_)), "{error}"),
            }
        };
        ledgers.wait_for(sound.head(), HOUR).await.unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let loading = load(&sound, &is_over);
        let watching = watch(sound.ledgers(), &is_over);
        for _ in 0..3 {
            let before = ledgers.serving();
            // The build has begun now, or by an earlier request whose answer was lost.
            while !matches!(ledgers.rebuild().await, Ok(_) | Err(BuildError::Building { .. })) {
                pause().await;
            }
            until(|| async { ledgers.serving() != before && ledgers.building().is_none() }).await;
        }
        is_over.store(true, Ordering::SeqCst);
        loading.await.unwrap();
        assert!(watching.await.unwrap() > 10);
        ledgers.wait_for(sound.head(), HOUR).await.unwrap();
        let ledger = sound.ledgers().get("ada").await.unwrap().unwrap();
        assert_eq!(ledger.cents, sound.head().value() - 1);
    }
}

#[tokio::test]
async fn a_rebuild_whose_answer_is_lost_is_made_nevertheless() {
    let Failing { sound, failing, faulty } = failing(0, FaultRates::none());
    sound.open("ada").await;
    sound.deposits("ada", 20).await;
    let ledgers = failing.keep::<1>(&Gate::open()).await;
    is_right(&sound, &ledgers, 210).await;
    // The write that begins the build is stored, but its answer is lost, and so is the read that
    // would show it.
    faulty.next_read(Fault::Delay(Duration::ZERO));
    faulty.next_write(Fault::DropReply);
    faulty.next_read(Fault::FailBefore);
    assert!(matches!(ledgers.rebuild().await, Err(BuildError::Store(_))));
    until(|| async { ledgers.serving() == build(1, 1) }).await;
    is_right(&sound, &ledgers, 210).await;
}

/// Fails at thirteen cents, unless the failure is switched off.
pub(crate) struct Careful<const VERSION: u32>(Arc<AtomicBool>);

impl<const VERSION: u32> Careful<VERSION> {
    pub(crate) fn failing() -> Self {
        Self(Arc::default())
    }
}

impl<const VERSION: u32> Projection for Careful<VERSION> {
    const NAME: &'static str = "ledgers";
    const VERSION: u32 = VERSION;
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let is_thirteen = matches!(event, AccountEvent::Deposited { cents: 13 });
        if VERSION == 2 && is_thirteen && !self.0.load(Ordering::SeqCst) {
            return Err("thirteen".into());
        }
        Ledgers::<1>(Gate::open()).project(event, recorded, tx).await
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
async fn a_build_that_fails_at_an_event_does_not_take_over_until_it_handles_it() {
    let bench = Bench::new();
    for key in ["ada", "bob"] {
        bench.open(key).await;
        bench.deposits(key, 20).await;
    }
    let is_mended = Arc::new(AtomicBool::new(false));
    let short = Duration::from_millis(1);
    let kernel = bench.kernel.clone();
    let options = || {
        let failure = FailurePolicy::new().with_pause(short, short).with_retries_max(1);
        ConsumerOptions::new().with_failure(failure)
    };
    let target = move |_: &_| Documents::new(&kernel);
    let old = Careful::<1>(is_mended.clone());
    let old = bench.consumers.maintain(old, target.clone(), options()).await.unwrap();
    old.wait_for(bench.head(), LONG).await.unwrap();
    let new = Careful::<2>(is_mended.clone());
    let again = bench.again();
    let new = again.consumers.maintain(new, target, options()).await.unwrap();
    let rebuild = new.building().unwrap();
    let consumer = rebuild.consumer().unwrap();
    consumer.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(rebuild.progress().unwrap().parked, 2);
    // Longer than the pause before the next look.
    for _ in 0..3 {
        bench.kernel.clock().sleep(Duration::from_millis(500)).await;
        assert_eq!(new.serving(), build(1, 0));
    }
    is_mended.store(true, Ordering::SeqCst);
    for key in ["ada", "bob"] {
        consumer.retry(&StreamId::new("account", key).unwrap()).await.unwrap();
    }
    rebuild.done().await.unwrap();
    assert_eq!(new.serving(), build(2, 0));
}

#[tokio::test]
async fn progress_shows_the_rate_and_the_remaining_time() {
    let clock = VirtualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
    let bench = Bench::on(kernel.with_clock(Arc::new(clock.clone())));
    bench.open("ada").await;
    bench.deposits("ada", 99).await;
    let gate = Gate::open();
    let ledgers = bench.keep::<2>(&gate).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    gate.let_pass(0);
    let rebuild = ledgers.rebuild().await.unwrap();
    let is_at = |position| {
        let rebuild = &rebuild;
        move || async move { rebuild.progress().unwrap().position.value() == position }
    };
    until(is_at(0)).await;
    assert_eq!(rebuild.progress().unwrap().rate, None);
    clock.advance(Duration::from_secs(10));
    gate.let_pass(49);
    until(is_at(49)).await;
    let progress = rebuild.progress().unwrap();
    assert_eq!((progress.position.value(), progress.head.value()), (49, 100));
    assert_eq!(progress.rate, Some(4.9));
    assert_eq!(progress.remaining.map(|it| it.as_millis()), Some(10_408));
    gate.let_pass(u64::MAX);
    rebuild.done().await.unwrap();
    assert!(rebuild.progress().is_none());
}

#[tokio::test]
async fn the_last_events_of_the_old_program_are_in_the_new_build() {
    let clock = VirtualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store.clone()).with_tag_key(TagKey::new([1; 32]));
    let kernel = kernel.with_clock(Arc::new(clock.clone()));
    let slow = FaultyDocuments::new(store.clone(), 0, FaultRates::none(), Arc::new(clock.clone()));
    let slow = Arc::new(slow);
    let newer = Kernel::new(store, slow.clone()).with_clock(Arc::new(clock.clone()));
    let older = Bench::on(kernel);
    let newer = Bench::on(newer);
    older.open("ada").await;
    older.deposits("ada", 13).await;
    let old = older.keep::<1>(&Gate::open()).await;
    is_right(&older, &old, 91).await;
    let gate = Gate::after(8);
    let new = newer.keep::<2>(&gate).await;
    let rebuild = new.building().unwrap();
    until(|| async { rebuild.progress().unwrap().position.value() == 7 }).await;
    // The build reaches the end of the log, and its program begins the handover, slowly.
    slow.next_read(Fault::Delay(Duration::from_secs(60)));
    gate.let_pass(6);
    until(|| async { rebuild.progress().unwrap().position.value() == 14 }).await;
    pause().await;
    // Meanwhile the old build shows more events, which the new one does not reach.
    older.deposit("ada", 9).await;
    is_right(&older, &old, 100).await;
    clock.advance(Duration::from_secs(60));
    for _ in 0..20 {
        pause().await;
        assert_eq!(older.ledgers().get("ada").await.unwrap().unwrap().cents, 100);
    }
    gate.let_pass(u64::MAX);
    // The handler exceeded its time meanwhile, so the event is retried after a pause.
    until(|| async {
        clock.advance(Duration::from_millis(2));
        new.serving() == build(2, 0)
    })
    .await;
    assert_eq!(older.ledgers().get("ada").await.unwrap().unwrap().cents, 100);
}

/// Ledgers with a gate for each account that has one.
struct Gated<const VERSION: u32>(BTreeMap<&'static str, Gate>);

impl<const VERSION: u32> Projection for Gated<VERSION> {
    const NAME: &'static str = "ledgers";
    const VERSION: u32 = VERSION;
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let gate = self.0.get(recorded.stream().key()).cloned().unwrap_or_else(Gate::open);
        Ledgers::<VERSION>(gate).project(event, recorded, tx).await
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
async fn a_build_takes_over_when_it_has_reached_the_furthest_partition() {
    // Bob is in the first partition of the serving build, Ada in the last.
    for (ahead, held) in [("ada", "bob"), ("bob", "ada")] {
        let clock = VirtualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
        let store = Arc::new(MemoryStore::new());
        let kernel = Kernel::new(store.clone(), store.clone()).with_tag_key(TagKey::new([1; 32]));
        let kernel = kernel.with_clock(Arc::new(clock.clone()));
        let rates = FaultRates::none();
        let slow = FaultyDocuments::new(store.clone(), 0, rates, Arc::new(clock.clone()));
        let slow = Arc::new(slow);
        let newer = Kernel::new(store, slow.clone()).with_clock(Arc::new(clock.clone()));
        let older = Bench::on(kernel);
        let newer = Bench::on(newer);
        for key in ["ada", "bob"] {
            older.open(key).await;
            older.deposits(key, 2).await;
        }
        let options = ConsumerOptions::new().with_partitions(Partitions::by_stream(2));
        let targets = documents::<1>(&older.kernel);
        let gated = Gated::<1>(BTreeMap::from([(held, Gate::after(3))]));
        let old = older.consumers.maintain(gated, targets, options).await.unwrap();
        old.wait_for(older.head(), HOUR).await.unwrap();
        let gate = Gate::after(5);
        let new = newer.keep::<2>(&gate).await;
        let rebuild = new.building().unwrap();
        until(|| async { gate.is_closed() }).await;
        // The build reaches the end of the log, and its program begins the handover, slowly.
        slow.next_read(Fault::Delay(Duration::from_secs(60)));
        gate.let_pass(1);
        until(|| async { rebuild.progress().unwrap().position.value() == 6 }).await;
        pause().await;
        // Meanwhile one partition of the old program shows more events, and the other one is held
        // up.
        older.deposit(held, 9).await;
        let shown = older.deposit(ahead, 9).await;
        let parts = || old.consumer().unwrap().partitions();
        let positions = || parts().iter().map(|(_, it)| it.position).collect::<Vec<_>>();
        until(|| async { positions().contains(&shown) }).await;
        let place = usize::from(ahead == "ada");
        assert_eq!(positions()[place], shown, "{ahead} is in another partition");
        assert_eq!(positions()[1 - place].value(), 6, "{held} is not held up");
        clock.advance(Duration::from_secs(60));
        for _ in 0..20 {
            pause().await;
            assert_eq!(older.ledgers().get(ahead).await.unwrap().unwrap().cents, 12);
        }
        gate.let_pass(u64::MAX);
        until(|| async {
            clock.advance(Duration::from_millis(2));
            new.serving() == build(2, 0)
        })
        .await;
        for key in ["ada", "bob"] {
            assert_eq!(older.ledgers().get(key).await.unwrap().unwrap().cents, 12, "{key}");
        }
    }
}

#[tokio::test]
async fn a_build_of_a_dead_process_continues_in_a_live_one() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 30).await;
    let one = bench.another();
    let two = bench.another();
    let alive = one.keep::<1>(&Gate::open()).await;
    is_right(&bench, &alive, 465).await;
    let dead = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ledgers = two.keep::<1>(&Gate::after(9)).await;
            let rebuild = ledgers.rebuild().await.unwrap();
            until(|| async { rebuild.progress().unwrap().position.value() == 7 }).await;
        });
    });
    tokio::task::spawn_blocking(move || dead.join().unwrap()).await.unwrap();
    assert!(matches!(alive.rebuild().await, Err(BuildError::Building { .. })));
    until(|| async { alive.serving() == build(1, 1) }).await;
    is_right(&bench, &alive, 465).await;
}

#[tokio::test]
async fn a_projection_that_stopped_is_resumed_after_its_cause_is_removed() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 20).await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let short = Duration::from_millis(1);
    let kernel = bench.kernel.clone();
    let failure = FailurePolicy::new().with_pause(short, short).then_stop();
    let options = ConsumerOptions::new().with_failure(failure);
    let target = move |_: &_| Documents::new(&kernel);
    let careful = Careful::<2>(is_mended.clone());
    let careful = bench.consumers.maintain(careful, target, options).await.unwrap();
    let told = careful.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(factum_kernel::sentence(&told).contains("thirteen"), "{told}");
    is_mended.store(true, Ordering::SeqCst);
    careful.resume().await.unwrap();
    careful.wait_for(bench.head(), LONG).await.unwrap();
}

#[tokio::test]
async fn a_rebuild_begins_where_the_first_build_did() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 20).await;
    let kernel = bench.kernel.clone();
    let deposits =
        ProjectionFn::new("deposits", 1, |event, recorded, tx: &mut DocumentsTx| match event {
            AccountEvent::Deposited { cents } => {
                tx.put(&recorded.position().value().to_string(), &cents)
            }
            _ => Ok(()),
        });
    let options = ConsumerOptions::new().from(StartFrom::Now);
    let target = move |_: &_| Documents::new(&kernel);
    let deposits = bench.consumers.maintain_fn(deposits, target, options).await.unwrap();
    let has_begun = |state| state != ConsumerState::Starting;
    until(|| async { has_begun(deposits.consumer().unwrap().health().state) }).await;
    let position = bench.deposits("ada", 3).await;
    deposits.wait_for(position, LONG).await.unwrap();
    let seen = || async { deposits.read_model::<u64>().list(ModelQuery::all()).await.unwrap() };
    assert_eq!(seen().await.documents.len(), 3);
    deposits.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(seen().await.documents.len(), 3);
}

#[tokio::test]
async fn a_new_version_takes_over_in_an_empty_log_too() {
    let bench = Bench::new();
    bench.keep::<1>(&Gate::open()).await;
    let new = bench.again().keep::<2>(&Gate::open()).await;
    until(|| async { new.serving() == build(2, 0) }).await;
    bench.open("ada").await;
    bench.deposits("ada", 3).await;
    is_right(&bench, &new, 6).await;
}

#[tokio::test]
async fn a_build_that_reads_a_part_of_the_log_takes_over_at_its_end() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 3).await;
    for category in ["account", "nothing"] {
        let again = bench.again();
        let kernel = bench.kernel.clone();
        let scope = Scope::Category(Category::new(category).unwrap());
        let name = format!("of-{category}");
        let seen =
            ProjectionFn::new(&name, 1, |_: AccountEvent, recorded, tx: &mut DocumentsTx| {
                tx.put(&recorded.position().value().to_string(), &())
            });
        let options = ConsumerOptions::new().with_scope(scope);
        let target = move |_: &_| Documents::new(&kernel);
        let seen = again.consumers.maintain_fn(seen, target, options).await.unwrap();
        seen.rebuild().await.unwrap().done().await.unwrap();
        seen.wait_for(bench.head(), LONG).await.unwrap();
        let page = seen.read_model::<()>().list(ModelQuery::all()).await.unwrap();
        assert_eq!(page.documents.len(), if category == "account" { 4 } else { 0 });
    }
}
