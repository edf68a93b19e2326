//! A fresh database for each reading, and the server's settings.

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, types::ToSql};
use url::Url;

/// The database that is dropped and made again for each reading.
const DATABASE: &str = "factum_peers";
/// The settings that the report shows.
const SETTINGS: &[&str] = &[
    "server_version",
    "shared_buffers",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
    "max_wal_size",
    "max_connections",
];
/// Without these, nothing that is measured is durable.
const DURABLE: &[(&str, &[&str])] =
    &[("fsync", &["on"]), ("synchronous_commit", &["on", "local", "remote_write", "remote_apply"])];

pub(crate) struct Database {
    client: Client,
    url: Url,
}

impl Database {
    /// Connects to the server as its user.
    pub(crate) fn connect(runtime: &Runtime, url: &str) -> Result<Self, String> {
        let parsed = Url::parse(url)
            .map_err(|e| format!("--url is no URL, write postgres://user@host/database: {e}"))?;
        let (client, connection) = runtime
            .block_on(tokio_postgres::connect(url, NoTls))
            .map_err(|e| format!("no connection, correct --url or the server: {}", words(&e)))?;
        runtime.spawn(connection);
        Ok(Self { client, url: parsed })
    }

    /// The settings, in a line.
    ///
    /// # Errors
    /// If answered events would not survive a power cut.
    pub(crate) fn settings(&self, runtime: &Runtime) -> Result<String, String> {
        let mut line = Vec::new();
        for name in SETTINGS {
            let values: [&(dyn ToSql + Sync); 1] = [name];
            let row = self.client.query_one("SELECT current_setting($1)", &values);
            let value: String = runtime.block_on(row).map_err(|e| words(&e))?.get(0);
            let durable = DURABLE.iter().find(|(setting, _)| setting == name);
            if durable.is_some_and(|(_, values)| !values.contains(&value.as_str())) {
                return Err(format!("switch it on, nothing is durable without: {name}={value}"));
            }
            line.push(format!("{name}={value}"));
        }
        Ok(line.join(", "))
    }

    /// The number before the point of the server's version.
    pub(crate) fn version(&self, runtime: &Runtime) -> Result<u32, String> {
        let number = "SELECT current_setting('server_version_num')::integer / 10000";
        let row = runtime.block_on(self.client.query_one(number, &[])).map_err(|e| words(&e))?;
        Ok(row.get::<_, i32>(0).unsigned_abs())
    }

    /// An empty database, whose URL is returned. Dropping the last one makes a checkpoint, so each
    /// reading begins after a checkpoint.
    pub(crate) fn fresh(&self, runtime: &Runtime) -> Result<String, String> {
        self.remove(runtime)?;
        self.execute(runtime, &format!("CREATE DATABASE {DATABASE}"))?;
        let mut url = self.url.clone();
        url.set_path(DATABASE);
        Ok(url.into())
    }

    /// The number of rows in a table of the fresh database.
    pub(crate) fn count(runtime: &Runtime, url: &str, table: &str) -> Result<usize, String> {
        let count = async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await
        };
        let row = runtime.block_on(count).map_err(|e| words(&e))?;
        Ok(row.get::<_, i64>(0) as usize)
    }

    pub(crate) fn remove(&self, runtime: &Runtime) -> Result<(), String> {
        self.execute(runtime, &format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
    }

    fn execute(&self, runtime: &Runtime, statement: &str) -> Result<(), String> {
        runtime.block_on(self.client.batch_execute(statement)).map_err(|e| {
            let words = words(&e);
            format!("the user of --url must be able to make databases: {words}: {statement}")
        })
    }
}

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned())
}
