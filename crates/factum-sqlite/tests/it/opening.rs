//! The files that are opened, and the errors for those that are refused.

use std::{fs, path::Path, sync::Arc};

use factum_backend::{OpenContext, OpenStore, Registry, StoreUrl};
use factum_kernel::{
    Durability, EventStore, ReadQuery, StoreError, StoreErrorKind, SystemClock, SystemIds, Writers,
};
use factum_sqlite::{Access, SqliteKind, SqliteOptions, SqliteStore};

use crate::fresh::{Fresh, one, positions, raw, reopen};

fn context() -> OpenContext {
    OpenContext::new(Arc::new(SystemClock), Arc::new(SystemIds))
}

async fn refusal(options: SqliteOptions) -> (StoreErrorKind, String) {
    let error = SqliteStore::open(options).await.unwrap_err();
    (error.kind(), error.to_string())
}

async fn url_refusal(url: &str) -> String {
    let opened: Result<_, StoreError> =
        Registry::new().with(SqliteKind).open(url, &context()).await;
    opened.unwrap_err().to_string()
}

#[tokio::test]
async fn what_is_no_database_is_refused_by_name_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    fs::write(&path, "not a database, but long enough to look like one. ".repeat(40)).unwrap();
    let before = fs::read(&path).unwrap();
    let (kind, text) = refusal(SqliteOptions::new(&path)).await;
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(text.contains("no SQLite database") && text.contains("notes.txt"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    raw(&path).execute_batch("CREATE TABLE theirs (a); PRAGMA user_version = 1").unwrap();
    let before = fs::read(&path).unwrap();
    let (kind, text) = refusal(SqliteOptions::new(&path)).await;
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(text.contains("another program's") && text.contains("other.db"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_folder_is_refused_and_a_missing_one_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (kind, text) = refusal(SqliteOptions::new(folder.path())).await;
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(text.contains("is a folder"), "{text}");

    let deep = folder.path().join("a/b/events.db");
    reopen(&deep).await.close().await.unwrap();
    assert!(deep.is_file());

    let below_a_file = deep.join("c/events.db");
    let (_, text) = refusal(SqliteOptions::new(below_a_file)).await;
    assert!(text.contains("folder can't be made"), "{text}");
}

#[tokio::test]
async fn memory_is_refused_with_the_remedy() {
    for path in [":memory:", ""] {
        let (kind, text) = refusal(SqliteOptions::new(path)).await;
        assert_eq!(kind, StoreErrorKind::Invalid);
        assert!(text.contains("use memory:"), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_sqlite_would_read_as_a_uri_is_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file:odd?mode=memory");
    reopen(&path).await.close().await.unwrap();
    assert!(path.is_file());
}

#[tokio::test]
async fn a_url_opens_and_a_misspelt_option_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let shown = path.display();
    let registry = Registry::new().with(SqliteKind);
    let stores = registry.open(&format!("sqlite:{shown}"), &context()).await.unwrap();
    stores.events.append(one("ada")).await.unwrap();
    let guarantees = stores.events.guarantees();
    assert_eq!(guarantees.durability, Durability::PowerLoss);
    assert_eq!(guarantees.writers, Writers::ManyProcesses);
    stores.events.close().await.unwrap();

    let again = registry.open(&format!("sqlite://{shown}?mode=write"), &context()).await.unwrap();
    assert_eq!(positions(&*again.events, ReadQuery::log()).await, [1]);
    assert!(url_refusal(&format!("sqlite:{shown}?mod=read")).await.contains("option=mod"));
    assert!(url_refusal(&format!("sqlite:{shown}?mode=append")).await.contains("mode=append"));
    assert!(url_refusal("sqlite::memory:").await.contains("use memory:"));
    assert!(url_refusal("sqlite:~/events.db").await.contains("only a shell knows what ~ is"));
}

#[tokio::test]
async fn a_path_is_recognised_by_what_is_there() {
    let fresh = Fresh::open().await;
    let url = |path: &Path| SqliteKind.recognise(path).map(|url| url.path().to_owned());
    let file = fresh.path().to_str().unwrap().to_owned();
    assert_eq!(url(&fresh.path()), Some(file.clone()));
    assert_eq!(url(fresh.folder.path()), Some(file.clone()));
    let other = fresh.folder.path().join("other.txt");
    fs::write(&other, "text").unwrap();
    assert_eq!(url(&other), None);
    assert_eq!(url(Path::new("/nowhere")), None);
    let place = SqliteKind.place_in(fresh.folder.path());
    assert_eq!(place, Some(StoreUrl::of_path("sqlite", Path::new(&file))));
}

#[tokio::test]
async fn read_mode_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let read = || SqliteOptions::new(&path).with_access(Access::ReadOnly);
    let (kind, text) = refusal(read()).await;
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(text.contains("no database to read"), "{text}");
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    assert!(refusal(read()).await.1.contains("nothing to read"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_closed_store_is_read_where_nothing_can_be_written() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    fresh.store.close().await.unwrap();
    let path = fresh.folder.path().join("a copy?50%.db");
    fs::copy(fresh.path(), &path).unwrap();
    let beside = |suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
    // This has the same effect as a folder without permission, which would not stop root.
    std::os::unix::fs::symlink("/nowhere/shm", beside("-shm")).unwrap();
    let read = || SqliteOptions::new(&path).with_access(Access::ReadOnly);
    let reader = SqliteStore::open(read()).await.unwrap();
    assert_eq!(positions(&reader, ReadQuery::log()).await, [1]);
    reader.close().await.unwrap();

    fs::write(beside("-wal"), "not empty").unwrap();
    let (kind, text) = refusal(read()).await;
    assert_eq!(kind, StoreErrorKind::Invalid);
    assert!(text.contains("was not closed") && !text.contains("mode=read"), "{text}");
}

#[tokio::test]
async fn closing_leaves_one_file_and_refuses_what_comes_later() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1]);
    fresh.store.close().await.unwrap();
    fresh.store.close().await.unwrap();
    let files: Vec<_> = fs::read_dir(fresh.folder.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "the write-ahead log is in the file: {files:?}");
    let error = fresh.store.append(one("bob")).await.unwrap_err();
    assert_eq!(error.store_kind(), Some(StoreErrorKind::Closed));
}
