//! The options of a SQLite store.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use factum_backend::{CommitDelay, IfAbsent};
use factum_kernel::{Clock, IdSource, Limits, SystemClock, SystemIds};

/// The default wait for another process's lock.
pub const BUSY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// The default number of concurrent reads; further ones wait.
pub const READERS_MAX_DEFAULT: usize = 8;

/// The access that a store has to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only, beside the processes that write. The file must exist.
    ReadOnly,
}

/// The options that a SQLite store is opened with.
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
    /// followed; a file with a second name (a hard link) is refused.
    pub path: PathBuf,
    /// The access to the file.
    pub access: Access,
    /// The behaviour if there is no store. Reading only never makes one.
    pub if_absent: IfAbsent,
    /// The clock for the time of events.
    pub clock: Arc<dyn Clock>,
    /// The source of a new log's lineage.
    pub ids: Arc<dyn IdSource>,
    /// The limits of the store.
    pub limits: Limits,
    /// The longest wait for another process's lock.
    pub busy_timeout: Duration,
    /// The number of concurrent reads, at least 1; each has a connection of its own.
    pub readers_max: usize,
    /// The largest size of the file in bytes; `None`: as the disk allows.
    pub file_bytes_max: Option<u64>,
    /// The delay of a commit between planning and storing, for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl SqliteOptions {
    /// Options for this file, with reading and writing, the machine's clock and the default limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            access: Access::ReadWrite,
            if_absent: IfAbsent::Make,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            limits: Limits::default(),
            busy_timeout: BUSY_TIMEOUT_DEFAULT,
            readers_max: READERS_MAX_DEFAULT,
            file_bytes_max: None,
            commit_delay: None,
        }
    }

    /// Sets the access.
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets the behaviour if there is no store.
    pub fn with_if_absent(mut self, if_absent: IfAbsent) -> Self {
        self.if_absent = if_absent;
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

    /// Sets the limits.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the longest wait for another process's lock.
    pub fn with_busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets the number of concurrent reads.
    pub fn with_readers_max(mut self, readers: usize) -> Self {
        self.readers_max = readers;
        self
    }

    /// Sets the largest size of the file, rounded down to whole pages. An append that needs more
    /// fails as on a full disk, and loses nothing.
    pub fn with_file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }

    /// Sets the delay between planning and storing.
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
            .field("if_absent", &self.if_absent)
            .field("limits", &self.limits)
            .field("busy_timeout", &self.busy_timeout)
            .field("readers_max", &self.readers_max)
            .field("file_bytes_max", &self.file_bytes_max)
            .finish_non_exhaustive()
    }
}
