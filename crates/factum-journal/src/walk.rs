//! Going through a segment on disk from its first frame to where the frames must or may end.

use factum_core::StoreError;

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
    let tail = verdict(&frames, end)?;
    let (end, next, last) = (frames.offset, frames.next, frames.last);
    Ok(Walked { end, next, last, tail, bytes })
}

/// Shows a rewritten segment: first up to which versions events were left out, so that those that
/// were kept follow; then the stretches that were kept; last the positions behind them.
fn walk_kept(
    segment: &Segment,
    end: End<'_>,
    bytes: Vec<u8>,
    mut show: impl FnMut(&Frame<'_>, u64) -> Result<(), StoreError>,
) -> Result<Walked, StoreError> {
    let header = &segment.header;
    let damaged = |what: &str, at: u32| error::damaged(what, header.first, u64::from(at));
    let End::Sealed(next) = end else {
        return Err(damaged("it was rewritten, but the segment behind it is missing", 0));
    };
    let table = header.rewritten.map_or(0, |rewritten| rewritten.table as usize);
    let extents = Extents::decode(header, bytes.get(table..).unwrap_or(&[]))?;
    let behind = header.first + u64::from(extents.positions);
    if (extents.original_end, behind) != (next.previous_end, next.first) {
        return Err(extent::damaged(header));
    }
    let notes = &bytes[extents.kept_end as usize..extents.table as usize];
    let Some((records, _)) = records_in(segment, notes, extents.kept_end, header.first) else {
        return Err(damaged("what was left out is not what was written", extents.kept_end));
    };
    let mut position = header.first;
    let (start, end) = (extents.kept_end, FRAMES_START);
    show(&Frame { left_out: position..position, records, body: notes, start, end }, position)?;
    for (index, extent) in extents.list().iter().enumerate() {
        let first = header.first + u64::from(extent.position);
        let body = &bytes[extent.offset as usize..extents.end_of(index) as usize];
        let read = records_in(segment, body, extent.original, first);
        let Some((records, next)) = read.filter(|it| it.1 == first + u64::from(extent.events))
        else {
            return Err(damaged("a stretch that was kept is not what was written", extent.offset));
        };
        let (left_out, start) = (position..first, extent.original);
        let end = start + body.len() as u32;
        show(&Frame { left_out, records, body, start, end }, first)?;
        position = next;
    }
    let (start, end) = (extents.original_end, extents.original_end);
    let left_out = position..behind;
    show(&Frame { left_out, records: Vec::new(), body: &[], start, end }, behind)?;
    Ok(Walked { end, next: behind, last: None, tail: Tail::Clean, bytes })
}

fn verdict(frames: &Frames<'_>, end: End<'_>) -> Result<Tail, StoreError> {
    match end {
        End::Sealed(next) if (frames.offset, frames.next) != (next.previous_end, next.first) => {
            Err(frames.damaged("the segment behind it was begun"))
        }
        End::Synced(end) if frames.offset != end => {
            Err(frames.damaged("its writer says that it is durable"))
        }
        End::Sealed(_) | End::Synced(_) => Ok(Tail::Clean),
        End::Open => frames.tail(),
    }
}

/// Opens every segment, and checks that each follows the one before.
pub(crate) fn open_chain(files: &dyn Files, firsts: &[u64]) -> Result<Vec<Segment>, StoreError> {
    let mut segments: Vec<Segment> = Vec::with_capacity(firsts.len());
    for first in firsts {
        let segment = Segment::open(files, *first)?;
        let before = segments.last().map(|segment| segment.header);
        let follows = match before {
            // Whether there was one before it, the caller knows.
            None => true,
            Some(SegmentHeader { lineage, first, .. }) => {
                segment.header.previous == first && segment.header.lineage == lineage
            }
        };
        if !follows {
            let what = format!(
                "the segment before it is missing or of another log, previous={}",
                segment.header.previous
            );
            return Err(error::damaged(what, *first, 0));
        }
        segments.push(segment);
    }
    Ok(segments)
}
