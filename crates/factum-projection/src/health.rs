//! How a consumer fares.

use std::{fmt, time::Duration};

use factum_core::{Position, Timestamp};

/// What a consumer is doing.
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
    /// Another process runs the same consumer, and has moved its checkpoint.
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
            Self::Fenced => f.write_str("another process runs it"),
        }
    }
}

/// How a consumer fares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerHealth {
    /// What it is doing.
    pub state: ConsumerState,
    /// It has handled, passed or parked every event up to here.
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
    /// Events handled since it was started.
    pub handled: u64,
    /// It takes care after an unclean stop: what it is about to handle is noted first.
    pub is_cautious: bool,
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
            is_cautious: false,
        }
    }

    /// How long ago the event was recorded that it has come to, if it is behind and at work.
    pub(crate) fn lag_at(&self, now: Timestamp) -> Option<Duration> {
        let is_behind =
            self.position < self.head && !matches!(self.state, ConsumerState::Stopped(_));
        self.recorded_at.filter(|_| is_behind).map(|at| now.saturating_since(at))
    }

    /// How many positions it is behind.
    pub fn lag_events(&self) -> u64 {
        self.head.value().saturating_sub(self.position.value())
    }
}
