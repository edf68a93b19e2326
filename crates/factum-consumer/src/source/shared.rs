//! Pages of the log that several partitions share: the first partition that asks for a page reads
//! it for all.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, Direction, EventStore, Guarantees,
    Kernel, Monotonic, Page, Position, ReadQuery, Scope, StoreError, StreamChange, StreamId,
    StreamInfo,
};
use tokio::sync::{OnceCell, watch};

/// The age at which a page is read again: an event may have been erased since.
const FRESH: Duration = Duration::from_secs(1);
/// The pages kept for the slowest partition. A slower one reads pages of its own.
const PAGES_MAX: usize = 8;

/// A page, and the time of the first request for it.
#[derive(Debug)]
struct Shared {
    query: ReadQuery,
    at: Monotonic,
    page: Arc<OnceCell<Page>>,
}

/// A store whose pages of the whole log are read once for all partitions that read at about the
/// same speed. A page that reaches the log's end is not shared, because more events may follow
/// there.
#[derive(Debug)]
pub(crate) struct SharedPages {
    store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    pages: Mutex<VecDeque<Shared>>,
}

impl SharedPages {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        let store = kernel.events().clone();
        let clock = kernel.clock().clone();
        Self { store, clock, pages: Mutex::default() }
    }

    fn cell(&self, query: &ReadQuery) -> Arc<OnceCell<Page>> {
        let at = self.clock.monotonic();
        let mut pages = self.pages();
        pages.retain(|it| at.saturating_since(it.at) < FRESH);
        if let Some(found) = pages.iter().find(|it| it.query == *query) {
            return found.page.clone();
        }
        if pages.len() == PAGES_MAX {
            pages.pop_front();
        }
        let page = Arc::<OnceCell<Page>>::default();
        pages.push_back(Shared { query: query.clone(), at, page: page.clone() });
        page
    }

    fn forget(&self, query: &ReadQuery) {
        self.pages().retain(|it| it.query != *query);
    }

    fn pages(&self) -> MutexGuard<'_, VecDeque<Shared>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl EventStore for SharedPages {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.store.append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        let is_page = query.scope == Scope::Log && query.direction == Direction::Forward;
        // A query for a single event checks whether the event still exists.
        if !is_page || query.events_max == 1 {
            return self.store.read(query).await;
        }
        let cell = self.cell(&query);
        let mut is_own = false;
        let read = || {
            is_own = true;
            self.store.read(query.clone())
        };
        let page = cell.get_or_try_init(read).await?;
        if page.scanned_through < page.head {
            return Ok(page.clone());
        }
        self.forget(&query);
        if is_own { Ok(page.clone()) } else { self.store.read(query).await }
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

#[cfg(test)]
mod tests {
    use factum_kernel::{
        AppendBatch, Content, EventId, EventName, ExpectedVersion, NewEvent, StreamId, Timestamp,
    };
    use factum_memory::MemoryStore;
    use factum_testing::VirtualClock;

    use super::*;

    async fn append(store: &MemoryStore, n: u32) {
        let id = EventId::derived(Timestamp::EPOCH, &n.to_le_bytes());
        let event = NewEvent::new(id, EventName::from_static("a.b"), Content::Json, "{}");
        let stream = StreamId::new("a", "1").unwrap();
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
        store.append(batch).await.unwrap();
    }

    #[tokio::test]
    async fn a_page_within_the_log_is_read_once_and_the_last_page_by_each_reader() {
        let store = Arc::new(MemoryStore::new());
        for n in 0..4 {
            append(&store, n).await;
        }
        let shared = SharedPages::new(&Kernel::new(store.clone(), store.clone()));
        let first = ReadQuery::log().with_events_max(2);
        let last = first.clone().after(Position::new(2));
        let within = shared.read(first.clone()).await.unwrap();
        assert_eq!(shared.read(last.clone()).await.unwrap().events.len(), 2);
        append(&store, 4).await;
        assert_eq!(shared.read(last.with_events_max(9)).await.unwrap().events.len(), 3);
        let again = shared.read(first).await.unwrap();
        assert_eq!((again.head, again), (Position::new(4), within), "it is the same page");
    }

    #[tokio::test]
    async fn a_page_is_read_again_after_a_while_whatever_the_clock_is_set_to() {
        let store = Arc::new(MemoryStore::new());
        for n in 0..4 {
            append(&store, n).await;
        }
        let clock = VirtualClock::new(Timestamp::from_micros(1_772_355_600_000_000));
        let kernel = Kernel::new(store.clone(), store.clone()).with_clock(Arc::new(clock.clone()));
        let shared = SharedPages::new(&kernel);
        let first = ReadQuery::log().with_events_max(2);
        let begun = clock.now();
        assert_eq!(shared.read(first.clone()).await.unwrap().head, Position::new(4));
        append(&store, 4).await;
        clock.set(begun.saturating_add(FRESH * 9));
        assert_eq!(shared.read(first.clone()).await.unwrap().head, Position::new(4), "it is fresh");
        clock.advance(FRESH);
        clock.set(begun);
        assert_eq!(shared.read(first).await.unwrap().head, Position::new(5), "it is old");
    }
}
