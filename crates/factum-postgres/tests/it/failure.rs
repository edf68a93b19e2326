//! Failures between a store and its server.

use std::time::Duration;

use factum_kernel::{
    AppendBatch, AppendError, Clock, DocumentStore, EventId, EventStore, ExpectedRevision,
    ExpectedVersion, NewEvent, ReadQuery, StoreErrorKind, SystemClock, Timestamp, WriteBatch,
    WriteError,
};
use factum_postgres::{PostgresOptions, PostgresStore, apply_schema};

use crate::{
    fresh::{Fresh, check_log, event, one, positions, stream},
    instance::Instance,
    server::{lock, raw, waiting},
};

fn kind(error: &AppendError) -> Option<StoreErrorKind> {
    error.store_kind()
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_unavailable_and_nothing_is_stored() {
    let fresh = Fresh::open().await;
    let options = fresh.schema.options().with_lock_timeout(Duration::from_millis(100));
    let patient = fresh.schema.options().with_statement_timeout(Duration::from_millis(200));
    let holder = fresh.schema.raw().await;
    let held = format!("BEGIN; SELECT {}", lock(&fresh.schema.name));
    holder.batch_execute(&held).await.unwrap();
    for options in [options, patient] {
        let store = PostgresStore::open(options).await.unwrap();
        let error = store.append(one("ada")).await.unwrap_err();
        assert_eq!(kind(&error), Some(StoreErrorKind::Unavailable), "{error:?}");
    }
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(positions(&fresh.store, ReadQuery::log()).await.is_empty());
    fresh.store.append(one("ada")).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_the_outcome_unknown_and_the_retry_finds_it() {
    let fresh = Fresh::open().await;
    // Every other append is cut off after its insertion, inside the transaction.
    fresh
        .run(
            "CREATE SEQUENCE attempts;
             CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF nextval(TG_TABLE_SCHEMA || '.attempts') % 2 = 1 THEN
                     PERFORM pg_terminate_backend(pg_backend_pid());
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER cut AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION cut()",
        )
        .await;
    for n in 1..=5 {
        let batch = one("ada");
        let error = fresh.store.append(batch.clone()).await.unwrap_err();
        assert!(matches!(error, AppendError::Indeterminate(_)), "{error:?}");
        let appended = fresh.store.append(batch.repeated()).await.unwrap();
        assert_eq!((appended.first.value(), appended.replayed), (n, false));
    }
    check_log(&fresh.store).await;
}

#[tokio::test]
async fn an_answer_that_is_lost_behind_the_commit_is_found_by_the_retry() {
    let fresh = Fresh::open().await;
    let batch = one("ada");
    let first = fresh.store.append(batch.clone()).await.unwrap();
    for store in [fresh.store.clone(), fresh.another().await] {
        let again = store.append(batch.clone().repeated()).await.unwrap();
        assert_eq!(again, first.clone().replayed());
    }
}

#[tokio::test]
async fn a_first_attempt_that_its_retry_overtakes_is_not_stored_again() {
    let fresh = Fresh::open().await;
    let first = fresh.another().await;
    let second = fresh.another().await;
    let holder = fresh.schema.raw().await;
    let held = format!("BEGIN; SELECT {}", lock(&fresh.schema.name));
    holder.batch_execute(&held).await.unwrap();
    let batch = one("ada");
    // In the queue for the lock, the retry is before the batch that it repeats.
    let repeated = batch.clone().repeated();
    let original = batch;
    let retry = tokio::spawn(async move { second.append(repeated).await });
    waiting(&holder, &fresh.schema.name, 1).await;
    let late = tokio::spawn(async move { first.append(original).await });
    waiting(&holder, &fresh.schema.name, 2).await;
    holder.batch_execute("COMMIT").await.unwrap();
    let stored = retry.await.unwrap().unwrap();
    assert!(!stored.replayed);
    assert_eq!(late.await.unwrap().unwrap(), stored.replayed());
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1]);
}

#[tokio::test]
async fn the_same_old_ids_at_the_same_moment_conflict_as_ever() {
    let fresh = Fresh::open().await;
    let first = fresh.another().await;
    let second = fresh.another().await;
    let holder = fresh.schema.raw().await;
    let held = format!("BEGIN; SELECT {}", lock(&fresh.schema.name));
    holder.batch_execute(&held).await.unwrap();
    // Derived from an old cause, as by two processes that react to it.
    let old = NewEvent { id: EventId::derived(Timestamp::EPOCH, b"cause"), ..event("{}") };
    let batch = AppendBatch::new().write(stream("ada"), ExpectedVersion::NoStream, [old]);
    let again = batch.clone();
    let one = tokio::spawn(async move { first.append(batch).await });
    waiting(&holder, &fresh.schema.name, 1).await;
    let other = tokio::spawn(async move { second.append(again).await });
    waiting(&holder, &fresh.schema.name, 2).await;
    holder.batch_execute("COMMIT").await.unwrap();
    one.await.unwrap().unwrap();
    let error = other.await.unwrap().unwrap_err();
    assert!(matches!(error, AppendError::Conflict(_)), "{error:?}");
}

#[tokio::test]
async fn idle_connections_that_were_cut_are_made_anew() {
    let fresh = Fresh::open().await;
    fresh.store.append(one("ada")).await.unwrap();
    fresh.store.read(ReadQuery::log()).await.unwrap();
    let raw = fresh.schema.raw().await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE application_name = 'factum' AND query LIKE '%' || $1 || '%'";
    let count: i64 = raw.query_one(cut, &[&fresh.schema.name]).await.unwrap().get(0);
    assert!(count >= 2, "the writer's and a reader's: {count}");
    SystemClock.sleep(Duration::from_millis(50)).await;
    assert_eq!(fresh.store.append(one("ada")).await.unwrap().first.value(), 2);
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1, 2]);
    // The listener's connection comes back as well.
    let other = fresh.another().await;
    let mut head = fresh.store.head();
    other.append(one("bob")).await.unwrap();
    head.wait_for(|head| head.value() == 3).await.unwrap();
}

#[tokio::test]
async fn an_open_transaction_and_an_old_snapshot_hold_up_nobody() {
    let fresh = Fresh::open().await;
    fresh.run("CREATE TABLE unrelated (n integer)").await;
    let old = fresh.schema.raw().await;
    let open = fresh.schema.raw().await;
    let count = format!("SELECT count(*) FROM {}.events", fresh.schema.name);
    old.batch_execute(&format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {count}")).await.unwrap();
    let insert = format!("BEGIN; INSERT INTO {}.unrelated VALUES (1)", fresh.schema.name);
    open.batch_execute(&insert).await.unwrap();
    for n in 1..=50 {
        assert_eq!(fresh.store.append(one("ada")).await.unwrap().first.value(), n);
        let page = fresh.store.read(ReadQuery::log()).await.unwrap();
        assert_eq!((page.events.len() as u64, page.scanned_through.value()), (n, n));
    }
    assert_eq!(old.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), 0);
    // Nothing was updated, so no dead row can look like one that an old snapshot keeps.
    let dead = "SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::bigint, sum(n_tup_ins)::bigint \
        FROM pg_stat_user_tables WHERE schemaname = $1";
    let reader = fresh.schema.raw().await;
    loop {
        let row = reader.query_one(dead, &[&fresh.schema.name]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0, "rows were updated");
        if row.get::<_, i64>(1) > 50 {
            break;
        }
        SystemClock.sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_commit_that_did_not_wait_for_its_standby_is_unknown() {
    let instance = Instance::start(&["synchronous_standby_names=nobody"]);
    let options = PostgresOptions::parse(&instance.url()).unwrap();
    // Making the log must not wait as well.
    let raw = raw(&instance.url()).await;
    raw.batch_execute("SET synchronous_commit = local").await.unwrap();
    raw.batch_execute("ALTER ROLE factum SET synchronous_commit = local").await.unwrap();
    // A default of the role must not hide the warning that says so.
    raw.batch_execute("ALTER ROLE factum SET client_min_messages = error").await.unwrap();
    // Made before the short time limit is set.
    apply_schema(&options).await.unwrap();
    let options = options.with_statement_timeout(Duration::from_millis(300));
    let store = PostgresStore::open(options).await.unwrap();
    let batch = one("ada");
    let error = store.append(batch.clone()).await.unwrap_err();
    assert!(matches!(error, AppendError::Indeterminate(_)), "{error:?}");
    let write = WriteBatch::new().put("a", ExpectedRevision::Any, "v");
    let error = store.write(write).await.unwrap_err();
    assert!(matches!(error, WriteError::Indeterminate(_)), "{error:?}");
    // It was stored here, and a retry says so, although no other server has it yet.
    let again = store.append(batch.repeated()).await.unwrap();
    assert!(again.replayed);
}
