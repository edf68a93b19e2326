//! Dead letters: parked events, with the later events of their streams.

use factum_kernel::{Position, RecordedEvent, StreamId, StreamVersion, Timestamp};
use serde::{Deserialize, Serialize};

use crate::health::StopCause;

/// A parked event. All later events of its stream wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The stream of the event.
    pub stream: StreamId,
    /// The version of the event.
    pub version: StreamVersion,
    /// The position of the event.
    pub position: Position,
    /// The stored name of the event.
    pub event: String,
    /// The error of the last attempt.
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time when the event was parked.
    pub parked_at: Timestamp,
}

/// The stored form of a [`DeadLetter`], under its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLetter {
    /// The version of the next event of the stream to handle.
    pub version: u64,
    /// The position of the event that failed.
    pub position: u64,
    /// The stored name of the event.
    pub event: String,
    /// The error of the last attempt.
    pub error: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time when the event was parked, in microseconds since 1970.
    pub parked_at: u64,
}

impl StoredLetter {
    /// The dead letter of an event that has failed.
    pub fn of(event: &RecordedEvent, error: &StopCause, attempts: u32, now: Timestamp) -> Self {
        Self {
            version: event.version().value(),
            position: event.position().value(),
            event: event.name().into(),
            error: error.to_string(),
            attempts,
            parked_at: now.as_micros(),
        }
    }

    /// The dead letter of an event that has failed during a release. The attempts of the same event
    /// add up.
    pub fn again(&self, event: &RecordedEvent, error: &StopCause, now: Timestamp) -> Self {
        let is_same = self.version == event.version().value();
        Self::of(event, error, if is_same { self.attempts + 1 } else { 1 }, now)
    }

    /// The dead letter of a stream whose release has handled this event and not the next one yet.
    pub fn after(event: &RecordedEvent, now: Timestamp) -> Self {
        let error = StopCause::new("its release was interrupted after this event");
        Self { version: event.version().next().value(), ..Self::of(event, &error, 0, now) }
    }

    /// The public form of the dead letter.
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
