//! What can be chosen about entities.

use std::time::Duration;

use crate::cell::Restart;

/// The most messages of one burst: they are decided together and share an append.
pub const BURST_MAX: usize = 256;
/// What an entity in memory counts beside its state's weight, in bytes.
pub const ENTITY_BYTES: usize = 512;

/// Whether anybody else writes the streams of these entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherWriters {
    /// Perhaps: a repository or a transaction of this program, or another process. An answer that
    /// appends nothing (a rejection, a no-op, a state) is compared with the log first, one small
    /// read for each burst.
    Possible,
    /// Nobody in this process. Answers that append nothing cost no read then, but on a store that
    /// other processes may write they are compared all the same.
    None,
}

/// What can be chosen about the entities of one kind.
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
    /// An entity that nobody asked anything for this long is passivated. `None`: only the weight
    /// passivates.
    pub idle: Option<Duration>,
    /// The most bytes of entities in memory, as [`ENTITY_BYTES`] and
    /// [`weight`](factum_kernel::Aggregate::weight) count, spread evenly over the shards of the
    /// directory; the least recently used are passivated first. Those at work are not, so that it
    /// may be exceeded for a while.
    pub weight_max: usize,
    /// The most messages that wait for one entity, at least 1.
    pub mailbox_max: usize,
    /// How long `ask` and `state` wait, for room and for the answer together. `None`: for ever,
    /// which is what a clock wants that moves on with every sleep.
    pub deadline: Option<Duration>,
    /// How entities that died are started again.
    pub restart: Restart,
    /// Whether anybody else writes their streams.
    pub other_writers: OtherWriters,
}

impl EntityOptions {
    /// Idle after 10 minutes, 256 MiB, mailboxes of 1,024 messages, deadlines of 30 s, other
    /// writers possible.
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

    /// Sets after how long an idle entity is passivated.
    pub fn with_idle(mut self, idle: impl Into<Option<Duration>>) -> Self {
        self.idle = idle.into();
        self
    }

    /// Sets how many bytes of entities stay in memory.
    pub const fn with_weight_max(mut self, bytes: usize) -> Self {
        self.weight_max = bytes;
        self
    }

    /// Sets how many messages wait for one entity.
    pub const fn with_mailbox_max(mut self, messages: usize) -> Self {
        self.mailbox_max = messages;
        self
    }

    /// Sets how long `ask` and `state` wait.
    pub fn with_deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets how entities that died are started again.
    pub const fn with_restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Says whether anybody else writes their streams.
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
