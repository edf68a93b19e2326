//! Appends of many clients against bare inserts of the same rows into the same tables, in one
//! run, interleaved: `cargo bench -p factum-sqlite -- [--quick] [--disk FOLDER]`.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use factum_kernel::{
    AppendBatch, Clock, Content, EventId, EventName, EventStore, ExpectedVersion, IdSource,
    NewEvent, StreamId, SystemClock, SystemIds,
};
use factum_sqlite::{SqliteOptions, SqliteStore};
use rusqlite::{Connection, params};

const CLIENTS: usize = 256;
const STREAMS: usize = 10_000;
const PAYLOAD_BYTES: usize = 256;

/// The settings of both, which are the store's.
const PRAGMAS: &str = "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
    PRAGMA wal_autocheckpoint = 8192; PRAGMA journal_size_limit = 67108864;
    PRAGMA cache_size = -65536;";

struct Arguments {
    events: usize,
    rounds: usize,
    disk: PathBuf,
}

fn arguments() -> Arguments {
    let mut given = std::env::args().skip(1);
    let mut arguments = Arguments { events: 100_000, rounds: 5, disk: std::env::temp_dir() };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => (arguments.events, arguments.rounds) = (20_000, 3),
            "--disk" => arguments.disk = given.next().map(Into::into).unwrap_or(arguments.disk),
            _ => {}
        }
    }
    // `cargo bench` adds `--bench`; without it this is a test run, which only checks that it works.
    if !std::env::args().any(|argument| argument == "--bench") {
        (arguments.events, arguments.rounds) = (1_000, 1);
    }
    arguments
}

fn main() {
    let Arguments { events, rounds, disk } = arguments();
    let folder = tempfile::tempdir_in(&disk).expect("the folder can be written");
    println!(
        "append: clients={CLIENTS} events={events} events_per_append=1 \
         payload_bytes={PAYLOAD_BYTES} streams={STREAMS} sync=full rounds={rounds} \
         client_threads={} disk={}",
        client_threads(),
        disk.display()
    );
    let mut factum = Vec::new();
    let mut bare = Vec::new();
    let mut table = Vec::new();
    for round in 0..rounds {
        let path = |name: &str| folder.path().join(format!("{name}-{round}.db"));
        let (rate, group) = measure_factum(&path("factum"), events);
        factum.push(rate);
        bare.push(measure_bare(&path("bare"), events, group));
        table.push(measure_table(&path("table"), events, group));
        println!(
            "round {round}: group={group} factum={:.0} bare={:.0} table={:.0} events/s",
            factum[round], bare[round], table[round]
        );
    }
    let factum = median(factum);
    let bare = median(bare);
    let table = median(table);
    println!("median: factum={factum:.0} bare={bare:.0} table={table:.0} events/s");
    println!("factum / bare = {:.2} (target 0.70)", factum / bare);
}

/// One core is left to the writer.
fn client_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn per_second(events: usize, begin: Instant) -> f64 {
    events as f64 / begin.elapsed().as_secs_f64()
}

fn stream_name(n: usize) -> String {
    // A multiplier without a common factor spreads neighbours over all streams.
    format!("account-{}", n * 7_919 % STREAMS)
}

fn new_id() -> EventId {
    EventId::new(SystemIds.uuid(SystemClock.now()))
}

/// The rate, and the mean size of a group.
fn measure_factum(path: &Path, events: usize) -> (f64, usize) {
    let groups = Arc::new(AtomicUsize::new(0));
    let count = groups.clone();
    // Called once per group; it does not wait.
    let delay = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Duration::ZERO
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(client_threads())
        .enable_all()
        .build()
        .expect("threads for the clients");
    let rate = runtime.block_on(async {
        let options = SqliteOptions::new(path).with_commit_delay(delay);
        let store = SqliteStore::open(options).await.expect("a fresh store");
        let begin = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| tokio::spawn(append_all(store.clone(), client, events)))
            .collect();
        for client in clients {
            client.await.expect("no client panics");
        }
        let rate = per_second(events, begin);
        store.close().await.expect("closing");
        rate
    });
    (rate, events / groups.load(Ordering::Relaxed))
}

async fn append_all(store: SqliteStore, client: usize, events: usize) {
    for n in (client..events).step_by(CLIENTS) {
        let name = EventName::from_static("account.money-deposited");
        let event = NewEvent::new(new_id(), name, Content::Cbor, vec![7; PAYLOAD_BYTES]);
        let stream: StreamId = stream_name(n).parse().expect("a valid id");
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
        store.append(batch).await.expect("an append");
    }
}

/// One thread inserts the same rows into the same tables, without any check.
fn measure_bare(path: &Path, events: usize, group: usize) -> f64 {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let store = SqliteStore::open(SqliteOptions::new(path)).await.expect("a fresh store");
        store.close().await.expect("closing");
    });
    let connection = Connection::open(path).expect("the same file");
    connection.execute_batch(PRAGMAS).expect("pragmas");
    connection
        .execute_batch(
            "INSERT INTO categories VALUES (1, 'account');
             INSERT INTO types VALUES (1, 'account.money-deposited')",
        )
        .expect("names");
    let begin = Instant::now();
    let mut numbers = HashMap::new();
    let mut versions = vec![0; STREAMS];
    for first in (0..events).step_by(group) {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut add = connection.prepare_cached(ADD_EVENT).expect("prepared");
        for n in first..(first + group).min(events) {
            let stream = n * 7_919 % STREAMS;
            let number = *numbers.entry(stream).or_insert_with(|| {
                let mut add = connection.prepare_cached(ADD_STREAM).expect("prepared");
                add.insert([stream_name(n)]).expect("inserted")
            });
            versions[stream] += 1;
            let id = new_id().as_uuid().into_bytes();
            let id: &[u8] = &id;
            let none: &[u8] = &[];
            let now = SystemClock.now().as_micros() as i64;
            let payload = vec![7_u8; PAYLOAD_BYTES];
            let place = (n as i64 + 1, number, versions[stream]);
            // Any number will do: computing the checksum is part of the store's work that is
            // compared.
            let sum = n as u32;
            add.execute(params![place.0, place.1, place.2, now, id, none, none, &payload, sum])
                .expect("inserted");
        }
        connection.execute_batch("COMMIT").expect("commit");
    }
    per_second(events, begin)
}

const ADD_STREAM: &str = "INSERT INTO streams (name, category_no) VALUES (?1, 1)";
const ADD_EVENT: &str = "INSERT INTO events (position, stream_no, version, type_no, category_no, \
    recorded_at, schema_version, content, id, tags, metadata, payload, checksum) \
    VALUES (?1, ?2, ?3, 1, 1, ?4, 1, 1, ?5, ?6, ?7, ?8, ?9)";

/// For comparison: a table with only a primary key.
fn measure_table(path: &Path, events: usize, group: usize) -> f64 {
    let connection = Connection::open(path).expect("a fresh file");
    connection.execute_batch("PRAGMA journal_mode = WAL;").expect("WAL");
    connection.execute_batch(PRAGMAS).expect("pragmas");
    connection
        .execute_batch("CREATE TABLE events (position INTEGER PRIMARY KEY, payload BLOB)")
        .expect("a table");
    let begin = Instant::now();
    for first in (0..events).step_by(group) {
        connection.execute_batch("BEGIN IMMEDIATE").expect("begin");
        let mut add = connection.prepare_cached("INSERT INTO events VALUES (?1, ?2)").expect("it");
        for n in first..(first + group).min(events) {
            add.execute(params![n as i64 + 1, vec![7_u8; PAYLOAD_BYTES]]).expect("inserted");
        }
        connection.execute_batch("COMMIT").expect("commit");
    }
    per_second(events, begin)
}
