//! The building of a page within its limits.

use std::fmt;

use bytes::BytesMut;
use factum_kernel::{
    BodyLayout, ErasedRange, EventHeader, EventParts, InvalidBody, Lineage, Metadata,
    PAGE_BYTES_MAX, PAGE_EVENTS_MAX, Page, Position, ReadQuery, RecordedEvent, StoreError,
    StreamBounds,
};

/// The most events that one page looks at, whether they match or not. A filtered page that reaches
/// this number ends there; its `scanned_through` tells how far it came.
pub const PAGE_SCANNED_MAX: usize = 50_000;

/// The answer of a page to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The event was taken, or left out by the filter. Go on.
    Taken,
    /// The page is full: the event is not on it and does not count as scanned.
    Full,
}

/// The numbers of the snapshot that the rows came from.
#[derive(Debug, Clone)]
pub struct PageEnd {
    /// Every matching event up to this position is on this page or an earlier one.
    pub scanned_through: Position,
    /// The last position.
    pub head: Position,
    /// The log's lineage.
    pub lineage: Lineage,
    /// In a read of the whole log: the erased ranges.
    pub erased: Vec<ErasedRange>,
    /// In a read of a stream: its bounds.
    pub bounds: Option<StreamBounds>,
}

/// The most bytes of one piece of memory that events are copied into, unless a single event is
/// larger. An event that is kept keeps its whole piece; allocators reuse pieces of this size
/// cheaply.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// The bytes of a page's first piece. Each next piece is twice as large.
const PIECE_BYTES_MIN: usize = 4 << 10;

/// Builds a page: takes events in the order of the read until the page is full.
pub struct PageBuilder<'q> {
    query: &'q ReadQuery,
    events: Vec<RecordedEvent>,
    /// The free rest of the current piece; the bytes before it belong to events.
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
    /// Begins a page for this query.
    pub fn new(query: &'q ReadQuery) -> Self {
        let events = Vec::new();
        let piece = BytesMut::new();
        Self { query, events, piece, piece_bytes: PIECE_BYTES_MIN, bytes: 0, scanned: 0 }
    }

    /// Reserves memory for this many more events, for a store that knows the most that will come.
    pub fn reserve(&mut self, events: usize) {
        self.events.reserve(events.min(self.room()));
    }

    /// Returns whether the page takes no further event, whatever it is. A store need not fetch it
    /// then.
    pub fn is_full(&self) -> bool {
        self.events.len() >= self.query.events_max.min(PAGE_EVENTS_MAX)
            || self.scanned >= PAGE_SCANNED_MAX
    }

    /// The number of events that still fit: the most that a store should ask its database for.
    pub fn room(&self) -> usize {
        self.query.events_max.min(PAGE_EVENTS_MAX) - self.events.len()
    }

    /// Counts an event that was looked at but does not match.
    pub fn skip(&mut self) {
        self.scanned += 1;
    }

    /// Offers the parts of a matching event; they are copied.
    ///
    /// # Errors
    /// `Corrupt` for parts that no event can have: they differ from what was written.
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

    /// Offers an event that the store keeps in the form in which it is read; it is shared, not
    /// copied.
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

    /// Finishes the page.
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

/// The first number in `low..high` for which `is_past` holds, or `high`. If it holds for a number,
/// it must hold for all greater ones. Finds a time or a position where there is no index for it.
///
/// # Errors
/// Those of `is_past`.
pub fn partition_point<E>(
    mut low: u64,
    mut high: u64,
    mut is_past: impl FnMut(u64) -> Result<bool, E>,
) -> Result<u64, E> {
    while low < high {
        let middle = low + (high - low) / 2;
        if is_past(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests;
