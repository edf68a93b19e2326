//! Builds beside the serving one: under load, across deaths and versions, with several processes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::ConsumerState;
use factum_kernel::{KeyRange, ScanQuery};
use factum_projection::{Build, BuildError, Documents, Maintained, ModelQuery, ReadModel, Stale};

use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, HOUR, Ledger, pause, reader, swift, until},
};

pub(crate) fn build(version: u32, generation: u32) -> Build {
    Build { version, generation }
}

/// Deposits one cent to Ada again and again, until it is stopped.
pub(crate) fn load(bench: &Arc<Bench>, is_over: &Arc<AtomicBool>) -> tokio::task::JoinHandle<()> {
    let bench = bench.clone();
    let is_over = is_over.clone();
    tokio::spawn(async move {
        while !is_over.load(Ordering::SeqCst) {
            bench.deposit("ada", 1).await;
            pause().await;
        }
    })
}

/// Reads Ada's ledger again and again: it always exists, is always complete, and never goes back.
/// Returns the number of reads.
pub(crate) fn watch(
    ledgers: ReadModel<Ledger>,
    is_over: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u64> {
    watch_one(ledgers, "ada", is_over)
}

/// Reads one of several ledgers again and again.
pub(crate) fn watch_one(
    ledgers: ReadModel<Ledger>,
    key: &'static str,
    is_over: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u64> {
    let is_over = is_over.clone();
    tokio::spawn(async move {
        let mut seen = 0;
        let mut looks = 0;
        while !is_over.load(Ordering::SeqCst) {
            let ledger = ledgers.get(key).await.unwrap().expect("it is there");
            assert_eq!(ledger.count, ledger.cents);
            assert!(ledger.count >= seen, "{} after {seen}", ledger.count);
            seen = ledger.count;
            let page = ledgers.list(ModelQuery::all()).await.unwrap();
            let listed = page.documents.iter().find(|(of, _)| of == key).expect("it is there");
            assert!(listed.1.count >= seen);
            seen = listed.1.count;
            looks += 1;
            tokio::task::yield_now().await;
        }
        looks
    })
}

pub(crate) async fn is_right(bench: &Bench, maintained: &Maintained<Documents>, cents: u64) {
    maintained.wait_for(bench.head(), HOUR).await.unwrap();
    let ledger = reader(maintained.read_model()).get("ada").await.unwrap().unwrap();
    assert_eq!(ledger.cents, cents);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rebuilds_under_load_are_not_seen_by_readers_here_and_elsewhere() {
    let bench = Arc::new(Bench::new());
    bench.open("ada").await;
    for _ in 0..300 {
        bench.deposit("ada", 1).await;
    }
    let ledgers = bench.keep::<1>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let loading = load(&bench, &is_over);
    let here = watch(reader(ledgers.read_model()), &is_over);
    let elsewhere = watch(bench.ledgers(), &is_over);
    for generation in 1..=5 {
        let rebuild = ledgers.rebuild().await.unwrap();
        assert_eq!(rebuild.build(), build(1, generation));
        rebuild.done().await.unwrap();
        assert_eq!(ledgers.serving(), build(1, generation));
        assert_eq!(ledgers.previous(), Some(build(1, generation - 1)));
    }
    // Another program, with a new version and documents of another shape.
    let newer = bench.again();
    let newer = newer.keep::<2>(&Gate::open()).await;
    until(|| async { newer.serving() == build(2, 0) }).await;
    is_over.store(true, Ordering::SeqCst);
    loading.await.unwrap();
    assert!(here.await.unwrap() > 10 && elsewhere.await.unwrap() > 10);
    let deposits = bench.head().value() - 1;
    is_right(&bench, &newer, deposits).await;
    // The older program notices that its build does not serve any more.
    until(|| async { ledgers.serving() == build(2, 0) && ledgers.consumer().is_none() }).await;
    is_right(&bench, &ledgers, deposits).await;
}

#[tokio::test]
async fn a_changed_version_waits_until_it_has_caught_up_and_the_old_one_serves_meanwhile() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 20).await;
    let old = bench.keep::<1>(&Gate::open()).await;
    old.wait_for(bench.head(), LONG).await.unwrap();
    let gate = Gate::after(9);
    let again = bench.again();
    let new = again.keep::<2>(&gate).await;
    let rebuild = new.building().expect("it has begun by itself");
    until(|| async { rebuild.progress().unwrap().position.value() == 7 }).await;
    assert_eq!((new.serving(), new.previous()), (build(1, 0), None));
    let read = bench.ledgers();
    assert_eq!(read.get("ada").await.unwrap().unwrap().cents, 210);
    // The old program continues meanwhile.
    let position = bench.deposit("ada", 90).await;
    old.wait_for(position, LONG).await.unwrap();
    assert_eq!(read.get("ada").await.unwrap().unwrap().cents, 300);
    assert!(new.rebuild().await.unwrap_err().to_string().contains("under way"));
    // A reader of another shape gets an error that says what to do.
    let unread = new.read_model::<Ledger>().get("ada").await.unwrap_err().to_string();
    assert!(unread.contains("with_earlier") && unread.contains("build=1"), "{unread}");

    gate.let_pass(u64::MAX);
    rebuild.done().await.unwrap();
    assert_eq!((new.serving(), new.previous()), (build(2, 0), Some(build(1, 0))));
    assert!(new.building().is_none() && rebuild.progress().is_none());
    let ledger = new.read_model::<Ledger>().get("ada").await.unwrap().unwrap();
    assert_eq!(ledger, Ledger { count: 21, cents: 300 });
}

#[tokio::test]
async fn a_version_that_was_rolled_back_stays_so_until_the_next_one() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 4).await;
    let old = bench.keep::<1>(&Gate::open()).await;
    old.wait_for(bench.head(), LONG).await.unwrap();
    let new = bench.again().keep::<2>(&Gate::open()).await;
    until(|| async { new.serving() == build(2, 0) }).await;
    assert_eq!(new.roll_back().await.unwrap(), build(1, 0));
    let read = reader(new.read_model());
    assert_eq!(read.get("ada").await.unwrap().unwrap().cents, 10);
    // No program of version 1 runs the build, so it gets no events, and a waiting caller gets an
    // error.
    let position = bench.deposit("ada", 5).await;
    let told = read.wait_for(position, Duration::from_millis(50), Stale::Fail).await;
    assert!(told.unwrap_err().to_string().contains("has not reached the position"));
    let again = bench.again();
    let new = again.keep::<2>(&Gate::open()).await;
    assert!(new.building().is_none());
    assert_eq!(new.serving(), build(1, 0));
    // Forward again: version 2 continues from its checkpoint.
    assert_eq!(new.roll_back().await.unwrap(), build(2, 0));
    is_right(&bench, &new, 15).await;
    again.consumers.close().await;
    // A later version begins its build by itself.
    new.roll_back().await.unwrap_err();
    let third = bench.again().keep::<3>(&Gate::open()).await;
    until(|| async { third.serving() == build(3, 0) }).await;
    is_right(&bench, &third, 15).await;
}

#[tokio::test]
async fn rolling_back_one_version_resumes_the_earlier_build() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 4).await;
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    assert!(matches!(ledgers.roll_back().await, Err(BuildError::NothingKept(_))));
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    bench.deposit("ada", 5).await;
    is_right(&bench, &ledgers, 15).await;
    assert_eq!(ledgers.roll_back().await.unwrap(), build(2, 0));
    is_right(&bench, &ledgers, 15).await;
    bench.deposit("ada", 5).await;
    is_right(&bench, &ledgers, 20).await;
}

#[tokio::test]
async fn a_build_whose_process_died_continues_at_the_next_start() {
    let bench = Bench::new();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    bench.open("ada").await;
    bench.deposits("ada", 50).await;
    bench.keep::<1>(&Gate::open()).await.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    let mut at = 0;
    // The process dies again and again, each time a little further; the last one finishes.
    for events in [5, 9, 16, 17, u64::MAX] {
        let again = bench.again();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let other = std::thread::spawn(move || {
            let runtime = runtime();
            runtime.block_on(async {
                let new = again.keep::<2>(&Gate::after(events)).await;
                let rebuild = new.building();
                if events == u64::MAX {
                    rebuild.unwrap().done().await.unwrap();
                    answer.send(u64::MAX).unwrap();
                    return;
                }
                let rebuild = rebuild.expect("it continues");
                let is_at = || rebuild.progress().unwrap().position.value();
                until(|| async { is_at() >= at + events / 7 * 7 }).await;
                answer.send(is_at()).unwrap();
            });
            runtime.shutdown_timeout(Duration::ZERO);
        });
        let reached = answered.await.unwrap();
        other.join().unwrap();
        assert!(reached >= at, "what was built is kept");
        at = reached;
        assert_eq!(bench.ledgers().get("ada").await.unwrap().unwrap().cents, 1_275);
    }
    let new = bench.again().keep::<2>(&Gate::open()).await;
    assert_eq!((new.serving(), new.previous()), (build(2, 0), Some(build(1, 0))));
    is_right(&bench, &new, 1_275).await;
}

#[tokio::test]
async fn one_of_two_processes_that_rebuild_begins_the_build() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 30).await;
    let one = bench.another();
    let two = bench.another();
    let gates = Gate::open();
    let closed = Gate::open();
    let one = one.keep::<1>(&gates).await;
    let two = two.keep::<1>(&closed).await;
    two.wait_for(bench.head(), LONG).await.unwrap();
    gates.let_pass(10);
    closed.let_pass(10);
    let (left, right) = tokio::join!(one.rebuild(), two.rebuild());
    let (won, lost) = match (left, right) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        both => panic!("{both:?}"),
    };
    let told = matches!(lost, BuildError::Building { build: other, .. } if other == won.build());
    assert!(told, "{lost}");
    gates.let_pass(u64::MAX);
    closed.let_pass(u64::MAX);
    won.done().await.unwrap();
    // The other program sees the build too, and both see later events.
    for ledgers in [&one, &two] {
        until(|| async { ledgers.serving() == build(1, 1) }).await;
    }
    bench.deposit("ada", 35).await;
    is_right(&bench, &one, 500).await;
    is_right(&bench, &two, 500).await;
    let works = |it: &Maintained<_>| it.consumer().is_some_and(|it| it.health().elsewhere == 0);
    until(|| async { works(&one) != works(&two) }).await;
}

#[tokio::test]
async fn two_processes_of_a_new_version_make_one_build() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 30).await;
    bench.keep::<1>(&Gate::open()).await.wait_for(bench.head(), LONG).await.unwrap();
    let gate = Gate::after(12);
    let open = Gate::open();
    let one = bench.another().keep::<2>(&gate).await;
    let rebuild = one.building().unwrap();
    until(|| async { rebuild.progress().unwrap().position.value() >= 7 }).await;
    let two = bench.another().keep::<2>(&open).await;
    gate.let_pass(u64::MAX);
    two.building().unwrap().done().await.unwrap();
    rebuild.done().await.unwrap();
    is_right(&bench, &one, 465).await;
    is_right(&bench, &two, 465).await;
}

#[tokio::test]
async fn a_cancelled_build_leaves_nothing_and_its_number_is_not_used_again() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 30).await;
    let gate = Gate::open();
    let ledgers = bench.keep::<1>(&gate).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    gate.let_pass(10);
    let rebuild = ledgers.rebuild().await.unwrap();
    until(|| async { rebuild.progress().unwrap().position.value() >= 7 }).await;
    let waiting = tokio::spawn({
        let rebuild = ledgers.building().unwrap();
        async move { rebuild.done().await }
    });
    gate.let_pass(1);
    gate.let_pass(u64::MAX / 2);
    // Either the build has taken over first, or it is cancelled.
    let cancelled = rebuild.cancel().await;
    match waiting.await.unwrap() {
        Ok(()) => assert!(cancelled.is_err()),
        Err(error) => {
            assert!(matches!(error, BuildError::Superseded { .. }), "{error}");
            cancelled.unwrap();
            assert_eq!(ledgers.serving(), build(1, 0));
        }
    }
    let next = ledgers.rebuild().await.unwrap();
    assert_eq!(next.build(), build(1, 2));
    next.done().await.unwrap();
    is_right(&bench, &ledgers, 465).await;
}

#[tokio::test]
async fn discarded_and_reset_builds_are_cleared_after_a_while() {
    let bench = Bench::on(Bench::new().kernel.with_clock(Arc::new(swift())));
    bench.open("ada").await;
    bench.deposits("ada", 30).await;
    let gate = Gate::open();
    let ledgers = bench.keep::<2>(&gate).await;
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    let names: Vec<_> = bench.consumers.list().iter().map(|it| it.name().to_string()).collect();
    assert_eq!(names, ["ledgers@2.1"], "who looks sees no stopped consumers");
    assert_eq!(ledgers.discard_old().await.unwrap(), build(2, 0));
    assert!(ledgers.roll_back().await.is_err());
    assert_eq!(kept(&bench).await, ["ledgers@2", "ledgers@2.1"], "a reader may be in it");
    until(|| async { kept(&bench).await == ["ledgers@2.1"] }).await;

    gate.let_pass(8);
    assert_eq!(ledgers.reset().await.unwrap(), build(2, 2));
    until(|| async {
        let position = ledgers.consumer().unwrap().health().position;
        position.value() == 7
    })
    .await;
    let read = bench.ledgers();
    assert_eq!(read.get("ada").await.unwrap().unwrap().count, 6, "it is seen growing");
    gate.let_pass(u64::MAX);
    is_right(&bench, &ledgers, 465).await;
    until(|| async { kept(&bench).await == ["ledgers@2.2"] }).await;
}

/// The builds that have stored data.
pub(crate) async fn kept(bench: &Bench) -> Vec<String> {
    let mut names = Vec::new();
    for prefix in ["$model/", "$consumer/"] {
        let query = ScanQuery::new(KeyRange::prefix(prefix));
        let page = bench.kernel.documents().scan(query).await.unwrap();
        names.extend(page.documents.iter().map(|document| {
            let key = document.key.strip_prefix(prefix.as_bytes()).unwrap();
            let name = key.split(|byte| *byte == b'/').next().unwrap();
            String::from_utf8(name.to_vec()).unwrap()
        }));
    }
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn a_paused_build_does_not_take_over() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 30).await;
    let ledgers = bench.keep::<1>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    ledgers.pause().await.unwrap();
    let rebuild = ledgers.rebuild().await.unwrap();
    until(|| async { rebuild.progress().unwrap().state == ConsumerState::Paused }).await;
    assert_eq!(ledgers.serving(), build(1, 0));
    ledgers.resume().await.unwrap();
    rebuild.done().await.unwrap();
    is_right(&bench, &ledgers, 465).await;
}
