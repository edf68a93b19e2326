//! What a store claims. The conformance suite tests what is claimed.

use std::time::Duration;

use crate::query::QUERY_ITEMS_MAX;

/// How often a reader that waits looks although nothing woke it, where other processes may write
/// and the head follows them only when something is read.
pub const POLL_SHARED: Duration = Duration::from_millis(100);
/// How often a reader that waits looks although nothing woke it, where the head moves by itself.
pub const POLL_OWN: Duration = Duration::from_secs(5);

/// What an acknowledged append survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing: it is gone with the process.
    Volatile,
    /// The death of the process.
    ProcessCrash,
    /// A power cut.
    PowerLoss,
    /// The loss of a machine.
    Replicated,
}

/// Who may write to the same log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// This handle and its clones only.
    ThisProcess,
    /// Other processes as well.
    ManyProcesses,
}

/// The sizes that a store takes. Beyond them it answers `Invalid`, and nothing is stored.
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
    /// [`AppendBatch::name_count`](crate::AppendBatch::name_count) counts: a condition may be as
    /// large as a query, several together are no larger. Each name is a look into an index while
    /// other writers wait.
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

/// What a store claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Guarantees {
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// Who may write to the same log.
    pub writers: Writers,
    /// The sizes it takes.
    pub limits: Limits,
    /// How often a reader that waits looks although the head has not moved.
    pub poll: Duration,
    /// Whether other processes can leave orders in the documents while this one runs: they write
    /// the log too, or have this process change it. Running consumers look for some every second.
    pub takes_orders: bool,
}

impl Guarantees {
    /// The claims of a store with the default limits, whose readers look every [`POLL_OWN`] where
    /// only this process writes, else every [`POLL_SHARED`].
    pub fn new(durability: Durability, writers: Writers) -> Self {
        let poll = match writers {
            Writers::ThisProcess => POLL_OWN,
            Writers::ManyProcesses => POLL_SHARED,
        };
        let takes_orders = writers == Writers::ManyProcesses;
        Self { durability, writers, limits: Limits::default(), poll, takes_orders }
    }

    /// Says that other processes have this one change the log, though they don't write it.
    #[must_use]
    pub fn with_orders(mut self) -> Self {
        self.takes_orders = true;
        self
    }

    /// Sets how often readers look: [`POLL_OWN`] where the head follows other processes by itself.
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
