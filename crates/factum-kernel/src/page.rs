//! A bounded answer to a read.

use crate::{
    position::{ErasedRange, Lineage, Position},
    recorded::RecordedEvent,
    version::StreamVersion,
};

/// A bounded answer to a read: rows and numbers from one snapshot of the log.
///
/// An empty page is not the end of the read: the filter may have matched nothing in the part of the
/// log that one page may scan. At the end, [`ReadQuery::next`](crate::ReadQuery::next) returns
/// `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The events that match, in the order of the read.
    pub events: Vec<RecordedEvent>,
    /// In a read of the whole log, the positions up to `scanned_through` whose events are erased,
    /// ascending. Events and erased ranges together leave no hole. Empty in other reads.
    pub erased: Vec<ErasedRange>,
    /// Forward: this page or an earlier one returned every matching event at or below this
    /// position. Backward: every matching event at or above it. At the end of the read it is `head`
    /// or zero.
    pub scanned_through: Position,
    /// The last position of the log when the page was read.
    pub head: Position,
    /// The history that these positions belong to.
    pub lineage: Lineage,
    /// In a read of a stream, the bounds of that stream.
    pub bounds: Option<StreamBounds>,
}

impl Page {
    /// An empty page of an empty log.
    pub fn empty(lineage: Lineage) -> Self {
        Self {
            events: Vec::new(),
            erased: Vec::new(),
            scanned_through: Position::ZERO,
            head: Position::ZERO,
            lineage,
            bounds: None,
        }
    }
}

/// The version of a stream, and which of its versions are erased. All zero for a stream that never
/// had an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamBounds {
    /// The number of events that the stream ever had; a deletion counts as one.
    pub version: StreamVersion,
    /// Events at or below this version were erased, by truncation or deletion.
    pub erased_through: StreamVersion,
    /// The version of the last deletion; later events are a new beginning.
    pub deleted_at: StreamVersion,
}

impl StreamBounds {
    /// True if the stream was deleted and has no later events.
    pub fn is_deleted(&self) -> bool {
        self.version > StreamVersion::ZERO && self.version == self.deleted_at
    }

    /// True if events were erased by a truncation after the last deletion: the kept events don't
    /// begin with the first one.
    pub fn is_truncated(&self) -> bool {
        self.erased_through > self.deleted_at
    }

    /// True if the stream meets the expectation of a writer.
    pub fn matches(&self, expected: crate::version::ExpectedVersion) -> bool {
        use crate::version::ExpectedVersion as Expected;
        match expected {
            Expected::Any => true,
            Expected::NoStream => self.version == StreamVersion::ZERO,
            Expected::StreamExists => self.version > StreamVersion::ZERO && !self.is_deleted(),
            Expected::Exact(version) => self.version == version,
        }
    }
}
