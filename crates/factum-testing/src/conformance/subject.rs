//! What the author of a store gives the suite: a way to open it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_kernel::{Clock, DocumentStore, EventStore};

/// Both halves of a store, opened.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The log.
    pub events: Arc<dyn EventStore>,
    /// The documents.
    pub documents: Arc<dyn DocumentStore>,
}

impl Stores {
    /// The halves of a store that is both.
    pub fn both<S: EventStore + DocumentStore>(store: Arc<S>) -> Self {
        Self { events: store.clone(), documents: store }
    }
}

/// How long a store is to wait between planning a group and committing it; asked once per group.
pub type CommitDelay = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What the suite wants of a store that it opens.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The store's clock: its `now` sets `recorded_at` and measures the retry window.
    pub clock: Arc<dyn Clock>,
    /// A wait before each commit, to provoke races. A store that can't build it in leaves it out;
    /// the cases run then as well, they only find less.
    pub commit_delay: Option<CommitDelay>,
}

impl Setup {
    /// This clock, and no delay.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, commit_delay: None }
    }

    /// Sets the wait before each commit.
    #[must_use]
    pub fn with_commit_delay(mut self, delay: CommitDelay) -> Self {
        self.commit_delay = Some(delay);
        self
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delay = self.commit_delay.as_ref().map(|_| "..");
        f.debug_struct("Setup").field("clock", &self.clock).field("commit_delay", &delay).finish()
    }
}

/// Why a subject could not be opened; any error turns into it with `?`.
pub type OpenError = Box<dyn std::error::Error + Send + Sync>;

/// One store under test: a place where its data lie, and the way to open them.
///
/// Each case makes a subject of its own, so that it begins with an empty store; dropping it takes
/// the data away. The module's example implements it.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Opens the store over this subject's data; the first call makes them. Called again only
    /// when what it gave before was closed and dropped, to see what is left.
    ///
    /// # Errors
    /// Whatever keeps it from opening; every case fails with it.
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError>;

    /// Opens the same data once more while the first handle is open, as another process would; and
    /// where nothing is yet, by several at once. Asked only of a store that claims
    /// [`Writers::ManyProcesses`](factum_kernel::Writers).
    ///
    /// # Errors
    /// Whatever keeps it from opening.
    async fn open_another(&self, setup: &Setup) -> Result<Stores, OpenError> {
        self.open(setup).await
    }

    /// Whether the store takes its time from [`Setup::clock`]. If not, the cases that move the
    /// clock are skipped, and say so.
    fn takes_clock(&self) -> bool {
        true
    }
}
