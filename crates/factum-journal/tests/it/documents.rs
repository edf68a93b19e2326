//! Documents beyond memory: their state after flushes and merges, and the reports of damage.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use factum_journal::{Access, JournalOptions, JournalStore, verify};
use factum_kernel::{
    Document, DocumentStore, EventStore, ExpectedRevision, KeyRange, Limits, Revision, ScanQuery,
    StoreError, StoreErrorKind, WriteBatch, WriteError,
};

use crate::fresh::{self, files_in};

/// The file that holds the first revision of the documents.
const BEGIN: &str = "00000000000000000000.log";
const ANY: ExpectedRevision = ExpectedRevision::Any;

fn options(path: &Path) -> JournalOptions {
    JournalOptions::new(path).with_document_segment_bytes(4 << 10)
}

async fn open(path: &Path) -> JournalStore {
    JournalStore::open(options(path)).await.unwrap()
}

fn key(n: usize) -> String {
    format!("key-{n:05}")
}

async fn put(store: &JournalStore, numbers: impl Iterator<Item = usize>, value: &str) {
    for some in numbers.collect::<Vec<_>>().chunks(10) {
        let put = |batch: WriteBatch, n: &usize| batch.put(key(*n), ANY, value.to_owned());
        store.write(some.iter().fold(WriteBatch::new(), put)).await.unwrap();
    }
}

async fn all(store: &JournalStore) -> Result<Vec<Document>, StoreError> {
    let mut found = Vec::new();
    let mut rest = Some(KeyRange::all());
    while let Some(range) = rest {
        let page = store.scan(ScanQuery::new(range).with_documents_max(70)).await?;
        found.extend(page.documents);
        rest = page.rest;
    }
    Ok(found)
}

/// Waits until a condition on the folder holds; the store works on it in the background.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
    }
    panic!("it never came so far");
}

/// A journal whose documents are in runs, closed.
async fn with_runs(path: &Path) {
    let store = open(path).await;
    put(&store, 0..300, "old").await;
    put(&store, (0..300).step_by(3), "new").await;
    until(|| !files_in(path, "documents", ".documents").is_empty()).await;
    store.close().await.unwrap();
}

async fn refused(path: &Path) -> String {
    let error = match JournalStore::open(options(path)).await {
        Err(error) => error,
        // A block is read on demand.
        Ok(store) => {
            let error = all(&store).await.unwrap_err();
            store.close().await.unwrap();
            error
        }
    };
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    let text = error.to_string();
    assert!(text.contains("backup") && text.contains("file=documents/"), "{text}");
    assert!(!verify(path).unwrap().is_whole());
    text
}

#[tokio::test]
async fn merged_documents_are_the_newest_and_removed_ones_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open(path).await;
    for round in 0..12 {
        put(&store, 0..200, &format!("value {round}")).await;
        store.clear(KeyRange::new(key(50), key(100))).await.unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    let store = open(path).await;
    until(|| files_in(path, "documents", ".documents").len() < 8 * 3).await;
    let found = all(&store).await.unwrap();
    assert_eq!(found.len(), 150);
    assert!(found.iter().all(|it| it.value == "value 11" && !(50..100).any(|n| it.key == key(n))));
    for n in [49, 50, 99, 100] {
        let there = store.get(key(n).as_bytes()).await.unwrap();
        assert_eq!(there.is_some(), !(50..100).contains(&n), "{n}");
    }
    store.close().await.unwrap();
    let report = verify(path).unwrap();
    assert!(report.is_whole() && report.documents == 150, "{report:?}");
}

#[tokio::test]
async fn a_lost_run_is_refused_whichever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    with_runs(folder.path()).await;
    for run in files_in(folder.path(), "documents", ".documents") {
        let aside = folder.path().join("aside");
        fs::rename(&run, &aside).unwrap();
        assert!(refused(folder.path()).await.contains("missing"));
        fs::rename(&aside, &run).unwrap();
    }
    let store = open(folder.path()).await;
    assert_eq!(all(&store).await.unwrap().len(), 300);
    store.close().await.unwrap();
    for run in files_in(folder.path(), "documents", ".documents") {
        fs::remove_file(run).unwrap();
    }
    assert!(refused(folder.path()).await.contains("missing"));
}

#[tokio::test]
async fn a_lost_beginning_or_log_behind_runs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    with_runs(folder.path()).await;
    let begin = folder.path().join("documents").join(BEGIN);
    let bytes = fs::read(&begin).unwrap();
    fs::remove_file(&begin).unwrap();
    assert!(refused(folder.path()).await.contains(BEGIN));
    fs::write(&begin, &bytes[..79]).unwrap();
    assert!(refused(folder.path()).await.contains(BEGIN));
    fs::write(&begin, bytes).unwrap();
    for segment in files_in(folder.path(), "documents", ".log") {
        fs::remove_file(segment).unwrap();
    }
    let error = JournalStore::open(options(folder.path())).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{error}");
    assert!(!verify(folder.path()).unwrap().is_whole());
}

#[tokio::test]
async fn a_damaged_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    with_runs(folder.path()).await;
    let run = files_in(folder.path(), "documents", ".documents").remove(0);
    let bytes = fs::read(&run).unwrap();
    for at in [0, 100, bytes.len() / 2, bytes.len() - 200, bytes.len() - 90, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        fs::write(&run, bytes).unwrap();
        assert!(refused(folder.path()).await.contains("not what was written"), "byte {at}");
    }
    fs::write(&run, &bytes[..bytes.len() / 2]).unwrap();
    refused(folder.path()).await;
}

/// A crash leaves a run of a flush or a merge, and the files that the run replaces.
#[tokio::test]
async fn what_a_wider_run_covers_is_removed_unread() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    put(&store, 0..300, "old").await;
    until(|| !files_in(folder.path(), "documents", ".documents").is_empty()).await;
    store.close().await.unwrap();
    drop(store);
    let documents = folder.path().join("documents");
    let run = files_in(folder.path(), "documents", ".documents").remove(0);
    let name = run.file_name().unwrap().to_string_lossy().into_owned();
    let last: u64 = name[21..41].parse().unwrap();
    let covered = documents.join(format!("{:020}-{:020}.documents", 1, last - 1));
    fs::write(&covered, "not even a run").unwrap();
    fs::write(documents.join(format!("{:020}.log", 1)), "no segment").unwrap();
    let store = open(folder.path()).await;
    assert_eq!(all(&store).await.unwrap().len(), 300);
    assert!(!covered.exists());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_beside_the_writer_follows_flushes_and_merges() {
    let folder = tempfile::tempdir().unwrap();
    let writer = open(folder.path()).await;
    let reader = JournalStore::open(options(folder.path()).with_access(Access::ReadOnly));
    let reader = reader.await.unwrap();
    for round in 0..40 {
        put(&writer, (0..100).map(|n| n * (round % 3 + 1)), &format!("{round}")).await;
        writer.clear(KeyRange::new(key(10), key(20))).await.unwrap();
        assert_eq!(all(&reader).await.unwrap(), all(&writer).await.unwrap(), "round {round}");
        let there = key(0);
        let gone = key(10);
        let found = reader.get(there.as_bytes()).await.unwrap().unwrap();
        assert_eq!(found.value, format!("{round}"));
        assert_eq!(reader.get(gone.as_bytes()).await.unwrap(), None);
        assert!(round % 8 > 0 || verify(folder.path()).unwrap().is_whole(), "beside a writer");
    }
    writer.close().await.unwrap();
    assert_eq!(all(&reader).await.unwrap().len(), 189);
}

/// Sixteen writers count up one document, each from the value that it has read. Each success counts
/// once, and each write takes a revision of its own, although many share a frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_share_a_sync_have_one_winner_each_time() {
    const WRITERS: usize = 16;
    const EACH: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let count = async |store: JournalStore, writer: usize| {
        let mut revisions = Vec::new();
        while (revisions.len() as u64) < EACH {
            let found = store.get(b"count").await.unwrap();
            let number = |it: &Document| String::from_utf8_lossy(&it.value).parse::<u64>().unwrap();
            let next = found.as_ref().map_or(1, |it| number(it) + 1);
            let expected =
                found.map_or(ExpectedRevision::Absent, |it| ExpectedRevision::Exact(it.revision));
            let own = format!("writer-{writer}-{}", revisions.len());
            let batch = WriteBatch::new().put("count", expected, next.to_string());
            let batch = batch.put(own, ExpectedRevision::Absent, Bytes::from(next.to_string()));
            match store.write(batch).await {
                Ok(revision) => revisions.push((revision, next)),
                Err(WriteError::Conflict { entry: 0 }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        revisions
    };
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(count(JournalStore::clone(&store), writer)))
        .collect();
    let mut won: Vec<(Revision, u64)> = Vec::new();
    for task in tasks {
        won.extend(task.await.unwrap());
    }
    won.sort();
    let total = WRITERS as u64 * EACH;
    assert!(won.iter().map(|it| it.1).eq(1..=total), "a count was given twice or left out");
    assert!(won.windows(2).all(|it| it[0].0 < it[1].0), "a revision was given twice");
    store.close().await.unwrap();
    drop(store);
    let store = open(folder.path()).await;
    let found = store.get(b"count").await.unwrap().unwrap();
    assert_eq!((found.value, found.revision), (total.to_string().into(), won[won.len() - 1].0));
    assert_eq!(all(&store).await.unwrap().len() as u64, total + 1);
    store.close().await.unwrap();
}

/// A version without runs removed its oldest segments once all their documents were written again.
#[tokio::test]
async fn a_log_without_runs_opens_wherever_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open(path).await;
    put(&store, 0..300, "old").await;
    store.close().await.unwrap();
    drop(store);
    for suffix in [".documents", BEGIN] {
        files_in(path, "documents", suffix).iter().for_each(|file| fs::remove_file(file).unwrap());
    }
    assert!(verify(path).unwrap().is_whole());
    let store = open(path).await;
    let count = all(&store).await.unwrap().len();
    put(&store, 1_000..1_300, "new").await;
    until(|| !files_in(path, "documents", ".documents").is_empty()).await;
    store.close().await.unwrap();
    drop(store);
    let store = open(path).await;
    assert!(count > 0 && count < 300);
    assert_eq!(all(&store).await.unwrap().len(), count + 300);
    store.close().await.unwrap();
    // From here on, a loss is noticed.
    fs::remove_file(&files_in(path, "documents", ".documents")[0]).unwrap();
    assert!(refused(path).await.contains("missing"));
}

#[tokio::test]
async fn a_journal_whose_writer_died_takes_no_documents_while_another_opening_does() {
    let folder = tempfile::tempdir().unwrap();
    let died = options(folder.path()).with_commit_delay(Arc::new(|| panic!("as a test wants it")));
    let died = JournalStore::open(died).await.unwrap();
    let put = |key: &'static str| WriteBatch::new().put(key, ANY, "value");
    died.write(put("before")).await.unwrap();
    fresh::append_one(&died).await.unwrap_err();
    // The lock is free as soon as the thread has ended.
    let other = loop {
        match JournalStore::open(options(folder.path())).await {
            Ok(store) => break store,
            Err(e) if e.to_string().contains("open in another") => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
    other.write(put("acknowledged")).await.unwrap();
    let refused = died.write(put("lost")).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Store(_)), "{refused}");
    assert!(refused.to_string().contains("open"), "{refused}");
    drop(died);
    other.close().await.unwrap();
    let store = open(folder.path()).await;
    assert!(store.get(b"acknowledged").await.unwrap().is_some());
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_was_accepted_before_the_closing_is_written() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
        let write = |n: usize| {
            let store = store.clone();
            let batch = WriteBatch::new().put(key(n), ANY, vec![7; 1 << 20]);
            tokio::spawn(async move { store.write(batch).await })
        };
        // The writes make several groups; each is queued when it was polled once.
        let writes: Vec<_> = (0..40).map(write).collect();
        tokio::task::yield_now().await;
        store.close().await.unwrap();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        assert!(store.write(WriteBatch::new().put("late", ANY, "x")).await.is_err());
        drop(store);
        let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
        assert_eq!(all(&store).await.unwrap().len(), 40);
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_clearing_is_not_bound_by_what_a_write_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    put(&store, 0..25, "x").await;
    store.close().await.unwrap();
    let mut limits = Limits::default();
    (limits.write_documents_max, limits.document_key_bytes_max) = (3, 4);
    let store = JournalStore::open(options(folder.path()).with_limits(limits)).await.unwrap();
    let one = WriteBatch::new().put(key(0), ANY, "y");
    assert!(matches!(store.write(one).await, Err(WriteError::Store(_))), "its key is too long");
    store.clear(KeyRange::new(key(5), key(20))).await.unwrap();
    assert_eq!(all(&store).await.unwrap().len(), 10);
    store.close().await.unwrap();
}
