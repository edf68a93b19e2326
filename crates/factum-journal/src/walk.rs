//! Going through a segment on disk from its first frame to where the frames must or may end.

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

/// Where the frames of a segment end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// Where the segment behind it says.
    Sealed(&'a SegmentHeader),
    /// At this offset or behind it: so says the writer, who is at work.
    Synced(u32),
    /// Where they end; what is behind is to be judged.
    Open,
}

/// A segment that was gone through to its end.
pub(crate) struct Walked {
    /// Where the frames end.
    pub(crate) end: u32,
    /// The next position.
    pub(crate) next: u64,
    /// The last frame: where it begins, and what it is.
    pub(crate) last: Option<(u32, FrameKind)>,
    pub(crate) tail: Tail,
    /// The bytes of the segment.
    pub(crate) bytes: Vec<u8>,
}

/// Shows the frames of a segment, each with its first position; of a rewritten one, the stretches
/// that were kept.
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
        // Behind its last frame a sealed segment may hold the traces of a write that was given up.
        End::Sealed(next) => bytes.truncate(next.previous_end as usize),
        // Behind that, a frame may be half written just now.
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

/// Shows a rewritten segment, of which every part must be what was written.
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

/// What is wrong with a rewritten segment that is the last one.
pub(crate) const NOT_FOLLOWED: &str = "it was rewritten, but the segment behind it is missing";

/// A part of a rewritten segment that is not what was written.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) what: &'static str,
    /// Where it begins in the file.
    pub(crate) offset: u32,
    /// The positions that it told of.
    pub(crate) positions: Range<u64>,
}

/// The table of a rewritten segment with these bytes.
pub(crate) fn extents_in(segment: &Segment, bytes: &[u8]) -> Result<Extents, StoreError> {
    let header = &segment.header;
    let table = header.rewritten.map_or(0, |rewritten| rewritten.table as usize);
    let len = header.rewritten.map_or(0, |rewritten| rewritten.table_len as usize);
    let table = bytes.get(table..).filter(|table| table.len() == len);
    Extents::decode(header, table.ok_or_else(|| extent::damaged(header))?)
}

/// Shows the parts of a rewritten segment: first up to which versions events were left out, so that
/// those that were kept follow; then the stretches that were kept; last the positions behind them.
pub(crate) fn each_kept(
    segment: &Segment,
    extents: &Extents,
    bytes: &[u8],
    mut show: impl FnMut(Result<Frame<'_>, Broken>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let first = segment.header.first;
    let behind = first + u64::from(extents.positions);
    let notes = &bytes[extents.kept_end as usize..extents.table as usize];
    let start = extents.kept_end;
    let end = FRAMES_START;
    show(match records_in(segment, notes, start, first) {
        Some((records, next)) if next == first => {
            Ok(Frame { left_out: first..first, records, body: notes, start, end })
        }
        _ => {
            let what = "what was left out is not what was written";
            Err(Broken { what, offset: start, positions: first..behind })
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
                let what = "a stretch that was kept is not what was written";
                Err(Broken { what, offset: extent.offset, positions: from..to })
            }
        })?;
        position = to;
    }
    let start = extents.original_end;
    let end = extents.original_end;
    let left_out = position..behind;
    show(Ok(Frame { left_out, records: Vec::new(), body: &[], start, end }))
}

/// What is behind the last whole frame; the error says why more of them must be there.
pub(crate) fn verdict(frames: &Frames<'_>, end: End<'_>) -> Result<Tail, String> {
    match end {
        End::Sealed(next) if (frames.offset, frames.next) != (next.previous_end, next.first) => {
            Err("the segment behind it was begun".into())
        }
        End::Synced(end) if frames.offset != end => {
            Err("its writer says that it is durable".into())
        }
        End::Sealed(_) | End::Synced(_) => Ok(Tail::Clean),
        End::Open => frames.tail(),
    }
}

/// The headers of these segments, each of which must follow the one before. None of them stays
/// open: a log may have more segments than a process may have files.
pub(crate) fn read_chain(
    files: &dyn Files,
    firsts: &[u64],
) -> Result<Vec<SegmentHeader>, StoreError> {
    let mut headers: Vec<SegmentHeader> = Vec::with_capacity(firsts.len());
    for first in firsts {
        let header = Segment::open(files, *first)?.header;
        let follows = match headers.last() {
            // Whether there was one before it, the caller knows.
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
