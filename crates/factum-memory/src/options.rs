//! The options of a memory store.

use std::{fmt, sync::Arc};

use factum_backend::CommitDelay;
use factum_kernel::{Clock, IdSource, Limits, SystemClock, SystemIds};

/// The options that a memory store is made with.
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct MemoryOptions {
    /// The clock for the time of events.
    pub clock: Arc<dyn Clock>,
    /// The source of the lineage.
    pub ids: Arc<dyn IdSource>,
    /// The limits of the store.
    pub limits: Limits,
    /// The delay of a commit between planning and storing, for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl MemoryOptions {
    /// Options with the machine's clock, the default limits and no delay.
    pub fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            limits: Limits::default(),
            commit_delay: None,
        }
    }

    /// Sets the clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of the lineage.
    pub fn with_ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Sets the limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the delay between planning and storing.
    pub fn with_commit_delay(mut self, delay: CommitDelay) -> Self {
        self.commit_delay = Some(delay);
        self
    }
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("MemoryOptions");
        out.field("clock", &self.clock).field("limits", &self.limits).finish_non_exhaustive()
    }
}
