//! A walk through a segment on disk, from its first frame to the place where the frames must or may
//! end.

use std::ops::Range;

use factum_kernel::StoreError;

use crate::{
    disk::Files,
    error,
    extent::{self, Extents},
    frame::FrameKind,
    frames::{Frame, Frames, Tail, records_in},
    segment::{FRAMES_START, Segment, SegmentHeader, segment_name},
};

/// The place where the frames of a segment end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// The place that the header of the next segment records.
    Sealed(&'a SegmentHeader),
    /// At this offset or after it, as the working writer recorded.
    Synced(u32),
    /// The last whole frame. The bytes after it are to be judged.
    Open,
}

/// The result of a walk to a segment's end.
pub(crate) struct Walked {
    /// The offset where the frames end.
    pub(crate) end: u32,
    /// The next position.
    pub(crate) next: u64,
    /// The offset and the kind of the last frame.
    pub(crate) last: Option<(u32, FrameKind)>,
    pub(crate) tail: Tail,
    /// The bytes of the segment.
    pub(crate) bytes: Vec<u8>,
}

/// Passes the frames of a segment to `show`, each with its first position. Of a rewritten segment,
/// it passes the kept extents.
pub(crate) fn walk(
    segment: &Segment,
    end: End<'_>,
    mut show: impl FnMut(&Frame<'_>, u64) -> Result<(), StoreError>,
) -> Result<Walked, StoreError> {
    let first = segment.header.first;
    let name = segment_name(first);
    let mut bytes =
        segment.file.read_all().map_err(|e| error::disk("reading the log", &name, e))?;
    if segment.header.rewritten.is_some() {
        return walk_kept(segment, end, bytes, show);
    }
    match end {
        // After its last frame, a sealed segment may hold traces of a write that was given up.
        End::Sealed(next) => bytes.truncate(next.previous_end as usize),
        // After that offset, a frame may be half written at this moment.
        End::Synced(end) => bytes.truncate(end as usize),
        End::Open => {}
    }
    let from_start = bytes.get(FRAMES_START as usize..).unwrap_or(&[]);
    let mut frames = Frames::new(segment, from_start, FRAMES_START, first);
    let mut first = frames.next;
    while let Some(frame) = frames.next_frame() {
        show(&frame, first)?;
        first = frames.next;
    }
    let tail = verdict(&frames, end).map_err(|why| frames.damaged(&why))?;
    let end = frames.offset;
    let next = frames.next;
    let last = frames.last;
    Ok(Walked { end, next, last, tail, bytes })
}

/// Passes the parts of a rewritten segment, each of which must be as it was written.
fn walk_kept(
    segment: &Segment,
    end: End<'_>,
    bytes: Vec<u8>,
    mut show: impl FnMut(&Frame<'_>, u64) -> Result<(), StoreError>,
) -> Result<Walked, StoreError> {
    let header = &segment.header;
    let damaged = |what: &str, at: u32| error::damaged(what, header.first, u64::from(at));
    let End::Sealed(next) = end else { return Err(damaged(NOT_FOLLOWED, 0)) };
    let extents = extents_in(segment, &bytes)?;
    if !extents.reach(next) {
        return Err(extent::damaged(header));
    }
    each_kept(segment, &extents, &bytes, |part| match part {
        Ok(frame) => show(&frame, frame.left_out.end),
        Err(broken) => Err(damaged(broken.what, broken.offset)),
    })?;
    let next = header.first + u64::from(extents.positions);
    Ok(Walked { end: extents.original_end, next, last: None, tail: Tail::Clean, bytes })
}

/// The fault of a rewritten segment that is the last one.
pub(crate) const NOT_FOLLOWED: &str = "it was rewritten, but the next segment is missing";

/// A part of a rewritten segment that differs from what was written.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) what: &'static str,
    /// The offset in the file where it begins.
    pub(crate) offset: u32,
    /// The positions that it covered.
    pub(crate) positions: Range<u64>,
}

/// Decodes the table of a rewritten segment from these bytes.
pub(crate) fn extents_in(segment: &Segment, bytes: &[u8]) -> Result<Extents, StoreError> {
    let header = &segment.header;
    let table = header.rewritten.map_or(0, |rewritten| rewritten.table as usize);
    let len = header.rewritten.map_or(0, |rewritten| rewritten.table_len as usize);
    let table = bytes.get(table..).filter(|table| table.len() == len);
    Extents::decode(header, table.ok_or_else(|| extent::damaged(header))?)
}

/// Passes the parts of a rewritten segment in this order: the records about left-out versions, so
/// that later versions may follow; then the kept extents; last the positions after them.
pub(crate) fn each_kept(
    segment: &Segment,
    extents: &Extents,
    bytes: &[u8],
    mut show: impl FnMut(Result<Frame<'_>, Broken>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let first = segment.header.first;
    let after = first + u64::from(extents.positions);
    let notes = &bytes[extents.kept_end as usize..extents.table as usize];
    let start = extents.kept_end;
    let end = FRAMES_START;
    show(match records_in(segment, notes, start, first) {
        Some((records, next)) if next == first => {
            Ok(Frame { left_out: first..first, records, body: notes, start, end })
        }
        _ => {
            let what = "a record about left-out versions is not what was written";
            Err(Broken { what, offset: start, positions: first..after })
        }
    })?;
    let mut position = first;
    for (index, extent) in extents.list().iter().enumerate() {
        let from = first + u64::from(extent.position);
        let to = from + u64::from(extent.events);
        let body = &bytes[extent.offset as usize..extents.end_of(index) as usize];
        let start = extent.original;
        let end = start + body.len() as u32;
        let left_out = position..from;
        show(match records_in(segment, body, start, from) {
            Some((records, next)) if next == to => {
                Ok(Frame { left_out, records, body, start, end })
            }
            _ => {
                let what = "a kept extent is not what was written";
                Err(Broken { what, offset: extent.offset, positions: from..to })
            }
        })?;
        position = to;
    }
    let start = extents.original_end;
    let end = extents.original_end;
    let left_out = position..after;
    show(Ok(Frame { left_out, records: Vec::new(), body: &[], start, end }))
}

/// Judges the bytes after the last whole frame. The error tells why more frames must be there.
pub(crate) fn verdict(frames: &Frames<'_>, end: End<'_>) -> Result<Tail, String> {
    match end {
        End::Sealed(next) if (frames.offset, frames.next) != (next.previous_end, next.first) => {
            Err("the next segment was begun".into())
        }
        End::Synced(end) if frames.offset != end => Err("its writer recorded it as durable".into()),
        End::Sealed(_) | End::Synced(_) => Ok(Tail::Clean),
        End::Open => frames.tail(),
    }
}

/// Reads the headers of these segments, each of which must follow the one before. No segment stays
/// open: a log may have more segments than a process may have open files.
pub(crate) fn read_chain(
    files: &dyn Files,
    firsts: &[u64],
) -> Result<Vec<SegmentHeader>, StoreError> {
    let mut headers: Vec<SegmentHeader> = Vec::with_capacity(firsts.len());
    for first in firsts {
        let header = Segment::open(files, *first)?.header;
        let follows = match headers.last() {
            // The caller knows whether there was a segment before the first.
            None => true,
            Some(before) => header.previous == before.first && header.lineage == before.lineage,
        };
        if !follows {
            let what = format!(
                "the segment before it is missing or of another log, previous={}",
                header.previous
            );
            return Err(error::damaged(what, *first, 0));
        }
        headers.push(header);
    }
    Ok(headers)
}
