//! The identity of a journal's folder, whatever happens to its path.

use std::{
    fs::{self, File},
    path::Path,
};

use factum_journal::{JournalOptions, JournalStore, verify};
use factum_kernel::{
    AppendError, DocumentStore, EventStore, ExpectedRevision, StoreError, StoreErrorKind,
    WriteBatch, WriteError,
};
use factum_testing::ChildTest;

use crate::fresh::{SEGMENT_BYTES, append_one, check_log, files, files_in, grow, open};

async fn refused(path: &Path) -> StoreError {
    JournalStore::open(JournalOptions::new(path)).await.unwrap_err()
}

async fn write(store: &JournalStore) -> Result<(), WriteError> {
    let batch = WriteBatch::new().put("a", ExpectedRevision::Any, "1");
    store.write(batch).await.map(drop)
}

/// Copies a folder, file by file with `copy`.
fn copy_folder(from: &Path, to: &Path, copy: fn(&Path, &Path)) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.as_ref().unwrap().path();
        let to = to.join(entry.unwrap().file_name());
        if from.is_dir() { copy_folder(&from, &to, copy) } else { copy(&from, &to) }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

/// Fails if the writer accepts anything.
async fn takes_nothing(store: &JournalStore) {
    let Err(AppendError::Store(error)) = append_one(store).await else { panic!("appended") };
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(error.to_string().contains("was moved, removed or replaced"), "{error}");
    let Err(WriteError::Store(error)) = write(store).await else { panic!("written") };
    assert!(error.to_string().contains("was moved, removed or replaced"), "{error}");
}

#[tokio::test]
async fn without_its_lock_file_a_journal_has_one_writer_still() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    fs::remove_file(folder.path().join("lock")).unwrap();
    let error = refused(folder.path()).await;
    assert!(error.to_string().contains("open in another process"), "{error}");
    append_one(&store).await.unwrap();
    store.close().await.unwrap();
    open(folder.path()).await.close().await.unwrap();
}

/// Otherwise the old writer and that of the restored folder would write files with the same names.
#[tokio::test]
async fn a_folder_that_was_moved_away_and_restored_is_another_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let backup = folder.path().join("backup");
    let away = folder.path().join("away");
    let old = open(&path).await;
    grow(&old, 100).await;
    write(&old).await.unwrap();
    copy_folder(&path, &backup, copy);
    grow(&old, 100).await;
    fs::rename(&path, &away).unwrap();
    fs::rename(&backup, &path).unwrap();
    let new = open(&path).await;
    takes_nothing(&old).await;
    // Through many segments.
    grow(&new, 500).await;
    takes_nothing(&old).await;
    assert_eq!(check_log(&new).await.value(), 600);
    assert_eq!(check_log(&old).await.value(), 200);
    old.close().await.unwrap();
    new.close().await.unwrap();
    for (path, events) in [(&path, 600), (&away, 200)] {
        let report = verify(path).unwrap();
        assert!(report.is_whole() && report.events == events, "{report:#?}");
    }
}

#[tokio::test]
async fn a_folder_that_is_back_in_its_place_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let away = folder.path().join("away");
    let store = open(&path).await;
    grow(&store, 10).await;
    // The folder, its parent, and the folders in it.
    for (from, to) in [("data", "away"), ("data/log", "away"), ("data/documents", "away")] {
        let from = folder.path().join(from);
        let to = folder.path().join(to);
        fs::rename(&from, &to).unwrap();
        let appended = append_one(&store).await;
        let written = write(&store).await;
        assert!(appended.is_err() || written.is_err(), "{from:?}");
        fs::rename(&to, &from).unwrap();
    }
    assert!(!away.exists());
    grow(&store, 1_000).await;
    write(&store).await.unwrap();
    check_log(&store).await;
    store.close().await.unwrap();
    let report = verify(&path).unwrap();
    assert!(report.is_whole(), "{report:#?}");
}

/// A write to one would change the other.
#[tokio::test]
async fn a_copy_by_hard_links_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let copied = folder.path().join("copied");
    let store = open(&path).await;
    grow(&store, 100).await;
    write(&store).await.unwrap();
    store.close().await.unwrap();
    copy_folder(&path, &copied, |from, to| fs::hard_link(from, to).unwrap());
    let last = |path: &Path, folder: &str| files_in(path, folder, ".log").pop().unwrap();
    for segment in [last(&copied, "log"), last(&copied, "documents")] {
        for path in [&path, &copied] {
            let error = refused(path).await;
            assert_eq!(error.kind(), StoreErrorKind::Invalid);
            let name = segment.file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(&format!("file={name} names=2")), "{error}");
        }
        // As the error's remedy says.
        let alone = segment.with_extension("alone");
        copy(&segment, &alone);
        fs::rename(&alone, &segment).unwrap();
    }
    for path in [&path, &copied] {
        let store = open(path).await;
        grow(&store, 300).await;
        assert_eq!(check_log(&store).await.value(), 400);
        store.close().await.unwrap();
    }
}

const STARVED: ChildTest = ChildTest::new("place::starved");

/// Not a test of its own: a writer that goes through segments while no file can be opened.
#[test]
fn starved() {
    let Some(path) = STARVED.order() else { return };
    let path = Path::new(&path);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(path).await;
        // Until the next segment is ready except for its name.
        let is_ready =
            |file: &Path| fs::metadata(file).is_ok_and(|it| it.len() == u64::from(SEGMENT_BYTES));
        while !files(path, ".unfinished").iter().any(|file| is_ready(file)) {
            append_one(&store).await.unwrap();
        }
        let mut all = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            all.push(file);
        }
        let mut refused = 0;
        while refused < 10 {
            refused += u32::from(append_one(&store).await.is_err());
        }
        drop(all);
        grow(&store, 500).await;
        check_log(&store).await;
        store.close().await.unwrap();
    });
    println!("\nwent on");
}

#[test]
fn after_a_moment_without_descriptors_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let output = STARVED.run_after("ulimit -n 100", folder.path());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("went on"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole(), "{report:#?}");
}
