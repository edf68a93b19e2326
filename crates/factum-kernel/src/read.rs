//! Queries for one bounded page of a log, a stream, a category or the events that match.

use std::sync::Arc;

use crate::{
    page::Page,
    position::Position,
    query::Query,
    stream::{Category, StreamId},
    time::Timestamp,
    version::StreamVersion,
};

/// The most events on a page if the query sets no other limit.
pub const PAGE_EVENTS_DEFAULT: usize = 1_000;
/// The most bytes of events on a page if the query sets no other limit.
pub const PAGE_BYTES_DEFAULT: usize = 1 << 20;
/// The most events on one page, even if the query asks for more.
pub const PAGE_EVENTS_MAX: usize = 10_000;
/// The most bytes on one page, even if the query asks for more. A larger event comes alone.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// The set of events that a read returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All events, system events included.
    Log,
    /// The events of one stream.
    Stream(StreamId),
    /// The events of all streams of one category.
    Category(Category),
    /// The events that match a query.
    Query(Query),
}

/// The place at which a read begins, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first event.
    Start,
    /// After the last event.
    End,
    /// At a position.
    Position(Position),
    /// At a version; only for a read of one stream.
    Version(StreamVersion),
    /// Forward: the first event recorded at or after this time. Backward: the last at or before.
    Time(Timestamp),
}

/// The direction of a read: towards the head, or towards the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// In ascending order of positions.
    Forward,
    /// In descending order of positions.
    Backward,
}

/// A query for one page.
///
/// ```
/// use factum_kernel::{Direction, ReadQuery, StreamId};
///
/// let ada = StreamId::new("account", "ada")?;
/// let last_ten = ReadQuery::stream(ada).backward().with_events_max(10);
/// assert_eq!(last_ten.direction, Direction::Backward);
/// # Ok::<(), factum_kernel::InvalidStreamId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ReadQuery {
    /// The events to read.
    pub scope: Scope,
    /// The place at which the read begins.
    pub from: ReadFrom,
    /// The direction of the read.
    pub direction: Direction,
    /// The most events on the page; from 1 to [`PAGE_EVENTS_MAX`].
    pub events_max: usize,
    /// The most bytes on the page, up to [`PAGE_BYTES_MAX`]. A larger event comes alone.
    pub bytes_max: usize,
    /// If set, only events whose metadata have this origin are read.
    pub origin: Option<Arc<str>>,
}

impl ReadQuery {
    fn new(scope: Scope) -> Self {
        Self {
            scope,
            from: ReadFrom::Start,
            direction: Direction::Forward,
            events_max: PAGE_EVENTS_DEFAULT,
            bytes_max: PAGE_BYTES_DEFAULT,
            origin: None,
        }
    }

    /// Reads the whole log, forward from its start.
    pub fn log() -> Self {
        Self::new(Scope::Log)
    }

    /// Reads one stream, forward from its start.
    pub fn stream(stream: StreamId) -> Self {
        Self::new(Scope::Stream(stream))
    }

    /// Reads one category, forward from its start.
    pub fn category(category: Category) -> Self {
        Self::new(Scope::Category(category))
    }

    /// Reads the events that match, forward from the start.
    pub fn matching(query: Query) -> Self {
        Self::new(Scope::Query(query))
    }

    /// Begins the read here.
    pub fn from(mut self, from: ReadFrom) -> Self {
        self.from = from;
        self
    }

    /// Begins the read after this position.
    pub fn after(self, position: Position) -> Self {
        self.from(ReadFrom::Position(Position::new(position.value().saturating_add(1))))
    }

    /// Reads backward; from the end, unless another beginning was set.
    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        if self.from == ReadFrom::Start {
            self.from = ReadFrom::End;
        }
        self
    }

    /// Sets the most events of the page.
    pub fn with_events_max(mut self, events_max: usize) -> Self {
        self.events_max = events_max;
        self
    }

    /// Sets the most bytes of the page.
    pub fn with_bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Reads only events from this origin.
    pub fn with_origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// The query for the page after this one. `None` at the end of the read: forward at the head
    /// that the page saw, backward at the start.
    pub fn next(&self, page: &Page) -> Option<Self> {
        let is_over = match self.direction {
            Direction::Forward => page.scanned_through >= page.head,
            Direction::Backward => page.scanned_through <= Position::new(1),
        };
        if is_over {
            return None;
        }
        // A stream is found faster by its versions than by positions.
        let is_stream = matches!(self.scope, Scope::Stream(_));
        let last = page.events.last().filter(|e| is_stream && e.position() == page.scanned_through);
        let from = match (self.direction, last) {
            (Direction::Forward, Some(last)) => ReadFrom::Version(last.version().next()),
            (Direction::Forward, None) => ReadFrom::Position(page.scanned_through.next()),
            (Direction::Backward, Some(last)) if last.version() == StreamVersion::new(1) => {
                return None;
            }
            (Direction::Backward, Some(last)) => ReadFrom::Version(last.version().previous()),
            (Direction::Backward, None) => ReadFrom::Position(page.scanned_through.previous()),
        };
        Some(self.clone().from(from))
    }
}
