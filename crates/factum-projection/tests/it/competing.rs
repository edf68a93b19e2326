//! Processes that share a consumer's partitions, killed at any moment.

use std::{env, path::Path, sync::Arc, time::Duration};

use factum_consumer::Consumers;
use factum_kernel::{Kernel, TagKey};
use factum_projection::{Documents, Projections};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::ChildTest;

use crate::{
    bench::{Bench, Counts, Fails, LONG},
    ledger::pause,
    partition::shared_out,
};

/// A process that shares the partitions; its order is the store's path.
const CHILD: ChildTest = ChildTest::new("competing::child");
/// The lease time, so short that a live process is sometimes taken for dead.
const LEASE: Duration = Duration::from_millis(60);
const PROCESSES: usize = 3;

fn kills() -> usize {
    if env::var_os("FACTUM_TEST_FULL").is_some() { 100 } else { 15 }
}

async fn open(path: &Path) -> Bench {
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
    let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
    let consumers = Consumers::new(kernel.clone()).with_lease(LEASE);
    Bench { consumers, ..Bench::on(kernel) }
}

async fn count(bench: &Bench) -> factum_consumer::ConsumerHandle {
    let target = Documents::new(&bench.kernel);
    let counts = bench.consumers.start_projection(Counts(Fails::default()), target, shared_out());
    counts.await.unwrap().consumer().clone()
}

/// The code that the other processes run, forever; not a test by itself.
#[test]
fn child() {
    let Some(path) = CHILD.order() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = open(Path::new(&path)).await;
        let _counts = count(&bench).await;
        std::future::pending::<()>().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_process_is_killed_each_event_takes_effect_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let bench = open(&path).await;
    for name in 0..8 {
        bench.open(&format!("a{name}")).await;
    }
    let mut children: Vec<_> = (0..PROCESSES).map(|_| CHILD.start(&path)).collect();
    for kill in 0..kills() {
        for turn in 0..(kill * 67) % 120 + 8 {
            bench.deposit(&format!("a{}", turn % 8), 100 + turn as u64).await;
            pause().await;
        }
        let (child, _told) = children.remove(0);
        child.kill();
        children.push(CHILD.start(&path));
    }
    let counts = count(&bench).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let handled_here = counts.health().handled;
    for (child, _told) in children {
        child.kill();
    }
    assert_eq!(bench.counted().await, bench.fold().await);
    let appended = bench.head().value();
    assert!(handled_here < appended / 2, "the others did little: {handled_here} of {appended}");
    bench.consumers.close().await;
}
