//! How a consumer fares.

mod board;
mod metrics;

use std::{fmt, time::Duration};

use factum_kernel::{Clock, Monotonic, Position, Timestamp};

pub(crate) use board::Board;
pub use board::Place;
pub use metrics::describe_consumer_metrics;

/// A rate is measured over so long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// What a consumer is doing. Of several partitions, what is most wrong with any that this process
/// works on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It reads its checkpoint.
    Starting,
    /// It is behind the log's head, and reads on.
    CatchingUp,
    /// It has handled all there is.
    Live,
    /// An event fails, or its target or store can't be reached; it tries again.
    Retrying {
        /// The event's position, if it is one.
        position: Option<Position>,
        /// How often it has been tried.
        attempts: u32,
        /// What the last attempt said.
        error: String,
    },
    /// It was told to wait.
    Paused,
    /// Another process works on all of it; this one takes over when that one ends.
    StandingBy,
    /// It does nothing any more.
    Stopped(StopReason),
}

/// Why a consumer has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// It was told to.
    Asked,
    /// An event failed, and the policy says to stop. After the cause is mended, start it again.
    Failed {
        /// The event's position.
        position: Position,
        /// What it said.
        error: String,
    },
    /// More streams would be parked than the policy allows. Retry or discard dead letters.
    TooManyParked {
        /// The position of the event that would be parked.
        position: Position,
        /// What it said.
        error: String,
    },
    /// The log is not the one that the checkpoint is from. Move the checkpoint to a position that
    /// both share, or rebuild.
    Diverged(String),
    /// Its checkpoint was moved or removed beneath it: by another start of it on a store that only
    /// one process writes, by a rewind, by a build that took over.
    Fenced,
    /// What is stored of its progress can't be read, or the store is corrupt or closed.
    Broken(String),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("it was told to"),
            Self::Failed { position, error } => write!(f, "{error}: position={position}"),
            Self::TooManyParked { position, error } => {
                write!(
                    f,
                    "too many streams are parked to park another, {error}: position={position}"
                )
            }
            Self::Diverged(text) | Self::Broken(text) => f.write_str(text),
            Self::Fenced => {
                f.write_str("another process runs it, or its checkpoint was moved or removed")
            }
        }
    }
}

/// How a consumer fares.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// What it is doing.
    pub state: ConsumerState,
    /// It has handled, passed or parked every event up to here, in all partitions that this process
    /// works on; where it works on none, as far as it knows of the others.
    pub position: Position,
    /// The last position of the log that it knows of.
    pub head: Position,
    /// When the last event that it saw was recorded: the next one to be handled, or the last that
    /// was.
    pub recorded_at: Option<Timestamp>,
    /// How long ago that was; `None`: it is not behind, or has stopped.
    pub lag: Option<Duration>,
    /// Streams that wait behind a parked event.
    pub parked: usize,
    /// Events handled since it was started, in this process.
    pub handled: u64,
    /// Events handled per second, lately.
    pub rate: f64,
    /// It takes care after an unclean stop: what it is about to handle is noted first.
    pub is_cautious: bool,
    /// Since when it waits for its target, to begin a batch or to store it. Longer than a moment:
    /// the target does not answer, and nothing is handled meanwhile.
    pub committing_since: Option<Timestamp>,
    /// What keeps an earlier build of the projection from being dropped; it is tried again until
    /// that is gone. Known where the projection is maintained.
    pub undropped: Option<String>,
    /// Its partitions.
    pub partitions: usize,
    /// Those of them that other processes work on, or nobody yet.
    pub elsewhere: usize,
    /// Since when, and behind how many events, the rate is measured.
    measured: Option<(Monotonic, u64)>,
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
            handled: 0,
            rate: 0.0,
            is_cautious: false,
            committing_since: None,
            undropped: None,
            partitions: 1,
            elsewhere: 0,
            measured: None,
        }
    }

    /// Measures the rate, when it is time to.
    pub(crate) fn measure(&mut self, now: Monotonic) {
        let (since, before) = *self.measured.get_or_insert((now, self.handled));
        let elapsed = now.saturating_since(since);
        if elapsed >= RATE_OVER {
            self.rate = rate(self.handled - before, elapsed);
            self.measured = Some((now, self.handled));
        }
    }

    /// How it fares now, as time goes on for one that waits, too.
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

    /// How long ago the event was recorded that it has come to, if it is behind and at work.
    pub(crate) fn lag_at(&self, now: Timestamp) -> Option<Duration> {
        let is_behind =
            self.position < self.head && !matches!(self.state, ConsumerState::Stopped(_));
        #[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
        let age = |at| now.saturating_since(at);
        self.recorded_at.filter(|_| is_behind).map(age)
    }

    /// How many positions it is behind.
    pub fn lag_events(&self) -> u64 {
        self.head.value().saturating_sub(self.position.value())
    }
}

fn rate(events: u64, over: Duration) -> f64 {
    events as f64 / over.as_secs_f64()
}
