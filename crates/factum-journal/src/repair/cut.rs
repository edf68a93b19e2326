//! The cut of a log before its first damage.

use factum_kernel::{Clock, StoreError, SystemClock, SystemIds, Timestamp};

use super::RepairFolder;
use crate::{
    disk::Files,
    error, lineage,
    place::LOG,
    record::Record,
    run::{Run, RunKind},
    segment::{FRAMES_START, Segment, SegmentHeader, check_alone, segment_name, segments_in},
    synced::record_repaired,
    tail::{FIRST_SEGMENT_BYTES, begin_segment, new_salt, write_zeros},
    verify::{Cut, Folders, names},
    walk::{End, walk},
};

/// The bytes of zeros in one write, from the end backward.
const ZEROS: u32 = 1 << 20;

/// The way in which a log is ended.
#[derive(Debug)]
pub(super) struct LogCut {
    pub(super) folder: &'static str,
    pub(super) cut: Cut,
    /// The last remaining segment, if it is changed.
    changed: Option<String>,
    /// The segments after it.
    later: Vec<String>,
    /// The segment to begin where the log ends, if none is there.
    begun: Option<SegmentHeader>,
    /// The runs that know of events no longer in the log, or that hold documents from the cut on.
    pub(super) runs: Vec<String>,
}

impl LogCut {
    pub(super) fn new(
        files: &dyn Files,
        folder: &'static str,
        cut: Cut,
    ) -> Result<Self, StoreError> {
        let names = names(files)?;
        let begun = begun(files, folder, cut, &names)?;
        let from = if cut.segment > 0 { cut.segment + 1 } else { cut.position };
        let segments = segments_in(&names).into_iter();
        let later = segments.filter(|first| *first >= from.max(1)).map(segment_name).collect();
        // The last remaining segment is no longer sealed, and has no run.
        let known = if begun.is_some() { cut.position } else { cut.segment };
        let kind = kind_of(folder);
        let runs = kind.ranges_in(&names).into_iter().filter(|(_, last)| {
            *last
                >= match folder {
                    LOG => known,
                    _ => cut.position,
                }
        });
        let runs = runs.map(|(first, last)| kind.name(first, last)).collect();
        let mut changed = None;
        if begun.is_none() {
            let name = segment_name(cut.segment);
            let bytes = read(files, &name)?;
            changed = used(&bytes, cut.offset).map(|_| name);
        }
        if let Some(name) = &changed {
            let file = files.open(name).map_err(|e| error::disk("opening a segment", name, e))?;
            check_alone(&*file, name)?;
        }
        Ok(Self { folder, cut, changed, later, begun, runs })
    }

    /// The files that are set aside.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        let runs = self.runs.iter().filter(|_| self.folder != LOG);
        self.changed.iter().chain(&self.later).chain(runs).map(String::as_str)
    }

    pub(super) fn carry_out(
        &self,
        folders: &Folders,
        aside: &RepairFolder,
    ) -> Result<(), StoreError> {
        let (files, away) = match self.folder {
            LOG => (&folders.log, &aside.log),
            _ => (&folders.documents, &aside.documents),
        };
        record_repaired(&**files, None)?;
        // Newest first, so that the remaining files are a log at every moment.
        for name in self.later.iter().rev() {
            move_away(folders, aside, self.folder, name)?;
        }
        // The runs of the index were moved before.
        for name in self.runs.iter().rev().filter(|_| self.folder != LOG) {
            move_away(folders, aside, self.folder, name)?;
        }
        if let Some(name) = &self.changed {
            copy(&**files, &**away, name)?;
            self.clear(&**files, name)?;
        }
        let mut end = (self.cut.segment, self.cut.offset);
        if let Some(header) = self.begun {
            begin_segment(&**files, header, FIRST_SEGMENT_BYTES)?;
            end = (header.first, FRAMES_START);
        }
        record_repaired(&**files, Some(end))
    }

    /// Writes zeros over the bytes after the end.
    fn clear(&self, files: &dyn Files, name: &str) -> Result<(), StoreError> {
        let at = |e| error::disk("ending the log before the damage", name, e);
        let file = files.open(name).map_err(at)?;
        let bytes = file.read_all().map_err(at)?;
        let mut end = used(&bytes, self.cut.offset).unwrap_or(self.cut.offset);
        while end > self.cut.offset {
            let start = end.saturating_sub(ZEROS).max(self.cut.offset);
            write_zeros(&*file, start, end).map_err(at)?;
            end = start;
        }
        file.sync().map_err(at)
    }
}

fn kind_of(folder: &str) -> RunKind {
    if folder == LOG { RunKind::Events } else { RunKind::Documents }
}

/// The segment that a log must end with, if no segment remains, or if the last that remains is a
/// rewritten segment or a run.
fn begun(
    files: &dyn Files,
    folder: &str,
    cut: Cut,
    names: &[String],
) -> Result<Option<SegmentHeader>, StoreError> {
    let mut header = SegmentHeader {
        lineage: lineage::new_lineage(),
        salt: new_salt(&SystemIds, SystemClock.now()),
        first: cut.position,
        base_at: Timestamp::EPOCH,
        previous: cut.segment,
        previous_end: cut.offset,
        rewritten: None,
    };
    if cut.segment > 0 {
        let last = Segment::open(files, cut.segment)?;
        if last.header.rewritten.is_none() {
            return Ok(None);
        }
        (header.lineage, header.base_at) = (last.header.lineage, last.header.base_at);
        let sealed = header;
        walk(&last, End::Sealed(&sealed), |frame, _| {
            for (_, record) in &frame.records {
                if let Record::Event(event) = record {
                    header.base_at = event.header.recorded_at;
                }
            }
            Ok(())
        })?;
    } else if folder != LOG {
        let ranges = RunKind::Documents.ranges_in(names).into_iter();
        if let Some((first, last)) = ranges.rev().find(|(_, last)| *last + 1 == cut.position) {
            let name = RunKind::Documents.name(first, last);
            let run = Run::open_as(RunKind::Documents, files, &name)?.header;
            (header.lineage, header.previous) = (run.lineage, run.segment);
        }
    }
    Ok(Some(header))
}

/// The offset after the last byte that is not zero, if there is one from an offset on.
fn used(bytes: &[u8], offset: u32) -> Option<u32> {
    let rest = bytes.get(offset as usize..)?;
    let last = rest.iter().rposition(|byte| *byte != 0)?;
    Some(offset + last as u32 + 1)
}

fn read(files: &dyn Files, name: &str) -> Result<Vec<u8>, StoreError> {
    let read = files.open(name).and_then(|file| file.read_all());
    read.map_err(|e| error::disk("reading what is to be set aside", name, e))
}

/// Copies a file into the set-aside folder, durably.
pub(super) fn copy(files: &dyn Files, away: &dyn Files, name: &str) -> Result<(), StoreError> {
    let bytes = read(files, name)?;
    away.put(name, &bytes).map_err(|e| error::disk("setting aside", name, e))
}

/// Moves a file into the set-aside folder, durably.
pub(super) fn move_away(
    folders: &Folders,
    aside: &RepairFolder,
    folder: &str,
    name: &str,
) -> Result<(), StoreError> {
    let (from, to) = match folder {
        LOG => (&folders.log, &aside.log),
        _ => (&folders.documents, &aside.documents),
    };
    let old = format!("{folder}/{name}");
    let new = format!("{}/{folder}/{name}", aside.name);
    let renamed = folders.top.rename(&old, &new);
    // The new name must be durable before the old one is gone.
    let moved = renamed.and_then(|()| to.sync_names()).and_then(|()| from.sync_names());
    moved.map_err(|e| error::disk("setting aside", &old, e))
}
