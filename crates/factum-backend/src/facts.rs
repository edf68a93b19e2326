//! What the planning of a group asks of a store.

use factum_core::{
    AppendCondition, EventId, Position, StoreError, StreamBounds, StreamId, StreamVersion,
    Timestamp,
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

    /// The events of a stream that have one of these ids and were recorded at or after `since`.
    /// Called for retries and conflicts only.
    ///
    /// # Errors
    /// Those of the store; they fail the whole group.
    fn find_ids(
        &mut self,
        stream: &StreamId,
        ids: &[EventId],
        since: Timestamp,
    ) -> Result<Vec<FoundEvent>, StoreError>;
}
