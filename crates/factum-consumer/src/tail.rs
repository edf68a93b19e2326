//! The end of the log, read once for all consumers that have come there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use factum_kernel::{
    Checkpoint, Kernel, Page, Position, ReadError, ReadQuery, Scope, SubscribeFrom, Subscription,
};
use tokio::sync::broadcast;

/// Pages that wait for the slowest consumer. One that falls behind them reads pages of its own.
pub(crate) const TAIL_PAGES_MAX: usize = 64;

/// What the tail tells those who listen.
#[derive(Debug, Clone)]
pub(crate) enum Tailed {
    /// It reads on from here. What lies before is not in its pages: who has not come so far reads
    /// it without the tail.
    Began(Position),
    /// A page of the whole log, the system's events included.
    Page {
        /// What came before it is not in it.
        after: Position,
        page: Arc<Page>,
    },
    /// It can't read on. What comes later need not be of the same log: everybody looks for
    /// themselves, and sees the error.
    Lost,
}

/// Reads the end of the log while somebody listens.
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

    /// What comes from now on.
    pub(crate) fn listen(self: &Arc<Self>) -> broadcast::Receiver<Tailed> {
        let (receiver, is_new) = {
            let mut is_running = self.is_running();
            (self.pages.subscribe(), !std::mem::replace(&mut *is_running, true))
        };
        if is_new {
            // Without the lock: a runtime that is ending drops the task at once.
            tokio::spawn(self.clone().run(Ending { tail: self.clone(), is_over: false }));
        }
        receiver
    }

    async fn run(self: Arc<Self>, mut ending: Ending) {
        while !ending.is_over {
            tokio::select! {
                _ = self.read_on() => {
                    let _ = self.pages.send(Tailed::Lost);
                    // A failing store is not asked again at once.
                    self.kernel.clock().sleep(factum_kernel::POLL_SHARED).await;
                }
                () = self.pages.closed() => {}
            }
            let mut is_running = self.is_running();
            // Nobody can begin to listen while this is looked at.
            ending.is_over = self.pages.receiver_count() == 0;
            *is_running = !ending.is_over;
        }
    }

    /// Until the store fails.
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
            // Nobody listens: nothing is lost, a listener begins with pages of its own.
            let _ = self.pages.send(Tailed::Page { after, page: Arc::new(page) });
            after = through;
        }
    }

    /// The last event there is: behind it, another log in place of this one is noticed.
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

/// However the tail's task ends, a panic of the store or the end of its runtime: those who listen
/// learn of it, and the next one starts another.
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
    fn a_tail_that_an_ended_runtime_refused_is_read_on_another() {
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
