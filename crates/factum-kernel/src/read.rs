//! What is read: one bounded page of a log, a stream, a category or a query.

use std::sync::Arc;

use crate::{
    page::Page,
    position::Position,
    query::Query,
    stream::{Category, StreamId},
    time::Timestamp,
    version::StreamVersion,
};

/// How many events a page holds unless said otherwise.
pub const PAGE_EVENTS_DEFAULT: usize = 1_000;
/// How many bytes of events a page holds unless said otherwise.
pub const PAGE_BYTES_DEFAULT: usize = 1 << 20;
/// The most events of one page, whatever is asked.
pub const PAGE_EVENTS_MAX: usize = 10_000;
/// The most bytes of one page, whatever is asked; one larger event still comes, alone.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All, the system's own included.
    Log,
    /// Those of one stream.
    Stream(StreamId),
    /// Those of all streams of a kind.
    Category(Category),
    /// Those that match.
    Query(Query),
}

/// Where a read begins; what is named is included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// Before the first event.
    Start,
    /// Behind the last event there is.
    End,
    /// At a position.
    Position(Position),
    /// At a version; of a stream only.
    Version(StreamVersion),
    /// Forward: the first event recorded at or after this time. Backward: the last at or before.
    Time(Timestamp),
}

/// Towards the head, or towards the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// In the order of positions.
    Forward,
    /// Against it.
    Backward,
}

/// A question for one page.
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
    /// Which events.
    pub scope: Scope,
    /// Where to begin.
    pub from: ReadFrom,
    /// Which way.
    pub direction: Direction,
    /// The most events on the page; from 1 to [`PAGE_EVENTS_MAX`].
    pub events_max: usize,
    /// The most bytes on the page, up to [`PAGE_BYTES_MAX`]; an event that is larger comes alone.
    pub bytes_max: usize,
    /// Only events whose metadata name this origin.
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

    /// The whole log, forward from its start.
    pub fn log() -> Self {
        Self::new(Scope::Log)
    }

    /// One stream, forward from its start.
    pub fn stream(stream: StreamId) -> Self {
        Self::new(Scope::Stream(stream))
    }

    /// One category, forward from its start.
    pub fn category(category: Category) -> Self {
        Self::new(Scope::Category(category))
    }

    /// The events that match, forward from the start.
    pub fn matching(query: Query) -> Self {
        Self::new(Scope::Query(query))
    }

    /// Begins there.
    pub fn from(mut self, from: ReadFrom) -> Self {
        self.from = from;
        self
    }

    /// Begins behind this position.
    pub fn after(self, position: Position) -> Self {
        self.from(ReadFrom::Position(Position::new(position.value().saturating_add(1))))
    }

    /// Reads backward; from the end, if no other beginning was set.
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

    /// Only events from this origin.
    pub fn with_origin(mut self, origin: &str) -> Self {
        self.origin = Some(origin.into());
        self
    }

    /// The question for the page behind this one; `None` where the read is at its end: forward at
    /// the head that the page saw, backward at the start.
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
