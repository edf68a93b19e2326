//! On PostgreSQL. `cargo xtask test` starts a server; `--only embedded` leaves this out.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use factum::{
    App, Consumer, Documents, DocumentsTx, ProjectionFn, RecordedEvent,
    consumer::ConsumerState,
    memory::MemoryKind,
    postgres::{PostgresKind, PostgresOptions, PostgresStore},
    store::{Clock, Stores, SystemClock},
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};
use tokio_postgres::{Client, NoTls};

use crate::{
    difference::{Place, every_answer_is_the_same, of_every_kind},
    instance::Instance,
    order,
    outage::{WAYS, hasty, is_outlasted},
    readme::runs_and_goes_on,
};

/// Longer than any of this takes on a busy machine.
const WAIT: Duration = Duration::from_secs(60);
/// The limits for an idle application in docs/design/0011-postgresql.md.
const CONNECTIONS_IDLE: i64 = 2;
const TRANSACTIONS_A_SECOND_IDLE: f64 = 5.0;
const WINDOWS_MAX: u32 = 8;

fn server() -> String {
    std::env::var("FACTUM_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
             FACTUM_POSTGRES_URL=postgres://user@host:port/database"
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_example_runs_and_goes_on_when_run_again() {
    let server = server();
    let schema = format!("readme_{}", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{server}?schema={schema}");
    let run =
        tokio::task::spawn_blocking(move || runs_and_goes_on(folder.path(), Some(&url))).await;
    let (client, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
    tokio::spawn(connection);
    let count = format!("SELECT count(*) FROM {schema}.events WHERE stream = 'account-ada'");
    let count = client.query_one(&count, &[]).await;
    client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await.unwrap();
    run.unwrap();
    assert_eq!(count.unwrap().get::<_, i64>(0), 4, "opened, twice paid in, once paid out");
}

#[tokio::test]
async fn the_order_of_a_decision_is_kept() {
    let server = server();
    let schema = format!("order_{}", std::process::id());
    let options = PostgresOptions::parse(&server).unwrap().with_schema(&schema).unwrap();
    let store = Arc::new(PostgresStore::open(options).await.unwrap());
    order::is_kept(Stores { events: store.clone(), documents: store }).await;
    let (client, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gives_the_same_answers_as_the_store_in_memory() {
    let server = server();
    let mut said = String::new();
    // Without groups, because members of one group with different streams may change places.
    for seed in (101..117).step_by(2) {
        let schema = format!("difference_{}_{seed}", std::process::id());
        let places: [Place; 2] = [
            (Box::new(MemoryKind), "memory:".into()),
            (Box::new(PostgresKind::default()), format!("{server}?schema={schema}")),
        ];
        let run = tokio::spawn(async move { every_answer_is_the_same(seed, &places).await }).await;
        let (client, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE")).await.unwrap();
        said.push_str(&run.unwrap());
    }
    of_every_kind(&said);
}

/// An application with a consumer and a projection, which have handled the present events.
async fn at_rest(url: &str) -> App {
    let options = PostgresOptions::parse(url).unwrap().with_idle_timeout(Duration::from_secs(1));
    let store = Arc::new(PostgresStore::open(options).await.unwrap());
    let stores = Stores { events: store.clone(), documents: store };
    let app = App::builder().open_stores(stores).await.unwrap();
    let handle = async |_: AccountEvent, _: RecordedEvent| Ok(());
    let mails = app.consumers().start(Consumer::new("mails", handle)).await.unwrap();
    let owners = |event, recorded: &RecordedEvent, owners: &mut DocumentsTx| match event {
        AccountEvent::Opened { owner, .. } => owners.put(recorded.stream().key(), &owner),
        _ => Ok(()),
    };
    let owners = ProjectionFn::<_, Documents, _>::new("owners", 1, owners);
    let owners = app.project_fn(owners).await.unwrap();
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.command::<Account>("ada", open).await.unwrap();
    let position = app.load::<Account>("ada").await.unwrap().version.value();
    let position = factum::Position::new(position);
    mails.wait_for(position, WAIT).await.unwrap();
    owners.wait_for(position, WAIT).await.unwrap();
    while mails.health().state != ConsumerState::Live {
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
    app
}

/// The activity in a database.
struct Activity {
    /// The seconds of the server's clock.
    at: f64,
    /// The transactions so far.
    transactions: i64,
    connections: i64,
}

async fn measure(raw: &Client, database: &str) -> Activity {
    let asked = "SELECT extract(epoch FROM clock_timestamp())::float8, \
        xact_commit + xact_rollback, \
        (SELECT count(*) FROM pg_stat_activity AS a WHERE a.datname = d.datname \
            AND a.backend_type = 'client backend') \
        FROM pg_stat_database AS d WHERE d.datname = $1";
    let row = raw.query_one(asked, &[&database]).await.unwrap();
    Activity { at: row.get(0), transactions: row.get(1), connections: row.get(2) }
}

/// The transactions in each second of a while, and the most connections at one time.
async fn watch_for_a_while(raw: &Client, database: &str) -> (f64, i64) {
    let before = measure(raw, database).await;
    let mut most = 0;
    loop {
        SystemClock.sleep(Duration::from_millis(100)).await;
        let now = measure(raw, database).await;
        most = most.max(now.connections);
        let seconds = now.at - before.at;
        if seconds >= 15.0 {
            return ((now.transactions - before.transactions) as f64 / seconds, most);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_application_keeps_two_connections_and_makes_few_transactions() {
    let server = server();
    let (raw, connection) = tokio_postgres::connect(&server, NoTls).await.unwrap();
    tokio::spawn(connection);
    let database = format!("idle_{}", std::process::id());
    raw.batch_execute(&format!("CREATE DATABASE {database} TEMPLATE template0")).await.unwrap();
    let url = format!("{}/{database}", server.rsplit_once('/').unwrap().0);
    let app = at_rest(&url).await;
    let closed = async {
        while measure(&raw, &database).await.connections > CONNECTIONS_IDLE {
            SystemClock.sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT, closed).await.expect("what is not used is closed");
    // On a busy machine a connection is replaced now and then, which takes transactions of its own.
    let mut windows = 0;
    let (a_second, most) = loop {
        windows += 1;
        let (a_second, most) = watch_for_a_while(&raw, &database).await;
        if windows == WINDOWS_MAX || a_second <= TRANSACTIONS_A_SECOND_IDLE {
            break (a_second, most);
        }
    };
    app.close().await.unwrap();
    raw.batch_execute(&format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
    println!("{a_second:.1} transactions a second, {most} connections");
    assert!(a_second <= TRANSACTIONS_A_SECOND_IDLE, "{a_second}");
    // A third connection is made when two reads are concurrent, and is closed again.
    assert!(most <= CONNECTIONS_IDLE + 1, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_for_long_is_no_attempt_by_any_way_to_an_aggregate() {
    let instance = Arc::new(Mutex::new(Instance::start(&[])));
    for (number, way) in WAYS.into_iter().enumerate() {
        let url = instance.lock().unwrap().url();
        let app = hasty().open(&format!("{url}?schema=outage{number}")).await.unwrap();
        let killed = instance.clone();
        let go_away = move || killed.lock().unwrap().kill();
        is_outlasted(&app, way, go_away, || instance.lock().unwrap().restart()).await;
    }
}
