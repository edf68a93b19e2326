//! Dead letters: a stream that waits, and the event that it waits for.

use factum_kernel::{Position, RecordedEvent, StreamId, StreamVersion, Timestamp};
use serde::{Deserialize, Serialize};

/// A parked event, with all later ones of its stream behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The stream that waits.
    pub stream: StreamId,
    /// The version of the event.
    pub version: StreamVersion,
    /// The position of the event.
    pub position: Position,
    /// The stored name of the event.
    pub event: String,
    /// What its last attempt said.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was parked.
    pub parked_at: Timestamp,
}

/// What is stored of a [`DeadLetter`], under its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The next of the stream's events to be handled.
    pub version: u64,
    /// The position of the event that failed.
    pub position: u64,
    /// Its stored name.
    pub event: String,
    /// What its last attempt said.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was parked, in microseconds since 1970.
    pub parked_at: u64,
}

impl Letter {
    /// The stream waits for this event, which has failed.
    pub fn of(event: &RecordedEvent, error: String, attempts: u32, now: Timestamp) -> Self {
        Self {
            version: event.version().value(),
            position: event.position().value(),
            event: event.name().into(),
            error,
            attempts,
            parked_at: now.as_micros(),
        }
    }

    /// The stream waits for this event, which has failed: again, perhaps.
    pub fn again(&self, event: &RecordedEvent, error: String, now: Timestamp) -> Self {
        let is_same = self.version == event.version().value();
        Self::of(event, error, if is_same { self.attempts + 1 } else { 1 }, now)
    }

    /// The stream waits for what comes after this event, which is done with.
    pub fn after(event: &RecordedEvent, now: Timestamp) -> Self {
        let error = "its release was interrupted behind this event".into();
        Self { version: event.version().next().value(), ..Self::of(event, error, 0, now) }
    }

    /// What people see of it.
    pub fn open(&self, stream: &StreamId) -> DeadLetter {
        DeadLetter {
            stream: stream.clone(),
            version: StreamVersion::new(self.version),
            position: Position::new(self.position),
            event: self.event.clone(),
            error: self.error.clone(),
            attempts: self.attempts,
            parked_at: Timestamp::from_micros(self.parked_at),
        }
    }
}
