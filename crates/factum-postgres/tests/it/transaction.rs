//! Appends and writes inside transactions of the user's own, together with a table of theirs.

use std::{future::poll_fn, time::Duration};

use factum_kernel::{
    AppendBatch, AppendError, DocumentStore, EventStore, ExpectedRevision, ExpectedVersion,
    ReadQuery, Revision, StoreErrorKind, StreamVersion, WriteBatch, WriteError,
};
use factum_postgres::{
    PostgresStore,
    tokio_postgres::{AsyncMessage, Client, Config, NoTls},
};
use tokio::time::timeout;

use crate::{
    fresh::{Fresh, check_log, event, one, positions, stream},
    process::start,
};

/// A log, a user's table in the same database, and a user's connection.
async fn with_table() -> (Fresh, Client) {
    let fresh = Fresh::open().await;
    fresh.run("CREATE TABLE orders (number bigint PRIMARY KEY)").await;
    let client = fresh.schema.raw().await;
    client.batch_execute(&format!("SET search_path = {}", fresh.schema.name)).await.unwrap();
    (fresh, client)
}

const INSERT: &str = "INSERT INTO orders VALUES ($1)";

async fn orders(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0)
}

fn exact(key: &str, version: u64) -> AppendBatch {
    let expected = ExpectedVersion::from(StreamVersion::new(version));
    AppendBatch::new().write(stream(key), expected, [event("{}")])
}

#[tokio::test]
async fn a_row_an_event_and_a_document_are_committed_together() {
    let (fresh, mut client) = with_table().await;
    let mut head = fresh.store.head();
    let transaction = client.transaction().await.unwrap();
    transaction.execute(INSERT, &[&1_i64]).await.unwrap();
    let appended = fresh.store.append_in(&transaction, one("ada")).await.unwrap();
    let write = WriteBatch::new().put("order", ExpectedRevision::Absent, "1");
    fresh.store.write_in(&transaction, write).await.unwrap();
    // No other session sees any of it.
    assert!(positions(&fresh.store, ReadQuery::log()).await.is_empty());
    assert!(fresh.store.get(b"order").await.unwrap().is_none());
    transaction.commit().await.unwrap();
    assert_eq!(orders(&client).await, 1);
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [appended.first.value()]);
    assert!(fresh.store.get(b"order").await.unwrap().is_some());
    head.wait_for(|head| *head == appended.first).await.unwrap();
    assert_eq!(fresh.store.append(one("ada")).await.unwrap().first.value(), 2);
}

#[tokio::test]
async fn listeners_hear_of_an_append_when_its_transaction_is_committed() {
    let (fresh, mut client) = with_table().await;
    let config: Config = fresh.schema.url.parse().unwrap();
    let (listener, mut connection) = config.connect(NoTls).await.unwrap();
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(news) = message {
                tell.send(news.process_id()).unwrap();
            }
        }
    });
    let listen = format!("LISTEN factum_{}", fresh.schema.name);
    listener.batch_execute(&listen).await.unwrap();
    for is_kept in [false, true] {
        let transaction = client.transaction().await.unwrap();
        fresh.store.append_in(&transaction, one("ada")).await.unwrap();
        fresh.store.append_in(&transaction, one("ada")).await.unwrap();
        match is_kept {
            false => transaction.rollback().await.unwrap(),
            true => transaction.commit().await.unwrap(),
        }
    }
    // From the transaction's own process, so that it is not something that the store's listener
    // found out.
    let own: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let heard = timeout(Duration::from_secs(10), heard.recv()).await;
    assert_eq!(heard.unwrap().unwrap(), own);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_or_cut_leaves_nothing_and_no_hole() {
    let (fresh, mut client) = with_table().await;
    let mut lost = fresh.schema.raw().await;
    let path = format!("SET search_path = {}", fresh.schema.name);
    lost.batch_execute(&path).await.unwrap();
    let write = || WriteBatch::new().put("order", ExpectedRevision::Absent, "1");

    let transaction = client.transaction().await.unwrap();
    transaction.execute(INSERT, &[&1_i64]).await.unwrap();
    fresh.store.append_in(&transaction, one("ada")).await.unwrap();
    fresh.store.write_in(&transaction, write()).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(fresh.store.append(one("bob")).await.unwrap().first.value(), 1);

    let pid: i32 = lost.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let transaction = lost.transaction().await.unwrap();
    transaction.execute(INSERT, &[&2_i64]).await.unwrap();
    fresh.store.append_in(&transaction, one("ada")).await.unwrap();
    fresh.store.write_in(&transaction, write()).await.unwrap();
    client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    assert!(transaction.commit().await.is_err());
    assert_eq!(fresh.store.append(one("bob")).await.unwrap().first.value(), 2);

    assert_eq!(orders(&client).await, 0);
    assert!(positions(&fresh.store, ReadQuery::stream(stream("ada"))).await.is_empty());
    assert!(fresh.store.get(b"order").await.unwrap().is_none());
    check_log(&fresh.store).await;
}

#[tokio::test]
async fn a_conflict_leaves_the_transaction_to_its_owner() {
    let (fresh, mut client) = with_table().await;
    let first = exact("ada", 0);
    fresh.store.append(first.clone()).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let error = fresh.store.append_in(&transaction, exact("ada", 0)).await.unwrap_err();
    assert!(matches!(&error, AppendError::Conflict(it) if it.actual.value() == 1), "{error:?}");
    // A batch that is stored already is recognised.
    let again = fresh.store.append_in(&transaction, first.repeated()).await.unwrap();
    assert_eq!((again.first.value(), again.replayed), (1, true));
    let write = WriteBatch::new().put("a", ExpectedRevision::Exact(Revision::new(7)), "v");
    let error = fresh.store.write_in(&transaction, write).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { entry: 0 }), "{error:?}");
    transaction.execute(INSERT, &[&1_i64]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(orders(&client).await, 1);
    assert_eq!(check_log(&fresh.store).await.value(), 1);
}

#[tokio::test]
async fn a_repetition_after_a_lost_commit_says_whether_it_stood() {
    let (fresh, mut client) = with_table().await;
    let batch = one("ada");
    for is_there in [false, true] {
        let transaction = client.transaction().await.unwrap();
        let appended = fresh.store.append_in(&transaction, batch.clone().repeated()).await.unwrap();
        assert_eq!(appended.replayed, is_there);
        transaction.commit().await.unwrap();
    }
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1]);
}

#[tokio::test]
async fn two_appends_of_a_transaction_see_each_other_and_others_wait_for_its_end() {
    let (fresh, mut client) = with_table().await;
    let options = fresh.schema.options().with_lock_timeout(Duration::from_millis(100));
    let hasty = PostgresStore::open(options).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    for version in 0..3 {
        let batch = exact("ada", version);
        let appended = fresh.store.append_in(&transaction, batch).await.unwrap();
        assert_eq!(appended.first.value(), version + 1);
    }
    let error = hasty.append(one("bob")).await.unwrap_err();
    assert_eq!(error.store_kind(), Some(StoreErrorKind::Unavailable), "{error:?}");
    transaction.commit().await.unwrap();
    assert_eq!(hasty.append(one("bob")).await.unwrap().first.value(), 4);
    check_log(&fresh.store).await;
}

#[tokio::test]
async fn the_log_settings_hold_for_its_functions_and_the_commit_alone() {
    let (fresh, mut client) = with_table().await;
    client.batch_execute("SET synchronous_commit = off; SET lock_timeout = '7s'").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    fresh.store.append_in(&transaction, one("ada")).await.unwrap();
    let write = WriteBatch::new().put("a", ExpectedRevision::Any, "v");
    fresh.store.write_in(&transaction, write).await.unwrap();
    let show = "SELECT current_setting('synchronous_commit'), current_setting('lock_timeout')";
    let row = transaction.query_one(show, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("on", "7s"));
    transaction.commit().await.unwrap();
    let row = client.query_one(show, &[]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("off", "7s"));
}

#[tokio::test]
async fn a_transaction_with_an_old_snapshot_is_refused() {
    let (fresh, mut client) = with_table().await;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let transaction = client.transaction().await.unwrap();
        let set = format!("SET TRANSACTION ISOLATION LEVEL {level}");
        transaction.batch_execute(&set).await.unwrap();
        let error = fresh.store.append_in(&transaction, one("ada")).await.unwrap_err();
        assert_eq!(error.store_kind(), Some(StoreErrorKind::Invalid), "{error:?}");
        assert!(error.to_string().contains("READ COMMITTED"), "{error}");
    }
    let closed = fresh.another().await;
    closed.close().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    assert!(closed.append_in(&transaction, one("ada")).await.is_err(), "of a closed store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_events_agree_while_another_process_appends() {
    const ROUNDS: i64 = 60;
    let (fresh, mut client) = with_table().await;
    let (child, told) = start(&fresh.schema.url, &fresh.schema.name, 40);
    for number in 0..ROUNDS {
        let transaction = client.transaction().await.unwrap();
        transaction.execute(INSERT, &[&number]).await.unwrap();
        fresh.store.append_in(&transaction, one("own")).await.unwrap();
        match number % 3 {
            0 => transaction.rollback().await.unwrap(),
            _ => transaction.commit().await.unwrap(),
        }
    }
    let finish = move || {
        let acknowledged = told.count();
        child.finish();
        acknowledged
    };
    let acknowledged = tokio::task::spawn_blocking(finish).await.unwrap();
    assert!(acknowledged > 0);
    let own = positions(&fresh.store, ReadQuery::stream(stream("own"))).await;
    assert_eq!(own.len() as i64, ROUNDS - ROUNDS / 3);
    assert_eq!(orders(&client).await, own.len() as i64);
    let all = check_log(&fresh.store).await.value() as usize;
    assert_eq!(all, own.len() + 2 * acknowledged);
}
