//! Builds of read models in tables, each beside the serving one: the same behaviour in every
//! database.

use std::{
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use factum_consumer::{
    ConsumerName, ConsumerOptions, FailurePolicy, Fence, Save, Target, TargetError,
};
use factum_kernel::{Position, ReadQuery};
use factum_projection::{Build, BuildError, Maintained, Rebuild};
use factum_testing::ChildTest;

use super::log;
use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, HOUR, PAUSE, pause, swift, until},
    rebuild::{build, load},
};

/// The tables of all builds of a projection `totals`. Version 1 sums cents by account; version 2
/// also counts deposits, in a column with an index.
pub(crate) trait Tables: Clone + Send + Sync + 'static {
    type Target: Target;

    /// A place without tables.
    fn new() -> impl Future<Output = Self>;

    /// The tables of another process.
    fn at(address: &str) -> impl Future<Output = Self>;

    /// The address by which another process finds the tables.
    fn address(&self) -> String;

    fn target(&self, build: &ConsumerName) -> Self::Target;

    fn try_keep<const VERSION: u32>(
        &self,
        bench: &Bench,
        gate: &Gate,
    ) -> impl Future<Output = Result<Maintained<Self::Target>, BuildError>> + Send;

    /// The sum of all accounts, as readers see it.
    fn cents(
        &self,
        totals: &Maintained<Self::Target>,
    ) -> impl Future<Output = Result<u64, String>> + Send;

    /// The builds that have tables.
    fn kept(&self) -> impl Future<Output = Vec<String>>;

    async fn keep<const VERSION: u32>(
        &self,
        bench: &Bench,
        gate: &Gate,
    ) -> Maintained<Self::Target> {
        self.try_keep::<VERSION>(bench, gate).await.unwrap()
    }

    /// Checks the sum of all accounts after all events are projected.
    async fn are_right(&self, bench: &Bench, totals: &Maintained<Self::Target>, cents: u64) {
        totals.wait_for(bench.head(), HOUR).await.unwrap();
        assert_eq!(self.cents(totals).await, Ok(cents));
    }
}

/// Makes one test of each behaviour for a kind of tables.
macro_rules! builds {
    ($tables:ty: $($name:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            crate::sql::builds::$name(<$tables as crate::sql::builds::Tables>::new().await).await;
        }
    )+};
    ($tables:ty) => {
        crate::sql::builds::builds! { $tables:
            rebuilds_under_load_are_not_seen_by_readers_here_and_elsewhere
            a_new_version_has_tables_of_its_own_and_can_be_rolled_back
            what_was_rolled_back_goes_on_where_it_stood
            a_build_that_its_process_died_in_goes_on_at_the_next_start
            a_cancelled_build_leaves_no_tables
            what_is_discarded_or_reset_is_gone_after_a_while_and_stays_so
            a_cleared_build_takes_its_partitions_with_it
            a_rewound_build_goes_on_in_its_tables
            who_only_looks_makes_nothing
            a_target_is_of_one_build
        }
    };
}
pub(crate) use builds;

pub(crate) fn options() -> ConsumerOptions {
    let failure = FailurePolicy::new().with_pause(PAUSE, PAUSE);
    ConsumerOptions::new().with_batch_events_max(7).with_failure(failure)
}

/// Reads again and again, and checks that the sum never falls. Returns the number of reads.
fn watch<T: Tables>(
    tables: &T,
    totals: &Maintained<T::Target>,
    is_over: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<u64> {
    let tables = tables.clone();
    let totals = totals.clone();
    let is_over = is_over.clone();
    tokio::spawn(async move {
        let mut seen = 0;
        let mut looks = 0;
        while !is_over.load(Ordering::SeqCst) {
            let cents = tables.cents(&totals).await.unwrap();
            assert!(cents >= seen, "{cents} after {seen}");
            (seen, looks) = (cents, looks + 1);
            pause().await;
        }
        looks
    })
}

async fn with_deposits(count: u64) -> Bench {
    let bench = Bench::new();
    bench.open("ada").await;
    for _ in 0..count {
        bench.deposit("ada", 1).await;
    }
    bench
}

pub(crate) async fn rebuilds_under_load_are_not_seen_by_readers_here_and_elsewhere<T: Tables>(
    tables: T,
) {
    // Programs that share a projection agree by leases on the one that works on it.
    let bench = Arc::new(with_deposits(100).await.another());
    let elsewhere = bench.another();
    let elsewhere = tables.keep::<1>(&elsewhere, &Gate::open()).await;
    elsewhere.wait_for(bench.head(), LONG).await.unwrap();
    let totals = tables.keep::<1>(&bench, &Gate::open()).await;
    totals.wait_for(bench.head(), LONG).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let loading = load(&bench, &is_over);
    let watching = [&totals, &elsewhere].map(|it| watch(&tables, it, &is_over));
    for generation in 1..=3 {
        totals.rebuild().await.unwrap().done().await.unwrap();
        assert_eq!(totals.serving(), build(1, generation));
        assert_eq!(totals.previous(), Some(build(1, generation - 1)));
    }
    let newer = bench.another();
    let newer = tables.keep::<2>(&newer, &Gate::open()).await;
    let rebuild = newer.building().unwrap();
    tokio::time::timeout(LONG, rebuild.done()).await.expect("it takes over").unwrap();
    assert_eq!(newer.serving(), build(2, 0));
    is_over.store(true, Ordering::SeqCst);
    loading.await.unwrap();
    for watching in watching {
        assert!(watching.await.unwrap() > 10);
    }
    let deposits = bench.head().value() - 1;
    tables.are_right(&bench, &newer, deposits).await;
    until(|| async { totals.serving() == build(2, 0) }).await;
    tables.are_right(&bench, &totals, deposits).await;
}

pub(crate) async fn a_new_version_has_tables_of_its_own_and_can_be_rolled_back<T: Tables>(
    tables: T,
) {
    let bench = with_deposits(20).await;
    let old = tables.keep::<1>(&bench, &Gate::open()).await;
    tables.are_right(&bench, &old, 20).await;
    let again = bench.again();
    let gate = Gate::after(9);
    let new = tables.keep::<2>(&again, &gate).await;
    let rebuild = new.building().expect("it has begun by itself");
    until(|| async { rebuild.progress().unwrap().position.value() == 7 }).await;
    // Meanwhile the old build is read and gets events.
    bench.deposit("ada", 80).await;
    tables.are_right(&bench, &old, 100).await;
    assert_eq!(tables.cents(&new).await, Ok(100));
    gate.let_pass(u64::MAX);
    rebuild.done().await.unwrap();
    tables.are_right(&bench, &new, 100).await;
    assert_eq!(tables.kept().await, ["totals@1", "totals@2"]);
    // The build is unchanged, because no program of its version runs.
    bench.consumers.close().await;
    bench.deposit("ada", 5).await;
    tables.are_right(&bench, &new, 105).await;
    assert_eq!(new.roll_back().await.unwrap(), build(1, 0));
    assert_eq!(tables.cents(&new).await, Ok(100));
    assert_eq!(new.roll_back().await.unwrap(), build(2, 0));
    tables.are_right(&bench, &new, 105).await;
}

pub(crate) async fn what_was_rolled_back_goes_on_where_it_stood<T: Tables>(tables: T) {
    let bench = with_deposits(20).await;
    let totals = tables.keep::<2>(&bench, &Gate::open()).await;
    assert!(matches!(totals.roll_back().await, Err(BuildError::NothingKept(_))));
    totals.rebuild().await.unwrap().done().await.unwrap();
    bench.deposit("ada", 5).await;
    tables.are_right(&bench, &totals, 25).await;
    assert_eq!(totals.roll_back().await.unwrap(), build(2, 0));
    bench.deposit("ada", 5).await;
    tables.are_right(&bench, &totals, 30).await;
}

pub(crate) async fn a_build_that_its_process_died_in_goes_on_at_the_next_start<T: Tables>(
    tables: T,
) {
    let bench = with_deposits(40).await;
    let old = tables.keep::<1>(&bench, &Gate::open()).await;
    tables.are_right(&bench, &old, 40).await;
    let again = bench.again();
    let address = tables.address();
    let dead = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let new = T::at(&address).await.keep::<2>(&again, &Gate::after(16)).await;
            let rebuild = new.building().unwrap();
            until(|| async { rebuild.progress().unwrap().position.value() == 14 }).await;
        });
        runtime.shutdown_background();
    });
    tokio::task::spawn_blocking(move || dead.join().unwrap()).await.unwrap();
    assert_eq!(tables.cents(&old).await, Ok(40));
    let again = bench.again();
    let new = tables.keep::<2>(&again, &Gate::open()).await;
    let rebuild = new.building();
    let consumer = rebuild.as_ref().and_then(Rebuild::consumer);
    if let Some(rebuild) = rebuild {
        rebuild.done().await.unwrap();
    }
    tables.are_right(&bench, &new, 40).await;
    let handled = consumer.expect("it is under way").health().handled;
    assert_eq!(handled, 41 - 14, "what was built is kept");
}

pub(crate) async fn a_cancelled_build_leaves_no_tables<T: Tables>(tables: T) {
    let bench = with_deposits(20).await;
    let bench = Bench::on(bench.kernel.with_clock(Arc::new(swift())));
    let gate = Gate::open();
    let totals = tables.keep::<1>(&bench, &gate).await;
    tables.are_right(&bench, &totals, 20).await;
    gate.let_pass(8);
    let rebuild = totals.rebuild().await.unwrap();
    until(|| async { rebuild.progress().unwrap().position.value() == 7 }).await;
    assert_eq!(tables.kept().await, ["totals@1", "totals@1.1"]);
    gate.let_pass(u64::MAX / 2);
    // Either the build has taken over first, or it is dropped.
    if rebuild.cancel().await.is_ok() {
        until(|| async { tables.kept().await == ["totals@1"] }).await;
    }
    totals.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(totals.serving(), build(1, 2));
    tables.are_right(&bench, &totals, 20).await;
}

fn save(expected: Fence) -> Save {
    let progress = Bytes::from_static(b"late");
    Save { expected, progress, mark: None, letters: Vec::new(), events: 0 }
}

pub(crate) async fn what_is_discarded_or_reset_is_gone_after_a_while_and_stays_so<T: Tables>(
    tables: T,
) {
    let bench = with_deposits(20).await;
    let bench = Bench::on(bench.kernel.with_clock(Arc::new(swift())));
    let gate = Gate::open();
    let totals = tables.keep::<2>(&bench, &gate).await;
    let first = totals.serving_name();
    totals.rebuild().await.unwrap().done().await.unwrap();
    // Another process works on the build, in a batch.
    let straggler = tables.target(&first);
    let fence = straggler.open(&first).await.unwrap().fence;
    assert_eq!(totals.discard_old().await.unwrap(), build(2, 0));
    assert!(totals.roll_back().await.is_err());
    assert_eq!(tables.kept().await, ["totals@2", "totals@2.1"], "a reader may be in it");
    until(|| async { tables.kept().await == ["totals@2.1"] }).await;
    for fence in [fence, Fence(0), Fence(fence.0 + 1)] {
        assert!(straggler.save(&first, save(fence)).await.is_err());
    }
    let told = straggler.open(&first).await.unwrap_err();
    assert!(matches!(&told, TargetError::Refused(it) if it.to_string().contains("cleared")));
    straggler.clear(&first).await.unwrap();
    assert_eq!(tables.kept().await, ["totals@2.1"]);

    gate.let_pass(8);
    assert_eq!(totals.reset().await.unwrap(), build(2, 2));
    assert!(tables.cents(&totals).await.is_ok(), "its tables are there");
    let position = || totals.consumer().unwrap().health().position;
    until(|| async { position() == Position::new(7) }).await;
    assert_eq!(tables.cents(&totals).await, Ok(6), "it is seen growing");
    gate.let_pass(u64::MAX);
    tables.are_right(&bench, &totals, 20).await;
    until(|| async { tables.kept().await == ["totals@2.2"] }).await;
}

pub(crate) async fn a_rewound_build_goes_on_in_its_tables<T: Tables>(tables: T) {
    let bench = with_deposits(20).await;
    let totals = tables.keep::<1>(&bench, &Gate::open()).await;
    totals.rebuild().await.unwrap().done().await.unwrap();
    tables.are_right(&bench, &totals, 20).await;
    bench.consumers.close().await;
    let again = bench.again();
    let name = totals.serving_name();
    let target = tables.target(&name);
    again.consumers.rewind_in(&target, &name, Position::new(16)).await.unwrap();
    let totals = tables.keep::<1>(&again, &Gate::open()).await;
    // The handler adds, so an event that is handled twice is counted twice.
    tables.are_right(&bench, &totals, 25).await;
}

pub(crate) async fn a_cleared_build_takes_its_partitions_with_it<T: Tables>(tables: T) {
    let whole: ConsumerName = "totals@2.1".parse().unwrap();
    let mut partitions = Vec::new();
    for at in 0..2 {
        let name: ConsumerName = format!("{whole}#{at}").parse().unwrap();
        let target = tables.target(&name);
        let fence = target.open(&name).await.unwrap().fence;
        let fence = target.save(&name, save(fence)).await.unwrap();
        assert!(target.look(&name).await.unwrap().progress.is_some());
        partitions.push((name, target, fence));
    }
    assert_eq!(tables.kept().await, ["totals@2.1"], "they share their tables");
    tables.target(&whole).clear(&whole).await.unwrap();
    for (name, target, fence) in partitions {
        let told = target.save(&name, save(fence)).await.unwrap_err();
        assert!(matches!(told, TargetError::Fenced), "{told}");
        assert!(target.open(&name).await.unwrap_err().to_string().contains("cleared"));
        assert_eq!(target.look(&name).await.unwrap().progress, None);
    }
    assert_eq!(tables.kept().await, [""; 0]);
}

pub(crate) async fn who_only_looks_makes_nothing<T: Tables>(tables: T) {
    let bench = with_deposits(3).await;
    let name = "totals@1".parse().unwrap();
    let target = tables.target(&name);
    assert_eq!(target.look(&name).await.unwrap(), factum_consumer::Opened::default());
    let told = bench.consumers.rewind_in(&target, &name, Position::new(1)).await.unwrap_err();
    assert!(told.to_string().contains("nothing is stored"), "{told}");
    assert_eq!(tables.kept().await, [""; 0]);
    // A build may be cleared before any process has begun it.
    target.clear(&name).await.unwrap();
    assert_eq!(tables.kept().await, [""; 0]);
}

pub(crate) async fn a_target_is_of_one_build<T: Tables>(tables: T) {
    let one = "totals@1".parse().unwrap();
    let other = "totals@11".parse().unwrap();
    let target = tables.target(&one);
    target.open(&one).await.unwrap();
    tables.target(&other).open(&other).await.unwrap();
    for told in [target.open(&other).await.map(drop), target.clear(&other).await] {
        let told = told.unwrap_err().to_string();
        assert!(told.contains("of another build"), "{told}");
    }
    target.clear(&one).await.unwrap();
    assert_eq!(tables.kept().await, ["totals@11"]);
    tables.target(&other).open(&other).await.unwrap();
}

/// The code of the process that is killed: deposits and rebuilds, forever. Not a test by itself.
pub(crate) async fn child<T: Tables>(order: &str) {
    let (path, address) = order.split_once(' ').unwrap();
    let bench = Arc::new(log(Path::new(path)).await);
    let tables = T::at(address).await;
    let totals = tables.keep::<2>(&bench, &Gate::open()).await;
    load(&bench, &Arc::default());
    loop {
        let rebuild = match totals.rebuild().await {
            Ok(rebuild) => Some(rebuild),
            Err(BuildError::Building { .. }) => totals.building(),
            Err(error) => panic!("{error}"),
        };
        if let Some(rebuild) = rebuild {
            rebuild.done().await.unwrap();
        }
    }
}

/// A process that rebuilds is killed again and again while this one reads.
pub(crate) async fn nothing_is_lost_or_seen_of_processes_that_are_killed<T: Tables>(
    child: ChildTest,
) {
    let kills = if env::var_os("FACTUM_TEST_FULL").is_some() { 60 } else { 8 };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let bench = log(&path).await;
    let tables = T::new().await;
    bench.open("ada").await;
    for _ in 0..50 {
        bench.deposit("ada", 1).await;
    }
    let old = tables.keep::<1>(&bench, &Gate::open()).await;
    tables.are_right(&bench, &old, 50).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let watching = watch(&tables, &old, &is_over);
    for kill in 0..kills {
        let (process, _told) = child.start(format!("{} {}", path.display(), tables.address()));
        // Some die while they start, some after many rebuilds.
        for _ in 0..(kill * 71) % 300 {
            pause().await;
        }
        // On any machine, the last process has rebuilt it more than once.
        if kill + 1 == kills {
            until(|| async { is_rebuilt(old.serving()) }).await;
        }
        process.kill();
        assert!(!watching.is_finished(), "the reader has failed");
    }
    is_over.store(true, Ordering::SeqCst);
    assert!(watching.await.unwrap() > 10);
    bench.consumers.close().await;
    let again = log(&path).await;
    let totals = tables.keep::<2>(&again, &Gate::open()).await;
    let head = again.kernel.events().read(ReadQuery::log()).await.unwrap().head;
    if let Some(rebuild) = totals.building() {
        rebuild.done().await.unwrap();
    }
    totals.wait_for(head, LONG).await.unwrap();
    assert_eq!(tables.cents(&totals).await, Ok(head.value() - 1));
    assert!(is_rebuilt(totals.serving()), "{}", totals.serving());
    // The builds that dead processes left are cleared.
    until(|| async { tables.kept().await.len() <= 2 }).await;
}

fn is_rebuilt(build: Build) -> bool {
    build.version == 2 && build.generation > 2
}
