//! The servers that the tests use, and a schema of its own for each test.

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use factum_core::{Clock, SystemClock};
use factum_postgres::PostgresOptions;
use tokio_postgres::{Client, Config, NoTls};

/// The URL of a server. A test without one fails: it must not look as if it had run.
pub(crate) fn url(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|_| {
        panic!(
            "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
             {variable}=postgres://user@host:port/database"
        )
    })
}

/// A schema of a test's own, which goes with it.
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
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { url: url.into(), name: format!("test_{}_{count}", std::process::id()) }
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions::parse(&self.url).unwrap().with_schema(&self.name).unwrap()
    }

    /// A connection of somebody else's.
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

/// Takes the log's lock, as its documentation says what it is.
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
        let (url, name) = (self.url.clone(), self.name.clone());
        // A thread of its own, because this may be inside of a runtime.
        let gone = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let Ok(config) = url.parse::<Config>() else { return };
                let Ok((client, connection)) = config.connect(NoTls).await else { return };
                tokio::spawn(connection);
                let drop = format!("SET lock_timeout = '2s'; DROP SCHEMA IF EXISTS {name} CASCADE");
                // A server that a test has stopped takes its data along.
                let _ = client.batch_execute(&drop).await;
            });
        });
        let _ = gone.join();
    }
}
