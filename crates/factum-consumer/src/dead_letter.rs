//! Dead letters: parked events, with the later events of their streams.

use std::collections::BTreeMap;

use factum_kernel::{Position, RecordedEvent, StreamId, StreamVersion, Timestamp};
use serde::{Deserialize, Serialize};

use crate::health::StopCause;

/// The text that begins the error of an event that can't be decoded. Letters of earlier releases
/// have no other sign.
const UNDECODED: &str = "event can't be decoded: ";

/// A parked event, or one that this program can't read. All later events of its stream wait for it.
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
    /// The number of attempts; 0 for an event that could not be read.
    pub attempts: u32,
    /// The time when the event was parked.
    pub parked_at: Timestamp,
    /// True if the program could not read the event. Its stream waits for a program that can: each
    /// start tries it, before all later events.
    pub is_unread: bool,
}

/// The first event of a consumer that its program can't read. Its stream waits for a program that
/// knows the event's type at its schema version; other streams continue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadEvent {
    /// The stream of the event.
    pub stream: StreamId,
    /// The position of the event.
    pub position: Position,
    /// The stored name of the event.
    pub event: String,
    /// The reason why it can't be read.
    pub error: String,
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
    /// True if the program could not read the event. Letters of earlier releases don't say.
    #[serde(default)]
    pub is_unread: Option<bool>,
    /// The number of starts that noted that they were about to handle the event, and died.
    #[serde(default)]
    pub deaths: u32,
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
            is_unread: Some(false),
            deaths: 0,
        }
    }

    /// The letter of an event that the program can't read. No attempt counts.
    pub fn unread(event: &RecordedEvent, error: &StopCause, now: Timestamp) -> Self {
        Self { is_unread: Some(true), ..Self::of(event, error, 0, now) }
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
            is_unread: self.is_unread(),
        }
    }

    /// True if the stream waits for a program that can read the event.
    pub fn is_unread(&self) -> bool {
        self.is_unread.unwrap_or_else(|| self.error.starts_with(UNDECODED))
    }

    /// True if a start tries the event by itself: a program could not read it, or the release of
    /// its stream was interrupted.
    pub fn is_due(&self) -> bool {
        self.is_unread() || self.attempts == 0
    }

    /// True if another letter says the same of the same event.
    pub fn says(&self, other: &Self) -> bool {
        let parked_at = other.parked_at;
        Self { parked_at, ..self.clone() } == *other
    }
}

/// The numbers of streams that wait, as the health shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The number of streams that wait for a parked event.
    pub parked: usize,
    /// The number of streams that wait for a program that can read their next event.
    pub unread: usize,
    /// The first event in the log that waits for such a program.
    pub first: Option<UnreadEvent>,
}

impl Waiting {
    /// Counts the streams of these letters.
    pub fn of(letters: &BTreeMap<StreamId, StoredLetter>) -> Self {
        let unread = || letters.iter().filter(|(_, letter)| letter.is_unread());
        let first = unread().min_by_key(|(_, letter)| letter.position);
        let first = first.map(|(stream, letter)| UnreadEvent {
            stream: stream.clone(),
            position: Position::new(letter.position),
            event: letter.event.clone(),
            error: letter.error.clone(),
        });
        let unread = unread().count();
        Self { parked: letters.len() - unread, unread, first }
    }
}
