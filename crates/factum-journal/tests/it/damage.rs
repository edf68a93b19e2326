//! Damage by hand: how it is reported, and what is still read.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use factum_journal::{JournalOptions, JournalStore, verify};
use factum_kernel::{AppendBatch, EventStore, ExpectedVersion, StoreError, StoreErrorKind};
use tempfile::TempDir;

use crate::fresh::{SEGMENT_BYTES, check_log, event, files, grow, open, stream};

async fn closed_journal(events: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    grow(&store, events).await;
    store.close().await.unwrap();
    folder
}

async fn reopened(path: &Path) -> Result<JournalStore, StoreError> {
    JournalStore::open(JournalOptions::new(path).with_segment_bytes(SEGMENT_BYTES)).await
}

fn active(path: &Path) -> PathBuf {
    files(path, ".log").pop().unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The offset after the last byte that is not zero.
fn used(path: &Path) -> u64 {
    fs::read(path).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

#[track_caller]
fn assert_damage(path: &Path, what: &str) {
    let report = verify(path).unwrap();
    assert!(
        !report.is_whole() && report.damages.iter().any(|it| it.to_string().contains(what)),
        "{report:?}"
    );
}

#[tokio::test]
async fn a_whole_journal_is_reported_as_whole() {
    let folder = closed_journal(1_000).await;
    let report = verify(folder.path()).unwrap();
    assert!(report.is_whole() && report.torn.is_empty(), "{report:?}");
    assert_eq!((report.events, report.streams, report.erased), (1_000, 10, 0));
}

#[tokio::test]
async fn a_flipped_bit_in_the_active_segment_is_refused_with_its_place() {
    let folder = closed_journal(50).await;
    flip(&active(folder.path()), 700);
    let error = reopened(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains("segment=1 ") && text.contains("offset=") && text.contains("position"));
    assert_damage(folder.path(), "file=log/00000000000000000001.log offset=");
}

#[tokio::test]
async fn a_flipped_bit_in_a_sealed_segment_is_refused_where_it_is_read() {
    let folder = closed_journal(1_000).await;
    flip(&files(folder.path(), ".log")[1], 5_000);
    let store = reopened(folder.path()).await.unwrap();
    let mut next = Some(factum_kernel::ReadQuery::log());
    let mut refused = None;
    while let Some(query) = next {
        match store.read(query.clone()).await {
            Ok(page) => next = query.next(&page),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    assert_eq!(refused.expect("the damaged event").kind(), StoreErrorKind::Corrupt);
    store.close().await.unwrap();
    assert_damage(folder.path(), "no whole frame");
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let folder = closed_journal(1_000).await;
    fs::remove_file(&files(folder.path(), ".log")[1]).unwrap();
    let error = reopened(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("missing"), "{error}");
    assert_damage(folder.path(), "missing");
    for segment in files(folder.path(), ".log") {
        fs::remove_file(segment).unwrap();
    }
    let error = reopened(folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("its log is gone"), "{error}");
    assert_damage(folder.path(), "a segment is missing");
}

#[tokio::test]
async fn a_log_that_was_cut_short_after_it_was_closed_is_known_by_the_writers_word() {
    let folder = closed_journal(50).await;
    let path = active(folder.path());
    // The cut is in the middle of a frame; the rest goes, and the mark with it.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(used(&path) / 2).unwrap();
    assert_damage(folder.path(), "its writer recorded it as durable up to ");
    fs::remove_file(folder.path().join("log/synced")).unwrap();
    let report = verify(folder.path()).unwrap();
    // This looks like a write that a crash cut short: it is reported, and set aside.
    assert!(report.is_whole());
    assert_eq!(report.torn.len(), 1, "{report:?}");
}

#[tokio::test]
async fn bytes_behind_the_mark_of_a_closed_log_are_damage() {
    let folder = closed_journal(50).await;
    let path = active(folder.path());
    let file = fs::File::options().write(true).open(&path).unwrap();
    // The mark ends with its sector.
    let end = used(&path).next_multiple_of(512);
    file.write_all_at(b"what is this?", end + 64).unwrap();
    let error = reopened(folder.path()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert_damage(folder.path(), "closed");
}

#[tokio::test]
async fn a_torn_end_is_set_aside_and_the_rest_is_there() {
    let folder = closed_journal(50).await;
    let path = active(folder.path());
    // As after a crash: without the mark, and with half a frame.
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let salt = &bytes[32..40];
    let starts: Vec<usize> =
        (512..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(salt)).collect();
    let mark = *starts.last().unwrap();
    file.write_all_at(&vec![0; bytes.len() - mark], mark as u64).unwrap();
    let last = starts[starts.len() - 2];
    file.write_all_at(&vec![0; mark - last - 40], last as u64 + 40).unwrap();
    fs::remove_file(folder.path().join("log/synced")).unwrap();

    assert_eq!(verify(folder.path()).unwrap().torn.len(), 1);
    let store = reopened(folder.path()).await.unwrap();
    assert_eq!(store.set_aside().len(), 1);
    let aside = fs::read(folder.path().join("log").join(&store.set_aside()[0])).unwrap();
    assert_eq!(aside[..40], bytes[last..last + 40]);
    assert_eq!(check_log(&store).await.value(), 49);
    grow(&store, 10).await;
    store.close().await.unwrap();
    drop(store);
    let store = reopened(folder.path()).await.unwrap();
    assert!(store.set_aside().is_empty());
    assert_eq!(check_log(&store).await.value(), 59);
    store.close().await.unwrap();
}

/// A write that was cut short in the zeros behind its records once made the opening panic.
#[tokio::test]
async fn a_last_frame_without_the_zeros_that_fill_it_up_is_whole() {
    let mut tried = 0;
    for size in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        grow(&store, 10).await;
        let last = [event(&"x".repeat(size))];
        let batch = AppendBatch::new().write(stream("s0"), ExpectedVersion::Any, last);
        store.append(batch).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let path = active(folder.path());
        let bytes = fs::read(&path).unwrap();
        let starts: Vec<usize> = (512..bytes.len())
            .step_by(8)
            .filter(|at| bytes[*at..].starts_with(&bytes[32..40]))
            .collect();
        let last = starts[starts.len() - 2];
        let len = u32::from_le_bytes(bytes[last + 12..last + 16].try_into().unwrap());
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len((last + 32 + len as usize) as u64).unwrap();
        tried += usize::from(!len.is_multiple_of(8));
        let store = reopened(folder.path()).await.unwrap();
        grow(&store, 10).await;
        assert_eq!(check_log(&store).await.value(), 21);
        store.close().await.unwrap();
        assert!(verify(folder.path()).unwrap().is_whole());
    }
    assert_eq!(tried, 7);
}

#[tokio::test]
async fn a_damaged_run_is_reported_and_made_anew() {
    let folder = closed_journal(1_000).await;
    let run = files(folder.path(), ".index").remove(0);
    flip(&run, 100);
    assert_damage(folder.path(), "a file of the index is not what was written");
    fs::remove_file(&run).unwrap();
    let store = reopened(folder.path()).await.unwrap();
    assert_eq!(check_log(&store).await.value(), 1_000);
    store.close().await.unwrap();
    assert!(verify(folder.path()).unwrap().is_whole());
}
