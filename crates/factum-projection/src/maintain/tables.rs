//! Finding the tables of the serving build.

use std::sync::Arc;

use factum_consumer::{ConsumerHealth, ConsumerState, Target};

use super::Maintained;
#[cfg(feature = "postgres")]
use crate::postgres::PostgresTarget;
#[cfg(feature = "sqlite")]
use crate::sqlite::SqliteTarget;

#[cfg(feature = "postgres")]
impl Maintained<PostgresTarget> {
    /// The schema of the build that readers see, quoted, as it stands in a statement; also where
    /// another process runs it. Ask for each query: which one serves changes, and one that does
    /// not any more stands still and goes at last, though not while a transaction is in it. What
    /// another process changed is known within some seconds.
    ///
    /// In this process it waits until the build has begun, so that its tables are there.
    pub async fn schema(&self) -> String {
        self.serving_target().await.schema()
    }
}

#[cfg(feature = "sqlite")]
impl Maintained<SqliteTarget> {
    /// A new connection to read the build by that readers see; also where another process of this
    /// machine runs it. Ask for each query, or now and then: which one serves changes, and one
    /// that does not any more stands still, and keeps its space until it is closed. What another
    /// process changed is known within some seconds.
    ///
    /// In this process it waits until the build has begun, so that its tables are there. To query
    /// blocks: an async function does it on a thread for that.
    ///
    /// # Errors
    /// Those of SQLite.
    pub async fn reader(&self) -> Result<rusqlite::Connection, rusqlite::Error> {
        self.serving_target().await.reader()
    }
}

impl<T: Target> Maintained<T> {
    /// The target of the build that readers see, when it has begun or is run elsewhere.
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
