//! What a memory store is made with.

use std::{fmt, sync::Arc};

use factum_backend::CommitDelay;
use factum_kernel::{Clock, IdSource, Limits, SystemClock, SystemIds};

/// What a memory store is made with.
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct MemoryOptions {
    /// The clock that events are recorded by.
    pub clock: Arc<dyn Clock>,
    /// Where the lineage comes from.
    pub ids: Arc<dyn IdSource>,
    /// The sizes it takes.
    pub limits: Limits,
    /// How long a commit waits between planning and storing; for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl MemoryOptions {
    /// The machine's clock, the default limits, no delay.
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

    /// Sets the sizes it takes.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the wait between planning and storing.
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
