//! The questions that the planning of a group asks of a store.

use factum_kernel::{
    AppendCondition, ErasedRange, EventId, Position, StoreError, StreamBounds, StreamId,
    StreamVersion, Timestamp,
};

/// An event that a store found by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEvent {
    /// The id of the event.
    pub id: EventId,
    /// Its position in the log.
    pub position: Position,
    /// Its version in its stream.
    pub version: StreamVersion,
    /// The time when it was appended.
    pub recorded_at: Timestamp,
}

/// The part of a stream in which the events of a batch must be, if it was stored. A search goes
/// from [`last`](Self::last) back to the first event that is [before](Self::is_before) the part, so
/// that its cost depends on the part, not on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first version.
    pub first: StreamVersion,
    /// The last version; the stream may end before it.
    pub last: StreamVersion,
    /// Only events after this position.
    pub after: Position,
    /// Only events that were recorded at this time or later.
    pub since: Timestamp,
}

impl Span {
    /// The whole stream from a time on.
    pub const fn since(since: Timestamp) -> Self {
        let first = StreamVersion::ZERO;
        let last = StreamVersion::MAX;
        Self { first, last, after: Position::ZERO, since }
    }

    /// Returns whether an event, and with it all earlier ones of the stream, lies before the part.
    pub fn is_before(&self, event: &FoundEvent) -> bool {
        event.version < self.first || event.position <= self.after || event.recorded_at < self.since
    }

    /// Returns whether an event lies in the part.
    pub fn contains(&self, event: &FoundEvent) -> bool {
        event.version <= self.last && !self.is_before(event)
    }
}

/// The questions that the planning of a group asks of a store. The answers describe the state right
/// before the group. The store holds its lock from the answers until the group is stored.
///
/// A store that is asked over a network fetches the answers beforehand and gives them from memory.
pub trait Facts {
    /// The bounds of a stream.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError>;

    /// The position of any event that matches the condition.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError>;

    /// The events in a part of a stream that have one of these ids, including all events with the
    /// same id. It is called only for retries and conflicts. The work must be bounded by the part,
    /// because other writers wait for it.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError>;

    /// Returns whether every event at these positions was erased. The positions are at or before
    /// the log's head. It is called when a part of a repeated batch was found.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError>;
}
