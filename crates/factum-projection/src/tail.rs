//! The end of the log, read once for all consumers that have come there.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use factum_core::{Kernel, Page, Position, Scope, SubscribeFrom, Subscription};
use tokio::sync::broadcast;

/// Pages that wait for the slowest consumer. One that falls behind them reads pages of its own.
pub(crate) const TAIL_PAGES_MAX: usize = 64;

/// A page of the whole log, the system's events included.
#[derive(Debug, Clone)]
pub(crate) struct TailPage {
    /// What came before it is not in it.
    pub(crate) after: Position,
    /// Pages of different runs need not be of one log: the store failed between them.
    pub(crate) run: u64,
    pub(crate) page: Arc<Page>,
}

/// Reads the end of the log while somebody listens.
#[derive(Debug)]
pub(crate) struct Tail {
    kernel: Kernel,
    pages: broadcast::Sender<TailPage>,
    is_running: Mutex<bool>,
    runs: AtomicU64,
}

impl Tail {
    pub(crate) fn new(kernel: Kernel) -> Self {
        let pages = broadcast::channel(TAIL_PAGES_MAX).0;
        Self { kernel, pages, is_running: Mutex::new(false), runs: AtomicU64::new(0) }
    }

    /// What comes from now on. After an error of the store comes another run; whoever reads pages
    /// of its own sees the error.
    pub(crate) fn listen(self: &Arc<Self>) -> broadcast::Receiver<TailPage> {
        let mut is_running = self.is_running.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = self.pages.subscribe();
        if !*is_running {
            *is_running = true;
            // Taken here, so that what is appended behind this call is heard.
            let after = *self.kernel.events().head().borrow();
            tokio::spawn(self.clone().run(after));
        }
        receiver
    }

    async fn run(self: Arc<Self>, mut after: Position) {
        loop {
            let run = self.runs.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = self.read_on(run, &mut after) => {}
                () = self.pages.closed() => {}
            }
            let mut is_running = self.is_running.lock().unwrap_or_else(PoisonError::into_inner);
            if self.pages.receiver_count() == 0 {
                *is_running = false;
                return;
            }
        }
    }

    /// Until the store fails; then comes another run.
    async fn read_on(&self, run: u64, after: &mut Position) {
        // A log that has become shorter is another one, and begins where it ends.
        *after = (*after).min(*self.kernel.events().head().borrow());
        let from = SubscribeFrom::After(*after);
        let mut pages =
            Subscription::new(&self.kernel, Scope::Log, from).with_system().into_pages();
        while let Ok(page) = pages.next().await {
            let through = page.scanned_through;
            // Nobody listens: nothing is lost, a listener begins with pages of its own.
            let _ = self.pages.send(TailPage { after: *after, run, page: Arc::new(page) });
            *after = through;
        }
        // A failing store is not asked again at once.
        self.kernel.clock().sleep(factum_core::POLL_SHARED).await;
    }
}
