//! An iteration over the frames of a segment that was read into memory, and the verdict on their
//! end.

use std::ops::Range;

use factum_kernel::StoreError;

use crate::{
    error,
    frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FramePlace},
    number::u64_at,
    record::{Record, RecordPlace, take_record},
    segment::Segment,
};

/// An iteration over the whole frames of a segment.
pub(crate) struct Frames<'a> {
    segment: &'a Segment,
    /// The bytes of the file from `start` on.
    bytes: &'a [u8],
    start: u32,
    /// The offset where the next frame should begin.
    pub(crate) offset: u32,
    /// The position of the next event.
    pub(crate) next: u64,
    /// The offset and kind of the frame before.
    pub(crate) last: Option<(u32, FrameKind)>,
}

/// A whole frame. In a rewritten segment: an extent of kept records.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// The left-out positions directly before it.
    pub(crate) left_out: Range<u64>,
    /// The records, each with the offset of its first byte.
    pub(crate) records: Vec<(u32, Record<'a>)>,
    /// The bytes of the records, and the offset of the first.
    pub(crate) body: &'a [u8],
    pub(crate) start: u32,
    /// The offset where the next frame begins.
    pub(crate) end: u32,
}

/// The bytes after the last whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros to the end.
    Clean,
    /// Bytes that belong to no whole frame: the last write was cut short.
    Torn {
        /// The offset after the last byte that is not zero.
        end: u32,
    },
}

/// Consecutive records, each with its offset, and the position after their events. `start`: the
/// offset of the first byte. `first`: the position of the first event.
pub(crate) fn records_in<'a>(
    segment: &Segment,
    body: &'a [u8],
    start: u32,
    first: u64,
) -> Option<(Vec<(u32, Record<'a>)>, u64)> {
    let Segment { header, seed, .. } = segment;
    let mut place = RecordPlace { seed: *seed, base_at: header.base_at, position: first };
    let mut records = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let before = body.len() - rest.len();
        let record = take_record(&mut rest, place)?;
        place.position += u64::from(matches!(record, Record::Event(_) | Record::Commit));
        records.push((start + before as u32, record));
    }
    Some((records, place.position))
}

impl<'a> Frame<'a> {
    /// The records with their bytes and positions. A record that is not an event has the next
    /// event's position.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'_, 'a>> {
        let ends = self.records.iter().skip(1).map(|(offset, _)| *offset);
        let ends = ends.chain([self.start + self.body.len() as u32]);
        let mut next = self.left_out.end;
        self.records.iter().zip(ends).map(move |((offset, record), end)| {
            let position = next;
            next += u64::from(matches!(record, Record::Event(_)));
            let bytes = &self.body[(offset - self.start) as usize..(end - self.start) as usize];
            Item { position, offset: *offset, record, bytes }
        })
    }
}

/// A record with its bytes.
pub(crate) struct Item<'f, 'a> {
    pub(crate) position: u64,
    pub(crate) offset: u32,
    pub(crate) record: &'f Record<'a>,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Frames<'a> {
    /// The frames from an offset on. `next` is the position of their first event. `bytes` are the
    /// file's bytes from that offset.
    pub(crate) fn new(segment: &'a Segment, bytes: &'a [u8], offset: u32, next: u64) -> Self {
        Self { segment, bytes, start: offset, offset, next, last: None }
    }

    fn place(&self, offset: u32) -> FramePlace {
        FramePlace { salt: self.segment.header.salt, seed: self.segment.seed, offset }
    }

    fn from(&self, offset: u32) -> &'a [u8] {
        self.bytes.get((offset - self.start) as usize..).unwrap_or(&[])
    }

    /// The next frame; `None` where no whole frame follows.
    pub(crate) fn next_frame(&mut self) -> Option<Frame<'a>> {
        let bytes = self.from(self.offset);
        let header = FrameHeader::read(self.place(self.offset), bytes)?;
        let body = bytes.get(FRAME_HEADER_BYTES..)?.get(..header.len as usize)?;
        if header.first != self.next {
            return None;
        }
        let start = self.offset + FRAME_HEADER_BYTES as u32;
        let (records, next) = match header.kind {
            FrameKind::Group => records_in(self.segment, body, start, header.first)?,
            // A mark is padded with zeros.
            _ if body.iter().all(|byte| *byte == 0) => (Vec::new(), header.first),
            _ => return None,
        };
        let end = header.end(self.offset);
        self.last = Some((self.offset, header.kind));
        (self.offset, self.next) = (end, next);
        // A mark holds no records.
        let body = if records.is_empty() { &[] } else { body };
        Some(Frame { left_out: header.first..header.first, records, body, start, end })
    }

    /// Classifies the bytes after the last whole frame.
    ///
    /// # Errors
    /// The reason why those bytes were durable once, and so are damage: a later frame says so, or
    /// the mark of a closed log before them.
    pub(crate) fn tail(&self) -> Result<Tail, String> {
        let rest = self.from(self.offset);
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(Tail::Clean) };
        if let Some(witness) = self.witness(rest) {
            return Err(format!("a later frame was written, witness={witness}"));
        }
        // After the mark of a closed log, only the next mark is written, and only that can be torn.
        let is_closed = self.last.is_some_and(|(_, kind)| kind == FrameKind::Close);
        if is_closed && last >= FRAME_HEADER_BYTES {
            return Err("it was closed, and then changed".into());
        }
        Ok(Tail::Torn { end: self.offset + last as u32 + 1 })
    }

    /// The offset of a later frame, which was written after this place had become durable. Its
    /// header is proof enough.
    fn witness(&self, rest: &[u8]) -> Option<u32> {
        let step = FRAME_ALIGN as usize;
        // Frames begin at multiples of the step, and so does the end of the last frame.
        rest.chunks_exact(step).enumerate().find_map(|(index, bytes)| {
            if u64_at(bytes, 0) != self.segment.header.salt {
                return None;
            }
            let offset = self.offset + (index * step) as u32;
            let header = FrameHeader::read(self.place(offset), self.from(offset))?;
            (header.synced_through > self.offset).then_some(offset)
        })
    }

    /// The error for frames that end too early.
    pub(crate) fn damaged(&self, why: &str) -> StoreError {
        error::damaged(self.broken(why), self.segment.header.first, u64::from(self.offset))
    }

    /// The text for frames that end too early.
    pub(crate) fn broken(&self, why: &str) -> String {
        format!("no whole frame where position {} is to begin, but {why}", self.next)
    }
}
