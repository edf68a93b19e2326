//! The table of a rewritten segment: the extents of the original segment that were kept, and their
//! offsets now. All other offsets, such as those in runs, remain those of the original segment. A
//! rewrite therefore changes the segment and nothing else.

use bytes::BufMut;
use factum_kernel::StoreError;

use crate::{
    error,
    number::{self, take, u32_at},
    segment::{FRAMES_START, SegmentHeader},
    tables::Place,
};

/// The bytes of the checksum that follows the table.
const CRC_BYTES: usize = 4;

/// A sequence of records that was kept in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The offset in the original segment where it began.
    pub(crate) original: u32,
    /// The offset in the file where it begins. It ends where the next extent begins.
    pub(crate) offset: u32,
    /// The position of its first event, or else of the next event, relative to the segment's first.
    pub(crate) position: u32,
    /// The number of events in it.
    pub(crate) events: u32,
}

/// The extents of a rewritten segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extents {
    /// The first position of the segment.
    first: u64,
    /// The number of positions in the segment, kept or not.
    pub(crate) positions: u32,
    /// The offset in the original segment where its frames ended.
    pub(crate) original_end: u32,
    /// The offset in the file where the kept records end, and the records about left-out versions
    /// begin.
    pub(crate) kept_end: u32,
    /// The offset in the file where those end, and the table begins.
    pub(crate) table: u32,
    list: Vec<Extent>,
}

/// The error for a table that differs from what was written.
pub(crate) fn damaged(header: &SegmentHeader) -> StoreError {
    let table = header.rewritten.map_or(0, |rewritten| rewritten.table);
    let what = "the table of a rewritten segment is not what was written";
    error::damaged(what, header.first, u64::from(table))
}

impl Extents {
    /// The table of a segment without kept records.
    pub(crate) fn new(first: u64) -> Self {
        let positions = 0;
        let original_end = FRAMES_START;
        let kept_end = FRAMES_START;
        let table = FRAMES_START;
        let list = Vec::new();
        Self { first, positions, original_end, kept_end, table, list }
    }

    pub(crate) fn list(&self) -> &[Extent] {
        &self.list
    }

    /// Returns whether the segment with this header begins where the original of this one ended.
    pub(crate) fn reach(&self, next: &SegmentHeader) -> bool {
        let after = self.first + u64::from(self.positions);
        (self.original_end, after) == (next.previous_end, next.first)
    }

    /// The number of events that were kept.
    pub(crate) fn events(&self) -> u32 {
        self.list.iter().map(|extent| extent.events).sum()
    }

    /// Adds a record that is kept; `events` is 1 for an event. A record that directly follows its
    /// predecessor joins the same extent.
    pub(crate) fn keep(&mut self, original: u32, len: u32, position: u32, events: u32) {
        let kept_end = self.kept_end;
        match self.list.last_mut() {
            Some(last)
                if last.original + (kept_end - last.offset) == original
                    && last.position + last.events == position =>
            {
                last.events += events;
            }
            _ => self.list.push(Extent { original, offset: kept_end, position, events }),
        }
        self.kept_end += len;
    }

    /// The offset in the file where the extent of this index ends.
    pub(crate) fn end_of(&self, index: usize) -> u32 {
        self.list.get(index + 1).map_or(self.kept_end, |next| next.offset)
    }

    /// The place in the file of a record of the original segment; `None` if it was left out.
    pub(crate) fn locate(&self, place: Place) -> Result<Option<Place>, StoreError> {
        let relative = place.position - self.first;
        let after = self.list.partition_point(|it| u64::from(it.position) <= relative);
        let Some(index) = after.checked_sub(1) else { return Ok(None) };
        let Extent { original, offset, position, events } = self.list[index];
        if relative - u64::from(position) >= u64::from(events) {
            return Ok(None);
        }
        let end = u64::from(self.end_of(index));
        let shifted = |at: u64| Some(at.checked_sub(original.into())? + u64::from(offset));
        let found = shifted(place.offset).zip(shifted(place.end)).filter(|it| it.0 < end);
        let Some((offset, shifted_end)) = found else {
            let what =
                format!("the index says where position {} is, but it is not", place.position);
            return Err(error::damaged(what, self.first, place.offset));
        };
        Ok(Some(Place { offset, end: shifted_end.min(end), ..place }))
    }

    /// The offset in the file of a kept byte, given its offset in the original segment.
    pub(crate) fn in_file(&self, original: u32) -> Option<u32> {
        let after = self.list.partition_point(|it| it.original <= original);
        let extent = self.list.get(after.checked_sub(1)?)?;
        Some(extent.offset + (original - extent.original))
    }

    /// The last kept event's position that is at most this one.
    pub(crate) fn kept_before(&self, position: u64) -> Option<u64> {
        let relative = position - self.first;
        let after = self.list.partition_point(|it| u64::from(it.position) <= relative);
        let found = self.list[..after].iter().rev().find(|it| it.events > 0)?;
        let last = u64::from(found.position) + u64::from(found.events) - 1;
        Some(self.first + last.min(relative))
    }

    /// Encodes the table, with its checksum.
    pub(crate) fn encode(&self, seed: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.list.len() * 6 + 32);
        for number in [self.original_end, self.positions, self.table - self.kept_end] {
            number::put(&mut out, number.into());
        }
        let mut original = FRAMES_START;
        let mut position = 0;
        for (index, extent) in self.list.iter().enumerate() {
            let len = self.end_of(index) - extent.offset;
            let gaps = [extent.original - original, len, extent.position - position];
            for number in gaps.into_iter().chain([extent.events]) {
                number::put(&mut out, number.into());
            }
            (original, position) = (extent.original + len, extent.position + extent.events);
        }
        let crc = crc32c::crc32c_append(seed, &out);
        out.put_u32_le(crc);
        out
    }

    /// Reads the table of the segment with this header.
    pub(crate) fn decode(header: &SegmentHeader, bytes: &[u8]) -> Result<Self, StoreError> {
        let read = bytes.split_at_checked(bytes.len().saturating_sub(CRC_BYTES));
        read.filter(|(_, crc)| crc.len() == CRC_BYTES)
            .filter(|(table, crc)| crc32c::crc32c_append(header.seed(), table) == u32_at(crc, 0))
            .and_then(|(table, _)| Self::read(header, table))
            .ok_or_else(|| damaged(header))
    }

    fn read(header: &SegmentHeader, mut bytes: &[u8]) -> Option<Self> {
        let rewritten = header.rewritten?;
        let mut small = || u32::try_from(take(&mut bytes)?).ok();
        let original_end = small()?;
        let positions = small()?;
        let notes = small()?;
        let mut extents = Self { positions, original_end, ..Self::new(header.first) };
        let mut original = FRAMES_START;
        let mut position = 0_u32;
        while let Some(gap) = small() {
            let len = small()?;
            let left_out = small()?;
            let events = small()?;
            original = original.checked_add(gap)?;
            position = position.checked_add(left_out)?;
            let offset = extents.kept_end;
            extents.list.push(Extent { original, offset, position, events });
            extents.kept_end = offset.checked_add(len)?;
            original = original.checked_add(len)?;
            position = position.checked_add(events)?;
        }
        extents.table = extents.kept_end.checked_add(notes)?;
        let fits = bytes.is_empty()
            && original <= original_end
            && position <= positions
            && extents.table == rewritten.table
            && extents.events() == rewritten.events;
        fits.then_some(extents)
    }
}

#[cfg(test)]
mod tests;
