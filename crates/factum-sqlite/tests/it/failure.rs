//! Full disks, locks of other processes, and the state that a failure must not leave.

use std::{error::Error, path::Path, time::Duration};

use factum_kernel::{
    AppendBatch, AppendError, DocumentStore, EventStore, ExpectedRevision, ExpectedVersion, Query,
    ReadQuery, StoreErrorKind, StreamVersion, Tag, WriteBatch, WriteError,
};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::{ChildTest, deletion};

use crate::fresh::{Fresh, check_log, event, one, positions, reopen, stream, tagged};

fn large(key: &str) -> AppendBatch {
    let event = event(&"x".repeat(100_000)).with_tag(tag("size:large"));
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event])
}

fn tag(text: &str) -> Tag {
    Tag::parse(text).unwrap()
}

/// A store whose file can grow by little, and the number of its events.
async fn full() -> (Fresh, u64) {
    let fresh = Fresh::with(|options| options.with_file_bytes_max(1 << 20)).await;
    let mut stored = 0;
    loop {
        match fresh.store.append(large("ada")).await {
            Ok(_) => stored += 1,
            Err(AppendError::Store(error)) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable);
                let text = error.to_string();
                assert!(text.contains("no room") && text.contains("events.db"), "{text}");
                // Its source would repeat the kind.
                let driver = error.source().and_then(Error::source);
                assert!(driver.is_none(), "SQLite says it again");
                return (fresh, stored);
            }
            Err(other) => panic!("a full disk is known to have stored nothing: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_loses_nothing() {
    let (fresh, stored) = full().await;
    assert!(stored > 2, "the file had room for some");
    let all: Vec<u64> = (1..=stored).collect();
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, all);
    fresh.store.close().await.unwrap();
    let again = reopen(&fresh.path()).await;
    assert_eq!(positions(&again, ReadQuery::log()).await, all);
    let appended = again.append(large("ada")).await.unwrap();
    assert_eq!(appended.first.value(), stored + 1, "the failure took no position");
    check_log(&again).await;
}

#[tokio::test]
async fn nothing_of_a_failed_group_is_remembered() {
    let (fresh, stored) = full().await;
    // This batch brings a new stream and a new tag, which get numbers before the file is full.
    fresh.store.append(large("bob")).await.unwrap_err();
    fresh.store.append(tagged("eve", &["size:large", "new:1"])).await.unwrap();
    let exact = AppendBatch::new().write(
        stream("ada"),
        ExpectedVersion::Exact(StreamVersion::new(stored)),
        [event("{}")],
    );
    fresh.store.append(exact).await.unwrap();
    let bob = AppendBatch::new().write(stream("bob"), ExpectedVersion::NoStream, [event("{}")]);
    fresh.store.append(bob).await.unwrap();
    for (key, count) in [("ada", stored + 1), ("bob", 1), ("eve", 1)] {
        let found = positions(&fresh.store, ReadQuery::stream(stream(key))).await;
        assert_eq!(found.len() as u64, count, "{key}");
    }
    assert_eq!(check_log(&fresh.store).await.value(), stored + 3);
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_unavailable_and_then_gone() {
    let fresh = Fresh::with(|options| options.with_busy_timeout(Duration::from_millis(20))).await;
    let other = fresh.raw();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = fresh.store.append(one("ada")).await.unwrap_err();
    assert_eq!(error.store_kind(), Some(StoreErrorKind::Unavailable));
    assert!(error.to_string().contains("another process"), "{error}");
    let put = || WriteBatch::new().put("k", ExpectedRevision::Absent, "v");
    let error = fresh.store.write(put()).await.unwrap_err();
    assert!(matches!(error, WriteError::Store(_)), "{error:?}");
    assert!(fresh.store.read(ReadQuery::log()).await.unwrap().events.is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    fresh.store.append(one("ada")).await.unwrap();
    fresh.store.write(put()).await.unwrap();
}

#[tokio::test]
async fn what_another_writer_changed_is_not_answered_from_memory() {
    let fresh = Fresh::open().await;
    let other = SqliteStore::open(SqliteOptions::new(fresh.path())).await.unwrap();
    fresh.store.append(tagged("ada", &["email:ada"])).await.unwrap();
    // The number of the tag is free again, and the next tag gets it.
    other.append(deletion(stream("ada"))).await.unwrap();
    other.append(tagged("bob", &["email:bob"])).await.unwrap();
    fresh.store.append(tagged("eve", &["email:ada"])).await.unwrap();
    for (text, expected) in [("email:ada", 4), ("email:bob", 3)] {
        let query = ReadQuery::matching(Query::tag(tag(text)));
        assert_eq!(positions(&other, query).await, [expected], "{text}");
    }
    let gone =
        AppendBatch::new().write(stream("ada"), ExpectedVersion::StreamExists, [event("{}")]);
    assert!(matches!(fresh.store.append(gone).await, Err(AppendError::Conflict(_))));
    check_log(&fresh.store).await;
}

#[tokio::test]
async fn damage_is_corrupt_and_not_an_empty_answer() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    fresh.raw().execute_batch("UPDATE events SET id = x'00'").unwrap();
    let error = fresh.store.read(ReadQuery::log()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    fresh.raw().execute_batch("UPDATE events SET id = zeroblob(16), stream_no = 9").unwrap();
    let query = ReadQuery::category(crate::fresh::category());
    let error = fresh.store.read(query).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "an event whose stream is gone");
}

const LIMITED: ChildTest = ChildTest::new("failure::limited_child");

/// Not a test of its own: a process whose files may not grow beyond a limit, which SQLite sees as
/// an input/output error. It appends until then.
#[test]
fn limited_child() {
    let Some(path) = LIMITED.order() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = reopen(Path::new(&path)).await;
        let error = loop {
            match store.append(large("ada")).await {
                Ok(appended) => println!("\nack {}", appended.last),
                Err(error) => break error,
            }
        };
        println!("\nappend unknown={}", matches!(error, AppendError::Indeterminate(_)));
        let value = vec![7; 200_000];
        let put = WriteBatch::new().put("k", ExpectedRevision::Any, value);
        let error = store.write(put).await.unwrap_err();
        println!("\nwrite unknown={}", matches!(error, WriteError::Indeterminate(_)));
    });
}

/// The commit record may be in the log and take effect later, but the answer once claimed that
/// nothing was stored.
#[tokio::test]
async fn an_error_of_the_disk_at_a_commit_leaves_the_outcome_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    reopen(&path).await.close().await.unwrap();
    // The signal that comes with the error would end the process.
    let told = LIMITED.run_after("trap '' XFSZ; ulimit -f 4000", &path);
    let told = String::from_utf8_lossy(&told.stdout);
    let acknowledged = told.lines().filter(|line| line.starts_with("ack ")).count() as u64;
    assert!(acknowledged > 2, "the limit had room for some: {told}");
    assert!(told.contains("\nappend unknown=true\n"), "{told}");
    assert!(told.contains("\nwrite unknown=true\n"), "{told}");
    let again = reopen(&path).await;
    let head = check_log(&again).await.value();
    assert!((acknowledged..=acknowledged + 1).contains(&head), "{acknowledged} of {head}: {told}");
    again.append(one("ada")).await.unwrap();
    assert_eq!(check_log(&again).await.value(), head + 1);
    again.close().await.unwrap();
}
