//! A process that is killed while it writes.

use std::{env, path::Path, sync::Arc};

use factum_journal::verify;
use factum_kernel::EventStore;
use factum_testing::{ChildTest, PairWriter, Pairs, check_log, tell};

use crate::fresh::open;

const CHILD: ChildTest = ChildTest::new("process::child");
const TASKS: usize = 8;

fn rounds() -> usize {
    if env::var("FACTUM_TEST_FULL").is_ok() { 200 } else { 50 }
}

/// Not a test of its own: what the second process runs, until it is killed.
#[test]
fn child() {
    let Some(path) = CHILD.order() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let writer = PairWriter::new(Arc::new(open(Path::new(&path)).await));
        writer.write(TASKS, usize::MAX, |id| tell(&id.to_string())).await;
    });
}

#[test]
fn whatever_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let rounds = rounds();
    let mut acks: Vec<String> = Vec::new();
    for round in 0..rounds {
        let (child, mut told) = CHILD.start(folder.path());
        // Anywhere from the first acknowledgement on, with appends in flight.
        let moment = 1 + round * round * 7 % 397;
        acks.extend(told.by_ref().take(moment));
        child.kill();
        // Lines from before the end count as well.
        acks.extend(told);
        // A write may be half done, but nothing that was acknowledged.
        if folder.path().join("factum-journal").is_file() {
            let report = verify(folder.path()).unwrap();
            assert!(report.is_whole() && !report.is_beside_writer, "{report:#?}");
        }
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(folder.path()).await;
        let pairs = Pairs::read(&store).await;
        assert!(acks.len() >= rounds && pairs.count() >= acks.len());
        pairs.assert_keeps(&acks);
        check_log(&store).await;
        store.close().await.unwrap();
    });
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole(), "{:?}", report.damages);
}
