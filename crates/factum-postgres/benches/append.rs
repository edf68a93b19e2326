//! Appends of many clients against bare inserts of the same rows into the same table with the same
//! indexes, and into a table with only a primary key, in one run, interleaved:
//! `FACTUM_POSTGRES_URL=.. cargo bench -p factum-postgres -- [--quick] [--clients N]`.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time")]

use std::{
    iter::StepBy,
    ops::Range,
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
use factum_postgres::{PostgresOptions, PostgresStore};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

const STREAMS: usize = 10_000;
const PAYLOAD_BYTES: usize = 256;
const TYPE: &str = "account.money-deposited";

struct Arguments {
    url: String,
    events: usize,
    rounds: usize,
    clients: usize,
}

fn arguments() -> Arguments {
    let url = std::env::var("FACTUM_POSTGRES_URL")
        .expect("FACTUM_POSTGRES_URL=postgres://user@host/database, a server to measure on");
    let mut arguments = Arguments { url, events: 100_000, rounds: 5, clients: 256 };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => (arguments.events, arguments.rounds) = (20_000, 3),
            "--clients" => {
                let count = given.next().and_then(|count| count.parse().ok());
                arguments.clients = count.expect("--clients is followed by a number");
            }
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
    let arguments = arguments();
    let Arguments { events, rounds, clients, .. } = arguments;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(client_threads())
        .enable_all()
        .build()
        .expect("threads for the clients");
    println!(
        "append: clients={clients} events={events} events_per_append=1 \
         payload_bytes={PAYLOAD_BYTES} streams={STREAMS} rounds={rounds} client_threads={}",
        client_threads(),
    );
    let mut factum = Vec::new();
    let mut bare = Vec::new();
    let mut table = Vec::new();
    for round in 0..rounds {
        let (rate, group) = runtime.block_on(measure_factum(&arguments));
        factum.push(rate);
        bare.push(runtime.block_on(measure_bare(&arguments, group)));
        table.push(runtime.block_on(measure_table(&arguments, group)));
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
    println!("factum / table = {:.2}", factum / table);
}

/// One core is left to the server.
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

async fn connect(url: &str) -> Client {
    let config: Config = url.parse().expect("a URL of PostgreSQL's");
    let (client, connection) = config.connect(NoTls).await.expect("the server is there");
    tokio::spawn(connection);
    client
}

/// A new, empty log with this name.
async fn fresh(url: &str, schema: &str, client: &Client) -> PostgresOptions {
    let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CHECKPOINT");
    client.batch_execute(&drop).await.expect("the schema can be dropped");
    let options = PostgresOptions::parse(url).and_then(|options| options.with_schema(schema));
    options.expect("a good URL")
}

/// The rate, and the mean size of a group.
async fn measure_factum(arguments: &Arguments) -> (f64, usize) {
    let client = connect(&arguments.url).await;
    let options = fresh(&arguments.url, "bench_factum", &client).await;
    let groups = Arc::new(AtomicUsize::new(0));
    let count = groups.clone();
    // Called once per group; it does not wait.
    let delay = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Duration::ZERO
    });
    let store = PostgresStore::open(options.with_commit_delay(delay)).await.expect("a fresh log");
    let begin = Instant::now();
    let clients: Vec<_> = (0..arguments.clients)
        .map(|client| {
            let own = (client..arguments.events).step_by(arguments.clients);
            tokio::spawn(append_all(store.clone(), own))
        })
        .collect();
    for client in clients {
        client.await.expect("no client panics");
    }
    let rate = per_second(arguments.events, begin);
    store.close().await.expect("closing");
    client.batch_execute("DROP SCHEMA bench_factum CASCADE").await.expect("it is there");
    (rate, (arguments.events / groups.load(Ordering::Relaxed)).max(1))
}

async fn append_all(store: PostgresStore, events: StepBy<Range<usize>>) {
    for n in events {
        let name = EventName::from_static(TYPE);
        let event = NewEvent::new(new_id(), name, Content::Cbor, vec![7; PAYLOAD_BYTES]);
        let stream: StreamId = stream_name(n).parse().expect("a valid id");
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
        store.append(batch).await.expect("an append");
    }
}

/// Inserts the same rows into the same table over one connection, without any check.
async fn measure_bare(arguments: &Arguments, group: usize) -> f64 {
    let client = connect(&arguments.url).await;
    let options = fresh(&arguments.url, "bench_bare", &client).await;
    PostgresStore::open(options).await.expect("a fresh log").close().await.expect("closing");
    let rate = insert(&client, arguments.events, group, "bench_bare.events").await;
    client.batch_execute("DROP SCHEMA bench_bare CASCADE").await.expect("it is there");
    rate
}

/// For comparison: the same columns in a table with only a primary key.
async fn measure_table(arguments: &Arguments, group: usize) -> f64 {
    let client = connect(&arguments.url).await;
    let make = "DROP TABLE IF EXISTS bench_table; CHECKPOINT; CREATE TABLE bench_table (
        position bigint PRIMARY KEY, version bigint, recorded_at bigint, schema_version bigint,
        id uuid, content integer, stream text, type text, tags bytea, metadata bytea,
        payload bytea)";
    client.batch_execute(make).await.expect("a table");
    let rate = insert(&client, arguments.events, group, "bench_table").await;
    client.batch_execute("DROP TABLE bench_table").await.expect("it is there");
    rate
}

async fn insert(client: &Client, events: usize, group: usize, table: &str) -> f64 {
    let text = format!(
        "INSERT INTO {table} (position, version, recorded_at, schema_version, id, content, stream,
            type, tags, metadata, payload)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[],
            $6::integer[], $7::text[], $8::text[], $9::bytea[], $10::bytea[], $11::bytea[])"
    );
    let insert = client.prepare(&text).await.expect("the table is there");
    let begin = Instant::now();
    let mut versions = vec![0_i64; STREAMS];
    for first in (0..events).step_by(group) {
        let numbers = first..(first + group).min(events);
        let count = numbers.len();
        let now = SystemClock.now().as_micros() as i64;
        let positions: Vec<i64> = numbers.clone().map(|n| n as i64 + 1).collect();
        let ids: Vec<Uuid> = numbers.clone().map(|_| new_id().as_uuid()).collect();
        let streams: Vec<String> = numbers.clone().map(stream_name).collect();
        let next: Vec<i64> = numbers
            .map(|n| {
                versions[n * 7_919 % STREAMS] += 1;
                versions[n * 7_919 % STREAMS]
            })
            .collect();
        let payloads = vec![vec![7_u8; PAYLOAD_BYTES]; count];
        let none: Vec<&[u8]> = vec![&[]; count];
        let ones = vec![1_i64; count];
        let types = vec![TYPE; count];
        let times = vec![now; count];
        let contents = vec![1_i32; count];
        client
            .execute(
                &insert,
                &[
                    &positions, &next, &times, &ones, &ids, &contents, &streams, &types, &none,
                    &none, &payloads,
                ],
            )
            .await
            .expect("inserted");
    }
    per_second(events, begin)
}
