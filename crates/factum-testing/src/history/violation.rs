//! What a history can turn out to have broken.

use factum_kernel::{EventId, Position, StoreError, StreamId, StreamVersion};

/// What is wrong with a log, or with what readers were given of it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// An acknowledged event is not there.
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
    /// An event is there that nobody appended.
    #[error("invented: nobody appended this event: stream={stream} position={position} id={id}")]
    Invented {
        /// Its stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event is there although every attempt to append it failed.
    #[error("stored although it failed: stream={stream} position={position} id={id}")]
    StoredAlthoughFailed {
        /// Its stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event is there, but not as it was appended.
    #[error(
        "altered: {what} of the event is another than was appended: stream={stream} \
         position={position} id={id}"
    )]
    Altered {
        /// What of it.
        what: &'static str,
        /// Its stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event is there twice.
    #[error("doubled: one event stands at two positions: first={first} second={second} id={id}")]
    Doubled {
        /// Where it stands first.
        first: Position,
        /// Where it stands again.
        second: Position,
        /// Its id.
        id: EventId,
    },
    /// Part of a batch is there, or its events are not neighbours.
    #[error(
        "torn: {stored} of {events} events of a batch are where they belong: \
         first_id={first_id} position={position}"
    )]
    Torn {
        /// How many of its events stand in order behind the first.
        stored: usize,
        /// How many it has.
        events: usize,
        /// Where its first event stands, or the first that is there.
        position: Position,
        /// The id of its first event.
        first_id: EventId,
    },
    /// An event is not where its writer was told it is.
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
        /// Where it stands.
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
        /// What follows it.
        next: Position,
    },
    /// Versions of a stream are not 1, 2, 3, ...
    #[error("versions jump: version {next} follows {last}: stream={stream} position={position}")]
    VersionGap {
        /// The stream.
        stream: StreamId,
        /// The version before.
        last: StreamVersion,
        /// What follows it.
        next: StreamVersion,
        /// Where that stands.
        position: Position,
    },
    /// An event was recorded before the one in front of it.
    #[error("time went back: stream={stream} position={position} id={id}")]
    TimeWentBack {
        /// Its stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// The pages end before the log does.
    #[error("the read stops at position {scanned_through}, before head={head}")]
    Unfinished {
        /// How far it came.
        scanned_through: Position,
        /// How far it should.
        head: Position,
    },
    /// Pages of one read are from several logs.
    #[error("the log changed its lineage within one read")]
    Lineage,
    /// A reader was given events out of order, or one twice.
    #[error("reader {reader:?} was given position {next} after {last}")]
    ReaderOutOfOrder {
        /// The reader's name.
        reader: String,
        /// The position before.
        last: Position,
        /// What it was given then.
        next: Position,
    },
    /// A reader was given something else than the log holds, or missed an event.
    #[error("reader {reader:?} missed an event: stream={stream} position={position} id={id}")]
    ReaderMissed {
        /// The reader's name.
        reader: String,
        /// The event's stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// A reader was given an event that is not in the log so.
    #[error(
        "reader {reader:?} was given an event that the log does not hold: stream={stream} \
         position={position} id={id}"
    )]
    ReaderSawOther {
        /// The reader's name.
        reader: String,
        /// The event's stream.
        stream: StreamId,
        /// Where it was said to stand.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// A consumer was not given an event.
    #[error("consumer {consumer:?} missed an event: stream={stream} position={position} id={id}")]
    ConsumerMissed {
        /// The consumer's name.
        consumer: String,
        /// The event's stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event took effect twice where it may only once.
    #[error(
        "consumer {consumer:?} has an effect twice: stream={stream} position={position} id={id}"
    )]
    ConsumerTwice {
        /// The consumer's name.
        consumer: String,
        /// The event's stream.
        stream: StreamId,
        /// Where it stands.
        position: Position,
        /// Its id.
        id: EventId,
    },
    /// An event came to a consumer after a later one of its stream.
    #[error("consumer {consumer:?} was given position {next} after {last}: stream={stream}")]
    ConsumerOutOfOrder {
        /// The consumer's name.
        consumer: String,
        /// The stream.
        stream: StreamId,
        /// The position before.
        last: Position,
        /// What it was given then.
        next: Position,
    },
    /// A consumer was given an event that is none of its.
    #[error("consumer {consumer:?} was given another's event: stream={stream} position={position}")]
    ConsumerSawOther {
        /// The consumer's name.
        consumer: String,
        /// The event's stream.
        stream: StreamId,
        /// Where it is said to stand.
        position: Position,
    },
    /// The log could not be read.
    #[error("the log can't be read: {0}")]
    Unreadable(#[from] StoreError),
}
