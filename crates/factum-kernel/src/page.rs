//! A bounded answer to a read.

use crate::{
    position::{ErasedRange, Lineage, Position},
    recorded::RecordedEvent,
    version::StreamVersion,
};

/// A bounded answer to a read: rows and numbers from one snapshot of the log.
///
/// A page may be empty although there is more: a filter found nothing in what one page may scan.
/// The end is where [`ReadQuery::next`](crate::ReadQuery::next) is `None`, never an empty page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The events that match, in the order of the read.
    pub events: Vec<RecordedEvent>,
    /// In a read of the whole log, the positions up to `scanned_through` whose events are gone,
    /// ascending: with the events they leave no hole. Elsewhere empty.
    pub erased: Vec<ErasedRange>,
    /// Forward: every matching event at or below this position was returned, by this page or one
    /// before it. Backward: every one at or above it. At the end it is `head` or zero.
    pub scanned_through: Position,
    /// The last position when the page was read.
    pub head: Position,
    /// The history that these positions belong to.
    pub lineage: Lineage,
    /// In a read of a stream, how far that stream reaches.
    pub bounds: Option<StreamBounds>,
}

impl Page {
    /// An empty page that saw nothing: zero through, head zero.
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

/// How far a stream reaches. All zero for a stream that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamBounds {
    /// How many events it ever had; a deletion counts as one.
    pub version: StreamVersion,
    /// Events at or below this version are gone, by truncation or deletion.
    pub erased_through: StreamVersion,
    /// The version that its last deletion took; what came later is a new beginning.
    pub deleted_at: StreamVersion,
}

impl StreamBounds {
    /// Whether it was deleted and nothing came after.
    pub fn is_deleted(&self) -> bool {
        self.version > StreamVersion::ZERO && self.version == self.deleted_at
    }

    /// Whether events are gone that no deletion took: what is left begins in the middle.
    pub fn is_truncated(&self) -> bool {
        self.erased_through > self.deleted_at
    }

    /// Whether this is what a writer expects.
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
