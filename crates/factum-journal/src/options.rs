//! What a journal is opened with.

use std::{fmt, path::PathBuf, sync::Arc};

use factum_backend::CommitDelay;
use factum_kernel::{Clock, IdSource, Limits, SystemClock, SystemIds};

/// How large a segment of the log becomes unless said otherwise. The first ones are smaller.
pub const SEGMENT_BYTES_DEFAULT: u32 = 64 << 20;
/// How large a segment of the log of documents becomes.
const DOCUMENT_SEGMENT_BYTES: u32 = 16 << 20;
/// The smallest and the largest that a segment can be told to become.
pub(crate) const SEGMENT_BYTES_MIN: u32 = 4 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// What may be done with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everything, alone. The folder is made if it is not there.
    ReadWrite,
    /// Reading, beside the process that writes. The journal must be there.
    ReadOnly,
    /// Everything, also while another process of the same user on this machine has the journal open
    /// for writing: that one makes the changes, which are sent to it as orders, a few milliseconds
    /// each. An order that it does not take within 10 seconds, or within 60 where it is seen to
    /// take orders, fails and has no effect. Where no process writes, it is as `ReadWrite`.
    Join,
}

/// What a journal is opened with.
///
/// ```
/// use factum_journal::{Access, JournalOptions};
///
/// let options = JournalOptions::new("./data").with_access(Access::ReadOnly);
/// assert_eq!(options.access, Access::ReadOnly);
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct JournalOptions {
    /// The folder.
    pub path: PathBuf,
    /// What may be done.
    pub access: Access,
    /// The clock that events are recorded by.
    pub clock: Arc<dyn Clock>,
    /// Where a new log's lineage comes from.
    pub ids: Arc<dyn IdSource>,
    /// The sizes it takes.
    pub limits: Limits,
    /// How large a segment of the log becomes, from 4 KiB to 1 GiB. Opening replays one segment,
    /// and its index is kept in memory.
    ///
    /// The journal writes zeros for one segment ahead, which makes each sync cheaper. A disk
    /// without room for that many is no obstacle: the log does without them, and is slower.
    pub segment_bytes: u32,
    /// How large a segment of the log of documents becomes; of about three, memory holds all.
    pub(crate) document_segment_bytes: u32,
    /// How long a commit waits between planning and storing; for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl JournalOptions {
    /// This folder for reading and writing, the machine's clock, the default limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            access: Access::ReadWrite,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            limits: Limits::default(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            document_segment_bytes: DOCUMENT_SEGMENT_BYTES,
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

    /// Sets how large a segment becomes.
    pub fn with_segment_bytes(mut self, bytes: u32) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets how large a segment of the log of documents becomes; for tests.
    #[doc(hidden)]
    pub fn with_document_segment_bytes(mut self, bytes: u32) -> Self {
        self.document_segment_bytes = bytes;
        self
    }

    /// Sets the wait between planning and storing.
    pub fn with_commit_delay(mut self, delay: CommitDelay) -> Self {
        self.commit_delay = Some(delay);
        self
    }
}

impl fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalOptions")
            .field("path", &self.path)
            .field("access", &self.access)
            .field("limits", &self.limits)
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}
