//! A second process: writing beside this one, and killed while it writes.

use std::{
    collections::HashMap,
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use factum_core::{
    AppendBatch, AppendError, EventStore, ExpectedVersion, Position, ReadQuery, StreamVersion,
};
use factum_sqlite::{SqliteOptions, SqliteStore};

use crate::fresh::{check_laws, event, pages, reopen, stream};

/// Says to the test `child` that it is one: the file, and how many appends each task makes.
const CHILD: &str = "FACTUM_SQLITE_TEST_CHILD";
const TASKS: usize = 8;
const STREAMS: usize = 5;

fn spawn(path: &Path, appends: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "process::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{appends}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Not a test of its own: what the second process runs.
#[test]
fn child() {
    let Ok(order) = env::var(CHILD) else { return };
    let (appends, path) = order.split_once(':').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(write(Path::new(path), appends.parse().unwrap(), |id| println!("\nack {id}")));
}

/// Appends batches of two events, one stream each, from several tasks; `acknowledge` gets the id
/// of the first.
async fn write(path: &Path, appends: usize, acknowledge: fn(String)) {
    let store = reopen(path).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..appends {
                    acknowledge(append(&store, task + n).await);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    store.close().await.unwrap();
}

/// Appends at the version that was read, until nobody else is first.
async fn append(store: &SqliteStore, n: usize) -> String {
    let (one, other) = (stream(&format!("s{}", n % STREAMS)), stream("all"));
    loop {
        let version = store.stream_info(&one).await.unwrap().bounds.version;
        let first = event("first");
        let id = first.id;
        let batch = AppendBatch::new()
            .write(one.clone(), ExpectedVersion::from(version), [first])
            .write(other.clone(), ExpectedVersion::Any, [event("second")]);
        match store.append(batch).await {
            Ok(_) => return id.to_string(),
            Err(AppendError::Conflict(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
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
fn two_processes_append_to_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { reopen(&path).await.close().await.unwrap() });
    let mut child = spawn(&path, 25);
    runtime.block_on(write(&path, 25, |_| {}));
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acks: Vec<String> = lines.filter_map(|line| acknowledged(&line.unwrap())).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(acks.len(), TASKS * 25);
    runtime.block_on(async {
        let store = reopen(&path).await;
        let found = stored(&store).await;
        assert_eq!(found.len(), 2 * TASKS * 25);
        assert!(acks.iter().all(|id| found.get(id) == Some(&1)));
        let head = check_laws(&store).await;
        assert_eq!(head.value() as usize, 4 * TASKS * 25);
        let all = store.stream_info(&stream("all")).await.unwrap();
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
        let mut child = spawn(&path, usize::MAX);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Anywhere from the first acknowledgement on, with appends in flight.
        let moment = 1 + round * round * 7 % 97;
        let mut more = lines.by_ref().map_while(Result::ok).filter_map(|l| acknowledged(&l));
        acks.extend(more.by_ref().take(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        // What was said before the end counts as well; a line cut in two does not.
        acks.extend(more.filter(|id| id.len() == 36));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(SqliteOptions::new(&path)).await.unwrap();
        let found = stored(&store).await;
        assert!(acks.len() >= 12 && found.len() >= acks.len());
        let lost: Vec<_> = acks.iter().filter(|id| found.get(*id) != Some(&1)).collect();
        assert!(lost.is_empty(), "acknowledged, but not there once: {lost:?}");
        check_laws(&store).await;
    });
}

#[tokio::test]
async fn the_head_follows_another_handle_without_a_read() {
    let fresh = crate::fresh::Fresh::open().await;
    let other = reopen(&fresh.path()).await;
    let mut head = other.head();
    fresh.store.append(crate::fresh::one("ada")).await.unwrap();
    head.wait_for(|head| head.value() == 1).await.unwrap();
}
