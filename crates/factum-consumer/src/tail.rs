//! The tail: the end of the log, read once for all consumers that have reached it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use factum_kernel::{
    Checkpoint, Kernel, Page, Position, ReadError, ReadQuery, Scope, SubscribeFrom, Subscription,
};
use tokio::sync::broadcast;

/// The pages kept for the slowest consumer. A slower one reads pages of its own.
pub(crate) const TAIL_PAGES_MAX: usize = 64;

/// A message from the tail to its listeners.
#[derive(Debug, Clone)]
pub(crate) enum Tailed {
    /// The tail starts at this position. Its pages don't hold earlier events: a consumer that has
    /// not reached the position reads those without the tail.
    Began(Position),
    /// A page of the whole log, including system events.
    Page {
        /// The position after which the page begins.
        after: Position,
        page: Arc<Page>,
    },
    /// The tail has failed. Its later pages may be of another log: each listener reads for itself,
    /// and sees the error.
    Lost,
}

/// A reader of the log's end that runs while it has a listener.
#[derive(Debug)]
pub(crate) struct Tail {
    kernel: Kernel,
    pages: broadcast::Sender<Tailed>,
    is_running: Mutex<bool>,
}

impl Tail {
    pub(crate) fn new(kernel: Kernel) -> Self {
        let pages = broadcast::channel(TAIL_PAGES_MAX).0;
        Self { kernel, pages, is_running: Mutex::new(false) }
    }

    /// The messages of the tail from now on.
    pub(crate) fn listen(self: &Arc<Self>) -> broadcast::Receiver<Tailed> {
        let (receiver, is_new) = {
            let mut is_running = self.is_running();
            (self.pages.subscribe(), !std::mem::replace(&mut *is_running, true))
        };
        if is_new {
            // Spawn without the lock: a runtime that is ending drops the task at once.
            tokio::spawn(self.clone().run(Ending { tail: self.clone(), is_over: false }));
        }
        receiver
    }

    async fn run(self: Arc<Self>, mut ending: Ending) {
        while !ending.is_over {
            tokio::select! {
                _ = self.read_on() => {
                    let _ = self.pages.send(Tailed::Lost);
                    // Wait before asking a failing store again.
                    self.kernel.clock().sleep(factum_kernel::POLL_SHARED).await;
                }
                () = self.pages.closed() => {}
            }
            let mut is_running = self.is_running();
            // The lock is held: no listener can start during this check.
            ending.is_over = self.pages.receiver_count() == 0;
            *is_running = !ending.is_over;
        }
    }

    /// Reads and sends pages until the store fails.
    async fn read_on(&self) -> Result<(), ReadError> {
        let from = self.last().await?;
        let begins = from.map_or(Position::ZERO, |checkpoint| checkpoint.position);
        let from = from.map_or(SubscribeFrom::Start, SubscribeFrom::Checkpoint);
        let _ = self.pages.send(Tailed::Began(begins));
        let mut pages =
            Subscription::new(&self.kernel, Scope::Log, from).with_system().into_pages();
        let mut after = begins;
        loop {
            let page = pages.next().await?;
            let through = page.scanned_through;
            // Without a listener no event is lost: a new listener first reads pages of its own.
            let _ = self.pages.send(Tailed::Page { after, page: Arc::new(page) });
            after = through;
        }
    }

    /// The last event of the log. A subscription from it notices when another log takes the place
    /// of this one.
    async fn last(&self) -> Result<Option<Checkpoint>, ReadError> {
        let mut query = Some(ReadQuery::log().backward().with_events_max(1));
        while let Some(asked) = query {
            let page = self.kernel.events().read(asked.clone()).await?;
            if let Some(event) = page.events.first() {
                return Ok(Some(Checkpoint::of(page.lineage, event)));
            }
            query = asked.next(&page);
        }
        Ok(None)
    }

    fn is_running(&self) -> MutexGuard<'_, bool> {
        self.is_running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles the end of the tail's task, by a panic of the store or the end of its runtime: the
/// listeners are notified, and the next one starts another task.
struct Ending {
    tail: Arc<Tail>,
    is_over: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.is_over {
            *self.tail.is_running() = false;
            let _ = self.tail.pages.send(Tailed::Lost);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use factum_memory::MemoryStore;
    use tokio::{runtime::Runtime, time::timeout};

    use super::*;

    #[test]
    fn a_tail_whose_runtime_has_ended_is_read_on_another() {
        let store = Arc::new(MemoryStore::new());
        let tail = Arc::new(Tail::new(Kernel::new(store.clone(), store)));
        let ended = Runtime::new().unwrap();
        let handle = ended.handle().clone();
        drop(ended);
        {
            let _entered = handle.enter();
            drop(tail.listen());
        }
        Runtime::new().unwrap().block_on(async {
            let began = timeout(Duration::from_secs(20), tail.listen().recv()).await;
            assert!(matches!(began, Ok(Ok(Tailed::Began(Position::ZERO)))), "{began:?}");
        });
    }
}
