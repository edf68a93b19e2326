//! A subject: the code with which the author of a store opens it for the suite.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_kernel::{Clock, DocumentStore, EventStore};

/// The two halves of an open store.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The log.
    pub events: Arc<dyn EventStore>,
    /// The documents.
    pub documents: Arc<dyn DocumentStore>,
}

impl Stores {
    /// The halves of a store that implements both traits.
    pub fn both<S: EventStore + DocumentStore>(store: Arc<S>) -> Self {
        Self { events: store.clone(), documents: store }
    }
}

/// The delay of a store between planning a group and committing it, called once per group.
pub type CommitDelay = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The settings with which the suite opens a store.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setup {
    /// The store's clock: its `now` sets `recorded_at` and measures the retry window.
    pub clock: Arc<dyn Clock>,
    /// A delay before each commit, to provoke races. A store that has no place for it ignores it;
    /// the cases still run, but find less.
    pub commit_delay: Option<CommitDelay>,
}

impl Setup {
    /// Settings with this clock and no delay.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, commit_delay: None }
    }

    /// Sets the delay before each commit.
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

/// The reason why a subject could not be opened; any error converts to it with `?`.
pub type OpenError = Box<dyn std::error::Error + Send + Sync>;

/// A store under test: the place of its data, and the way to open it.
///
/// Each case makes a subject of its own, so that it begins with an empty store; the drop removes
/// the data. The module's example implements it.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Opens the store on this subject's data; the first call makes them. It is called again only
    /// after the former store was closed and dropped, to see what is left.
    ///
    /// # Errors
    /// Any reason that prevents the opening; every case fails with it.
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError>;

    /// Opens the same data while the first handle is open, as another process would. If there are
    /// no data yet, several callers may do so at once. Called only for a store that claims
    /// [`Writers::ManyProcesses`](factum_kernel::Writers).
    ///
    /// # Errors
    /// Any reason that prevents the opening.
    async fn open_another(&self, setup: &Setup) -> Result<Stores, OpenError> {
        self.open(setup).await
    }

    /// Opens the same data for reading only, while the first handle is open. Without it, the cases
    /// that read beside a writer are skipped: the store has no such mode.
    ///
    /// # Errors
    /// Any reason that prevents the opening.
    async fn open_to_read(&self, _setup: &Setup) -> Result<Option<Stores>, OpenError> {
        Ok(None)
    }

    /// Returns whether the store takes its time from [`Setup::clock`]. If not, the cases that move
    /// the clock are skipped, with that reason.
    fn takes_clock(&self) -> bool {
        true
    }
}
