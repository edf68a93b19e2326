//! A store that counts its version conflicts. It forwards everything to the store inside.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use factum::{
    EventStore, Position, ReadQuery, StoreError,
    event::StreamId,
    read::Page,
    store::{
        AppendBatch, AppendError, Appended, ChangeError, Guarantees, StreamChange, StreamInfo,
    },
};
use tokio::sync::watch;

/// The number of version conflicts that a store has answered with. Clones share the counter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conflicts(Arc<AtomicU64>);

impl Conflicts {
    /// The number of conflicts so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A store that forwards to `store` and counts its conflicts here.
    pub(crate) fn of(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        Arc::new(Counted { store, conflicts: self.clone() })
    }
}

#[derive(Debug)]
struct Counted {
    store: Arc<dyn EventStore>,
    conflicts: Conflicts,
}

#[async_trait]
impl EventStore for Counted {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let outcome = self.store.append(batch).await;
        if let Err(AppendError::Conflict(_)) = &outcome {
            self.conflicts.0.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.store.read(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.store.stream_info(stream).await
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        self.store.change(stream, change).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.store.head()
    }

    fn guarantees(&self) -> Guarantees {
        self.store.guarantees()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
