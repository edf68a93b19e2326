//! The ways in which a log can violate a history.

use factum_kernel::{EventId, Position, StoreError, StreamId, StreamVersion};

/// A fault of a log, or of the events that readers got from it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// An acknowledged event is missing.
    #[error(
        "lost: an acknowledged event is not in the log: stream={stream} position={position} id={id}"
    )]
    Lost {
        /// Its stream.
        stream: StreamId,
        /// The position that was acknowledged.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// The log has an event that was never appended.
    #[error("invented: this event was never appended: stream={stream} position={position} id={id}")]
    Invented {
        /// Its stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// The log has an event although every attempt to append it failed.
    #[error("stored although it failed: stream={stream} position={position} id={id}")]
    StoredAlthoughFailed {
        /// Its stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// The log has an event, but not as it was appended.
    #[error(
        "altered: {what} of the event is another than was appended: stream={stream} \
         position={position} id={id}"
    )]
    Altered {
        /// The part of the event that differs.
        what: &'static str,
        /// Its stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// The log has an event twice.
    #[error("doubled: one event stands at two positions: first={first} second={second} id={id}")]
    Doubled {
        /// Its first position.
        first: Position,
        /// Its second position.
        second: Position,
        /// Its id.
        id: EventId,
    },
    /// Only a part of a batch is there, or its events are not neighbours.
    #[error(
        "torn: {stored} of {events} events of a batch are where they belong: \
         first_id={first_id} position={position}"
    )]
    Torn {
        /// The number of its events that are in order from the first on.
        stored: usize,
        /// The number of its events.
        events: usize,
        /// The position of its first event, or of the first that is there.
        position: Position,
        /// The id of its first event.
        first_id: EventId,
    },
    /// An event is not at the position that its writer was told.
    #[error(
        "misplaced: told version {told_version} at position {told}, found version \
         {version} at position {position}: stream={stream} id={id}"
    )]
    Misplaced {
        /// Its stream.
        stream: StreamId,
        /// The position that was acknowledged.
        told: Position,
        /// The version that was acknowledged.
        told_version: StreamVersion,
        /// Its position.
        position: Position,
        /// Its version.
        version: StreamVersion,
        /// Its id.
        id: EventId,
    },
    /// Positions are not 1, 2, 3, ...
    #[error("positions jump: position {next} follows {last}")]
    PositionGap {
        /// The last position, of an event or of an erased range.
        last: Position,
        /// The position that follows.
        next: Position,
    },
    /// Versions of a stream are not 1, 2, 3, ...
    #[error("versions jump: version {next} follows {last}: stream={stream} position={position}")]
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// The version before.
        last: StreamVersion,
        /// The version that follows.
        next: StreamVersion,
        /// Its position.
        position: Position,
    },
    /// An event has an earlier time than the event before it.
    #[error("time went back: stream={stream} position={position} id={id}")]
    TimeWentBack {
        /// Its stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// The pages end before the log does.
    #[error("the read stops at position {scanned_through}, before head={head}")]
    Unfinished {
        /// The last position of the pages.
        scanned_through: Position,
        /// The head.
        head: Position,
    },
    /// The pages of one read are from different logs.
    #[error("the log changed its lineage within one read")]
    Lineage,
    /// A reader got events out of order, or an event twice.
    #[error("reader {reader:?} was given position {next} after {last}")]
    ReaderOutOfOrder {
        /// The reader's name.
        reader: String,
        /// The position before.
        last: Position,
        /// The position that it got then.
        next: Position,
    },
    /// A reader missed an event.
    #[error("reader {reader:?} missed an event: stream={stream} position={position} id={id}")]
    ReaderMissed {
        /// The reader's name.
        reader: String,
        /// The event's stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// A reader got an event that the log does not have in this form.
    #[error(
        "reader {reader:?} was given an event that the log does not hold: stream={stream} \
         position={position} id={id}"
    )]
    ReaderSawOther {
        /// The reader's name.
        reader: String,
        /// The event's stream.
        stream: StreamId,
        /// The position that it had in the read.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// A consumer missed an event.
    #[error("consumer {consumer:?} missed an event: stream={stream} position={position} id={id}")]
    ConsumerMissed {
        /// The consumer's name.
        consumer: String,
        /// The event's stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event took effect twice where once is guaranteed.
    #[error(
        "consumer {consumer:?} has an effect twice: stream={stream} position={position} id={id}"
    )]
    ConsumerTwice {
        /// The consumer's name.
        consumer: String,
        /// The event's stream.
        stream: StreamId,
        /// Its position.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// A consumer got an event after a later one of its stream.
    #[error("consumer {consumer:?} was given position {next} after {last}: stream={stream}")]
    ConsumerOutOfOrder {
        /// The consumer's name.
        consumer: String,
        /// The stream.
        stream: StreamId,
        /// The position before.
        last: Position,
        /// The position that it got then.
        next: Position,
    },
    /// A consumer got an event that it does not want.
    #[error("consumer {consumer:?} was given another's event: stream={stream} position={position}")]
    ConsumerSawOther {
        /// The consumer's name.
        consumer: String,
        /// The event's stream.
        stream: StreamId,
        /// The position that it had in the read.
        position: Position,
    },
    /// The log could not be read.
    #[error("the log can't be read: {0}")]
    Unreadable(#[from] StoreError),
}
