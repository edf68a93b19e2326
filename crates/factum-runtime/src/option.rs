//! Options of entities.

use std::time::Duration;

use crate::cell::Restart;

/// The most messages of one burst. They are decided together and share one append.
pub const BURST_MAX: usize = 256;
/// The bytes that an entity in memory counts in addition to its state's weight.
pub const ENTITY_BYTES: usize = 512;

/// The other writers of these entities' streams, if there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherWriters {
    /// There may be others: a repository or a transaction of this program, or another process.
    /// Before an answer that appends nothing (a rejection, a no-op, a state) the state is compared
    /// with the log. That is one small read per burst.
    Possible,
    /// Nothing else in this process writes these streams: no repository, and no transaction or
    /// decision of the application, after which an entity would answer from an older state. An
    /// answer that appends nothing then costs no read, unless the store may be written by other
    /// processes; in that case the state is compared with the log as for `Possible`.
    None,
}

/// The options for the entities of one kind.
///
/// ```
/// use std::time::Duration;
/// use factum_runtime::EntityOptions;
///
/// let options = EntityOptions::new().with_idle(Duration::from_secs(60)).with_mailbox_max(64);
/// assert_eq!(options.mailbox_max, 64);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct EntityOptions {
    /// An entity that gets no message for this long is passivated. `None`: entities are passivated
    /// only because of their weight.
    pub idle: Option<Duration>,
    /// The most bytes of entities in memory, counted by [`ENTITY_BYTES`] and
    /// [`weight`](factum_kernel::Aggregate::weight), and spread evenly over the shards of the
    /// directory. The least recently used entities are passivated first. Active entities are not
    /// passivated, so the limit may be exceeded for a while.
    pub weight_max: usize,
    /// The most messages that wait in one entity's mailbox, at least 1.
    pub mailbox_max: usize,
    /// The longest that `ask` and `state` wait, for room in the mailbox and for the answer
    /// together. `None`: no limit, which suits a simulated clock that moves on with every sleep.
    pub deadline: Option<Duration>,
    /// The policy for restarting entities that died.
    pub restart: Restart,
    /// The other writers of the entities' streams.
    pub other_writers: OtherWriters,
}

impl EntityOptions {
    /// The defaults: idle after 10 minutes, 256 MiB, mailboxes of 1,024 messages, deadlines of 30
    /// s, other writers possible.
    pub const fn new() -> Self {
        Self {
            idle: Some(Duration::from_secs(600)),
            weight_max: 256 << 20,
            mailbox_max: 1_024,
            deadline: Some(Duration::from_secs(30)),
            restart: Restart::new(),
            other_writers: OtherWriters::Possible,
        }
    }

    /// Sets the time after which an idle entity is passivated.
    pub fn with_idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// Sets the most bytes of entities in memory.
    pub const fn with_weight_max(mut self, bytes: usize) -> Self {
        self.weight_max = bytes;
        self
    }

    /// Sets the most messages that wait for one entity.
    pub const fn with_mailbox_max(mut self, messages: usize) -> Self {
        self.mailbox_max = messages;
        self
    }

    /// Sets the longest that `ask` and `state` wait.
    pub fn with_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets the policy for restarting entities that died.
    pub const fn with_restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets whether there are other writers of the entities' streams.
    pub const fn with_other_writers(mut self, writers: OtherWriters) -> Self {
        self.other_writers = writers;
        self
    }
}

impl Default for EntityOptions {
    fn default() -> Self {
        Self::new()
    }
}
