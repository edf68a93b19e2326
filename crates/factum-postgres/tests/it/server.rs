//! The servers that the tests use, and a schema of its own for each test.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use factum_kernel::{Clock, SystemClock};
use factum_postgres::PostgresOptions;
use tokio_postgres::{Client, Config, NoTls};

/// The URL of a server. A test without one fails, so that it does not look as if it had run.
pub(crate) fn url(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!(
            "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
             {variable}=postgres://user@host:port/database"
        )
    })
}

/// The URL of a server with another user or database.
pub(crate) fn with(url: &str, user: &str, database: &str) -> String {
    let server = url.rsplit_once('@').unwrap().1;
    let server = server.rsplit_once('/').unwrap().0;
    format!("postgres://{user}@{server}/{database}")
}

/// A number that no other name in this process has.
fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A database of a test's own, which is removed after it. No other test sees its `public` schema.
#[derive(Debug)]
pub(crate) struct Database {
    server: String,
    name: String,
    pub(crate) url: String,
}

impl Database {
    /// With these settings, such as `ENCODING 'UTF8'`.
    pub(crate) async fn new(settings: &str) -> Self {
        let server = url("FACTUM_POSTGRES_URL");
        let name = format!("test_{}_{}", std::process::id(), number());
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 {settings}");
        raw(&server).await.batch_execute(&create).await.unwrap();
        let url = with(&server, "factum", &name);
        Self { server, name, url }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        run_at_last(self.server.clone(), format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// A schema of a test's own, which is removed after it.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn new() -> Self {
        Self::on(&url("FACTUM_POSTGRES_URL"))
    }

    pub(crate) fn on(url: &str) -> Self {
        Self { url: url.into(), name: format!("test_{}_{}", std::process::id(), number()) }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions::parse(&self.url).unwrap().with_schema(&self.name).unwrap()
    }

    /// A connection of another program.
    pub(crate) async fn raw(&self) -> Client {
        raw(&self.url).await
    }
}

pub(crate) async fn raw(url: &str) -> Client {
    let config: Config = url.parse().unwrap();
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Takes the log's lock, with the number in its documentation.
pub(crate) fn lock(schema: &str) -> String {
    format!(
        "pg_advisory_xact_lock((1178682196::bigint << 32) | '{schema}'::regnamespace::oid::bigint)"
    )
}

/// Waits until this many sessions wait for the log's lock.
pub(crate) async fn waiting(raw: &Client, schema: &str, count: i64) {
    let asked = format!(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
         AND classid = 1178682196 AND objid = '{schema}'::regnamespace::oid"
    );
    while raw.query_one(&asked, &[]).await.unwrap().get::<_, i64>(0) < count {
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = format!("SET lock_timeout = '2s'; DROP SCHEMA IF EXISTS {} CASCADE", self.name);
        run_at_last(self.url.clone(), drop);
    }
}

/// Runs statements when a test ends, even if it failed.
fn run_at_last(url: String, statements: String) {
    // In a thread of its own, because this may run inside a runtime.
    let gone = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Ok(config) = url.parse::<Config>() else { return };
            let Ok((client, connection)) = config.connect(NoTls).await else { return };
            tokio::spawn(connection);
            // If a test has stopped its server, the data is gone anyway.
            let _ = client.batch_execute(&statements).await;
        });
    });
    let _ = gone.join();
}
