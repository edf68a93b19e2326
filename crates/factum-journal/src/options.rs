//! The options of a journal.

use std::{fmt, path::PathBuf, sync::Arc};

use factum_backend::{CommitDelay, IfAbsent};
use factum_kernel::{Clock, IdSource, Limits, SystemClock, SystemIds};

/// The default size of a segment of the log, in bytes. The first segments are smaller.
pub const SEGMENT_BYTES_DEFAULT: u32 = 64 << 20;
/// The default size of a segment of the documents' log, in bytes.
const DOCUMENT_SEGMENT_BYTES: u32 = 16 << 20;
/// The smallest and the largest value of [`JournalOptions::segment_bytes`].
pub(crate) const SEGMENT_BYTES_MIN: u32 = 4 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// The access that a store has to a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing, as the only process that opens it for writing.
    ReadWrite,
    /// Reading only, beside the process that writes. The journal must exist.
    ReadOnly,
    /// Reading and writing, even while another process of the same user on this machine has the
    /// journal open for writing. Changes are then sent to that process as orders, which take a few
    /// milliseconds each. If it does not take an order within 10 seconds, or within 60 seconds if
    /// it is seen to take orders, the call fails and has no effect. Without such a process, this is
    /// the same as `ReadWrite`.
    Join,
}

/// The options that a journal is opened with.
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
    /// The journal's folder.
    pub path: PathBuf,
    /// The access to the journal.
    pub access: Access,
    /// The behaviour if there is no journal. Reading only never makes one.
    pub if_absent: IfAbsent,
    /// The clock for the time of events.
    pub clock: Arc<dyn Clock>,
    /// The source of a new log's lineage.
    pub ids: Arc<dyn IdSource>,
    /// The limits of the store.
    pub limits: Limits,
    /// The size of a segment of the log, from 4 KiB to 1 GiB. Opening replays one segment, and
    /// memory holds the index of one.
    ///
    /// The journal fills one segment ahead with zeros, which makes each sync cheaper. If the disk
    /// has no room for them, the log works without, and is slower.
    pub segment_bytes: u32,
    /// The size of a segment of the documents' log, in bytes. Memory holds the documents of about
    /// three segments.
    pub(crate) document_segment_bytes: u32,
    /// The delay of a commit between planning and storing, for tests.
    pub commit_delay: Option<CommitDelay>,
}

impl JournalOptions {
    /// Options for this folder, with reading and writing, the machine's clock and the default
    /// limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            access: Access::ReadWrite,
            if_absent: IfAbsent::Make,
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            limits: Limits::default(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            document_segment_bytes: DOCUMENT_SEGMENT_BYTES,
            commit_delay: None,
        }
    }

    /// Sets the access.
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Sets the behaviour if there is no journal.
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

    /// Sets the size of a segment, in bytes.
    pub fn with_segment_bytes(mut self, bytes: u32) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Sets the size of a segment of the documents' log, in bytes; for tests.
    #[doc(hidden)]
    pub fn with_document_segment_bytes(mut self, bytes: u32) -> Self {
        self.document_segment_bytes = bytes;
        self
    }

    /// Sets the delay between planning and storing.
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
            .field("if_absent", &self.if_absent)
            .field("limits", &self.limits)
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}
