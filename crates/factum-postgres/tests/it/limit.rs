//! Limits that hold even if callers give up and answers don't come.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_kernel::{
    Clock, DocumentStore, EventStore, ExpectedRevision, ReadQuery, SystemClock, WriteBatch,
};
use factum_postgres::{PostgresOptions, PostgresStore};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_postgres::Client;

use crate::{
    fresh::{Fresh, one},
    server::{lock, waiting},
};

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS_MAX: usize = 4;

/// The number of connections with this name, and the number of those whose statement waits for a
/// lock.
async fn connections(raw: &Client, name: &str) -> (i64, i64) {
    let asked = "SELECT count(*), count(*) FILTER (WHERE state = 'active' \
        AND wait_event_type = 'Lock') FROM pg_stat_activity WHERE application_name = $1";
    let row = raw.query_one(asked, &[&name]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Waits until the condition holds.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let waited = async {
        while !is_so().await {
            SystemClock.sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

fn named(fresh: &Fresh, name: &str) -> PostgresOptions {
    let mut options = fresh.schema.options().with_connections_max(CONNECTIONS_MAX);
    options.config.application_name(name);
    options
}

/// Makes reads wait until this transaction is committed.
async fn hold_events(fresh: &Fresh) -> Client {
    let holder = fresh.schema.raw().await;
    let held = format!("BEGIN; LOCK TABLE {}.events", fresh.schema.name);
    holder.batch_execute(&held).await.unwrap();
    holder
}

#[tokio::test]
async fn reads_whose_callers_gave_up_leave_no_statement_and_no_more_connections_than_allowed() {
    let fresh = Fresh::open().await;
    let raw = fresh.schema.raw().await;
    let name = format!("gave-up-{}", fresh.schema.name);
    let store = PostgresStore::open(named(&fresh, &name)).await.unwrap();
    let holder = hold_events(&fresh).await;
    // Besides the pool's connections there are the listener's, which waits too, and the writer's.
    let most = i64::try_from(CONNECTIONS_MAX).unwrap() + 2;
    let is_waiting = async |count| connections(&raw, &name).await.1 >= count;
    until("the listener waits", || is_waiting(1)).await;
    for _ in 0..100 {
        let reader = store.clone();
        let reading = tokio::spawn(async move { reader.read(ReadQuery::log()).await });
        until("the read waits", || is_waiting(2)).await;
        reading.abort();
        let (count, _) = connections(&raw, &name).await;
        assert!(count <= most, "{count} connections");
    }
    until("nothing is left but the listener's", async || connections(&raw, &name).await.1 <= 1)
        .await;
    holder.batch_execute("COMMIT").await.unwrap();
    assert!(store.read(ReadQuery::log()).await.unwrap().events.is_empty());
    store.close().await.unwrap();
    until("all are closed", async || connections(&raw, &name).await.0 == 0).await;
}

#[tokio::test]
async fn appends_and_writes_go_on_without_their_callers() {
    let fresh = Fresh::open().await;
    let raw = fresh.schema.raw().await;
    let holder = fresh.schema.raw().await;
    let name = &fresh.schema.name;
    let held = format!("BEGIN; SELECT {}; LOCK TABLE {name}.documents", lock(name));
    holder.batch_execute(&held).await.unwrap();
    let writer = fresh.store.clone();
    let documents = fresh.store.clone();
    let append = tokio::spawn(async move { writer.append(one("ada")).await });
    waiting(&raw, name, 1).await;
    let write = WriteBatch::new().put("a", ExpectedRevision::Absent, "v");
    let write = tokio::spawn(async move { documents.write(write).await });
    let blocked = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation' \
         AND relation = '{name}.documents'::regclass"
    );
    until("the write waits", async || {
        raw.query_one(&blocked, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    append.abort();
    write.abort();
    assert!(append.await.is_err() && write.await.is_err(), "both were given up");
    holder.batch_execute("COMMIT").await.unwrap();
    let mut head = fresh.store.head();
    timeout(PATIENCE, head.wait_for(|head| head.value() == 1)).await.expect("stored").unwrap();
    until("written", async || fresh.store.get(b"a").await.unwrap().is_some()).await;
}

/// Passes connections on to a server, until new ones are cut off, including those that would cancel
/// a statement.
async fn cut_off(server: &str) -> (String, Arc<AtomicBool>) {
    let (front, address) = server.split_once('@').unwrap();
    let (address, database) = address.split_once('/').unwrap();
    let address = address.to_owned();
    let is_cut = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cut = is_cut.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            if cut.load(Ordering::SeqCst) {
                continue;
            }
            let mut server = TcpStream::connect(&address).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (format!("{front}@127.0.0.1:{port}/{database}"), is_cut)
}

#[tokio::test]
async fn a_statement_that_its_client_can_not_cancel_is_ended_by_the_server() {
    let fresh = Fresh::open().await;
    let raw = fresh.schema.raw().await;
    let (url, is_cut) = cut_off(&fresh.schema.url).await;
    let options = PostgresOptions::parse(&url).unwrap().with_schema(&fresh.schema.name).unwrap();
    let mut options = options.with_statement_timeout(Duration::from_millis(500));
    let name = format!("cut-off-{}", fresh.schema.name);
    options.config.application_name(&name);
    let store = PostgresStore::open(options).await.unwrap();
    let is_waiting = async |count| connections(&raw, &name).await.1 >= count;
    let _holder = hold_events(&fresh).await;
    let reader = store.clone();
    let reading = tokio::spawn(async move { reader.read(ReadQuery::log()).await });
    until("the read waits", || is_waiting(1)).await;
    is_cut.store(true, Ordering::SeqCst);
    reading.await.unwrap().unwrap_err();
    until("nothing runs", async || connections(&raw, &name).await.1 == 0).await;
}

#[tokio::test]
async fn any_number_of_connections_can_be_asked_for() {
    let fresh = Fresh::open().await;
    for count in [0, usize::MAX] {
        let options = fresh.schema.options().with_connections_max(count);
        let store = PostgresStore::open(options).await.unwrap();
        assert!(store.read(ReadQuery::log()).await.unwrap().events.is_empty());
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn the_largest_numbers_of_a_url_are_only_long_times() {
    let fresh = Fresh::open().await;
    let times = ["connect_timeout", "tcp_user_timeout", "keepalives_idle", "keepalives_interval"];
    for option in times.map(|name| format!("{name}={}", i64::MAX)) {
        let url = format!("{}?{option}&keepalives_retries={}", fresh.schema.url, i32::MAX);
        let options = PostgresOptions::parse(&format!("{url}&connections=262143")).unwrap();
        let mut options = options.with_schema(&fresh.schema.name).unwrap();
        for time in [&mut options.lock_timeout, &mut options.statement_timeout] {
            *time = Duration::MAX;
        }
        options.idle_timeout = Duration::MAX;
        // The system may refuse such a time for a socket; that is an error like others.
        match PostgresStore::open(options).await {
            Ok(store) => {
                store.append(one("ada")).await.unwrap();
                store.read(ReadQuery::log()).await.unwrap();
                store.close().await.unwrap();
            }
            Err(error) => assert!(error.to_string().contains("server="), "{error}"),
        }
    }
}

#[tokio::test]
async fn connections_that_are_not_used_are_closed_while_others_are_busy_too() {
    let fresh = Fresh::open().await;
    let raw = fresh.schema.raw().await;
    let name = format!("steady-{}", fresh.schema.name);
    let options = named(&fresh, &name).with_idle_timeout(Duration::from_secs(1));
    let store = PostgresStore::open(options).await.unwrap();
    let holder = hold_events(&fresh).await;
    let reads: Vec<_> = (0..3)
        .map(|_| {
            let reader = store.clone();
            tokio::spawn(async move { reader.read(ReadQuery::log()).await })
        })
        .collect();
    until("three reads wait beside the listener", async || connections(&raw, &name).await.1 >= 4)
        .await;
    holder.batch_execute("COMMIT").await.unwrap();
    for read in reads {
        read.await.unwrap().unwrap();
    }
    // The listener's and the writer's connections stay.
    until("the readers' are closed", async || {
        store.append(one("ada")).await.unwrap();
        connections(&raw, &name).await.0 <= 2
    })
    .await;
    store.close().await.unwrap();
}
