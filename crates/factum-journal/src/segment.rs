//! A segment: one file of the log, named by its first position. This module owns the segment's name
//! and its first sector. The sector identifies the file, and holds the end of the log before it.

use std::{io, sync::Arc};

use bytes::BufMut;
use factum_kernel::{Lineage, StoreError, Timestamp};
use uuid::Uuid;

use crate::{
    disk::{File, Files},
    error,
    extent::{self, Extents},
    number::{u32_at, u64_at},
    tables::Place,
};

/// The unit that a disk writes as a whole or not at all, in bytes.
pub(crate) const SECTOR: u32 = 512;
/// The offset where the first frame of a segment begins.
pub(crate) const FRAMES_START: u32 = SECTOR;
/// The format version of a segment that was not rewritten.
const VERSION_WRITTEN: u32 = 1;
/// The format version of a segment that was rewritten without its erased events.
const VERSION_REWRITTEN: u32 = 2;

pub(crate) const MAGIC: &[u8; 8] = b"FACTUMLG";
/// The bytes of the header, without the zeros up to the sector's end.
const HEADER_BYTES: usize = 80;
const SUFFIX: &str = ".log";

/// The content of a segment's first sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The log it belongs to.
    pub(crate) lineage: Lineage,
    /// The first bytes of each frame. They are random, so that neither stale bytes of another file
    /// nor an event's payload pass as a frame.
    pub(crate) salt: u64,
    /// The position of its first event.
    pub(crate) first: u64,
    /// The time of the last event before it. Times in the segment count from this one.
    pub(crate) base_at: Timestamp,
    /// The first position of the segment before it; 0 if there is none.
    pub(crate) previous: u64,
    /// The offset where the frames of the segment before it end. All of them were durable by then.
    pub(crate) previous_end: u32,
    /// `None`: the segment was not rewritten.
    pub(crate) rewritten: Option<Rewritten>,
}

/// The part of the header that only a rewritten segment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    /// The offset in the file where its table begins. See [`Extents`].
    pub(crate) table: u32,
    /// The bytes of the table, with the checksum.
    pub(crate) table_len: u32,
    /// The number of events that it still holds.
    pub(crate) events: u32,
}

impl SegmentHeader {
    /// Encodes the first sector of a segment.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTOR as usize);
        out.put_slice(MAGIC);
        out.put_u32_le(match self.rewritten {
            None => VERSION_WRITTEN,
            Some(_) => VERSION_REWRITTEN,
        });
        out.put_u32_le(0);
        out.put_slice(self.lineage.as_uuid().as_bytes());
        out.put_u64_le(self.salt);
        out.put_u64_le(self.first);
        out.put_u64_le(self.base_at.as_micros());
        out.put_u64_le(self.previous);
        out.put_u32_le(self.previous_end);
        if let Some(Rewritten { table, table_len, events }) = self.rewritten {
            [table, table_len, events].into_iter().for_each(|number| out.put_u32_le(number));
        }
        out.resize(HEADER_BYTES, 0);
        let crc = crc32c::crc32c(&out[16..]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out.resize(SECTOR as usize, 0);
        out
    }

    /// Decodes the first sector. The error tells what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < HEADER_BYTES || &bytes[..8] != MAGIC {
            return Err("this is not a segment of a journal");
        }
        let version = u32_at(bytes, 8);
        if !(VERSION_WRITTEN..=VERSION_REWRITTEN).contains(&version) {
            return Err("the segment is of a newer version, use a newer program");
        }
        if crc32c::crc32c(&bytes[16..HEADER_BYTES]) != u32_at(bytes, 12) {
            return Err("the checksum of the segment's header is wrong");
        }
        let lineage: [u8; 16] = bytes[16..32].try_into().expect("sixteen bytes");
        Ok(Self {
            lineage: Lineage::new(Uuid::from_bytes(lineage)),
            salt: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            base_at: Timestamp::from_micros(u64_at(bytes, 48)),
            previous: u64_at(bytes, 56),
            previous_end: u32_at(bytes, 64),
            rewritten: (version == VERSION_REWRITTEN).then(|| Rewritten {
                table: u32_at(bytes, 68),
                table_len: u32_at(bytes, 72),
                events: u32_at(bytes, 76),
            }),
        })
    }

    /// The beginning of every checksum in the segment, so that bytes of another segment never pass.
    pub(crate) fn seed(&self) -> u32 {
        let seed = crc32c::crc32c(self.lineage.as_uuid().as_bytes());
        let seed = crc32c::crc32c_append(seed, &self.salt.to_le_bytes());
        crc32c::crc32c_append(seed, &self.first.to_le_bytes())
    }
}

/// The names of the event types in a segment, by number.
pub(crate) type Names = Vec<Box<str>>;

/// An open segment.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// See [`SegmentHeader::seed`].
    pub(crate) seed: u32,
    pub(crate) file: Arc<dyn File>,
    /// The table of a rewritten segment; present only where events are read.
    pub(crate) extents: Option<Arc<Extents>>,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, file: Arc<dyn File>) -> Self {
        Self { header, seed: header.seed(), file, extents: None }
    }

    /// Adds the table, without which events of a rewritten segment can't be read.
    pub(crate) fn with_extents(mut self) -> Result<Self, StoreError> {
        let Some(Rewritten { table, table_len, .. }) = self.header.rewritten else {
            return Ok(self);
        };
        let first = self.header.first;
        let at =
            |e: io::Error| error::disk("reading the table of a segment", &segment_name(first), e);
        let len = self.file.len().map_err(at)?;
        if u64::from(table) + u64::from(table_len) != len {
            return Err(extent::damaged(&self.header));
        }
        let mut bytes = vec![0; table_len as usize];
        let read = self.file.fill_at(&mut bytes, u64::from(table)).map_err(at)?;
        self.extents = Some(Arc::new(Extents::decode(&self.header, &bytes[..read])?));
        Ok(self)
    }

    /// The place in the file of an event's record; `None` if it was left out.
    pub(crate) fn locate(&self, place: Place) -> Result<Option<Place>, StoreError> {
        match &self.extents {
            None => Ok(Some(place)),
            Some(extents) => extents.locate(place),
        }
    }

    /// Opens a segment and reads its header.
    pub(crate) fn open(files: &dyn Files, first: u64) -> Result<Self, StoreError> {
        Self::open_as(files, &segment_name(first), first)
    }

    /// Opens a segment whose file has another name.
    pub(crate) fn open_as(files: &dyn Files, name: &str, first: u64) -> Result<Self, StoreError> {
        let at = |e: io::Error| error::disk("opening a segment", name, e);
        let file = files.open(name).map_err(at)?;
        let mut sector = vec![0; SECTOR as usize];
        let read = file.fill_at(&mut sector, 0).map_err(at)?;
        let header = SegmentHeader::decode(&sector[..read])
            .map_err(|what| error::damaged(what, first, 0))?;
        if header.first != first {
            return Err(error::damaged("a segment has the name of another", first, 0));
        }
        Ok(Self::new(header, file))
    }
}

/// Refuses to change a file in place if it has a second name. Otherwise, a write to the journal
/// would also change a copy of it that was made with hard links.
pub(crate) fn check_alone(file: &dyn File, name: &str) -> Result<(), StoreError> {
    let names = file.names().map_err(|e| error::disk("looking for other names", name, e))?;
    if names <= 1 {
        return Ok(());
    }
    Err(StoreError::invalid(format!(
        "the file has another name as well, as a copy by hard links makes it, and both would be \
         changed; put a copy of its bytes in its place: file={name} names={names}"
    )))
}

/// The name of the segment that begins at a position. Names sort as positions do.
pub(crate) fn segment_name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The first positions of the segments among these names, ascending.
pub(crate) fn segments_in(names: &[String]) -> Vec<u64> {
    let number = |name: &String| {
        let digits = name.strip_suffix(SUFFIX)?;
        (digits.len() == 20).then(|| digits.parse().ok())?
    };
    let mut found: Vec<u64> = names.iter().filter_map(number).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let written = SegmentHeader {
            lineage: Lineage::new(Uuid::from_u128(7)),
            salt: 0x0123_4567_89ab_cdef,
            first: 42,
            base_at: Timestamp::from_micros(9),
            previous: 1,
            previous_end: 4_096,
            rewritten: None,
        };
        let rewritten = Some(Rewritten { table: 900, table_len: 33, events: 4 });
        for header in [written, SegmentHeader { rewritten, ..written }] {
            let bytes = header.encode();
            assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
            assert_eq!(header.seed(), written.seed());
            for bit in 0..HEADER_BYTES * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn segments_are_known_by_their_names() {
        let names = ["journal", "1.log", "00000000000000000042.log", "00000000000000000001.log"];
        let names: Vec<String> = names.map(Into::into).into();
        assert_eq!(segments_in(&names), [1, 42]);
        assert_eq!(segment_name(42), names[2]);
    }
}
