//! The identity of a database's file, whatever happens to its path.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use factum_backend::OpenStore;
use factum_kernel::{AppendError, EventStore, ReadQuery, StoreErrorKind};
use factum_sqlite::{Access, SqliteKind, SqliteOptions, SqliteStore};

use crate::fresh::{Fresh, check_log, one, positions, reopen};

/// The file beside a database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", path.display()).into()
}

/// The suffixes of a database's files.
const FILES: [&str; 3] = ["", "-wal", "-shm"];

fn rename(files: &[&str], from: &Path, to: &Path) {
    for suffix in files {
        fs::rename(beside(from, suffix), beside(to, suffix)).unwrap();
    }
}

#[tokio::test]
async fn a_database_is_the_same_through_a_link() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("linked.db");
    symlink(fresh.path(), &link).unwrap();
    let linked = reopen(&link).await;
    linked.append(one("bob")).await.unwrap();
    fresh.store.append(one("eve")).await.unwrap();
    assert_eq!(positions(&linked, ReadQuery::log()).await, [1, 2, 3]);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1, "a log beside the link");

    // As it was when its process was killed, in a folder that can't be written.
    let copy = fresh.folder.path().join("copy.db");
    for suffix in ["", "-wal"] {
        fs::copy(beside(&fresh.path(), suffix), beside(&copy, suffix)).unwrap();
    }
    symlink("/nowhere/shm", beside(&copy, "-shm")).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&copy, &link).unwrap();
    let options = SqliteOptions::new(&link).with_access(Access::ReadOnly);
    let error = SqliteStore::open(options).await.unwrap_err();
    assert!(error.to_string().contains("was not closed"), "{error}");
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.db");
    let link = folder.path().join("link.db");
    symlink(&file, &link).unwrap();
    let error = SqliteStore::open(SqliteOptions::new(&link)).await.unwrap_err();
    assert!(error.to_string().contains("a link to a file that is not there"), "{error}");
    assert!(!file.exists());
}

/// SQLite would keep a log for each name, and each would overwrite the other's data.
#[tokio::test]
async fn a_database_with_two_names_is_refused() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    let other = fresh.folder.path().join("other.db");
    fs::hard_link(fresh.path(), &other).unwrap();
    for path in [&fresh.path(), &other] {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let options = SqliteOptions::new(path).with_access(access);
            let error = SqliteStore::open(options).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Invalid);
            assert!(error.to_string().contains("names=2"), "{error}");
        }
    }
    fs::remove_file(&other).unwrap();
    reopen(&fresh.path()).await;
}

#[tokio::test]
async fn a_database_that_was_moved_away_and_restored_is_another_one() {
    let fresh = Fresh::open().await;
    let path = fresh.path();
    fresh.store.append(one("ada")).await.unwrap();
    let backup = fresh.folder.path().join("backup");
    let away = fresh.folder.path().join("away");
    fs::copy(&path, &backup).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&backup, "-wal")).unwrap();
    fresh.store.append(one("bob")).await.unwrap();
    rename(&FILES, &path, &away);
    rename(&FILES[..2], &backup, &path);

    let new = reopen(&path).await;
    new.append(one("eve")).await.unwrap();
    let Err(AppendError::Store(error)) = fresh.store.append(one("old")).await else {
        panic!("stored where nobody looks");
    };
    assert!(error.to_string().contains("was moved, removed or replaced"), "{error}");
    assert!(fresh.store.read(ReadQuery::log()).await.is_err(), "of which of the two?");
    assert_eq!(positions(&new, ReadQuery::log()).await, [1, 2]);
    new.close().await.unwrap();

    // Once it is back in its place, the store goes on.
    fs::remove_file(&path).unwrap();
    rename(&FILES, &away, &path);
    fresh.store.append(one("old")).await.unwrap();
    assert_eq!(check_log(&fresh.store).await.value(), 3);
}

/// Only this process could still see what it would write to that log.
#[tokio::test]
async fn a_log_that_was_taken_away_is_not_written_and_is_saved_by_closing() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    fs::remove_file(beside(&fresh.path(), "-wal")).unwrap();
    let Err(AppendError::Store(error)) = fresh.store.append(one("bob")).await else {
        panic!("stored where nobody looks");
    };
    assert!(error.to_string().contains("close the store"), "{error}");
    fresh.store.close().await.unwrap();
    let store = reopen(&fresh.path()).await;
    store.append(one("bob")).await.unwrap();
    assert_eq!(check_log(&store).await.value(), 2);
}

/// Without this process's lock on the file, another program that closes its connection takes itself
/// for the last and removes the log: <https://www.sqlite.org/howtocorrupt.html>.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn looking_at_an_open_database_leaves_its_lock() {
    use std::os::unix::fs::MetadataExt;
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    let inode = format!(":{} ", fs::metadata(fresh.path()).unwrap().ino());
    let is_locked = || fs::read_to_string("/proc/locks").unwrap().contains(&inode);
    assert!(is_locked(), "SQLite holds one while a connection is open");
    assert!(SqliteKind.recognise(&fresh.path()).is_some());
    assert!(is_locked(), "it is gone");
}
