//! Reading beside a writer.

use std::{fs::File, os::unix::fs::FileExt};

use factum_core::{
    AppendBatch, AppendError, DocumentStore, EventName, EventStore, ExpectedRevision,
    ExpectedVersion, ReadQuery, StoreErrorKind, StreamChange, WriteBatch,
};
use factum_journal::{Access, JournalOptions, JournalStore};

use crate::fresh::{check_positions, event, files, grow, open, pages, stream};

pub(crate) async fn follow(path: &std::path::Path) -> JournalStore {
    let options = JournalOptions::new(path).with_access(Access::ReadOnly);
    JournalStore::open(options).await.unwrap()
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_every_acknowledged_event() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path()).await;
    grow(&writer, 5).await;
    let reader = follow(folder.path()).await;
    assert_eq!(check_positions(&reader).await.value(), 5);
    // Through many segments, runs and merges.
    for round in 1..=30 {
        grow(&writer, 100).await;
        assert_eq!(check_positions(&reader).await.value(), 5 + round * 100);
        let of_stream = pages(&reader, ReadQuery::stream(stream("s3"))).await;
        let count: usize = of_stream.iter().map(|page| page.events.len()).sum();
        assert_eq!(count as u64, round * 10 + 1);
        assert_eq!(reader.head().borrow().value(), 5 + round * 100);
    }
    writer.change(&stream("s3"), StreamChange::Delete(ExpectedVersion::Any)).await.unwrap();
    let page = reader.read(ReadQuery::stream(stream("s3"))).await.unwrap();
    assert!(page.events.is_empty() && page.bounds.unwrap().is_deleted());
    assert_eq!(check_positions(&reader).await.value(), 3_005);
    writer.close().await.unwrap();
    assert_eq!(check_positions(&reader).await.value(), 3_005);
}

/// What a follower could not take in whole must not stay in it by half.
#[tokio::test]
async fn a_reader_goes_on_when_an_index_is_readable_again() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path()).await;
    grow(&writer, 200).await;
    let old = AppendBatch::new().write(stream("old"), ExpectedVersion::Any, [event("{}")]);
    writer.append(old.clone()).await.unwrap();
    while files(folder.path(), ".index").len() < 2 {
        grow(&writer, 10).await;
    }
    let reader = follow(folder.path()).await;
    // Read nothing yet: the index is to be asked, not memory.
    let before = reader.head().borrow().value();
    // One frame: of a new stream first, then of one that only the index knows.
    let mut new = event("{}");
    new.name = EventName::from_static("account.closed");
    let batch = AppendBatch::new().write(stream("new"), ExpectedVersion::Any, [new]).write(
        stream("old"),
        ExpectedVersion::Any,
        [event("{}")],
    );
    writer.append(batch).await.unwrap();
    // Done twice, it is undone.
    let flip = || {
        for path in files(folder.path(), ".index") {
            let file = File::options().read(true).write(true).open(path).unwrap();
            let mut bytes = [0; 64];
            file.read_exact_at(&mut bytes, 0).unwrap();
            file.write_all_at(&bytes.map(|byte| !byte), 0).unwrap();
        }
    };
    flip();
    for _ in 0..3 {
        assert!(reader.read(ReadQuery::log()).await.is_err());
    }
    flip();
    assert_eq!(check_positions(&reader).await.value(), before + 2);
    let page = reader.read(ReadQuery::stream(stream("new"))).await.unwrap();
    assert_eq!(page.events.len(), 1);
    writer.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_sees_documents_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path()).await;
    let reader = follow(folder.path()).await;
    for value in ["1", "2"] {
        let batch = WriteBatch::new().put("a", ExpectedRevision::Any, value);
        writer.write(batch.clone()).await.unwrap();
        let found = reader.get(b"a").await.unwrap().unwrap();
        assert_eq!(found.value, value);
        assert!(reader.write(batch).await.is_err());
    }
    let batch = AppendBatch::new().write(stream("x"), ExpectedVersion::Any, [event("{}")]);
    match reader.append(batch).await {
        Err(AppendError::Store(error)) => assert_eq!(error.kind(), StoreErrorKind::Invalid),
        other => panic!("{other:?}"),
    }
    writer.close().await.unwrap();
}

/// A document that is written again and again takes bounded room, and the last one counts.
#[tokio::test]
async fn documents_give_their_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let kept = WriteBatch::new().put("kept", ExpectedRevision::Any, "from the first segment");
    let first = store.write(kept).await.unwrap();
    let mut last = first;
    for round in 0..240_u32 {
        let value = vec![round as u8; 256 << 10];
        let batch = WriteBatch::new().put("large", ExpectedRevision::Any, value);
        last = store.write(batch).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let entries = std::fs::read_dir(folder.path().join("documents")).unwrap();
    let bytes: u64 = entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 48 << 20, "{bytes} bytes for one document of 256 KiB");
    let store = open(folder.path()).await;
    let kept = store.get(b"kept").await.unwrap().unwrap();
    assert_eq!((kept.revision, &kept.value[..]), (first, &b"from the first segment"[..]));
    let large = store.get(b"large").await.unwrap().unwrap();
    assert_eq!((large.revision, large.value[0]), (last, 239));
    store.close().await.unwrap();
}

/// Callers look up old facts before they queue, while the writer goes through many segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn looking_up_old_streams_never_stalls_the_writer() {
    const STREAMS: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let append = |task: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in (task..12_000).step_by(64) {
                let stream = stream(&format!("s{}", n * 7_919 % STREAMS));
                let batch =
                    AppendBatch::new().write(stream, ExpectedVersion::Any, [event("{\"n\":1}")]);
                store.append(batch).await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..64).map(append).collect();
    for task in tasks {
        tokio::time::timeout(std::time::Duration::from_secs(50), task).await.unwrap().unwrap();
    }
    assert_eq!(check_positions(&store).await.value(), 12_000);
    store.close().await.unwrap();
}
