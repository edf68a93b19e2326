//! Rebuilds in a process that is killed at any moment, while another process reads.

use std::{
    env,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::Consumers;
use factum_kernel::{Kernel, KeyRange, ReadQuery, ScanQuery, TagKey};
use factum_projection::BuildError;
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::ChildTest;

use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, pause, until},
    rebuild::watch,
};

/// The process that rebuilds; its order is the store's path.
const CHILD: ChildTest = ChildTest::new("killed::child");

/// The lease time, so short that a live process is sometimes taken for dead.
const LEASE: Duration = Duration::from_millis(40);

fn kills() -> usize {
    if env::var_os("FACTUM_TEST_FULL").is_some() { 100 } else { 12 }
}

async fn open(path: &Path) -> Bench {
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
    let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
    let consumers = Consumers::new(kernel.clone()).with_lease(LEASE);
    Bench { consumers, ..Bench::on(kernel) }
}

/// The code that the second process runs: deposits and rebuilds, forever. Not a test by itself.
#[test]
fn child() {
    let Some(path) = CHILD.order() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Arc::new(open(Path::new(&path)).await);
        let ledgers = bench.keep::<2>(&Gate::open()).await;
        tokio::spawn({
            let bench = bench.clone();
            async move {
                loop {
                    bench.deposit("ada", 1).await;
                    pause().await;
                }
            }
        });
        loop {
            let rebuild = match ledgers.rebuild().await {
                Ok(rebuild) => Some(rebuild),
                Err(BuildError::Building { .. }) => ledgers.building(),
                Err(error) => panic!("{error}"),
            };
            if let Some(rebuild) = rebuild {
                rebuild.done().await.unwrap();
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_notice_nothing_of_processes_that_are_killed_while_they_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let bench = open(&path).await;
    bench.open("ada").await;
    for _ in 0..100 {
        bench.deposit("ada", 1).await;
    }
    let old = bench.keep::<1>(&Gate::open()).await;
    old.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    drop(old);

    let is_over = Arc::new(AtomicBool::new(false));
    let watching = watch(bench.ledgers(), &is_over);
    let mut generations = Vec::new();
    for kill in 0..kills() {
        let (child, _told) = CHILD.start(&path);
        // Some die while they start, some after many rebuilds.
        for _ in 0..(kill * 67) % 400 {
            pause().await;
        }
        child.kill();
        generations.push(kept(&bench).await);
        assert!(!watching.is_finished(), "the reader has failed");
    }
    is_over.store(true, Ordering::SeqCst);
    assert!(watching.await.unwrap() > 10);

    let again = open(&path).await;
    let ledgers = again.keep::<2>(&Gate::open()).await;
    let head = again.kernel.events().read(ReadQuery::log()).await.unwrap().head;
    if let Some(rebuild) = ledgers.building() {
        rebuild.done().await.unwrap();
    }
    ledgers.wait_for(head, LONG).await.unwrap();
    assert_eq!(ledgers.serving().version, 2);
    let ledger = again.ledgers().get("ada").await.unwrap().unwrap();
    assert_eq!((ledger.cents, ledger.count), (head.value() - 1, head.value() - 1));
    assert!(ledgers.serving().generation > 2, "hardly anything was rebuilt: {generations:?}");
    // The builds that dead processes left are cleared: two builds are kept.
    until(|| async { kept(&again).await <= 2 }).await;
}

/// The number of builds that have stored data.
async fn kept(bench: &Bench) -> usize {
    let query = ScanQuery::new(KeyRange::prefix("$model/"));
    let page = bench.kernel.documents().scan(query).await.unwrap();
    let name = |key: &[u8]| key.split(|byte| *byte == b'/').nth(1).unwrap().to_vec();
    let mut names: Vec<_> = page.documents.iter().map(|it| name(&it.key)).collect();
    names.dedup();
    names.len()
}
