//! A process that is killed while it writes.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use factum_core::{AppendBatch, EventStore, ExpectedVersion, Position, ReadQuery};
use factum_journal::{JournalStore, verify};

use crate::fresh::{check_positions, event, open, pages, stream};

/// Says to the test `child` that it is one: the folder.
const CHILD: &str = "FACTUM_JOURNAL_TEST_CHILD";
const TASKS: usize = 8;
const STREAMS: usize = 5;

fn rounds() -> usize {
    if env::var("FACTUM_TEST_FULL").is_ok() { 200 } else { 50 }
}

fn spawn(path: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "process::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what the second process runs, until it is killed.
#[test]
fn child() {
    let Ok(path) = env::var(CHILD) else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&path)).await;
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in task.. {
                        println!("\nack {}", append(&store, n).await);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Appends a batch of two events, and answers with the id of the first.
async fn append(store: &JournalStore, n: usize) -> String {
    let first = event("first");
    let id = first.id;
    let batch = AppendBatch::new()
        .write(stream(&format!("s{}", n % STREAMS)), ExpectedVersion::Any, [first])
        .write(stream("all"), ExpectedVersion::Any, [event("second")]);
    store.append(batch).await.unwrap();
    id.to_string()
}

/// How often each id is in the log; every batch must be whole.
async fn stored(store: &dyn EventStore) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    let mut first = None;
    for page in pages(store, ReadQuery::log()).await {
        for event in &page.events {
            match event.payload() {
                b"first" => {
                    assert_eq!(first.replace(event.position()), None, "half a batch");
                    *found.entry(event.id().to_string()).or_insert(0) += 1;
                }
                _ => assert_eq!(first.take().map(Position::next), Some(event.position())),
            }
        }
    }
    assert_eq!(first, None, "half a batch at the end");
    found
}

fn acknowledged(line: &str) -> Option<String> {
    line.strip_prefix("ack ").map(str::to_owned)
}

#[test]
fn whatever_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let rounds = rounds();
    let mut acks: Vec<String> = Vec::new();
    for round in 0..rounds {
        let mut child = spawn(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Anywhere from the first acknowledgement on, with appends in flight.
        let moment = 1 + round * round * 7 % 397;
        let mut more = lines.by_ref().map_while(Result::ok).filter_map(|l| acknowledged(&l));
        acks.extend(more.by_ref().take(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was said before the end counts as well; a line cut in two does not.
        acks.extend(more.filter(|id| id.len() == 36));
        // A write may be half done, but nothing that the writer was done with.
        if folder.path().join("factum-journal").is_file() {
            let report = verify(folder.path()).unwrap();
            assert!(report.is_whole() && !report.is_beside_writer, "{report:#?}");
        }
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(folder.path()).await;
        let found = stored(&store).await;
        assert!(acks.len() >= rounds && found.len() >= acks.len());
        let lost: Vec<_> = acks.iter().filter(|id| found.get(*id) != Some(&1)).collect();
        assert!(lost.is_empty(), "acknowledged, but not there once: {lost:?}");
        check_positions(&store).await;
        store.close().await.unwrap();
    });
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole(), "{:?}", report.damages);
}
