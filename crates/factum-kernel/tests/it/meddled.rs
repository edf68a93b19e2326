//! A store in which something happens between two calls.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use factum_kernel::{AppendBatch, AppendError, Appended, EventStore, Page, ReadQuery, StoreError};
use factum_testing::{ForwardEvents, Forwarding};

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
struct Meddled<M> {
    inner: Arc<dyn EventStore>,
    meddler: M,
    appends: AtomicUsize,
    reads: AtomicUsize,
    /// So many events are lost from the start of the log.
    lost: u64,
}

/// The store with the meddler before it.
pub(crate) fn meddled<M: Meddler>(inner: Arc<dyn EventStore>, meddler: M) -> Arc<dyn EventStore> {
    meddled_losing(inner, meddler, 0)
}

/// The same, without this many events from the start of the log.
pub(crate) fn meddled_losing<M: Meddler>(
    inner: Arc<dyn EventStore>,
    meddler: M,
    lost: u64,
) -> Arc<dyn EventStore> {
    let appends = AtomicUsize::new(0);
    let reads = AtomicUsize::new(0);
    Arc::new(Forwarding(Meddled { inner, meddler, appends, reads, lost }))
}

impl<M> fmt::Debug for Meddled<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<M: Meddler> ForwardEvents for Meddled<M> {
    fn events(&self) -> Arc<dyn EventStore> {
        self.inner.clone()
    }

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
}
