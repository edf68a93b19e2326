//! Notifications, which any role may send, and a head that is beyond what another server has.

use std::{sync::Arc, time::Duration};

use factum_kernel::{
    Clock, EventStore, Kernel, ReadQuery, Scope, SubscribeFrom, Subscription, SystemClock,
};
use factum_postgres::{PostgresOptions, PostgresStore};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::{
    fresh::{Fresh, check_log, one, positions},
    instance::Instance,
    server::{lock, raw, waiting},
};

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this many listeners have begun and ended another look.
async fn looked(raw: &Client, schema: &str, listeners: i64) {
    let now = raw.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap();
    let looked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{schema}\".log_end%' \
         AND query_start > '{}'::timestamptz AND state = 'idle'",
        now.get::<_, String>(0)
    );
    while raw.query_one(&looked, &[]).await.unwrap().get::<_, i64>(0) < listeners {
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
}

/// Tells these listeners that the log reaches far beyond its end, and waits until they have heard
/// it.
async fn forge(fresh: &Fresh, raw: &Client, listeners: i64) {
    let name = &fresh.schema.name;
    looked(raw, name, listeners).await;
    raw.batch_execute(&format!("NOTIFY factum_{name}, '4000000000'")).await.unwrap();
    looked(raw, name, listeners).await;
}

#[tokio::test]
async fn a_forged_notification_moves_no_head_and_silences_no_listener() {
    let fresh = Fresh::open().await;
    let raw = fresh.schema.raw().await;
    let mut head = fresh.store.head();
    forge(&fresh, &raw, 1).await;
    assert_eq!(head.borrow().value(), 0);
    let other = fresh.another().await;
    for n in 1..=3 {
        other.append(one("ada")).await.unwrap();
        let heard = timeout(PATIENCE, head.wait_for(|head| head.value() == n)).await;
        heard.expect("it is woken").unwrap();
    }
}

#[tokio::test]
async fn a_forged_notification_does_not_hide_a_retry_from_its_first_attempt() {
    let fresh = Fresh::open().await;
    let first = fresh.another().await;
    let second = fresh.another().await;
    first.append(one("bob")).await.unwrap();
    let raw = fresh.schema.raw().await;
    forge(&fresh, &raw, 3).await;
    assert_stored_once(&first, &second, &raw, &fresh.schema.name).await;
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1, 2]);
}

/// Lets a retry by the second store overtake the first attempt of the first store, in the queue for
/// the log's lock.
async fn assert_stored_once(
    first: &PostgresStore,
    second: &PostgresStore,
    raw: &Client,
    schema: &str,
) {
    let held = format!("BEGIN; SELECT {}", lock(schema));
    raw.batch_execute(&held).await.unwrap();
    let batch = one("ada");
    let repeated = batch.clone().repeated();
    let original = batch;
    let first = first.clone();
    let second = second.clone();
    let retry = tokio::spawn(async move { second.append(repeated).await });
    waiting(raw, schema, 1).await;
    let late = tokio::spawn(async move { first.append(original).await });
    waiting(raw, schema, 2).await;
    raw.batch_execute("COMMIT").await.unwrap();
    let stored = retry.await.unwrap().unwrap();
    assert!(!stored.replayed);
    assert_eq!(late.await.unwrap().unwrap(), stored.replayed());
}

/// A promoted standby, which lacks the last three of eight events; its primary is gone.
struct FailedOver {
    standby: Instance,
    /// Opened on the primary, so that it knows of all eight.
    store: PostgresStore,
    options: PostgresOptions,
}

async fn fail_over() -> FailedOver {
    let mut primary = Instance::start(&[]);
    let standby = Instance::copy_of(&primary, true);
    let both = format!(
        "postgres://factum@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let options = PostgresOptions::parse(&both).unwrap();
    let store = PostgresStore::open(options.clone()).await.unwrap();
    for _ in 0..5 {
        store.append(one("ada")).await.unwrap();
    }
    let behind = raw(&standby.url()).await;
    let count = async |count: i64| {
        let all = "SELECT count(*) FROM factum.events";
        while behind.query_one(all, &[]).await.map_or(0, |row| row.get(0)) < count {
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    };
    count(5).await;
    behind.batch_execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    behind.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let receiver = "SELECT count(*) FROM pg_stat_wal_receiver";
    while behind.query_one(receiver, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..3 {
        store.append(one("ada")).await.unwrap();
    }
    primary.kill();
    behind.query("SELECT pg_promote()", &[]).await.unwrap();
    count(5).await;
    FailedOver { standby, store, options }
}

#[tokio::test]
async fn a_promoted_standby_without_the_tail_hides_no_retry_from_its_first_attempt() {
    let FailedOver { standby, store: first, options } = fail_over().await;
    let second = PostgresStore::open(options).await.unwrap();
    let raw = raw(&standby.url()).await;
    assert_stored_once(&first, &second, &raw, "factum").await;
    assert_eq!(check_log(&first).await.value(), 6);
}

#[tokio::test]
async fn listeners_go_on_with_the_head_of_a_promoted_standby_without_the_tail() {
    let FailedOver { standby: _standby, store, options } = fail_over().await;
    let mut head = store.head();
    let heard = timeout(PATIENCE, head.wait_for(|head| head.value() == 5)).await;
    heard.expect("the lower head is heard of").unwrap();
    let shared = Arc::new(store.clone());
    let kernel = Kernel::new(shared.clone(), shared);
    let mut now = Subscription::new(&kernel, Scope::Log, SubscribeFrom::Now);
    let other = PostgresStore::open(options).await.unwrap();
    for n in 6..=9 {
        other.append(one("bob")).await.unwrap();
        let heard = timeout(PATIENCE, head.wait_for(|head| head.value() == n)).await;
        heard.expect("it is woken").unwrap();
        let event = timeout(PATIENCE, now.next()).await.expect("it comes").unwrap().unwrap();
        assert_eq!(event.position().value(), n);
    }
}
