//! The table of a rewritten segment: which stretches of the segment as it was written were kept,
//! and where they are now. Offsets elsewhere, in runs above all, stay those of the segment as it
//! was written, so that nothing but the segment changes when it is rewritten.

use bytes::BufMut;
use factum_kernel::StoreError;

use crate::{
    error,
    number::{self, take, u32_at},
    segment::{FRAMES_START, SegmentHeader},
    tables::Place,
};

/// The bytes of the checksum behind the table.
const CRC_BYTES: usize = 4;

/// A stretch of records that was kept in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it began in the segment as it was written.
    pub(crate) original: u32,
    /// Where it begins in the file; it ends where the next begins.
    pub(crate) offset: u32,
    /// The position of the first event in it, or of the next one to come, from the segment's first.
    pub(crate) position: u32,
    /// How many events are in it.
    pub(crate) events: u32,
}

/// The stretches of a rewritten segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extents {
    /// The first position of the segment.
    first: u64,
    /// How many positions the segment has, kept or not.
    pub(crate) positions: u32,
    /// Where its frames ended as it was written.
    pub(crate) original_end: u32,
    /// Where the kept records end in the file, and the records that say what was left out begin.
    pub(crate) kept_end: u32,
    /// Where those end, and the table begins.
    pub(crate) table: u32,
    list: Vec<Extent>,
}

/// The error that says that the table of a segment is not what was written.
pub(crate) fn damaged(header: &SegmentHeader) -> StoreError {
    let table = header.rewritten.map_or(0, |rewritten| rewritten.table);
    let what = "the table of a rewritten segment is not what was written";
    error::damaged(what, header.first, u64::from(table))
}

impl Extents {
    /// The table of a segment of which nothing was kept so far.
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

    /// Whether the segment with this header begins where this one ended as it was written.
    pub(crate) fn reach(&self, next: &SegmentHeader) -> bool {
        let behind = self.first + u64::from(self.positions);
        (self.original_end, behind) == (next.previous_end, next.first)
    }

    /// How many events were kept.
    pub(crate) fn events(&self) -> u32 {
        self.list.iter().map(|extent| extent.events).sum()
    }

    /// Adds a record that is kept: `events` is 1 for an event. What follows the record before it
    /// without a gap belongs to one stretch.
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

    /// Where the stretch of this number ends in the file.
    pub(crate) fn end_of(&self, index: usize) -> u32 {
        self.list.get(index + 1).map_or(self.kept_end, |next| next.offset)
    }

    /// Where the record at this place is in the file; `None`: it was left out.
    pub(crate) fn locate(&self, place: Place) -> Result<Option<Place>, StoreError> {
        let relative = place.position - self.first;
        let behind = self.list.partition_point(|it| u64::from(it.position) <= relative);
        let Some(index) = behind.checked_sub(1) else { return Ok(None) };
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

    /// Where a byte is that was kept, given by where it was in the segment as it was written.
    pub(crate) fn in_file(&self, original: u32) -> Option<u32> {
        let behind = self.list.partition_point(|it| it.original <= original);
        let extent = self.list.get(behind.checked_sub(1)?)?;
        Some(extent.offset + (original - extent.original))
    }

    /// The last position up to this one whose event was kept.
    pub(crate) fn kept_before(&self, position: u64) -> Option<u64> {
        let relative = position - self.first;
        let behind = self.list.partition_point(|it| u64::from(it.position) <= relative);
        let found = self.list[..behind].iter().rev().find(|it| it.events > 0)?;
        let last = u64::from(found.position) + u64::from(found.events) - 1;
        Some(self.first + last.min(relative))
    }

    /// The table as it stands in the file, with its checksum.
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
