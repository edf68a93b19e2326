//! Looking through a whole journal: every frame, every law that the log must keep, and every entry
//! of the index against the log. Nothing is changed.

mod compare;

use std::{path::Path, sync::Arc};

use factum_core::{KeyRange, ScanQuery, StoreError, StreamVersion, Timestamp};
use hashbrown::HashMap;

use crate::{
    cache::Cache,
    disk::{Files, SystemFiles},
    documents::{Documents, Folder},
    erased::Erased,
    follower::DocumentFollower,
    frames::{Frame, Tail},
    index::load_erased,
    lock::Lock,
    recent::{Indexed, Recent},
    record::{Record, StreamState},
    recovery::list,
    replay::tags_of,
    run::{Run, run_name, runs_in},
    segment::{Segment, segment_name, segments_in},
    store::{DOCUMENTS, LOG, MARKER},
    tail::{SYNCED, read_synced},
    walk::{End, open_chain, walk},
};

/// The most damages that a report lists; the rest is only counted.
pub const DAMAGES_MAX: usize = 100;

/// What a look through a journal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalReport {
    /// Files of the log.
    pub segments: u64,
    /// Positions in the log; the last one.
    pub events: u64,
    /// Of them, how many are erased.
    pub erased: u64,
    /// Streams that ever had an event or a retention.
    pub streams: u64,
    /// Files of the index.
    pub runs: u64,
    /// Documents.
    pub documents: u64,
    /// The end of a write that was cut short, which the next opening sets aside: file and offset.
    pub torn: Vec<String>,
    /// What is not as it was written, or breaks a law.
    pub damages: Vec<String>,
    /// How many damages there are, listed or not.
    pub damage_count: u64,
}

impl JournalReport {
    /// Whether everything is as it was written.
    pub fn is_whole(&self) -> bool {
        self.damage_count == 0
    }

    fn damage(&mut self, what: impl std::fmt::Display) {
        self.damage_count += 1;
        if self.damages.len() < DAMAGES_MAX {
            self.damages.push(what.to_string());
        }
    }
}

/// Looks through a whole journal; beside a writer, as far as that says it is durable. Takes as long
/// as reading every file does, and memory for the name of each stream.
///
/// # Errors
/// What keeps it from looking at all. What it finds is in the report.
///
/// ```
/// # use factum_journal::{JournalOptions, JournalStore, verify};
/// # use factum_core::EventStore;
/// # let folder = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let store = JournalStore::open(JournalOptions::new(folder.path())).await?;
/// # store.close().await?;
/// let report = verify(folder.path())?;
/// assert!(report.is_whole(), "{:?}", report.damages);
/// # Ok::<(), factum_core::StoreError>(()) }).unwrap();
/// ```
pub fn verify(path: &Path) -> Result<JournalReport, StoreError> {
    if !path.join(MARKER).is_file() {
        let message = format!("there is no journal, check the path: path={}", path.display());
        return Err(StoreError::invalid(message));
    }
    // Without the lock somebody writes, and only what that one calls durable is to be looked at.
    let lock = Lock::take(path).ok();
    let files = SystemFiles::new(&path.join(LOG));
    let mut checker = Checker::new(&files, lock.is_some());
    checker.check_log()?;
    let mut report = checker.report;
    let files: Arc<dyn Files> = Arc::new(SystemFiles::new(&path.join(DOCUMENTS)));
    check_documents(&files, lock.is_some(), &mut report);
    Ok(report)
}

struct Checker<'f> {
    files: &'f dyn Files,
    is_alone: bool,
    report: JournalReport,
    streams: HashMap<String, StreamState>,
    last_at: Timestamp,
}

/// Where the frames of the last segment end.
fn end_of(files: &dyn Files, is_alone: bool, last: u64) -> End<'static> {
    let synced = files.open(SYNCED).ok().and_then(|file| read_synced(&*file));
    match synced {
        Some((segment, end)) if !is_alone && segment == last => End::Synced(end),
        _ => End::Open,
    }
}

impl<'f> Checker<'f> {
    fn new(files: &'f dyn Files, is_alone: bool) -> Self {
        let (report, streams) = (JournalReport::default(), HashMap::new());
        Self { files, is_alone, report, streams, last_at: Timestamp::EPOCH }
    }

    fn check_log(&mut self) -> Result<(), StoreError> {
        let names = list(self.files)?;
        let segments = self.open_segments(&names);
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at + 1).map(|next| &next.header);
            let open = || end_of(self.files, self.is_alone, segment.header.first);
            let end = next.map_or_else(open, End::Sealed);
            self.check_segment(segment, end);
        }
        self.report.streams = self.streams.len() as u64;
        let runs = self.open_runs(&names, &segments);
        let cache = Cache::new();
        let mut erased = Erased::default();
        for run in &runs {
            if let Err(error) = load_erased(run, &cache, &mut erased) {
                self.report.damage(error);
            }
        }
        // Once more, one segment at a time, beside what the index says of it.
        for (at, segment) in segments.iter().enumerate() {
            let next = segments.get(at + 1).map(|next| &next.header);
            let open = || end_of(self.files, self.is_alone, segment.header.first);
            let Some(recent) = recent_of(segment, next.map_or_else(open, End::Sealed)) else {
                continue;
            };
            compare::erased(&recent, &self.streams, &erased, &mut self.report);
            let covers =
                |run: &&Run| (run.header.first..=run.header.last).contains(&segment.header.first);
            // One that is missing is made by the next opening.
            if let Some(run) = runs.iter().find(covers) {
                compare::run(run, &cache, &recent, &mut self.report);
            }
        }
        Ok(())
    }

    fn open_segments(&mut self, names: &[String]) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for first in segments_in(names) {
            let segment = match Segment::open(self.files, first) {
                Ok(segment) => segment,
                Err(error) => {
                    self.report.damage(error);
                    continue;
                }
            };
            let before = segments.last().map_or(0, |segment| segment.header.first);
            if segment.header.previous != before {
                self.report.damage(format!(
                    "a segment is missing: before={} missing={}",
                    segment_name(first),
                    segment_name(segment.header.previous)
                ));
            }
            segments.push(segment);
        }
        self.report.segments = segments.len() as u64;
        if segments.is_empty() {
            self.report.damage("the log is gone: no segment is there");
        }
        segments
    }

    fn check_segment(&mut self, segment: &Segment, end: End<'_>) {
        let walked = walk(segment, end, |frame, _| {
            self.check_frame(segment, frame);
            Ok(())
        });
        match walked {
            Err(error) => self.report.damage(error),
            Ok(walked) => {
                if let Tail::Torn { .. } = walked.tail {
                    let name = segment_name(segment.header.first);
                    self.report.torn.push(format!("file={name} offset={}", walked.end));
                }
            }
        }
    }

    fn check_frame(&mut self, segment: &Segment, frame: &Frame<'_>) {
        self.report.events = self.report.events.max(frame.left_out.end - 1);
        for (offset, record) in &frame.records {
            let place = || format!("segment={} offset={offset}", segment.header.first);
            match record {
                Record::Name(_) => {}
                Record::Change(stream, state) => {
                    let before = self.streams.entry_ref(*stream).or_default();
                    *before = state.behind(before);
                }
                Record::Erased(stream, version) => {
                    let bounds = &mut self.streams.entry_ref(*stream).or_default().bounds;
                    bounds.version = bounds.version.max(StreamVersion::new(*version));
                }
                Record::Event(event) => {
                    self.report.events = event.header.position.value();
                    let state = self.streams.entry_ref(event.stream).or_default();
                    let expected = state.bounds.version.next();
                    state.bounds.version = event.header.version;
                    if event.header.version != expected {
                        let (stream, version) = (event.stream, event.header.version);
                        self.report.damage(format!(
                            "a version is out of order: stream={stream} version={version} \
                             expected={expected} {}",
                            place()
                        ));
                    }
                    if event.header.recorded_at < self.last_at {
                        self.report.damage(format!("time goes back: {}", place()));
                    }
                    self.last_at = event.header.recorded_at;
                }
                Record::Document(_) | Record::Commit => {
                    self.report.damage(format!("a document stands among events: {}", place()));
                }
            }
        }
    }

    fn open_runs(&mut self, names: &[String], segments: &[Segment]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (first, last) in runs_in(names) {
            // Covered by a wider one: left over by a merge.
            if runs.last().is_some_and(|run| last <= run.header.last) {
                continue;
            }
            match Run::open(self.files, &run_name(first, last)) {
                Ok(run) => {
                    let is_ours =
                        segments.iter().any(|segment| segment.header.salt == run.header.salt);
                    if !is_ours {
                        self.report.damage(format!("a run is of another log: file={}", run.name));
                    }
                    runs.push(run);
                }
                // Merged away since the names were read.
                Err(_) if !self.is_alone => {}
                Err(error) => self.report.damage(error),
            }
        }
        self.report.runs = runs.len() as u64;
        runs
    }
}

/// A segment as the index should have it.
struct Expected {
    recent: Recent,
    /// Of each event: the stream, the version and the position.
    versions: Vec<(String, u64, u64)>,
    /// The positions of which the events were left out.
    left_out: Erased,
    /// Of streams that lost events: the highest version that was left out.
    lost: Vec<(String, u64)>,
}

fn recent_of(segment: &Segment, end: End<'_>) -> Option<Expected> {
    let recent = Recent::new(segment.clone());
    let (versions, left_out, lost) = (Vec::new(), Erased::default(), Vec::new());
    let mut expected = Expected { recent, versions, left_out, lost };
    // What is wrong with it has been said.
    walk(segment, end, |frame, _| {
        for position in frame.left_out.clone() {
            expected.recent.skip();
            expected.left_out.insert(position);
        }
        for (offset, record) in &frame.records {
            match record {
                Record::Name(name) => expected.recent.add_name(name),
                Record::Event(event) if (event.name as usize) < expected.recent.names.len() => {
                    let (category, _) = event.stream.split_once('-').unwrap_or_default();
                    let version = event.header.version;
                    let position = event.header.position.value();
                    expected.versions.push((event.stream.into(), version.value(), position));
                    let (offset, stream, name) = (*offset, event.stream, event.name);
                    let indexed = Indexed { offset, stream, category, version, name };
                    expected.recent.push(indexed, tags_of(event.tags), StreamState::default);
                }
                Record::Erased(stream, version) => expected.lost.push(((*stream).into(), *version)),
                _ => {}
            }
        }
        expected.recent.end = frame.end;
        Ok(())
    })
    .ok()?;
    Some(expected)
}

fn check_documents(files: &Arc<dyn Files>, is_alone: bool, report: &mut JournalReport) {
    match documents_of(files, is_alone, report) {
        Ok(documents) => count_documents(&documents, report),
        Err(error) => report.damage(format!("documents: {error}")),
    }
}

fn documents_of(
    files: &Arc<dyn Files>,
    is_alone: bool,
    report: &mut JournalReport,
) -> Result<Arc<Documents>, StoreError> {
    if !is_alone {
        return Ok(DocumentFollower::open(files.clone())?.documents);
    }
    let folder = Folder::look(&**files, &list(&**files)?, &[])?;
    let segments = open_chain(&**files, &folder.firsts)?;
    let Some(last) = segments.last() else {
        return Err(StoreError::corrupt("the log is gone: no segment is there"));
    };
    let name = segment_name(last.header.first);
    let found = (folder, &segments[..]);
    let (documents, walked) = Documents::load(files.clone(), None, found, End::Open)?;
    if let Tail::Torn { .. } = walked.tail {
        report.torn.push(format!("file=documents/{name} offset={}", walked.end));
    }
    Ok(Arc::new(documents))
}

/// Reads every block of every run on its way.
fn count_documents(documents: &Documents, report: &mut JournalReport) {
    let mut rest = Some(KeyRange::all());
    while let Some(range) = rest {
        match documents.scan(&ScanQuery::new(range)) {
            Ok(page) => {
                report.documents += page.documents.len() as u64;
                rest = page.rest;
            }
            Err(error) => return report.damage(format!("documents: {error}")),
        }
    }
}
