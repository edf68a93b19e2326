//! A second process: it writes beside this one, and is killed while it writes.

use std::{env, path::Path, sync::Arc};

use factum_kernel::{EventId, EventStore, StreamVersion};
use factum_testing::{ChildTest, PairWriter, Pairs, check_log, tell};

use crate::fresh::{reopen, stream};

/// Its order: the number of pairs that each task appends, and the file.
const CHILD: ChildTest = ChildTest::new("process::child");
const TASKS: usize = 8;

fn order(path: &Path, pairs: usize) -> String {
    format!("{pairs}:{}", path.display())
}

/// Not a test of its own: the program of the second process.
#[test]
fn child() {
    let Some(order) = CHILD.order() else { return };
    let (pairs, path) = order.split_once(':').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let pairs = pairs.parse().unwrap();
    runtime.block_on(write(Path::new(path), pairs, |id| tell(&id.to_string())));
}

async fn write(path: &Path, pairs: usize, acknowledge: fn(EventId)) {
    let store = Arc::new(reopen(path).await);
    PairWriter::new(store.clone()).write(TASKS, pairs, acknowledge).await;
    store.close().await.unwrap();
}

#[test]
fn two_processes_append_to_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { reopen(&path).await.close().await.unwrap() });
    let (child, told) = CHILD.start(order(&path, 25));
    runtime.block_on(write(&path, 25, |_| {}));
    let acks: Vec<String> = told.collect();
    child.finish();
    assert_eq!(acks.len(), TASKS * 25);
    runtime.block_on(async {
        let store = reopen(&path).await;
        let pairs = Pairs::read(&store).await;
        assert_eq!(pairs.count(), 2 * TASKS * 25);
        pairs.assert_keeps(&acks);
        let head = check_log(&store).await;
        assert_eq!(head.value() as usize, 4 * TASKS * 25);
        let all = store.stream_info(&stream(PairWriter::ALL)).await.unwrap();
        assert_eq!(all.bounds.version, StreamVersion::new(2 * (TASKS as u64) * 25));
    });
}

#[test]
fn whatever_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut acks: Vec<String> = Vec::new();
    let rounds = if env::var_os("FACTUM_TEST_FULL").is_some() { 120 } else { 12 };
    for round in 0..rounds {
        let (child, mut told) = CHILD.start(order(&path, usize::MAX));
        // Anywhere from the first acknowledgement on, with appends in flight.
        let moment = 1 + round * round * 7 % 97;
        acks.extend(told.by_ref().take(moment));
        child.kill();
        // Lines from before the end count as well.
        acks.extend(told);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = reopen(&path).await;
        let pairs = Pairs::read(&store).await;
        assert!(acks.len() >= rounds && pairs.count() >= acks.len());
        pairs.assert_keeps(&acks);
        check_log(&store).await;
    });
}
