//! The health of a consumer: its state, position, lag and rates.

mod board;
mod metrics;
mod reason;

use std::time::Duration;

use factum_kernel::{Clock, Monotonic, Position, Timestamp};

pub use board::Place;
pub(crate) use board::{Board, Reach};
pub use metrics::describe_consumer_metrics;
pub use reason::{StopCause, StopReason};

use crate::dead_letter::{UnreadEvent, Waiting};

/// The time over which a rate is measured.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The state of a consumer. With several partitions, the most serious state of those that this
/// process works on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// The consumer reads its checkpoint.
    Starting,
    /// The consumer is behind the log's head and catches up.
    CatchingUp,
    /// The consumer has handled every event of the log.
    Live,
    /// The consumer has handled every event of the log that it can read. Some streams wait for a
    /// program that can read their next event: see [`ConsumerHealth::unread`].
    Waiting,
    /// An event fails, the target or the store can't be reached, or one of them has panicked. The
    /// consumer tries again.
    Retrying {
        /// The event's position; `None` if no event is the cause.
        position: Option<Position>,
        /// The number of failed attempts.
        attempts: u32,
        /// The error of the last attempt.
        error: String,
    },
    /// The consumer is paused.
    Paused,
    /// Other processes work on all partitions. This process takes over when one of them ends.
    StandingBy,
    /// The consumer has ended.
    Stopped(StopReason),
}

/// The health of a consumer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// The consumer's state.
    pub state: ConsumerState,
    /// The position up to which every event is handled, skipped or parked, in all partitions that
    /// this process works on. If it works on none, the last known position of the other processes'
    /// partitions.
    pub position: Position,
    /// The last known position of the log.
    pub head: Position,
    /// The time when the current event was recorded: the next event to handle, or else the last
    /// handled one.
    pub recorded_at: Option<Timestamp>,
    /// The age of that event; `None` if the consumer is not behind, or has stopped.
    pub lag: Option<Duration>,
    /// The number of streams that wait for a parked event.
    pub parked: usize,
    /// The number of streams that wait for a program that can read their next event: they are not
    /// parked, and each start of a program tries them first.
    pub waiting: usize,
    /// The first event that waits for such a program.
    pub unread: Option<UnreadEvent>,
    /// The number of events handled in this process since the start.
    pub handled: u64,
    /// The events handled per second, measured over the last seconds.
    pub rate: f64,
    /// True after an unclean stop, until the consumer knows that no event kills the process.
    /// Meanwhile it stores which events it is about to handle.
    pub is_cautious: bool,
    /// The time since which the consumer waits for its target to begin or store a batch. If the
    /// wait lasts, the target does not answer, and no event is handled.
    pub committing_since: Option<Timestamp>,
    /// The reason why an earlier build of the projection can't be dropped yet; the drop is tried
    /// again until it succeeds. Known in the process that maintains the projection.
    pub undropped: Option<String>,
    /// The error of the last heartbeat of this process; `None` if it was stored. The heartbeat is
    /// tried again until it succeeds. Without it other processes take over the partitions.
    pub heartbeat_error: Option<String>,
    /// The error of the last snapshot of a model in memory; `None` if it was stored. A later
    /// snapshot replaces it. Without it the next start takes longer.
    pub snapshot_error: Option<String>,
    /// The number of partitions.
    pub partitions: usize,
    /// The number of partitions that other processes work on, or that no process has taken yet.
    pub elsewhere: usize,
    /// The start of the current measurement of the rate, and the number of events handled before
    /// it.
    measured: Option<(Monotonic, u64)>,
    /// True once this program has tried the events that an earlier one could not read.
    has_tried: bool,
}

impl ConsumerHealth {
    pub(crate) fn new() -> Self {
        Self {
            state: ConsumerState::Starting,
            position: Position::ZERO,
            head: Position::ZERO,
            recorded_at: None,
            lag: None,
            parked: 0,
            waiting: 0,
            unread: None,
            handled: 0,
            rate: 0.0,
            is_cautious: false,
            committing_since: None,
            undropped: None,
            heartbeat_error: None,
            snapshot_error: None,
            partitions: 1,
            elsewhere: 0,
            measured: None,
            has_tried: false,
        }
    }

    /// Sets the numbers of streams that wait. `has_tried` is false until this program has tried
    /// those that an earlier one could not read: only then is it known which of them wait.
    #[doc(hidden)]
    pub fn set_waiting(&mut self, waiting: Waiting, has_tried: bool) {
        let Waiting { parked, unread, first } = waiting;
        (self.parked, self.waiting, self.unread) = (parked, unread, first);
        self.has_tried = has_tried;
    }

    /// Updates the rate if the current measurement has lasted long enough.
    pub(crate) fn measure(&mut self, now: Monotonic) {
        let (since, before) = *self.measured.get_or_insert((now, self.handled));
        let elapsed = now.saturating_since(since);
        if elapsed >= RATE_OVER {
            self.rate = rate(self.handled - before, elapsed);
            self.measured = Some((now, self.handled));
        }
    }

    /// The health at this moment: lag and rate change even while nothing is handled.
    fn at(mut self, clock: &dyn Clock) -> Self {
        self.lag = self.lag_at(clock.now());
        if let Some((since, before)) = self.measured {
            let elapsed = clock.monotonic().saturating_since(since);
            if elapsed > RATE_OVER * 2 {
                self.rate = rate(self.handled - before, elapsed);
            }
        }
        self
    }

    /// The age of the current event, if the consumer is behind and has not stopped.
    pub(crate) fn lag_at(&self, now: Timestamp) -> Option<Duration> {
        let is_behind =
            self.position < self.head && !matches!(self.state, ConsumerState::Stopped(_));
        #[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
        let age = |at| now.saturating_since(at);
        self.recorded_at.filter(|_| is_behind).map(age)
    }

    /// The number of positions from the consumer's position to the log's head. A consumer passes
    /// what it does not want at once, so this is 0 if it has nothing to do. Of a consumer that has
    /// stopped, it is the number when it stopped, and never 0: `None` if nothing was left, because
    /// the consumer does not learn of later events, and after [`StopReason::Diverged`], because its
    /// position belongs to another log. [`stored_lag`](crate::stored_lag) counts what such a
    /// consumer wants.
    pub fn lag_events(&self) -> Option<u64> {
        let behind = self.head.value().saturating_sub(self.position.value());
        match &self.state {
            ConsumerState::Stopped(StopReason::Diverged(_)) => None,
            ConsumerState::Stopped(_) => Some(behind).filter(|behind| *behind > 0),
            _ => Some(behind),
        }
    }
}

fn rate(events: u64, over: Duration) -> f64 {
    events as f64 / over.as_secs_f64()
}
