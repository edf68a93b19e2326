//! What can be chosen for a consumer.

use std::time::Duration;

use factum_kernel::{Position, Scope, Timestamp};

use crate::partition::Partitions;

/// The most events of a batch, unless chosen otherwise.
pub const BATCH_EVENTS_DEFAULT: usize = 1_000;
/// The most bytes of a batch, unless chosen otherwise.
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// Where a consumer without a checkpoint begins. One that has a checkpoint goes on behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// The first event there is.
    #[default]
    Start,
    /// After this position.
    After(Position),
    /// The first event recorded at or after this time.
    Time(Timestamp),
    /// What comes after its first start.
    Now,
}

/// What becomes of an event when its attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    /// It is set aside as a dead letter, with every later event of its stream behind it; all
    /// other streams flow.
    #[default]
    Park,
    /// The consumer stops, and says so in its health.
    Stop,
}

/// What becomes of events of a name that the handler's enum should know and doesn't: another name
/// with the prefix of one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    /// They fail, and the policy decides.
    #[default]
    Fail,
    /// They are none of the handler's business.
    Ignore,
}

/// What happens when an event can't be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct FailurePolicy {
    /// How often an event is tried again; 5. One that can't be decoded is not tried again.
    pub retries_max: u32,
    /// The pause before the first retry, doubled for each further one; 100 ms.
    pub pause: Duration,
    /// The longest pause; 30 s.
    pub pause_max: Duration,
    /// What becomes of it in the end.
    pub then: Then,
    /// How long one event may take; 30 s. A handler that never gives the thread back costs a
    /// thread of the runtime, as it can't be stopped. It is not tried again.
    pub timeout: Duration,
    /// At most so many streams are parked, then the consumer stops; 100.
    pub parked_max: usize,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            retries_max: 5,
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(30),
            then: Then::Park,
            timeout: Duration::from_secs(30),
            parked_max: 100,
        }
    }
}

impl FailurePolicy {
    /// Five retries, then parked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how often an event is tried again.
    pub fn with_retries_max(mut self, retries_max: u32) -> Self {
        self.retries_max = retries_max;
        self
    }

    /// Sets the first and the longest pause.
    pub fn with_pause(mut self, pause: Duration, pause_max: Duration) -> Self {
        (self.pause, self.pause_max) = (pause, pause_max);
        self
    }

    /// Stops in the end, instead of parking.
    pub fn then_stop(mut self) -> Self {
        self.then = Then::Stop;
        self
    }

    /// Sets how long one event may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets at most how many streams are parked.
    pub fn with_parked_max(mut self, parked_max: usize) -> Self {
        self.parked_max = parked_max;
        self
    }

    /// The pause before this retry, counted from 1.
    #[doc(hidden)]
    pub fn pause_before(&self, retry: u32) -> Duration {
        let doubled = self.pause.saturating_mul(1 << retry.saturating_sub(1).min(20));
        doubled.min(self.pause_max)
    }
}

/// What a consumer reads, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ConsumerOptions {
    /// Where it begins without a checkpoint.
    pub from: StartFrom,
    /// What it reads: the whole log, unless a narrower read is worth it.
    pub scope: Scope,
    /// The most events that it handles in one go; 1,000.
    pub batch_events_max: usize,
    /// The most bytes that it handles in one go; 1 MiB.
    pub batch_bytes_max: usize,
    /// What happens when an event can't be handled.
    pub failure: FailurePolicy,
    /// What happens with events of unknown names.
    pub unknown: Unknown,
    /// How its events are shared out to be handled in parallel; not at all.
    pub partitions: Partitions,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            from: StartFrom::Start,
            scope: Scope::Log,
            batch_events_max: BATCH_EVENTS_DEFAULT,
            batch_bytes_max: BATCH_BYTES_DEFAULT,
            failure: FailurePolicy::new(),
            unknown: Unknown::Fail,
            partitions: Partitions::one(),
        }
    }
}

impl ConsumerOptions {
    /// The whole log from its start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where it begins without a checkpoint.
    pub fn from(mut self, from: StartFrom) -> Self {
        self.from = from;
        self
    }

    /// Sets what it reads.
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the most events that it handles in one go; at least 1.
    pub fn with_batch_events_max(mut self, batch_events_max: usize) -> Self {
        self.batch_events_max = batch_events_max.max(1);
        self
    }

    /// Sets the most bytes that it handles in one go; a larger event comes alone.
    pub fn with_batch_bytes_max(mut self, batch_bytes_max: usize) -> Self {
        self.batch_bytes_max = batch_bytes_max;
        self
    }

    /// Sets what happens when an event can't be handled.
    pub fn with_failure(mut self, failure: FailurePolicy) -> Self {
        self.failure = failure;
        self
    }

    /// Leaves events of unknown names alone.
    pub fn ignoring_unknown(mut self) -> Self {
        self.unknown = Unknown::Ignore;
        self
    }

    /// Shares its events out over partitions, which are worked on in parallel.
    pub fn with_partitions(mut self, partitions: Partitions) -> Self {
        self.partitions = partitions;
        self
    }
}
