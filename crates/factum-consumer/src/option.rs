//! The options of a consumer.

use std::time::Duration;

use factum_kernel::{Position, RecordedEvent, Scope, Timestamp};

use crate::{partition::Partitions, source::with_deletions};

/// The most events of a batch by default.
pub const BATCH_EVENTS_DEFAULT: usize = 1_000;
/// The most bytes of a batch by default.
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;

/// The start of a consumer that has no checkpoint yet. A consumer with a checkpoint continues after
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// The first event of the log.
    #[default]
    Start,
    /// After this position.
    After(Position),
    /// The first event recorded at or after this time.
    Time(Timestamp),
    /// The first event after the log's end at the consumer's first start.
    Now,
}

/// The action for an event whose attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    /// The event is parked as a dead letter, and every later event of its stream waits for it. All
    /// other streams continue. An event that this program can't read is not parked: its stream
    /// waits for a program that can.
    #[default]
    Park,
    /// The consumer stops, with the reason in its health.
    Stop,
}

/// The action for an event of an unknown name with a known prefix. The handler's enum should know
/// such an event: one of its own names has the same prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    /// The stream waits for a program that knows the event; with [`Then::Stop`] the consumer stops.
    #[default]
    Fail,
    /// The event is skipped.
    Ignore,
}

/// The policy for events that can't be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct FailurePolicy {
    /// The number of retries after the first attempt; 5. For an event that this program can't
    /// read no attempt counts, and the next start tries it first.
    pub retries_max: u32,
    /// The pause before the first retry, doubled for each further one; 100 ms. The pauses are also
    /// those before the consumer is restarted after a panic of its target or its store.
    pub pause: Duration,
    /// The longest pause; 30 s.
    pub pause_max: Duration,
    /// The action after the last attempt.
    pub then: Then,
    /// The time that one event may take; 30 s. A handler that blocks its thread can't be stopped:
    /// it costs a thread of the runtime, and its event is not retried.
    pub timeout: Duration,
    /// The most streams that wait, for a person or for a program that can read them; 100. One more
    /// stops the consumer.
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
    /// Five retries, then the event is parked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of retries.
    pub fn with_retries_max(mut self, retries_max: u32) -> Self {
        self.retries_max = retries_max;
        self
    }

    /// Sets the first and the longest pause.
    pub fn with_pause(mut self, pause: Duration, pause_max: Duration) -> Self {
        (self.pause, self.pause_max) = (pause, pause_max);
        self
    }

    /// Stops the consumer after the last attempt, instead of parking the event. An event that this
    /// program can't read stops it too, because no later event may overtake it.
    pub fn then_stop(mut self) -> Self {
        self.then = Then::Stop;
        self
    }

    /// Sets the time that one event may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the most streams that may wait.
    pub fn with_parked_max(mut self, parked_max: usize) -> Self {
        self.parked_max = parked_max;
        self
    }

    /// The pause before a retry, counted from 1.
    #[doc(hidden)]
    pub fn pause_before(&self, retry: u32) -> Duration {
        let doubled = self.pause.saturating_mul(1 << retry.saturating_sub(1).min(20));
        doubled.min(self.pause_max)
    }
}

/// The choices for one consumer: its start, scope, batches, failures and partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ConsumerOptions {
    /// The start without a checkpoint.
    pub from: StartFrom,
    /// The part of the log to read. The whole log by default; choose a narrower scope only if it
    /// saves enough reading.
    pub scope: Scope,
    /// The most events of a batch; 1,000.
    pub batch_events_max: usize,
    /// The most bytes of a batch; 1 MiB.
    pub batch_bytes_max: usize,
    /// The policy for events that can't be handled.
    pub failure: FailurePolicy,
    /// The action for events of unknown names.
    pub unknown: Unknown,
    /// The partitions, whose events are handled in parallel; one by default.
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
    /// The default options: the whole log from its start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the start without a checkpoint.
    pub fn from(mut self, from: StartFrom) -> Self {
        self.from = from;
        self
    }

    /// Sets the part of the log to read.
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the most events of a batch; at least 1.
    pub fn with_batch_events_max(mut self, batch_events_max: usize) -> Self {
        self.batch_events_max = batch_events_max.max(1);
        self
    }

    /// Sets the most bytes of a batch. A larger event is a batch of its own.
    pub fn with_batch_bytes_max(mut self, batch_bytes_max: usize) -> Self {
        self.batch_bytes_max = batch_bytes_max;
        self
    }

    /// Sets the policy for events that can't be handled.
    pub fn with_failure(mut self, failure: FailurePolicy) -> Self {
        self.failure = failure;
        self
    }

    /// Skips events of unknown names.
    pub fn ignoring_unknown(mut self) -> Self {
        self.unknown = Unknown::Ignore;
        self
    }

    /// Sets the partitions, which are worked on in parallel.
    pub fn with_partitions(mut self, partitions: Partitions) -> Self {
        self.partitions = partitions;
        self
    }
}

/// For both loops: that of a consumer, and that of a model in memory.
#[doc(hidden)]
impl ConsumerOptions {
    /// The scope to read: it holds all events of the consumer's scope, and more for a consumer that
    /// handles deletions. [`is_in_scope`](Self::is_in_scope) tells them apart.
    pub fn scope_to_read(&self, wants_deletions: bool) -> Scope {
        if wants_deletions { with_deletions(&self.scope) } else { self.scope.clone() }
    }

    /// True if an event belongs to the scope.
    pub fn is_in_scope(&self, event: &RecordedEvent) -> bool {
        is_in_scope(&self.scope, event)
    }

    /// The number of these events that fit the bytes of a batch; at least one.
    pub fn within_bytes(&self, events: &[RecordedEvent]) -> usize {
        let mut left = self.batch_bytes_max;
        let fits = |event: &&RecordedEvent| {
            let fits = event.size() <= left;
            left = left.saturating_sub(event.size());
            fits
        };
        events.iter().take_while(fits).count().max(1)
    }
}

/// True if an event belongs to a consumer's scope.
pub(crate) fn is_in_scope(scope: &Scope, event: &RecordedEvent) -> bool {
    let stream = event.stream();
    match scope {
        Scope::Log => !stream.is_system(),
        Scope::Stream(id) => stream == id.as_ref(),
        Scope::Category(category) => stream.category() == category.as_str(),
        Scope::Query(query) => {
            let is_meant = event.is_deletion() || query.matches(event.name(), event.tags());
            !stream.is_system() && is_meant
        }
    }
}
