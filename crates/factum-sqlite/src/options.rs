//! What a SQLite store is opened with.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use factum_backend::CommitDelay;
use factum_kernel::{Clock, IdSource, Limits, SystemClock, SystemIds};

/// How long to wait for another process's lock unless said otherwise.
pub const BUSY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How many reads run at once unless said otherwise; further ones wait.
pub const READERS_MAX_DEFAULT: usize = 8;

/// What may be done with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything. The file is made if it is not there.
    ReadWrite,
    /// Reading, beside whoever writes. The file must be there.
    ReadOnly,
}

/// What a SQLite store is opened with.
///
/// ```
/// use std::time::Duration;
/// use factum_sqlite::{Access, SqliteOptions};
///
/// let options = SqliteOptions::new("./events.db")
///     .with_access(Access::ReadOnly)
///     .with_busy_timeout(Duration::from_secs(1));
/// assert_eq!(options.access, Access::ReadOnly);
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct SqliteOptions {
    /// The file. Beside it SQLite keeps two more, ending in `-wal` and `-shm`. A symbolic link is
    /// followed; a file with a second name, by a hard link, is refused.
    pub path: PathBuf,
    /// What may be done.
    pub access: Access,
    /// The clock that events are recorded by.
    pub clock: Arc<dyn Clock>,
    /// Where a new log's lineage comes from.
    pub ids: Arc<dyn IdSource>,
    /// The sizes it takes.
    pub limits: Limits,
    /// How long to wait for another process's lock.
    pub busy_timeout: Duration,
    /// How many reads run at once, at least 1; each has a connection of its own.
    pub readers_max: usize,
    /// The largest the file may grow; `None`: as the disk allows.
    pub file_bytes_max: Option<u64>,
    /// How long a commit waits between planning and storing; for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl SqliteOptions {
    /// This file for reading and writing, the machine's clock, the default limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            access: Access::ReadWrite,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            limits: Limits::default(),
            busy_timeout: BUSY_TIMEOUT_DEFAULT,
            readers_max: READERS_MAX_DEFAULT,
            file_bytes_max: None,
            commit_delay: None,
        }
    }

    /// Sets what may be done.
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets the clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of a new log's lineage.
    pub fn with_ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Sets the sizes it takes.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how long to wait for another process's lock.
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets how many reads run at once.
    pub fn with_readers_max(mut self, readers: usize) -> Self {
        self.readers_max = readers;
        self
    }

    /// Sets the largest the file may grow, rounded down to whole pages. An append that needs more
    /// is refused as on a full disk, and loses nothing.
    pub fn with_file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// Sets the wait between planning and storing.
    pub fn with_commit_delay(mut self, delay: CommitDelay) -> Self {
        self.commit_delay = Some(delay);
        self
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("path", &self.path)
            .field("access", &self.access)
            .field("limits", &self.limits)
            .field("busy_timeout", &self.busy_timeout)
            .field("readers_max", &self.readers_max)
            .field("file_bytes_max", &self.file_bytes_max)
            .finish_non_exhaustive()
    }
}
