//! A store with rivals before it, and a clock that is never twice the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, EventStore, Guarantees, Kernel,
    Metadata, Monotonic, Page, Position, ReadQuery, RecordedEvent, Repository, StoreError,
    StreamChange, StreamId, StreamInfo, TagKey, Timestamp,
};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_testing::{FaultRates, FaultyStore, SeededIds, VirtualClock};
use tokio::sync::watch;

use super::note::{Notes, Take};
use crate::bench::morning;

/// Moves on by a millisecond whenever it is read, and counts how often that is.
#[derive(Debug)]
pub(super) struct Ticking {
    inner: VirtualClock,
    reads: AtomicU64,
}

impl Ticking {
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.now().saturating_add(Duration::from_millis(reads))
    }

    fn monotonic(&self) -> Monotonic {
        self.inner.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.inner.sleep(duration).await;
    }
}

/// Others append before each of the first appends, so many times.
#[derive(Debug)]
struct Rivalled {
    inner: Arc<FaultyStore>,
    rival: Kernel,
    left: AtomicU64,
}

#[async_trait]
impl EventStore for Rivalled {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let take_one = |left: u64| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_ok() {
            let notes = Repository::<Notes>::new(self.rival.clone());
            notes.execute("one", &Take(1)).await.unwrap();
        }
        self.inner.append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.inner.read(query).await
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

/// What commands are sent to.
pub(super) struct Bench {
    pub(super) kernel: Kernel,
    pub(super) clock: Arc<Ticking>,
    pub(super) faulty: Arc<FaultyStore>,
    store: Arc<MemoryStore>,
}

pub(super) fn tag_key() -> TagKey {
    TagKey::new([1; 32])
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_rivals(0)
    }

    pub(super) fn with_rivals(times: u64) -> Self {
        let inner = VirtualClock::auto_advancing(morning());
        let shared: Arc<dyn Clock> = Arc::new(inner.clone());
        let options = MemoryOptions::new().with_clock(shared.clone());
        let store = Arc::new(MemoryStore::with_options(options));
        let rival = Kernel::new(store.clone(), store.clone()).with_clock(shared.clone());
        let rival = rival.with_tag_key(tag_key()).with_ids(Arc::new(SeededIds::new(2)));
        let faulty = Arc::new(FaultyStore::new(store.clone(), 1, FaultRates::none(), shared));
        let left = AtomicU64::new(times);
        let clock = Arc::new(Ticking { inner, reads: AtomicU64::new(0) });
        let rivalled = Rivalled { inner: faulty.clone(), rival, left };
        let kernel = Kernel::new(Arc::new(rivalled), store.clone())
            .with_clock(clock.clone())
            .with_ids(Arc::new(SeededIds::new(1)))
            .with_tag_key(tag_key());
        Self { kernel, clock, faulty, store }
    }

    /// All of the log.
    pub(super) async fn log(&self) -> Vec<RecordedEvent> {
        self.store.read(ReadQuery::log()).await.unwrap().events
    }
}

/// Whoever sends commands in these tests; rivals say nothing of themselves.
pub(super) fn sender() -> Metadata {
    Metadata::new().with_user("ada")
}
