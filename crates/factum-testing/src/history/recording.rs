//! A store that records the calls made through it.

use std::sync::Arc;

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, EventStore, Guarantees, Page, Position,
    ReadQuery, StoreError, StreamChange, StreamId, StreamInfo,
};
use tokio::sync::watch;

use super::History;

/// Forwards all calls to a store, and records every append and change in a [`History`].
///
/// Wrap it around a [`FaultyStore`](crate::FaultyStore), so that it records the answers that
/// callers get.
#[derive(Debug, Clone)]
pub struct RecordingStore {
    inner: Arc<dyn EventStore>,
    history: Arc<History>,
}

impl RecordingStore {
    /// Records the calls made through it.
    pub fn new(inner: Arc<dyn EventStore>, history: Arc<History>) -> Self {
        Self { inner, history }
    }
}

#[async_trait]
impl EventStore for RecordingStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        // If the caller goes away, the attempt is dropped, and its outcome stays open.
        let attempt = self.history.attempt(&batch);
        let outcome = self.inner.append(batch).await;
        attempt.ended(&outcome);
        outcome
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.inner.read(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.inner.stream_info(stream).await
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        self.history.changed(stream);
        self.inner.change(stream, change).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
