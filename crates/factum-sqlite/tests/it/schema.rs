//! Versions of the tables.

use factum_kernel::{EventStore, ReadQuery, StoreErrorKind};
use factum_sqlite::{Access, SCHEMA_VERSION, SqliteOptions, SqliteStore};

use crate::fresh::{Fresh, check_log, one, positions, raw};

/// A database as version 1 of the tables left it, with one event, made without this program.
fn made_v1(path: &std::path::Path) {
    let connection = raw(path);
    connection.execute_batch(include_str!("schema/v1.sql")).unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let fresh = Fresh::open().await;
    fresh.store.close().await.unwrap();
    let newer = SCHEMA_VERSION + 1;
    fresh.raw().pragma_update(None, "user_version", newer).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let options = SqliteOptions::new(fresh.path()).with_access(access);
        let error = SqliteStore::open(options).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        let text = error.to_string();
        let numbers = format!("schema={newer} known={SCHEMA_VERSION}");
        assert!(text.contains(&numbers) && text.contains("newer program"), "{text}");
    }
    let left: i32 = fresh.raw().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(left, newer);
}

#[tokio::test]
async fn a_database_of_version_1_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    made_v1(&path);
    let store = SqliteStore::open(SqliteOptions::new(&path)).await.unwrap();
    let page = store.read(ReadQuery::log()).await.unwrap();
    let event = &page.events[0];
    assert_eq!((event.name(), event.payload()), ("account.opened", &b"{}"[..]));
    assert_eq!(event.tags().collect::<Vec<_>>(), ["email:ada"]);
    assert_eq!(event.stream().as_str(), "account-ada");
    assert_eq!(page.erased.len(), 1);
    store.append(one("ada")).await.unwrap();
    assert_eq!(positions(&store, ReadQuery::log()).await, [3, 4]);
    assert_eq!(page.lineage.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
}

#[tokio::test]
async fn a_crash_while_the_file_was_made_leaves_what_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    // The switch to the write-ahead log is done, but not the first migration.
    raw(&path).pragma_update(None, "journal_mode", "wal").unwrap();
    let store = SqliteStore::open(SqliteOptions::new(&path)).await.unwrap();
    store.append(one("ada")).await.unwrap();
    check_log(&store).await;
}

#[tokio::test]
async fn the_file_says_whose_it_is() {
    let fresh = Fresh::open().await;
    fresh.store.close().await.unwrap();
    let file = std::fs::read(fresh.path()).unwrap();
    // Bytes 60 and 68 of the header: https://www.sqlite.org/fileformat.html
    assert_eq!(file[60..64], SCHEMA_VERSION.to_be_bytes());
    assert_eq!(&file[68..72], b"FACT");
}
