//! The lineage: when it stays, and when it is renewed.

use std::{fs, path::Path};

use factum_journal::{Access, JournalOptions, JournalStore, renew_lineage, verify};
use factum_kernel::{EventStore, Lineage, ReadQuery, StoreErrorKind};

use crate::fresh::{SEGMENT_BYTES, check_log, files, grow, open};

pub(crate) async fn lineage(store: &JournalStore) -> Lineage {
    store.read(ReadQuery::log()).await.unwrap().lineage
}

#[tokio::test]
async fn a_renewed_lineage_is_shown_and_stays_and_everything_else_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    grow(&store, 400).await;
    let first = lineage(&store).await;
    store.close().await.unwrap();
    drop(store);
    let runs = files(folder.path(), ".index");

    let renewed = renew_lineage(folder.path()).unwrap();
    assert_ne!(renewed, first);
    for events in [400, 410, 420] {
        let store = open(folder.path()).await;
        assert_eq!(lineage(&store).await, renewed);
        assert_eq!(check_log(&store).await.value(), events);
        grow(&store, 10).await;
        store.close().await.unwrap();
    }
    // The runs carry the lineage of the segments, which did not change.
    let kept = runs.iter().filter(|run| run.is_file()).count();
    assert!(!runs.is_empty() && kept == runs.len(), "{kept} of {}", runs.len());
    assert_ne!(renew_lineage(folder.path()).unwrap(), renewed);
    assert!(verify(folder.path()).unwrap().is_whole());
}

#[tokio::test]
async fn one_who_reads_along_sees_the_new_lineage_with_the_next_event() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    grow(&store, 20).await;
    let options = JournalOptions::new(folder.path()).with_access(Access::ReadOnly);
    let reader = JournalStore::open(options.clone()).await.unwrap();
    let first = lineage(&reader).await;
    assert_eq!(first, lineage(&store).await);
    store.close().await.unwrap();
    drop(store);
    let renewed = renew_lineage(folder.path()).unwrap();
    let store = open(folder.path()).await;
    grow(&store, 1).await;
    assert_eq!(lineage(&reader).await, renewed);
    assert_eq!(check_log(&reader).await.value(), 21);
    let late = JournalStore::open(options).await.unwrap();
    assert_eq!(lineage(&late).await, renewed);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_lineage_is_not_renewed_under_a_writer_nor_where_no_journal_is() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| renew_lineage(path).unwrap_err();
    assert_eq!(refused(folder.path()).kind(), StoreErrorKind::Invalid);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
    let store = open(folder.path()).await;
    assert_eq!(refused(folder.path()).kind(), StoreErrorKind::Unavailable);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_damaged_file_of_the_lineage_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).await.close().await.unwrap();
    renew_lineage(folder.path()).unwrap();
    let file = folder.path().join("lineage");
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    let options = JournalOptions::new(folder.path()).with_segment_bytes(SEGMENT_BYTES);
    let error = JournalStore::open(options).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("renew the lineage"), "{error}");
    renew_lineage(folder.path()).unwrap();
    open(folder.path()).await.close().await.unwrap();
}
