//! The claims of a store. The conformance suite tests them.

use std::time::Duration;

use crate::query::QUERY_ITEMS_MAX;

/// The interval at which a waiting reader looks for events without being woken, in a store that
/// other processes may write and whose head follows them only when something is read.
pub const POLL_SHARED: Duration = Duration::from_millis(100);
/// The interval at which a waiting reader looks for events without being woken, in a store whose
/// head moves by itself.
pub const POLL_OWN: Duration = Duration::from_secs(5);

/// The worst failure that an acknowledged append survives, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// None: the append is lost with the process.
    Volatile,
    /// The death of the process.
    ProcessCrash,
    /// A power cut.
    PowerLoss,
    /// The loss of a machine.
    Replicated,
}

/// The processes that may write to one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Only this process, through this handle and its clones.
    ThisProcess,
    /// This process and others.
    ManyProcesses,
}

/// The largest sizes that a store accepts. It answers larger requests with `Invalid` and stores
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest event, as [`NewEvent::size`](crate::NewEvent::size) counts, in bytes.
    pub event_bytes_max: usize,
    /// The most events in a batch.
    pub batch_events_max: usize,
    /// The largest batch, as [`AppendBatch::size`](crate::AppendBatch::size) counts, in bytes.
    pub batch_bytes_max: usize,
    /// The most conditions in a batch, and the most checks.
    pub batch_conditions_max: usize,
    /// The most names in the conditions of a batch, as
    /// [`AppendBatch::name_count`](crate::AppendBatch::name_count) counts. One condition may be as
    /// large as the largest query; several together are no larger than that. For each name the
    /// store searches an index while other writers wait.
    pub batch_names_max: usize,
    /// The most documents in one write.
    pub write_documents_max: usize,
    /// The longest key of a document, in bytes.
    pub document_key_bytes_max: usize,
    /// The largest document, in bytes.
    pub document_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes_max: 1 << 20,
            batch_events_max: 4_096,
            batch_bytes_max: 8 << 20,
            batch_conditions_max: 256,
            batch_names_max: 2 * QUERY_ITEMS_MAX * QUERY_ITEMS_MAX,
            write_documents_max: 1_000,
            document_key_bytes_max: 1_024,
            document_bytes_max: 4 << 20,
        }
    }
}

/// The claims of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// The worst failure that an acknowledged append survives.
    pub durability: Durability,
    /// The processes that may write to the log.
    pub writers: Writers,
    /// The largest sizes that the store accepts.
    pub limits: Limits,
    /// The interval at which a waiting reader looks for events although the head has not moved.
    pub poll: Duration,
    /// True if other processes can leave orders in the documents while this process runs: they
    /// write the log themselves, or send their changes through this process. Running consumers look
    /// for orders once a second.
    pub takes_orders: bool,
}

impl Guarantees {
    /// The claims of a store with the default limits. Its readers look for events every
    /// [`POLL_OWN`] if only this process writes, otherwise every [`POLL_SHARED`].
    pub fn new(durability: Durability, writers: Writers) -> Self {
        let poll = match writers {
            Writers::ThisProcess => POLL_OWN,
            Writers::ManyProcesses => POLL_SHARED,
        };
        let takes_orders = writers == Writers::ManyProcesses;
        Self { durability, writers, limits: Limits::default(), poll, takes_orders }
    }

    /// States that other processes send their changes through this process, although they don't
    /// write the log themselves.
    #[must_use]
    pub fn with_orders(mut self) -> Self {
        self.takes_orders = true;
        self
    }

    /// Sets how often readers look for events. [`POLL_OWN`] suits a store whose head follows other
    /// processes by itself.
    #[must_use]
    pub fn with_poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
