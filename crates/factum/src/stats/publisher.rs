//! The worker that publishes an application's stats.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use factum_kernel::{
    DocumentStore, ExpectedRevision, Kernel, ScanQuery, StoreError, Timestamp, Uuid, WriteBatch,
    WriteError,
};
use factum_runtime::{Restart, Worker, WorkerContext, WorkerError};

use super::document::{PublishedStats, all, key};
use crate::running::Running;

/// The shortest interval between two publications.
pub const STATS_EVERY_MIN: Duration = Duration::from_millis(100);
/// The number of publications between two searches for dead instances. The first search is before
/// the first publication.
const WRITES_PER_LOOK: u64 = 100;
/// The shortest and the longest pause after a failed write.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The publisher. It ends when the application is dropped.
struct Publisher {
    running: Weak<Running>,
    kernel: Kernel,
    instance: Uuid,
    every: Duration,
}

/// Makes the worker that publishes the stats of an application at this interval.
pub(crate) fn publisher(running: &Arc<Running>, kernel: &Kernel, every: Duration) -> Worker {
    let instance = kernel.ids().uuid(kernel.clock().now());
    // Weak, because `Running` holds the supervisor, and the supervisor holds the worker.
    let running = Arc::downgrade(running);
    let kernel = kernel.clone();
    let every = every.max(STATS_EVERY_MIN);
    let publisher = Arc::new(Publisher { running, kernel, instance, every });
    let worker = Worker::new("factum.stats", move |cx| publisher.clone().run(cx));
    // The worker is never given up: the stats matter most after the store was down for long.
    let restart = Restart::new().with_pauses(RETRY_MIN, RETRY_MAX);
    worker.with_restart(restart.with_deaths_max(u32::MAX, RETRY_MAX))
}

impl Publisher {
    async fn run(self: Arc<Self>, cx: WorkerContext) -> Result<(), WorkerError> {
        for written in 0_u64.. {
            if written % WRITES_PER_LOOK == 0 {
                self.remove_dead(cx.now()).await?;
            }
            let Some(running) = self.running.upgrade() else { break };
            let stats = running.stats(&**cx.clock());
            let stats = PublishedStats::of(&stats, self.instance, self.every);
            drop(running);
            let key = key(self.instance);
            self.write(WriteBatch::new().put(key, ExpectedRevision::Any, stats.write())).await?;
            if cx.until_stopping(cx.clock().sleep(self.every)).await.is_none() {
                break;
            }
        }
        let farewell = WriteBatch::new().remove(key(self.instance), ExpectedRevision::Any);
        Ok(self.write(farewell).await?)
    }

    /// Writes a batch. An unknown outcome is no error, because the next document replaces this one.
    async fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        match self.documents().write(batch).await {
            Err(WriteError::Store(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the documents of instances that ended without a shutdown.
    async fn remove_dead(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut rest = Some(all());
        while let Some(range) = rest {
            let page = self.documents().scan(ScanQuery::new(range)).await?;
            for document in page.documents {
                if PublishedStats::read(&document.value).is_some_and(|it| it.is_dead(now)) {
                    // Not if the instance has published again since.
                    let expected = ExpectedRevision::Exact(document.revision);
                    self.write(WriteBatch::new().remove(document.key, expected)).await?;
                }
            }
            rest = page.rest;
        }
        Ok(())
    }

    fn documents(&self) -> &dyn DocumentStore {
        &**self.kernel.documents()
    }
}
