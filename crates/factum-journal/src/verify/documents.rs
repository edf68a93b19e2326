//! The verification of the documents: every block of their runs, every frame of their log, and
//! their number.

use std::{error::Error, io, ops::RangeInclusive, sync::Arc};

use factum_kernel::{Lineage, StoreError, StoreErrorKind};

use super::{
    Findings, Watch,
    chain::{self, Chain, Cut, Start, Visitor, names},
    report::{Damage, Part, Remedy},
};
use crate::{
    disk::Files,
    documents::{BEGIN, Documents, Folder, read_begin, revision_of},
    frames::Frame,
    record::Record,
    run::{Run, RunKind},
    segment::{Segment, SegmentHeader, segment_name, segments_in},
};

/// The number of looks beside a writer, which writes runs and removes files in the meantime.
const ATTEMPTS: usize = 8;

/// Verifies the documents. If something is wrong, their new end goes into the findings.
pub(super) fn check(
    files: &Arc<dyn Files>,
    is_alone: bool,
    findings: &mut Findings,
    watch: &mut Watch<'_>,
) -> Result<(), StoreError> {
    for attempt in 1.. {
        let before = findings.clone();
        let checked = Check { files, is_alone, findings, through: 0, cut: None }.all(watch);
        let is_good = checked.is_ok() && findings.report.damage_count == before.report.damage_count;
        if is_good || is_alone || attempt == ATTEMPTS {
            return checked;
        }
        *findings = before;
    }
    Ok(())
}

struct Check<'a> {
    files: &'a Arc<dyn Files>,
    is_alone: bool,
    findings: &'a mut Findings,
    /// The last revision that runs cover.
    through: u64,
    /// The first wrong revision in runs.
    cut: Option<u64>,
}

impl Check<'_> {
    fn all(mut self, watch: &mut Watch<'_>) -> Result<(), StoreError> {
        let names = names(&**self.files)?;
        let ranges = RunKind::Documents.ranges_in(&names);
        let is_begun = self.begin(&names, &ranges, watch)?;
        let start = self.runs(&ranges, is_begun, watch);
        let covered = segments_in(&names).into_iter();
        for first in covered.filter(|first| (1..start.position.unwrap_or(1)).contains(first)) {
            watch.add(len(&**self.files, &segment_name(first)));
        }
        let chain = Chain::open(Part::Documents, &**self.files, start, self.is_alone)?;
        let checked = chain.check(&mut Laws, self.findings, watch);
        let cut = self.cut.map(|position| Cut { segment: 0, offset: 0, position });
        self.findings.document_cut = cut.or(checked.cut);
        self.findings.revisions = checked.seen.max(self.through);
        let is_whole = self.findings.document_cut.is_none() && self.findings.begin.is_none();
        if is_whole { self.count(&chain, watch) } else { Ok(()) }
    }

    fn damage(&mut self, name: &str, what: impl Into<String>, revisions: RangeInclusive<u64>) {
        let damage = Damage::new(Part::Documents, format!("documents/{name}"), what);
        self.findings.report.damage(damage.positions(*revisions.start(), Some(*revisions.end())));
        self.cut.get_or_insert(self.through + 1);
    }

    /// Checks the file with the first revision. Returns whether the first revision is known.
    fn begin(
        &mut self,
        names: &[String],
        ranges: &[(u64, u64)],
        watch: &mut Watch<'_>,
    ) -> Result<bool, StoreError> {
        let is_there = names.iter().any(|name| name == BEGIN);
        let what = match is_there.then(|| read_begin(&**self.files)) {
            Some(Ok(begin)) => {
                watch.add(len(&**self.files, BEGIN));
                self.through = begin - 1;
                return Ok(true);
            }
            Some(Err(error)) if error.kind() != StoreErrorKind::Corrupt => return Err(error),
            Some(Err(_)) => "the file with the first revision is not what was written",
            None if ranges.is_empty() => return Ok(false),
            None => "the file with the first revision is missing",
        };
        // If the first revision is there, nothing before it was lost. Otherwise it can't be known,
        // and everything before the first revision that is there is reported as lost.
        let segments = segments_in(names).into_iter().filter(|first| *first > 0);
        let least = ranges.iter().map(|range| range.0).chain(segments).min();
        self.findings.begin = Some(1);
        let mut damage = Damage::new(Part::Documents, format!("documents/{BEGIN}"), what);
        if least == Some(1) {
            damage.remedy = Remedy::Remake;
        }
        self.findings.report.damage(damage);
        Ok(true)
    }

    /// Verifies the runs. Returns the expected beginning of the log.
    fn runs(&mut self, ranges: &[(u64, u64)], is_begun: bool, watch: &mut Watch<'_>) -> Start {
        let position = is_begun.then_some(self.through + 1);
        let mut start = Start { position, previous: None, lineage: None };
        for (first, last) in ranges.iter().copied() {
            let name = RunKind::Documents.name(first, last);
            watch.add(len(&**self.files, &name));
            // A file that a wider run covers is left over; the next opening removes it.
            if last <= self.through {
                continue;
            }
            let due = self.through + 1;
            if first > due {
                let missing = RunKind::Documents.name(due, first - 1);
                self.damage(&missing, "documents are missing", due..=first - 1);
            } else if first < due {
                self.damage(&name, "a file covers a part of another", due..=last);
            }
            match read(&**self.files, &name, first..=last, start.lineage) {
                Ok(run) => {
                    start.previous = Some(run.header.segment);
                    start.lineage = Some(run.header.lineage);
                    self.findings.report.document_runs += 1;
                }
                Err(Unsound::Damaged(what, offset)) => {
                    start.previous = None;
                    self.damage(&name, what, first..=last);
                    if let Some(damage) = self.findings.report.damages.last_mut() {
                        damage.offset = offset;
                    }
                }
                Err(Unsound::Unreadable(error)) => {
                    start.previous = None;
                    self.damage(&name, "the disk can't read it", first..=last);
                    self.findings.unreadable.get_or_insert(error);
                }
            }
            self.through = last;
            start.position = Some(last + 1);
        }
        start
    }

    /// Counts the documents, in the way in which they would be read.
    fn count(&mut self, chain: &Chain<'_>, watch: &mut Watch<'_>) -> Result<(), StoreError> {
        let folder = Folder::look(&**self.files, &names(&**self.files)?, &[])?;
        let bytes = folder.runs.iter().map(|run| run.bytes).sum();
        watch.more(bytes);
        let headers: Vec<SegmentHeader> = chain.segments.iter().flatten().copied().collect();
        let files = self.files.clone();
        let (documents, _) = Documents::load(files, None, folder, &headers, chain.end())?;
        self.findings.report.documents = documents.count()?;
        watch.add(bytes);
        Ok(())
    }
}

fn len(files: &dyn Files, name: &str) -> u64 {
    files.open(name).map_or(0, |file| chain::len(&*file))
}

/// The fault of a run.
enum Unsound {
    /// The text, and the offset.
    Damaged(String, Option<u64>),
    Unreadable(StoreError),
}

/// Reads a whole run, one block at a time.
fn read(
    files: &dyn Files,
    name: &str,
    revisions: RangeInclusive<u64>,
    lineage: Option<Lineage>,
) -> Result<Run, Unsound> {
    let damaged = |error: StoreError| {
        let disk = error.source().and_then(Error::source);
        let is_gone = disk.and_then(|it| it.downcast_ref::<io::Error>());
        let is_gone = is_gone.is_some_and(|it| it.kind() == io::ErrorKind::NotFound);
        if error.kind() != StoreErrorKind::Corrupt && !is_gone {
            return Unsound::Unreadable(error);
        }
        let text = error.to_string();
        let offset = text.split("offset=").nth(1).and_then(|it| it.split(';').next()?.parse().ok());
        Unsound::Damaged("a file of documents is not what was written".into(), offset)
    };
    let run = Run::open_as(RunKind::Documents, files, name).map_err(damaged)?;
    let wrong = |what: &str| Err(Unsound::Damaged(what.into(), None));
    if (run.header.first..=run.header.last) != revisions {
        return wrong("a file of documents has the name of another");
    }
    if lineage.is_some_and(|lineage| lineage != run.header.lineage) {
        return wrong("a file of documents is of another journal");
    }
    run.check(|entry| {
        revision_of(entry.value()).is_some_and(|it| (1..=*revisions.end()).contains(&it))
    })
    .map_err(damaged)?;
    Ok(run)
}

/// The rules for each frame of the documents' log.
struct Laws;

impl Visitor for Laws {
    fn begin(&mut self, _: &Segment) {}

    fn frame(&mut self, _: &Segment, frame: &Frame<'_>, faults: &mut Vec<(u32, String)>) {
        for (offset, record) in &frame.records {
            if !matches!(record, Record::Document(_) | Record::Commit) {
                faults.push((*offset, "something else stands among documents".into()));
            }
        }
    }

    fn gap(&mut self) {}

    fn end(&mut self, _: &Segment, _: bool, _: &mut Findings) {}
}
