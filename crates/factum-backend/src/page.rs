//! The building of a page within its limits.

use std::fmt;

use bytes::BytesMut;
use factum_kernel::{
    BodyLayout, ErasedRange, EventHeader, EventParts, InvalidBody, Lineage, Metadata,
    PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Page, Position, ReadQuery, RecordedEvent, StoreError,
    StreamBounds,
};

/// The most events that one page looks at, whether they match or not. A filtered page that
/// reaches it ends there, honestly: its `scanned_through` says how far it came.
pub const PAGE_SCANNED_MAX: usize = 50_000;

/// Whether there is room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The event was taken, or left out by the filter; go on.
    Taken,
    /// The page is full: the event is not on it and was not scanned.
    Full,
}

/// Numbers from the snapshot that the rows came from.
#[derive(Debug, Clone)]
pub struct PageEnd {
    /// How far every matching event is on this page or an earlier one.
    pub scanned_through: Position,
    /// The last position.
    pub head: Position,
    /// The log's lineage.
    pub lineage: Lineage,
    /// In a read of the whole log: what is gone.
    pub erased: Vec<ErasedRange>,
    /// In a read of a stream: how far it reaches.
    pub bounds: Option<StreamBounds>,
}

/// Events are copied into pieces of memory of this size at most, unless one is larger. An event
/// that is kept keeps its piece, and allocators give such pieces out again for little.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// The first piece of a page; each next one is twice as large.
const PIECE_BYTES_MIN: usize = 4 << 10;

/// Takes events in the order of the read until the page is full.
pub struct PageBuilder<'q> {
    query: &'q ReadQuery,
    events: Vec<RecordedEvent>,
    /// Where the next event is copied to; what is in front of it is lent out already.
    piece: BytesMut,
    piece_bytes: usize,
    bytes: usize,
    scanned: usize,
}

impl fmt::Debug for PageBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBuilder").field("events", &self.events.len()).finish_non_exhaustive()
    }
}

impl<'q> PageBuilder<'q> {
    /// A page for this question.
    pub fn new(query: &'q ReadQuery) -> Self {
        let events = Vec::new();
        let piece = BytesMut::new();
        Self { query, events, piece, piece_bytes: PIECE_BYTES_MIN, bytes: 0, scanned: 0 }
    }

    /// Makes room for so many more events, for a store that knows how many will come at most.
    pub fn reserve(&mut self, events: usize) {
        self.events.reserve(events.min(self.room()));
    }

    /// Whether the next event would not be taken, whatever it is: a store need not fetch it.
    pub fn is_full(&self) -> bool {
        self.events.len() >= self.query.events_max.min(PAGE_EVENTS_MAX)
            || self.scanned >= PAGE_SCANNED_MAX
    }

    /// The room that is left, in events; what a store should ask its database for at most.
    pub fn room(&self) -> usize {
        self.query.events_max.min(PAGE_EVENTS_MAX) - self.events.len()
    }

    /// Counts an event that was looked at and does not match.
    pub fn skip(&mut self) {
        self.scanned += 1;
    }

    /// Offers the parts of an event that matches; they are copied.
    ///
    /// # Errors
    /// `Corrupt` for parts that no event can have: they are not what was written.
    pub fn push(
        &mut self,
        header: EventHeader,
        parts: &EventParts<'_>,
    ) -> Result<Pushed, StoreError> {
        let size = parts.stream.len()
            + parts.name.len()
            + parts.tags.len()
            + parts.metadata.len()
            + parts.payload.len();
        if !self.has_room(size) {
            return Ok(Pushed::Full);
        }
        self.scanned += 1;
        if !self.is_from_origin(parts.metadata) {
            return Ok(Pushed::Taken);
        }
        let layout = BodyLayout::of(parts).map_err(|e| damaged(header.position, e))?;
        if self.piece.capacity() < size {
            self.piece = BytesMut::with_capacity(size.max(self.piece_bytes));
            self.piece_bytes = (self.piece_bytes * 2).min(PIECE_BYTES_MAX);
        }
        for part in [parts.stream.as_bytes(), parts.name.as_bytes(), parts.tags, parts.metadata] {
            self.piece.extend_from_slice(part);
        }
        self.piece.extend_from_slice(parts.payload);
        let body = self.piece.split().freeze();
        let event = RecordedEvent::new(header, layout, body);
        self.events.push(event.map_err(|e| damaged(header.position, e))?);
        self.bytes += size;
        Ok(Pushed::Taken)
    }

    /// Offers an event that the store keeps as it is read; it is shared.
    pub fn push_ready(&mut self, event: &RecordedEvent) -> Pushed {
        if !self.has_room(event.size()) {
            return Pushed::Full;
        }
        self.scanned += 1;
        if self.is_from_origin(event.parts().metadata) {
            self.bytes += event.size();
            self.events.push(event.clone());
        }
        Pushed::Taken
    }

    /// The page.
    pub fn finish(self, end: PageEnd) -> Page {
        let mut page = Page::empty(end.lineage);
        page.events = self.events;
        page.erased = end.erased;
        page.scanned_through = end.scanned_through;
        page.head = end.head;
        page.bounds = end.bounds;
        page
    }

    fn has_room(&self, size: usize) -> bool {
        let bytes_max = self.query.bytes_max.min(PAGE_BYTES_MAX);
        !self.is_full() && (self.events.is_empty() || self.bytes + size <= bytes_max)
    }

    fn is_from_origin(&self, metadata: &[u8]) -> bool {
        let Some(wanted) = &self.query.origin else { return true };
        Metadata::decode(metadata).is_some_and(|metadata| metadata.origin.as_ref() == Some(wanted))
    }
}

fn damaged(position: Position, error: InvalidBody) -> StoreError {
    StoreError::corrupt(format!(
        "a stored event is damaged, restore the store from a backup: position={position}"
    ))
    .with_source(error)
}

/// The first number in `low..high` for which `is_behind` holds, or `high`; it must hold for all
/// numbers behind the first. For finding a time or a position without an index of its own.
///
/// # Errors
/// Those of `is_behind`.
pub fn partition_point<E>(
    mut low: u64,
    mut high: u64,
    mut is_behind: impl FnMut(u64) -> Result<bool, E>,
) -> Result<u64, E> {
    while low < high {
        let middle = low + (high - low) / 2;
        if is_behind(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests;
