//! Read models in tables: the same behaviour, whichever database they are in.

pub(crate) mod builds;

use std::{
    collections::BTreeMap,
    env,
    future::Future,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use factum_consumer::{
    ConsumerHandle, ConsumerName, ConsumerOptions, ConsumerState, Fence, Opened, Save, StopReason,
    Target, TargetError,
};
use factum_kernel::{Kernel, TagKey};
use factum_projection::{Projection, ProjectionHandle, Projections};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::ChildTest;

use crate::bench::{Bench, Count, Fails, LONG, ada, options};

/// A deposit of this many cents breaks a constraint of the table.
pub(crate) const REFUSED: u64 = 666;
/// At this many cents the handler ends the transaction itself.
pub(crate) const ENDS: u64 = 669;

/// From this many cents on, the handler executes statement N of the list, where N is the rest, and
/// passes its error on.
pub(crate) const STATEMENTS: u64 = 1_000;
/// From this many cents on, the handler executes statement N too, but ignores its error and writes
/// its row again.
pub(crate) const IGNORES: u64 = 1_050;

/// A read model in its own tables: one row for each deposit, in the order in which they are
/// handled.
pub(crate) trait ReadModel: Sized {
    type Projection: Projection<Target: Clear>;

    /// Statements that end a transaction, or do more.
    const ENDINGS: &'static [&'static str];
    /// Statements that a handler may use.
    const HARMLESS: &'static [&'static str];

    /// The statement that the handler executes for an amount, and whether it ignores the error.
    fn statement(cents: u64) -> Option<(&'static str, bool)> {
        let ignores = cents >= IGNORES;
        let at = cents.checked_sub(if ignores { IGNORES } else { STATEMENTS })?;
        let statement = Self::ENDINGS.iter().chain(Self::HARMLESS).nth(usize::try_from(at).ok()?);
        statement.map(|statement| (*statement, ignores))
    }

    /// An empty read model.
    fn new() -> impl Future<Output = Self>;

    /// The projection into this read model.
    fn projection(&self, fails: Fails) -> Self::Projection;

    /// A new target, as each program has its own.
    fn target(&self) -> <Self::Projection as Projection>::Target;

    /// The content by account.
    fn counted(&self) -> impl Future<Output = BTreeMap<String, Count>>;

    /// The address by which another process finds the read model.
    fn address(&self) -> String;

    async fn start(&self, bench: &Bench, fails: &Fails) -> ProjectionHandle<Self::Projection> {
        let projection = self.projection(fails.clone());
        bench.consumers.start_projection(projection, self.target(), options()).await.unwrap()
    }
}

/// A target that can get the statements that empty its tables.
pub(crate) trait Clear: Target {
    fn clearing(self) -> Self;
}

/// Makes one test of each behaviour for a read model.
macro_rules! behaviours {
    ($model:ty: $($name:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            crate::sql::$name(<$model as crate::sql::ReadModel>::new().await).await;
        }
    )+};
    ($model:ty) => {
        crate::sql::behaviours! { $model:
            old_and_new_events_are_projected_once
            a_stopped_projection_continues_at_its_checkpoint
            an_event_that_fails_is_parked_with_its_stream_and_other_events_are_handled
            a_parked_event_stays_parked_after_a_restart
            a_broken_constraint_is_its_events_fault
            a_handler_that_ends_the_transaction_has_failed
            whatever_a_handler_does_to_its_transaction_each_event_takes_effect_once
            one_of_two_programs_is_fenced
            a_cleared_model_is_projected_from_the_start_and_late_writers_are_fenced
        }
    };
}
pub(crate) use behaviours;

/// Deposits to Ada, and for each one a deposit to Bob of a hundred cents more.
async fn deposits(bench: &Bench, cents: impl IntoIterator<Item = u64>) {
    for key in ["ada", "bob"] {
        bench.open(key).await;
    }
    for cents in cents {
        bench.deposit("ada", cents).await;
        bench.deposit("bob", cents + 100).await;
    }
}

async fn is_parked(consumer: &ConsumerHandle, error: &str) {
    consumer.wait_for(consumer.health().head, LONG).await.unwrap();
    let [letter] = &consumer.dead_letters().await[..] else { panic!("{:?}", consumer.health()) };
    assert_eq!((letter.stream.clone(), letter.version.value()), (ada(), 3));
    assert!(letter.error.contains(error), "{}", letter.error);
}

pub(crate) async fn old_and_new_events_are_projected_once(model: impl ReadModel) {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let counts = model.start(&bench, &Fails::default()).await;
    for cents in 2..=30 {
        let position = bench.deposit("ada", cents).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(model.counted().await["ada"].cents, Vec::from_iter(1..=cents));
    }
    assert_eq!((counts.health().parked, counts.health().handled), (0, 31));
}

pub(crate) async fn a_stopped_projection_continues_at_its_checkpoint(model: impl ReadModel) {
    let bench = Bench::new();
    bench.open("ada").await;
    for round in 1..=5 {
        let again = bench.again();
        let counts = model.start(&again, &Fails::default()).await;
        let position = bench.deposit("ada", round).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(model.counted().await["ada"].cents, Vec::from_iter(1..=round));
        again.consumers.close().await;
        assert_eq!(counts.health().state, ConsumerState::Stopped(StopReason::Asked));
    }
}

pub(crate) async fn an_event_that_fails_is_parked_with_its_stream_and_other_events_are_handled<
    M: ReadModel,
>(
    _: M,
) {
    for (how, error) in [(0, "thirteen"), (1, "thirteen is too much"), (2, "not handled within")] {
        let model = M::new().await;
        let bench = Bench::new();
        deposits(&bench, [1, 13, 2, 3]).await;
        let fails = Fails::default();
        let how = [&fails.errs, &fails.panics, &fails.hangs][how];
        how.store(true, Ordering::SeqCst);
        let counts = model.start(&bench, &fails).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        is_parked(counts.consumer(), error).await;
        let counted = model.counted().await;
        assert_eq!(counted["ada"].cents, [1]);
        assert_eq!(counted["bob"].cents, [101, 113, 102, 103]);

        assert!(counts.retry(&ada()).await.unwrap_err().to_string().contains(error));
        how.store(false, Ordering::SeqCst);
        counts.retry(&ada()).await.unwrap();
        let position = bench.deposit("ada", 4).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(model.counted().await["ada"].cents, [1, 13, 2, 3, 4]);
        assert_eq!(counts.health().parked, 0);
    }
}

pub(crate) async fn a_parked_event_stays_parked_after_a_restart(model: impl ReadModel) {
    let bench = Bench::new();
    deposits(&bench, [1, 13, 2]).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let again = bench.again();
        let counts = model.start(&again, &fails).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        is_parked(counts.consumer(), "thirteen").await;
        again.consumers.close().await;
    }
    let counts = model.start(&bench.again(), &fails).await;
    counts.discard(&ada()).await.unwrap();
    assert_eq!(model.counted().await["ada"].cents, [1, 2]);
}

pub(crate) async fn a_broken_constraint_is_its_events_fault(model: impl ReadModel) {
    let bench = Bench::new();
    deposits(&bench, [1, REFUSED, 2]).await;
    let counts = model.start(&bench, &Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    is_parked(counts.consumer(), "constraint").await;
    let counted = model.counted().await;
    assert_eq!(counted["ada"].cents, [1]);
    assert_eq!(counted["bob"].cents, [101, 100 + REFUSED, 102]);
}

pub(crate) async fn a_handler_that_ends_the_transaction_has_failed(model: impl ReadModel) {
    let bench = Bench::new();
    deposits(&bench, [1]).await;
    bench.deposit("ada", ENDS).await;
    let counts = model.start(&bench, &Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    is_parked(counts.consumer(), "ended").await;
    let position = bench.deposit("bob", 102).await;
    counts.wait_for(position, LONG).await.unwrap();
    let counted = model.counted().await;
    assert_eq!(counted["ada"].cents, [1], "it took back what it had written");
    assert_eq!(counted["bob"].cents, [101, 102]);
}

pub(crate) async fn whatever_a_handler_does_to_its_transaction_each_event_takes_effect_once<
    M: ReadModel,
>(
    _: M,
) {
    let endings = M::ENDINGS.len();
    let all = M::ENDINGS.len() + M::HARMLESS.len();
    for (base, at) in
        (0..all).map(|at| (STATEMENTS, at)).chain((0..endings).map(|at| (IGNORES, at)))
    {
        let model = M::new().await;
        let bench = Bench::new();
        let cents = base + at as u64;
        deposits(&bench, [1, cents, 2]).await;
        // No other event of the batch may be blamed.
        let options = options();
        let failure = options.failure.with_retries_max(0).with_timeout(LONG);
        let projection = model.projection(Fails::default());
        let options = options.with_failure(failure);
        let counts =
            bench.consumers.start_projection(projection, model.target(), options).await.unwrap();
        counts.wait_for(bench.head(), LONG).await.unwrap();
        let letters = counts.dead_letters().await;
        let counted = model.counted().await;
        let told = format!("{:?}: {letters:?} {counted:?}", M::statement(cents));
        assert_eq!(letters.len(), usize::from(at < endings), "{told}");
        if at < endings {
            assert_eq!((&letters[0].stream, letters[0].version.value()), (&ada(), 3), "{told}");
        }
        let adas = if at < endings { vec![1] } else { vec![1, cents, 2] };
        assert_eq!(counted["ada"].cents, adas, "{told}");
        assert_eq!(counted["bob"].cents, [101, 100 + cents, 102], "{told}");
    }
}

pub(crate) async fn one_of_two_programs_is_fenced(model: impl ReadModel) {
    let bench = Bench::new();
    bench.open("ada").await;
    let one = bench.again();
    let other = bench.again();
    let first = model.start(&one, &Fails::default()).await;
    first.wait_for(bench.head(), LONG).await.unwrap();
    let second = model.start(&other, &Fails::default()).await;
    second.wait_for(bench.head(), LONG).await.unwrap();
    for cents in 1..=20 {
        bench.deposit("ada", cents).await;
    }
    let fenced = ConsumerState::Stopped(StopReason::Fenced);
    let health = &mut first.watch();
    let stopped = tokio::time::timeout(LONG, health.wait_for(|health| health.state == fenced));
    stopped.await.unwrap().unwrap();
    second.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(model.counted().await["ada"].cents, Vec::from_iter(1..=20));
}

pub(crate) async fn a_cleared_model_is_projected_from_the_start_and_late_writers_are_fenced(
    model: impl ReadModel,
) {
    let bench = Bench::new();
    deposits(&bench, [1, 13, 2]).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = model.start(&bench, &fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.stop().await;
    let name: ConsumerName = counts.name().clone();

    let straggler = model.target();
    let Opened { fence, .. } = straggler.open(&name).await.unwrap();
    let refused = straggler.clear(&name).await.unwrap_err();
    assert!(refused.to_string().contains("with_clear"), "{refused}");
    let cleared = model.target().clearing();
    cleared.open(&name).await.unwrap();
    cleared.clear(&name).await.unwrap();
    assert_eq!(model.counted().await, BTreeMap::new());
    // Even after it has reached its old position.
    for fence in [fence, Fence(0)] {
        let save = Save {
            expected: fence,
            progress: bytes::Bytes::from_static(b"old"),
            mark: None,
            letters: Vec::new(),
            events: 0,
        };
        let told = straggler.save(&name, save).await.unwrap_err();
        assert!(matches!(told, TargetError::Fenced), "{told}");
    }
    fails.errs.store(false, Ordering::SeqCst);
    let counts = model.start(&bench.again(), &fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(model.counted().await["ada"].cents, [1, 13, 2]);
    assert_eq!(counts.health().parked, 0);
}

/// A log that several processes can open.
pub(crate) async fn log(path: &Path) -> Bench {
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
    Bench::on(Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32])))
}

/// Small batches, so that many of them are interrupted.
fn small_batches() -> ConsumerOptions {
    options().with_batch_events_max(7)
}

/// The work of the child: projects the log, and prints each event before it is stored.
pub(crate) async fn child<M: ReadModel>(model: M, log_path: &str) {
    let bench = log(Path::new(log_path)).await;
    let fails = Fails { tells: true, ..Fails::default() };
    let projection = model.projection(fails);
    let counts = bench
        .consumers
        .start_projection(projection, model.target(), small_batches())
        .await
        .unwrap();
    let head = bench.head();
    counts.wait_for(head, LONG).await.unwrap();
    bench.consumers.close().await;
}

/// Runs a child until it has handled N events, and then kills it.
fn kill_after(child: ChildTest, order: &str, events: usize) -> bool {
    let (process, mut told) = child.start(order);
    let is_killed = told.by_ref().take(events).count() == events;
    // The drop kills it, even if it has just ended.
    if !is_killed {
        process.finish();
    }
    is_killed
}

/// A process is killed again and again; every deposit is counted once, in order, and none is
/// parked.
pub(crate) fn nothing_is_lost_or_doubled_by_sigkill<M: ReadModel>(child: ChildTest) {
    let (keys, each, kills) = match env::var_os("FACTUM_TEST_FULL") {
        Some(_) => (8, 250, 60),
        None => (8, 40, 8),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let model = runtime.block_on(async {
        let bench = Arc::new(log(&path).await);
        let writers = (0..keys).map(|key| {
            let bench = bench.clone();
            tokio::spawn(async move {
                bench.open(&format!("k{key}")).await;
                for cents in 1..=each {
                    bench.deposit(&format!("k{key}"), cents).await;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        bench.kernel.events().close().await.unwrap();
        M::new().await
    });
    let order = format!("{} {}", path.display(), model.address());
    let mut killed = 0;
    for round in 0..kills {
        // Enough events to pass the one of the last death: three deaths at one event would park it.
        if !kill_after(child, &order, 4 + (round * 7) % 31) {
            break;
        }
        killed += 1;
        runtime.block_on(is_prefix(&model));
    }
    assert!(killed >= kills.min(6), "only {killed} kills");
    runtime.block_on(async {
        let bench = log(&path).await;
        let counts = model.start(&bench, &Fails::default()).await;
        counts.wait_for(bench.head(), Duration::from_secs(60)).await.unwrap();
        assert_eq!(counts.health().parked, 0);
        let counted = model.counted().await;
        assert_eq!(counted.len(), keys);
        let all = Vec::from_iter(1..=each);
        assert!(counted.values().all(|count| count.cents == all), "{counted:?}");
        bench.consumers.close().await;
    });
}

async fn is_prefix(model: &impl ReadModel) {
    for (key, count) in model.counted().await {
        let first = Vec::from_iter(1..=count.cents.len() as u64);
        assert_eq!(count.cents, first, "of {key}");
    }
}
