//! A store in which something happens between two calls.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, EventStore, Guarantees, Page, Position,
    ReadQuery, StoreError, StreamChange, StreamId, StreamInfo,
};
use tokio::sync::watch;

/// Done before a call to the store.
#[async_trait]
pub(crate) trait Meddler: Send + Sync + 'static {
    /// Before the nth append, from 0.
    async fn before_append(&self, _nth: usize) {}

    /// Before the nth read, from 0.
    async fn before_read(&self, _nth: usize) {}

    /// Behind each append: what is answered to it.
    fn answer(&self, appended: Appended) -> Appended {
        appended
    }
}

/// A store with a meddler before it.
pub(crate) struct Meddled<M> {
    inner: Arc<dyn EventStore>,
    meddler: M,
    appends: AtomicUsize,
    reads: AtomicUsize,
    /// So many events are lost from the start of the log.
    lost: u64,
}

impl<M> Meddled<M> {
    pub(crate) fn new(inner: Arc<dyn EventStore>, meddler: M) -> Self {
        Self::losing(inner, meddler, 0)
    }

    pub(crate) fn losing(inner: Arc<dyn EventStore>, meddler: M, lost: u64) -> Self {
        let appends = AtomicUsize::new(0);
        let reads = AtomicUsize::new(0);
        Self { inner, meddler, appends, reads, lost }
    }
}

impl<M> fmt::Debug for Meddled<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<M: Meddler> EventStore for Meddled<M> {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.meddler.before_append(self.appends.fetch_add(1, Ordering::SeqCst)).await;
        self.inner.append(batch).await.map(|appended| self.meddler.answer(appended))
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.meddler.before_read(self.reads.fetch_add(1, Ordering::SeqCst)).await;
        let mut page = self.inner.read(query).await?;
        page.events.retain(|event| event.position().value() > self.lost);
        Ok(page)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.inner.stream_info(stream).await
    }

    async fn change(&self, s: &StreamId, change: StreamChange) -> Result<StreamInfo, ChangeError> {
        self.inner.change(s, change).await
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
