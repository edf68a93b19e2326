//! The tables of the serving build, for readers that use SQL.

use std::sync::Arc;

use factum_consumer::{ConsumerHealth, ConsumerState, Target};

use super::Maintained;
#[cfg(feature = "postgres")]
use crate::postgres::PostgresTarget;
#[cfg(feature = "sqlite")]
use crate::sqlite::SqliteTarget;

#[cfg(feature = "postgres")]
impl Maintained<PostgresTarget> {
    /// The quoted schema of the serving build, for use in a statement, also if another process runs
    /// the build. Call this before each query: another build may serve later. An old build gets no
    /// more events and is dropped some time later, but not while a transaction uses it. A change by
    /// another process is known within some seconds.
    ///
    /// If this process runs the build, it waits until the build has begun and its tables exist.
    pub async fn schema(&self) -> String {
        self.serving_target().await.schema()
    }
}

#[cfg(feature = "sqlite")]
impl Maintained<SqliteTarget> {
    /// A new connection that reads the serving build, also if another process of this machine runs
    /// the build. Open a new one for each query or from time to time: another build may serve
    /// later. An old build gets no more events, and its file keeps its space until all connections
    /// to it are closed. A change by another process is known within some seconds.
    ///
    /// If this process runs the build, it waits until the build has begun and its tables exist.
    /// Queries block their thread: in async code use `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// Errors of SQLite.
    pub async fn reader(&self) -> Result<rusqlite::Connection, rusqlite::Error> {
        self.serving_target().await.reader()
    }
}

impl<T: Target> Maintained<T> {
    /// The target of the serving build, after the build has begun here or if another process runs
    /// it.
    async fn serving_target(&self) -> Arc<T> {
        let (running, name) = {
            let local = self.local.borrow();
            (local.serving.clone(), local.builds.serving.consumer(self.name()))
        };
        let Some(running) = running else { return Arc::new((self.targets)(&name)) };
        let has_begun = |health: &ConsumerHealth| health.state != ConsumerState::Starting;
        let _ = running.consumer.watch().wait_for(has_begun).await;
        running.target
    }
}
