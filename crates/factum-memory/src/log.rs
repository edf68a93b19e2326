//! The log itself: a slot per position, and for each stream the positions of its events.

use std::collections::{BTreeMap, HashMap};

use factum_kernel::{
    ErasedRange, Lineage, Position, RecordedEvent, Retention, StreamBounds, StreamId, StreamInfo,
    StreamVersion, Timestamp,
};

/// The whole content of the log, under one lock.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) lineage: Lineage,
    /// The event at position p is at index p - 1; the slot of an erased event is empty.
    pub(crate) slots: Vec<Option<RecordedEvent>>,
    pub(crate) streams: HashMap<StreamId, Stream>,
    pub(crate) documents: BTreeMap<bytes::Bytes, factum_kernel::Document>,
    pub(crate) revision: factum_kernel::Revision,
    pub(crate) last_at: Timestamp,
    pub(crate) is_closed: bool,
}

/// A stream: the position of version v is at index v - 1, also for erased events.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) positions: Vec<Position>,
    pub(crate) erased_through: StreamVersion,
    pub(crate) deleted_at: StreamVersion,
    pub(crate) retention: Retention,
}

impl Stream {
    pub(crate) fn bounds(&self) -> StreamBounds {
        StreamBounds {
            version: StreamVersion::new(self.positions.len() as u64),
            erased_through: self.erased_through,
            deleted_at: self.deleted_at,
        }
    }

    /// The positions of the events that are kept, oldest first.
    pub(crate) fn kept(&self) -> &[Position] {
        &self.positions[self.erased_through.value() as usize..]
    }

    /// The positions of the kept events up to and including a version, oldest first.
    pub(crate) fn kept_through(&self, version: StreamVersion) -> &[Position] {
        let through = self.positions.len().min(version.value() as usize);
        self.positions.get(self.erased_through.value() as usize..through).unwrap_or_default()
    }
}

impl Log {
    pub(crate) fn new(lineage: Lineage) -> Self {
        Self {
            lineage,
            slots: Vec::new(),
            streams: HashMap::new(),
            documents: BTreeMap::new(),
            revision: factum_kernel::Revision::ZERO,
            last_at: Timestamp::EPOCH,
            is_closed: false,
        }
    }

    pub(crate) fn head(&self) -> Position {
        Position::new(self.slots.len() as u64)
    }

    pub(crate) fn event(&self, position: Position) -> Option<&RecordedEvent> {
        let index = usize::try_from(position.value().checked_sub(1)?).ok()?;
        self.slots.get(index)?.as_ref()
    }

    pub(crate) fn push(&mut self, stream: &StreamId, event: RecordedEvent) {
        assert_eq!(event.position(), self.head().next(), "positions have no hole");
        let entry = self.streams.entry(stream.clone()).or_default();
        assert_eq!(event.version(), entry.bounds().version.next(), "versions have no hole");
        entry.positions.push(event.position());
        self.last_at = event.recorded_at();
        self.slots.push(Some(event));
    }

    pub(crate) fn bounds(&self, stream: &StreamId) -> StreamBounds {
        self.streams.get(stream).map_or_else(StreamBounds::default, Stream::bounds)
    }

    pub(crate) fn info(&self, stream: &StreamId) -> StreamInfo {
        let Some(entry) = self.streams.get(stream) else { return StreamInfo::default() };
        let at = |position: Option<&Position>| Some(self.event(*position?)?.recorded_at());
        StreamInfo::new(entry.bounds())
            .with_times(at(entry.kept().first()), at(entry.kept().last()))
            .with_retention(entry.retention)
    }

    /// Empties the slots of a stream's events up to and including a version.
    pub(crate) fn erase_through(&mut self, stream: &StreamId, version: StreamVersion) {
        let Some(entry) = self.streams.get_mut(stream) else { return };
        let kept = entry.erased_through.value() as usize;
        for position in entry.positions.iter().take(version.value() as usize).skip(kept) {
            if let Some(index) = position.value().checked_sub(1) {
                self.slots[index as usize] = None;
            }
        }
        entry.erased_through = entry.erased_through.max(version);
    }

    /// The empty slots between two positions, both inclusive, as ranges.
    pub(crate) fn erased_between(&self, first: Position, last: Position) -> Vec<ErasedRange> {
        let mut ranges: Vec<ErasedRange> = Vec::new();
        for number in first.value().max(1)..=last.value() {
            let position = Position::new(number);
            match ranges.last_mut() {
                _ if self.event(position).is_some() => {}
                Some(range) if range.last.next() == position => range.last = position,
                _ => ranges.push(ErasedRange { first: position, last: position }),
            }
        }
        ranges
    }
}
