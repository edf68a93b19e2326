//! The entry of the fuzzer: reads any bytes as a segment. Only with the feature `fuzzing`.

use std::{io, sync::Arc};

use crate::{
    disk::File,
    frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, FramePlace},
    frames::{Frames, Tail},
    number::{self, u32_at},
    record::{Record, RecordPlace, take_record},
    segment::{FRAMES_START, Segment, SegmentHeader},
};

/// A frame that the reader accepts as whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The offset of its first byte.
    pub start: usize,
    /// The offset after its last byte.
    pub end: usize,
}

/// Reads bytes as a segment; then corrects the checksums and reads again, so that the content under
/// them is read as well. Returns the whole frames of the original bytes.
///
/// # Panics
/// If the reader contradicts itself; never because of the bytes.
pub fn read_segment(bytes: &[u8]) -> Vec<Shown> {
    let Ok(header) = SegmentHeader::decode(bytes) else { return Vec::new() };
    let segment = Segment::new(header, Arc::new(Nowhere));
    let shown = read_frames(&segment, bytes);
    let mut right = bytes.to_vec();
    make_right(&segment, &mut right);
    read_frames(&segment, &right);
    shown
}

fn read_frames(segment: &Segment, bytes: &[u8]) -> Vec<Shown> {
    let start = FRAMES_START as usize;
    let rest = bytes.get(start..).unwrap_or(&[]);
    let mut frames = Frames::new(segment, rest, FRAMES_START, segment.header.first);
    let mut shown = Vec::new();
    let mut offset = frames.offset;
    let mut next = frames.next;
    while let Some(frame) = frames.next_frame() {
        assert!(frame.end > offset && frame.end == frames.offset, "frames go on");
        assert!(frame.end.is_multiple_of(8), "frames begin at multiples of eight");
        let counts = |record: &Record<'_>| matches!(record, Record::Event(_) | Record::Commit);
        let events = frame.records.iter().filter(|(_, record)| counts(record)).count() as u64;
        assert_eq!(frames.next, next + events, "positions have no hole");
        let inside = frame.records.iter().all(|(at, _)| (offset..frame.end).contains(at));
        assert!(inside && frame.records.is_sorted_by_key(|(at, _)| *at), "records stand in it");
        shown.push(Shown { start: offset as usize, end: frame.end as usize });
        (offset, next) = (frames.offset, frames.next);
    }
    check_tail(&frames, bytes);
    shown
}

/// Checks that the verdict on the bytes after the last frame fits them.
fn check_tail(frames: &Frames<'_>, bytes: &[u8]) {
    let rest = bytes.get(frames.offset as usize..).unwrap_or(&[]);
    let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match frames.tail() {
        Ok(Tail::Clean) => assert_eq!(used, 0, "there is something after the frames"),
        Ok(Tail::Torn { end }) => {
            assert_eq!(end as usize, frames.offset as usize + used, "all of it is torn, no more");
            let is_closed = frames.last.is_some_and(|(_, kind)| kind == FrameKind::Close);
            assert!(
                used > 0 && (!is_closed || used <= FRAME_HEADER_BYTES),
                "no closed log is torn"
            );
        }
        Err(why) => assert!(used > 0 && !why.is_empty(), "damage without a byte of it"),
    }
}

/// Corrects the checksums of everything that stands where frames and records should, as far as
/// possible.
fn make_right(segment: &Segment, bytes: &mut [u8]) {
    let mut offset = FRAMES_START;
    let mut next = segment.header.first;
    while let Some(frame) = bytes.get_mut(offset as usize..)
        && frame.len() >= FRAME_HEADER_BYTES
    {
        let room = frame.len() - FRAME_HEADER_BYTES;
        let kind = match u32_at(frame, 28) % 4 {
            2 => FrameKind::Close,
            3 => FrameKind::Open,
            _ => FrameKind::Group,
        };
        let len = (u32_at(frame, 12) as usize).min(room);
        let place = FramePlace { salt: segment.header.salt, seed: segment.seed, offset };
        let synced_through = u32_at(frame, 24).min(offset);
        let header = FrameHeader { kind, len: len as u32, first: next, synced_through };
        header.write(place, frame);
        let body = &mut frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + len];
        if kind == FrameKind::Group {
            next = make_records_right(segment, body, next);
        }
        offset = header.end(offset);
    }
}

fn make_records_right(segment: &Segment, body: &mut [u8], mut next: u64) -> u64 {
    let mut at = 0;
    loop {
        let mut rest = &body[at..];
        let Some(len) = number::take_len(&mut rest) else { return next };
        let start = body.len() - rest.len() + 4;
        let Some(end) = start.checked_add(len).filter(|end| *end <= body.len()) else {
            return next;
        };
        let crc = crc32c::crc32c_append(segment.seed, &next.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &body[start..end]);
        body[start - 4..start].copy_from_slice(&crc.to_le_bytes());
        let place =
            RecordPlace { seed: segment.seed, base_at: segment.header.base_at, position: next };
        let record = take_record(&mut &body[at..end], place);
        next += u64::from(matches!(record, Some(Record::Event(_) | Record::Commit)));
        at = end;
    }
}

/// A file that is never asked, because the bytes are in memory.
#[derive(Debug)]
struct Nowhere;

impl File for Nowhere {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn names(&self) -> io::Result<u64> {
        Ok(1)
    }
}

#[cfg(test)]
mod tests;
