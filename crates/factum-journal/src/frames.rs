//! Going through the frames of a segment that was read into memory, and the verdict on where they
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

/// Goes through the frames of a segment, as long as they are whole.
pub(crate) struct Frames<'a> {
    segment: &'a Segment,
    /// The bytes of the file from `start` on.
    bytes: &'a [u8],
    start: u32,
    /// Where the next frame is to begin.
    pub(crate) offset: u32,
    /// The position of the next event.
    pub(crate) next: u64,
    /// The frame before.
    pub(crate) last: Option<(u32, FrameKind)>,
}

/// A frame that is whole; or in a rewritten segment, a stretch of records that were kept.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// The positions before it of which the events were left out.
    pub(crate) left_out: Range<u64>,
    /// Each with the offset of its first byte.
    pub(crate) records: Vec<(u32, Record<'a>)>,
    /// The bytes of the records, and the offset of the first.
    pub(crate) body: &'a [u8],
    pub(crate) start: u32,
    /// Where the next frame begins.
    pub(crate) end: u32,
}

/// What is behind the last whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Zeros to the end.
    Clean,
    /// Bytes that no frame vouches for, up to this offset: the last write was cut short.
    Torn {
        /// Where the last of them is, and one.
        end: u32,
    },
}

/// Records behind one another, each with its offset, and the position behind their events. `start`:
/// the offset of the first byte; `first`: the position of the first event.
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
    /// The records with their bytes and their positions: of an event its own, of others that of
    /// the next event.
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
    /// The frames from an offset on, of which `next` is the position of the first event. `bytes`
    /// are those of the file from there.
    pub(crate) fn new(segment: &'a Segment, bytes: &'a [u8], offset: u32, next: u64) -> Self {
        Self { segment, bytes, start: offset, offset, next, last: None }
    }

    fn place(&self, offset: u32) -> FramePlace {
        FramePlace { salt: self.segment.header.salt, seed: self.segment.seed, offset }
    }

    fn from(&self, offset: u32) -> &'a [u8] {
        self.bytes.get((offset - self.start) as usize..).unwrap_or(&[])
    }

    /// The next frame; `None` where there is none, or none that is whole.
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
            // A mark is filled up with zeros.
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

    /// What is behind the last whole frame.
    ///
    /// # Errors
    /// Why those bytes were durable once, and so are damage: a frame behind them says so, or the
    /// mark of a closed log before them.
    pub(crate) fn tail(&self) -> Result<Tail, String> {
        let rest = self.from(self.offset);
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else { return Ok(Tail::Clean) };
        if let Some(witness) = self.witness(rest) {
            return Err(format!("a frame behind it was written, witness={witness}"));
        }
        // Behind the mark of a closed log another is written, alone, and only that can be torn.
        let is_closed = self.last.is_some_and(|(_, kind)| kind == FrameKind::Close);
        if is_closed && last >= FRAME_HEADER_BYTES {
            return Err("it was closed, and then changed".into());
        }
        Ok(Tail::Torn { end: self.offset + last as u32 + 1 })
    }

    /// A later frame that was written when this place was durable. Its header is enough.
    fn witness(&self, rest: &[u8]) -> Option<u32> {
        let step = FRAME_ALIGN as usize;
        // Frames begin at multiples of the step, and so does the place where the last one ended.
        rest.chunks_exact(step).enumerate().find_map(|(index, bytes)| {
            if u64_at(bytes, 0) != self.segment.header.salt {
                return None;
            }
            let offset = self.offset + (index * step) as u32;
            let header = FrameHeader::read(self.place(offset), self.from(offset))?;
            (header.synced_through > self.offset).then_some(offset)
        })
    }

    /// The error that says where the frames end although they should not.
    pub(crate) fn damaged(&self, why: &str) -> StoreError {
        error::damaged(self.broken(why), self.segment.header.first, u64::from(self.offset))
    }

    /// Where the frames end although they should not, in words.
    pub(crate) fn broken(&self, why: &str) -> String {
        format!("no whole frame where position {} is to begin, but {why}", self.next)
    }
}
