//! What the planning of a group asks of a store.

use factum_kernel::{
    AppendCondition, ErasedRange, EventId, Position, StoreError, StreamBounds, StreamId,
    StreamVersion, Timestamp,
};

/// An event that a store found by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundEvent {
    /// Its identity.
    pub id: EventId,
    /// Its place in the log.
    pub position: Position,
    /// Its place in its stream.
    pub version: StreamVersion,
    /// When it was appended.
    pub recorded_at: Timestamp,
}

/// The part of a stream in which the events of a batch can stand, if it was stored. A search goes
/// from [`last`](Self::last) back to the first event that is [before](Self::is_before) it, so that
/// its length is that of the part, not of the stream.
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
    /// The whole stream since a time.
    pub const fn since(since: Timestamp) -> Self {
        let first = StreamVersion::ZERO;
        let last = StreamVersion::MAX;
        Self { first, last, after: Position::ZERO, since }
    }

    /// Whether an event lies before the part, and with it all earlier ones of the stream.
    pub fn is_before(&self, event: &FoundEvent) -> bool {
        event.version < self.first || event.position <= self.after || event.recorded_at < self.since
    }

    /// Whether an event lies in the part.
    pub fn contains(&self, event: &FoundEvent) -> bool {
        event.version <= self.last && !self.is_before(event)
    }
}

/// What the planning of a group asks of a store, answered from the state that the group will be
/// stored behind: under the store's lock, which is held until the group is stored.
///
/// A store that is asked over a network fetches the answers beforehand and gives them from memory.
pub trait Facts {
    /// How far a stream reaches.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn bounds(&mut self, stream: &StreamId) -> Result<StreamBounds, StoreError>;

    /// Any event that matches the condition.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn first_match(&mut self, condition: &AppendCondition) -> Result<Option<Position>, StoreError>;

    /// The events in a part of a stream that have one of these ids; all of them, where an id is
    /// there twice. Called for retries and conflicts only. The work is bounded by the part: other
    /// writers wait for it.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        span: Span,
    ) -> Result<Vec<FoundEvent>, StoreError>;

    /// Whether every event at these positions was erased. They are at or before the log's head.
    /// Called where a part of a repeated batch was found.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn are_erased(&mut self, positions: ErasedRange) -> Result<bool, StoreError>;
}
