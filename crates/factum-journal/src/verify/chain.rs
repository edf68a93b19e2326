//! The walk through all segments of a log and all of their frames, past damaged places.

use std::io;

use factum_kernel::{Lineage, StoreError, StoreErrorKind};

use super::{
    Findings, Watch,
    report::{Damage, Part, Torn},
};
use crate::{
    disk::{File, Files},
    error,
    frame::{FRAME_ALIGN, FrameHeader, FramePlace},
    frames::{Frame, Frames, Tail},
    segment::{FRAMES_START, Segment, SegmentHeader, segment_name, segments_in},
    synced::Recorded,
    walk::{End, each_kept, extents_in, verdict},
};

/// The number of looks at files that a writer changes in the meantime.
const ATTEMPTS: usize = 8;

/// The new end of a damaged log: after the last frame before its first damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The first position of the last remaining segment; 0: none. A rewritten segment is never the
    /// last of a log, so another must follow it.
    pub(crate) segment: u64,
    /// The offset where its frames end, or ended before it was rewritten.
    pub(crate) offset: u32,
    /// The next position.
    pub(crate) position: u64,
}

/// The checks on what the walk passes.
pub(super) trait Visitor {
    /// Called at the beginning of a segment.
    fn begin(&mut self, segment: &Segment);

    /// Called for each frame. Faults go into `faults`, each with its offset.
    fn frame(&mut self, segment: &Segment, frame: &Frame<'_>, faults: &mut Vec<(u32, String)>);

    /// Called where a part of the log is missing.
    fn gap(&mut self);

    /// Called at the end of a segment; `is_whole`: no fault was found in it.
    fn end(&mut self, segment: &Segment, is_whole: bool, findings: &mut Findings);
}

/// The expected beginning of a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// The first position; `None`: any.
    pub(super) position: Option<u64>,
    /// The segment before the first; `None`: unknown.
    pub(super) previous: Option<u64>,
    /// The lineage; `None`: that of the first segment.
    pub(super) lineage: Option<Lineage>,
}

impl Start {
    /// The beginning of the events' log.
    pub(super) const LOG: Self = Self { position: Some(1), previous: Some(0), lineage: None };
}

/// A log to verify, and its end.
pub(super) struct Chain<'f> {
    pub(super) part: Part,
    pub(super) files: &'f dyn Files,
    start: Start,
    /// The durable end that the writer recorded.
    recorded: Option<(u64, u32)>,
    pub(super) is_alone: bool,
    /// The segments by name, including those after the recorded end.
    pub(super) firsts: Vec<u64>,
    /// Their headers. A segment is open only while the walk is in it.
    pub(super) segments: Vec<Result<SegmentHeader, StoreError>>,
}

/// The names in a folder; none if it does not exist.
pub(crate) fn names(files: &dyn Files) -> Result<Vec<String>, StoreError> {
    match files.list() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|e| error::disk("listing the folder", "", e)),
    }
}

impl<'f> Chain<'f> {
    /// Opens the segments of a log from its expected beginning.
    pub(super) fn open(
        part: Part,
        files: &'f dyn Files,
        start: Start,
        is_alone: bool,
    ) -> Result<Self, StoreError> {
        let mut chain = Self::open_once(part, files, start, is_alone)?;
        for _ in 1..ATTEMPTS {
            // The last segment of a moment ago may be a rewritten one by now.
            let is_past = |it: &SegmentHeader| !is_alone && it.rewritten.is_some();
            if !chain.segments.last().is_some_and(|it| it.as_ref().is_ok_and(is_past)) {
                break;
            }
            chain = Self::open_once(part, files, start, is_alone)?;
        }
        Ok(chain)
    }

    fn open_once(
        part: Part,
        files: &'f dyn Files,
        start: Start,
        is_alone: bool,
    ) -> Result<Self, StoreError> {
        // The end first, then the files, which hold at least as much.
        let recorded = recorded_end(files);
        if recorded.is_none() && !is_alone {
            let message = "the journal is just being opened for writing, try again";
            return Err(StoreError::unavailable(message));
        }
        let mut firsts = segments_in(&names(files)?);
        // Documents may have segments that runs cover; the next opening removes these.
        firsts.retain(|first| part == Part::Log || *first >= start.position.unwrap_or(1));
        let last = recorded.filter(|_| !is_alone).map_or(u64::MAX, |(last, _)| last);
        let seen = firsts.iter().filter(|first| **first <= last);
        let header = |first: &u64| Segment::open(files, *first).map(|segment| segment.header);
        let segments = seen.map(header).collect();
        Ok(Self { part, files, start, recorded, is_alone, firsts, segments })
    }

    /// Returns whether the writer has recorded another end since the chain was opened.
    pub(super) fn has_new_end(&self) -> bool {
        !self.is_alone && recorded_end(self.files) != self.recorded
    }

    /// Walks through the whole log.
    pub(super) fn check(
        &self,
        visitor: &mut dyn Visitor,
        findings: &mut Findings,
        watch: &mut Watch<'_>,
    ) -> Checked {
        let start = self.start.position.unwrap_or(1);
        let good = Cut { segment: 0, offset: 0, position: start };
        let cut = None;
        let before = Before { lineage: self.start.lineage, ..Before::default() };
        let seen = start - 1;
        let mut check = Check { chain: self, visitor, findings, good, cut, before, seen };
        for (index, segment) in self.segments.iter().enumerate() {
            let first = self.firsts[index];
            check.before.after = None;
            // The segment may have been rewritten since. Its own header describes its content.
            let opened = segment.as_ref().map_err(StoreError::clone);
            match opened.and_then(|it| Segment::open(self.files, it.first)) {
                Ok(segment) => check.segment(index, &segment, watch),
                Err(error) => check.unreadable(first, &error),
            }
            check.before.first = Some(first);
        }
        check.newest();
        Checked { cut: check.cut, end: check.good, seen: check.seen }
    }

    /// The end of the last segment.
    pub(super) fn end(&self) -> End<'static> {
        match self.recorded {
            Some((_, end)) if !self.is_alone => End::Synced(end),
            _ => End::Open,
        }
    }

    pub(super) fn file(&self, first: u64) -> String {
        format!("{}/{}", self.part.name(), segment_name(first))
    }
}

/// The durable end of a log that the writer recorded.
fn recorded_end(files: &dyn Files) -> Option<(u64, u32)> {
    Recorded::read(files).ok().and_then(|recorded| recorded.reach())
}

/// The result of a walk through a log.
pub(super) struct Checked {
    /// The new end of the log, if a fault was found.
    pub(super) cut: Option<Cut>,
    /// The end of the part without faults.
    pub(super) end: Cut,
    /// The last position that was seen.
    pub(super) seen: u64,
}

/// The segment before the current one.
#[derive(Debug, Default)]
struct Before {
    /// Its name, whether or not it can be read.
    first: Option<u64>,
    /// The position after it, if it is a rewritten segment.
    after: Option<u64>,
    /// The lineage of the last segment that could be read.
    lineage: Option<Lineage>,
}

struct Check<'a, 'f> {
    chain: &'a Chain<'f>,
    visitor: &'a mut dyn Visitor,
    findings: &'a mut Findings,
    /// The end of the part without faults so far.
    good: Cut,
    cut: Option<Cut>,
    before: Before,
    /// The last position.
    seen: u64,
}

impl Check<'_, '_> {
    fn damage(&mut self, damage: Damage) {
        self.cut.get_or_insert(self.good);
        self.findings.report.damage(damage);
    }

    fn missing(&mut self, first: u64, through: Option<u64>) {
        let part = self.chain.part;
        let file = self.chain.file(first);
        let damage = Damage::new(part, file, "a segment is missing");
        self.damage(damage.positions(first.max(1), through));
        self.visitor.gap();
    }

    fn unreadable(&mut self, first: u64, error: &StoreError) {
        if error.kind() != StoreErrorKind::Corrupt {
            self.findings.unreadable.get_or_insert_with(|| error.clone());
        }
        let mut after = self.chain.firsts.iter().filter(|other| **other > first);
        let through = after.next().map(|next| next - 1);
        let what = format!("a segment can't be read, {}", reason(error));
        let damage = Damage::new(self.chain.part, self.chain.file(first), what);
        self.damage(damage.at(0_u64).positions(first, through));
        self.visitor.gap();
    }

    /// Checks that a segment follows the one before, and reports what is wrong.
    fn follows(&mut self, segment: &Segment) {
        let Start { position, previous, .. } = self.chain.start;
        let header = segment.header;
        let first = header.first;
        let before = self.before.first.or(previous);
        let due = match self.before.first {
            Some(before) => (header.previous > before).then_some(header.previous),
            None => position.filter(|due| first > *due),
        };
        let lineage = self.before.lineage.replace(header.lineage);
        if let Some(due) = due {
            self.missing(due, Some(first - 1));
        } else if before.is_some_and(|before| header.previous != before)
            || lineage.is_some_and(|lineage| header.lineage != lineage)
        {
            let what = "a segment does not follow the one before it, it is of another log";
            let damage = Damage::new(self.chain.part, self.chain.file(first), what);
            self.damage(damage.at(0_u64).positions(first, None));
            self.visitor.gap();
        }
    }

    fn segment(&mut self, index: usize, segment: &Segment, watch: &mut Watch<'_>) {
        let first = segment.header.first;
        self.follows(segment);
        let is_rewritten = segment.header.rewritten.is_some();
        if self.cut.is_none() && !is_rewritten {
            self.good = Cut { segment: first, offset: FRAMES_START, position: first };
        }
        let end = match self.chain.segments.get(index + 1) {
            Some(Ok(next)) if next.previous == first => Some(End::Sealed(next)),
            // The end of the segment can't be known.
            Some(_) => None,
            None => Some(self.chain.end()),
        };
        self.visitor.begin(segment);
        let bytes = match segment.file.read_all() {
            Ok(bytes) => bytes,
            Err(error) => {
                let file = self.chain.file(first);
                return self.unreadable(first, &error::disk("reading the log", &file, error));
            }
        };
        watch.add(bytes.len() as u64);
        let is_whole = match is_rewritten {
            true => self.kept(segment, &bytes, end),
            false => self.frames(segment, bytes, end),
        };
        self.visitor.end(segment, is_whole, self.findings);
    }

    /// Walks through the frames of a segment. Returns whether all is right.
    fn frames(&mut self, segment: &Segment, mut bytes: Vec<u8>, end: Option<End<'_>>) -> bool {
        let first = segment.header.first;
        let len = bytes.len();
        let must_reach = match end {
            Some(End::Sealed(next)) => next.previous_end as usize,
            Some(End::Synced(end)) => end as usize,
            Some(End::Open) | None => 0,
        };
        if must_reach > 0 {
            // After that, there may be traces of a write that was given up or is under way.
            bytes.truncate(must_reach);
        }
        let mut is_whole = true;
        let mut from = (FRAMES_START, first);
        loop {
            let rest = bytes.get(from.0 as usize..).unwrap_or(&[]);
            let mut frames = Frames::new(segment, rest, from.0, from.1);
            while let Some(frame) = frames.next_frame() {
                is_whole &= self.frame(segment, &frame, frames.next);
            }
            let Some(end) = end else { return is_whole };
            let judged =
                verdict(&frames, end).and_then(|tail| self.check_recorded(segment, &frames, tail));
            let why = match judged {
                Ok(Tail::Clean) => return is_whole,
                Ok(Tail::Torn { .. }) => {
                    let file = self.chain.file(first);
                    let offset = u64::from(frames.offset);
                    self.findings.report.torn.push(Torn { file, offset });
                    return is_whole;
                }
                Err(why) => why,
            };
            is_whole = false;
            let next = next_whole(segment, &bytes, &frames);
            let through = match (next, end) {
                (Some((_, position)), _) => Some(position - 1),
                (None, End::Sealed(next)) => Some(next.first - 1),
                (None, _) => None,
            };
            let cut_short = if len < must_reach { ", the file is too short" } else { "" };
            let what = format!("{}{cut_short}", frames.broken(&why));
            let damage = Damage::new(self.chain.part, self.chain.file(first), what);
            self.damage(damage.at(frames.offset).positions(frames.next, through));
            self.visitor.gap();
            match next {
                Some(next) => from = next,
                None => return false,
            }
        }
    }

    /// Walks through the kept parts of a rewritten segment. Returns whether all is right. If not,
    /// the log must end before this segment, because it can't end inside it.
    fn kept(&mut self, segment: &Segment, bytes: &[u8], end: Option<End<'_>>) -> bool {
        let first = segment.header.first;
        let file = self.chain.file(segment.header.first);
        let table = segment.header.rewritten.map_or(0, |rewritten| rewritten.table);
        let found = extents_in(segment, bytes).ok();
        let fits = found.filter(|extents| match end {
            Some(End::Sealed(next)) => extents.reach(next),
            // The next segment is missing, which is reported elsewhere.
            _ => true,
        });
        let Some(extents) = fits else {
            let through = match end {
                Some(End::Sealed(next)) => Some(next.first - 1),
                _ => None,
            };
            let what = "the table of a rewritten segment is not what was written";
            let damage = Damage::new(self.chain.part, file, what).at(table);
            self.damage(damage.positions(first, through));
            self.visitor.gap();
            return false;
        };
        let mut is_whole = true;
        let shown = each_kept(segment, &extents, bytes, |part| {
            match part {
                Ok(frame) => {
                    let mut faults = Vec::new();
                    self.visitor.frame(segment, &frame, &mut faults);
                    for (offset, what) in faults {
                        is_whole = false;
                        let at = extents.in_file(offset).unwrap_or(offset);
                        self.damage(Damage::new(self.chain.part, file.clone(), what).at(at));
                    }
                }
                Err(broken) => {
                    is_whole = false;
                    let damage = Damage::new(self.chain.part, file.clone(), broken.what);
                    let from = broken.positions.start;
                    let to = broken.positions.end;
                    self.damage(damage.at(broken.offset).positions(from, Some(to - 1)));
                    self.visitor.gap();
                }
            }
            Ok(())
        });
        debug_assert!(shown.is_ok(), "the visitor never fails");
        let after = first + u64::from(extents.positions);
        self.seen = after - 1;
        self.before.after = Some(after);
        if self.cut.is_none() {
            self.good = Cut { segment: first, offset: extents.original_end, position: after };
        }
        is_whole
    }

    /// Compares the durable end that the writer recorded with the end of the frames.
    fn check_recorded(
        &self,
        segment: &Segment,
        frames: &Frames<'_>,
        tail: Tail,
    ) -> Result<Tail, String> {
        let (newest, offset) = self.chain.recorded.unwrap_or_default();
        if newest == segment.header.first && frames.offset < offset {
            return Err(format!("its writer recorded it as durable up to {offset}"));
        }
        Ok(tail)
    }

    fn frame(&mut self, segment: &Segment, frame: &Frame<'_>, next: u64) -> bool {
        self.seen = next - 1;
        let mut faults = Vec::new();
        self.visitor.frame(segment, frame, &mut faults);
        let is_good = faults.is_empty();
        for (offset, what) in faults {
            let file = self.chain.file(segment.header.first);
            self.damage(Damage::new(self.chain.part, file, what).at(offset));
        }
        if self.cut.is_none() {
            self.good = Cut { segment: segment.header.first, offset: frame.end, position: next };
        }
        is_good
    }

    /// Checks that the newest segment is there.
    fn newest(&mut self) {
        let last = self.before.first.unwrap_or(0);
        match (self.before.after, self.chain.recorded) {
            // A rewritten segment is never the last one.
            (Some(after), _) => self.missing(after, None),
            (None, Some((newest, _))) if newest > last => self.missing(newest, None),
            _ if last == 0 => {
                let folder = self.chain.part.name();
                self.damage(Damage::new(self.chain.part, folder, "no segment is there"));
            }
            _ => {}
        }
    }
}

/// The part of an error's text that names the fault, without the remedy and the place.
fn reason(error: &StoreError) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("the log is damaged, ").unwrap_or(&text);
    text.split(';').next().unwrap_or(text).to_owned()
}

/// The next whole frame after a broken one: its offset and its first position.
fn next_whole(segment: &Segment, bytes: &[u8], frames: &Frames<'_>) -> Option<(u32, u64)> {
    let start = frames.offset + FRAME_ALIGN;
    let salt = segment.header.salt.to_le_bytes();
    let candidates = (start..u32::try_from(bytes.len()).ok()?).step_by(FRAME_ALIGN as usize);
    candidates.into_iter().find_map(|offset| {
        let rest = &bytes[offset as usize..];
        if !rest.starts_with(&salt) {
            return None;
        }
        let place = FramePlace { salt: segment.header.salt, seed: segment.seed, offset };
        let header = FrameHeader::read(place, rest)?;
        let is_whole = || Frames::new(segment, rest, offset, header.first).next_frame().is_some();
        (header.first >= frames.next && is_whole()).then_some((offset, header.first))
    })
}

/// The length of a file; 0 if it can't be determined.
pub(super) fn len(file: &dyn File) -> u64 {
    file.len().unwrap_or(0)
}
