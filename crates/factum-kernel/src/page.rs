//! A bounded answer to a read.

use crate::{
    error::VersionConflict,
    position::{ErasedRange, Lineage, Position},
    recorded::RecordedEvent,
    stream::StreamId,
    version::{ExpectedVersion, StreamVersion},
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
    /// The version of the last deletion; later events are a new beginning. The event at this
    /// version is that of the deletion, unless it was erased later, or a version of Factum made the
    /// deletion that appended no event.
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

    /// The bounds after a deletion, which takes the next version and keeps its own event.
    #[must_use]
    pub fn deleted(self) -> Self {
        let version = self.version.next();
        Self { version, erased_through: self.version, deleted_at: version }
    }

    /// The conflict of a write to the stream with a writer's expectation, if there is one.
    ///
    /// ```
    /// use factum_kernel::{ExpectedVersion, StreamBounds, StreamId, StreamVersion};
    ///
    /// let ada = StreamId::new("account", "ada")?;
    /// let open = StreamBounds { version: StreamVersion::new(3), ..StreamBounds::default() };
    /// assert_eq!(open.conflict(&ada, ExpectedVersion::Any), None);
    ///
    /// let expected = ExpectedVersion::Exact(open.version);
    /// let conflict = open.deleted().conflict(&ada, expected).expect("the stream was deleted");
    /// assert_eq!(conflict.deleted_at, Some(StreamVersion::new(4)));
    /// # Ok::<(), factum_kernel::InvalidStreamId>(())
    /// ```
    pub fn conflict(
        &self,
        stream: &StreamId,
        expected: ExpectedVersion,
    ) -> Option<VersionConflict> {
        if self.matches(expected) {
            return None;
        }
        let seen = match expected {
            ExpectedVersion::Exact(version) => version,
            _ => StreamVersion::ZERO,
        };
        let deleted_at = (self.deleted_at > seen).then_some(self.deleted_at);
        let stream = stream.clone();
        Some(VersionConflict { stream, expected, actual: self.version, deleted_at })
    }

    /// True if the stream meets the expectation of a writer.
    pub fn matches(&self, expected: ExpectedVersion) -> bool {
        match expected {
            ExpectedVersion::Any => true,
            ExpectedVersion::NoStream => self.version == StreamVersion::ZERO,
            ExpectedVersion::StreamExists => {
                self.version > StreamVersion::ZERO && !self.is_deleted()
            }
            ExpectedVersion::Exact(version) => self.version == version,
        }
    }
}
