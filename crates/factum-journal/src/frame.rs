//! A frame: the bytes that one write and one sync add to a segment. It holds either a group of
//! appends or a mark.
//!
//! The header has its own checksum, and each record in the frame another. A frame is valid only if
//! all of them match and the records fill the frame exactly.

use bytes::{BufMut, BytesMut};
use factum_kernel::StoreError;

use crate::{
    number::{u32_at, u64_at},
    segment::SECTOR,
};

/// The bytes of a frame's header, which come before its records.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
/// Frames begin at multiples of this number, so that a search for one in damaged bytes is quick.
pub(crate) const FRAME_ALIGN: u32 = 8;
/// The most bytes of records in a frame: over twice the largest group of the default limits. No
/// reader accepts a header with more, so [`finish`] never writes one.
pub(crate) const FRAME_BYTES_MAX: u32 = 64 << 20;

/// The purpose of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Events, names and changes; a reader sees all of them or none.
    Group,
    /// The log was closed here: everything before this mark was durable.
    Close,
    /// The log was opened again after a [`FrameKind::Close`]. What follows may be torn again.
    Open,
}

impl FrameKind {
    const fn number(self) -> u32 {
        match self {
            Self::Group => 1,
            Self::Close => 2,
            Self::Open => 3,
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Group),
            2 => Some(Self::Close),
            3 => Some(Self::Open),
            _ => None,
        }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// The bytes of its records.
    pub(crate) len: u32,
    /// The position of the first event in it, or else of the next event.
    pub(crate) first: u64,
    /// The segment was durable up to this offset when the frame was written.
    pub(crate) synced_through: u32,
}

/// The offset of a frame, and the values that its bytes depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FramePlace {
    pub(crate) salt: u64,
    /// See [`SegmentHeader::seed`](crate::segment::SegmentHeader::seed).
    pub(crate) seed: u32,
    pub(crate) offset: u32,
}

impl FrameHeader {
    /// The offset where the next frame begins, for a frame at this offset.
    pub(crate) fn end(&self, offset: u32) -> u32 {
        let end = offset + FRAME_HEADER_BYTES as u32 + self.len;
        end.next_multiple_of(FRAME_ALIGN)
    }

    /// Writes the header into the first bytes of a frame.
    pub(crate) fn write(&self, place: FramePlace, into: &mut [u8]) {
        into[..8].copy_from_slice(&place.salt.to_le_bytes());
        into[12..16].copy_from_slice(&self.len.to_le_bytes());
        into[16..24].copy_from_slice(&self.first.to_le_bytes());
        into[24..28].copy_from_slice(&self.synced_through.to_le_bytes());
        into[28..32].copy_from_slice(&self.kind.number().to_le_bytes());
        let crc = checksum(place, into);
        into[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header; `None` if the bytes were not written as a header at this place.
    pub(crate) fn read(place: FramePlace, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if u64_at(bytes, 0) != place.salt || u32_at(bytes, 8) != checksum(place, bytes) {
            return None;
        }
        let header = Self {
            kind: FrameKind::from_number(u32_at(bytes, 28))?,
            len: u32_at(bytes, 12),
            first: u64_at(bytes, 16),
            synced_through: u32_at(bytes, 24),
        };
        (header.len <= FRAME_BYTES_MAX && header.synced_through <= place.offset).then_some(header)
    }
}

fn checksum(place: FramePlace, header: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(place.seed, &u64::from(place.offset).to_le_bytes());
    crc32c::crc32c_append(crc, &header[12..FRAME_HEADER_BYTES])
}

/// Begins a frame. [`finish`] fills in its header.
pub(crate) fn begin(out: &mut BytesMut) {
    out.clear();
    out.put_bytes(0, FRAME_HEADER_BYTES);
}

/// Ends a frame: writes its header, and zeros up to where the next frame can begin.
///
/// # Errors
/// `Invalid`: the records are more than a reader accepts. The frame must not be written.
pub(crate) fn finish(
    out: &mut BytesMut,
    place: FramePlace,
    first: u64,
    kind: FrameKind,
) -> Result<(), StoreError> {
    let bytes = out.len() - FRAME_HEADER_BYTES;
    let len = u32::try_from(bytes).ok().filter(|len| *len <= FRAME_BYTES_MAX).ok_or_else(|| {
        StoreError::invalid(format!(
            "one write to the journal is too large, split it: bytes={bytes} max={FRAME_BYTES_MAX}"
        ))
    })?;
    fill(out, place, first, kind, len);
    Ok(())
}

fn fill(out: &mut BytesMut, place: FramePlace, first: u64, kind: FrameKind, len: u32) {
    // Only one write is in flight, and it is synced before the next: earlier frames are durable.
    let header = FrameHeader { kind, len, first, synced_through: place.offset };
    header.write(place, out);
    let end = header.end(place.offset) - place.offset;
    out.resize(end as usize, 0);
}

/// A mark. The mark of a closed log is padded to the end of its sector, so that the next frame's
/// header lies in one sector. A power cut then can't leave half a header, which would be reported
/// as damage.
pub(crate) fn mark(place: FramePlace, first: u64, kind: FrameKind) -> BytesMut {
    let mut out = BytesMut::new();
    begin(&mut out);
    if kind == FrameKind::Close {
        let end = place.offset + FRAME_HEADER_BYTES as u32;
        out.put_bytes(0, (end.next_multiple_of(SECTOR) - end) as usize);
    }
    let len = (out.len() - FRAME_HEADER_BYTES) as u32;
    fill(&mut out, place, first, kind, len);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_good_at_its_own_place_only_and_bit_for_bit() {
        let place = FramePlace { salt: 99, seed: 5, offset: 1_024 };
        let header =
            FrameHeader { kind: FrameKind::Group, len: 40, first: 7, synced_through: 1_024 };
        let mut bytes = [0; FRAME_HEADER_BYTES];
        header.write(place, &mut bytes);
        assert_eq!(FrameHeader::read(place, &bytes), Some(header));
        assert_eq!(header.end(1_024), 1_024 + 72);
        for other in [
            FramePlace { salt: 98, ..place },
            FramePlace { seed: 6, ..place },
            FramePlace { offset: 1_032, ..place },
        ] {
            assert_eq!(FrameHeader::read(other, &bytes), None, "{other:?}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::read(place, &bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_no_reader_takes_is_not_made() {
        let place = FramePlace { salt: 1, seed: 2, offset: SECTOR };
        let mut frame = BytesMut::new();
        begin(&mut frame);
        frame.resize(FRAME_HEADER_BYTES + FRAME_BYTES_MAX as usize, 7);
        finish(&mut frame, place, 1, FrameKind::Group).unwrap();
        let header = FrameHeader::read(place, &frame).map(|header| header.len);
        assert_eq!(header, Some(FRAME_BYTES_MAX), "the largest is read");
        begin(&mut frame);
        frame.resize(FRAME_HEADER_BYTES + FRAME_BYTES_MAX as usize + 1, 7);
        let refused = finish(&mut frame, place, 1, FrameKind::Group).unwrap_err();
        assert!(refused.to_string().contains("bytes=67108865 max=67108864"), "{refused}");
    }

    #[test]
    fn the_mark_of_a_closed_log_ends_with_its_sector() {
        for offset in (512..2_048).step_by(8) {
            let place = FramePlace { salt: 1, seed: 2, offset };
            let bytes = mark(place, 1, FrameKind::Close);
            assert_eq!((offset as usize + bytes.len()) % 512, 0, "{offset}");
            let header = FrameHeader::read(place, &bytes).unwrap();
            assert_eq!(header.end(offset) as usize, offset as usize + bytes.len());
        }
    }
}
