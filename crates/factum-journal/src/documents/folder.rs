//! The files of the folder that count, and what they hold.
//!
//! A run is named by the revisions that it covers. Together, the runs cover all revisions from the
//! beginning of the documents to the beginning of the log. A file that a wider run covers is left
//! over from a crash in a flush or a merge: the wider run was durable before it got its name. A gap
//! means that a file was lost.

use std::sync::Arc;

use bytes::BufMut;
use factum_kernel::StoreError;

use super::{Documents, Sizes, State};
use crate::{
    disk::Files,
    error,
    frames::Frames,
    number::u64_at,
    run::{Run, RunKind},
    segment::{MAGIC as SEGMENT_MAGIC, Segment, SegmentHeader, segment_name, segments_in},
    walk::{End, Walked, walk},
};

/// The file that holds the first revision of the documents. It is created before there is a run, so
/// that the loss of all runs is noticed. To a version of the program without runs, which would read
/// only the log, this file is a segment of a newer format, and that version refuses to open.
pub(crate) const BEGIN: &str = "00000000000000000000.log";
const BEGIN_VERSION: u32 = 2;
const BEGIN_BYTES: usize = 80;

/// The runs and the log that were found.
#[derive(Debug)]
pub(crate) struct Folder {
    /// The first revision; `None` for a journal from before there were runs.
    begin: Option<u64>,
    /// The runs, oldest first.
    pub(crate) runs: Vec<Arc<Run>>,
    /// The first revisions of the segments after the runs.
    pub(crate) firsts: Vec<u64>,
    /// The names of the files that runs cover.
    covered: Vec<String>,
}

impl Folder {
    /// Looks at files of these names. The runs in `known` are not opened again.
    pub(crate) fn look(
        files: &dyn Files,
        names: &[String],
        known: &[Arc<Run>],
    ) -> Result<Self, StoreError> {
        let begin =
            names.iter().any(|name| name == BEGIN).then(|| read_begin(files)).transpose()?;
        let ranges = RunKind::Documents.ranges_in(names);
        if begin.is_none() && !ranges.is_empty() {
            return Err(error::damaged_documents(BEGIN, "a file is missing"));
        }
        let mut through = begin.map_or(0, |begin| begin - 1);
        let mut runs = Vec::new();
        let mut covered = Vec::new();
        for (first, last) in ranges {
            let name = RunKind::Documents.name(first, last);
            if last <= through {
                covered.push(name);
                continue;
            }
            if first != through + 1 {
                let what = format!("a file before this one is missing, revision={}", through + 1);
                return Err(error::damaged_documents(&name, what));
            }
            let run = match known.iter().find(|run| run.name == name) {
                Some(run) => run.clone(),
                None => Arc::new(Run::open_as(RunKind::Documents, files, &name)?),
            };
            if (run.header.first, run.header.last) != (first, last) {
                return Err(error::damaged_documents(&name, "a file has the name of another"));
            }
            through = last;
            runs.push(run);
        }
        let firsts = segments_in(names).into_iter().filter(|first| *first > 0);
        let (old, firsts): (Vec<u64>, _) = firsts.partition(|first| *first <= through);
        covered.extend(old.into_iter().map(segment_name));
        Ok(Self { begin, runs, firsts, covered })
    }

    /// Checks that the log begins where the runs end.
    fn check(&self, segments: &[SegmentHeader]) -> Result<(), StoreError> {
        let header = segments[0];
        let follows = match (self.runs.last().map(|run| run.header), self.begin) {
            (Some(run), _) => (header.first, header.previous) == (run.last + 1, run.segment),
            (None, Some(begin)) => header.first == begin,
            // This is the log of a version without runs, which removed old segments.
            (None, None) => true,
        };
        let is_one = self.runs.iter().all(|run| run.header.lineage == header.lineage);
        if follows && is_one {
            return Ok(());
        }
        let what = "a file before this one is missing or of another journal";
        Err(error::damaged_documents(&segment_name(header.first), what))
    }

    /// Writes the file of the first revision if it is missing, and removes the files that runs
    /// cover.
    pub(crate) fn tidy(
        &self,
        files: &dyn Files,
        segments: &[SegmentHeader],
    ) -> Result<(), StoreError> {
        self.check(segments)?;
        if self.begin.is_none() {
            put_begin(files, segments[0].first)?;
        }
        self.covered.iter().try_for_each(|name| {
            files.remove(name).map_err(|e| error::disk("removing old documents", name, e))
        })
    }
}

/// Writes the first revision of the documents, durably.
pub(crate) fn put_begin(files: &dyn Files, first: u64) -> Result<(), StoreError> {
    let put = files.put(BEGIN, &encode_begin(first));
    put.map_err(|e| error::disk("writing the first revision of the documents", BEGIN, e))
}

/// Reads the first revision of the documents.
pub(crate) fn read_begin(files: &dyn Files) -> Result<u64, StoreError> {
    let read = files.open(BEGIN).and_then(|file| file.read_all());
    let bytes = read.map_err(|e| error::disk("opening the documents", BEGIN, e))?;
    let begin = (bytes.len() == BEGIN_BYTES).then(|| u64_at(&bytes, 40));
    let begin = begin.filter(|begin| *begin > 0 && bytes == encode_begin(*begin));
    begin.ok_or_else(|| error::damaged_documents(BEGIN, "a file is not what was written"))
}

/// Encodes the first revision like a segment's header, without lineage and salt.
fn encode_begin(first: u64) -> Vec<u8> {
    let mut out = SEGMENT_MAGIC.to_vec();
    out.put_u32_le(BEGIN_VERSION);
    out.resize(40, 0);
    out.put_u64_le(first);
    out.resize(BEGIN_BYTES, 0);
    let crc = crc32c::crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

impl Documents {
    /// Loads what these files hold. Without `sizes`, the documents can only be read. Returns the
    /// documents, and the result of the walk through the last segment.
    pub(crate) fn load(
        files: Arc<dyn Files>,
        sizes: Option<Sizes>,
        folder: Folder,
        segments: &[SegmentHeader],
        end: End<'_>,
    ) -> Result<(Self, Walked), StoreError> {
        folder.check(segments)?;
        let first = Segment::open(&*files, segments[0].first)?;
        let documents = Self::new(files.clone(), sizes, State::new(folder.runs, &first));
        let mut last = None;
        for (at, header) in segments.iter().enumerate() {
            let segment = &Segment::open(&*files, header.first)?;
            if at > 0 {
                // The log of a version without runs may be long.
                if sizes.is_some() {
                    documents.make_room()?;
                }
                documents.update(|state| state.seal(segment));
            }
            let end = segments.get(at + 1).map_or(end, End::Sealed);
            let walked = walk(segment, end, |frame, _| {
                documents.update(|state| state.active.add(frame));
                Ok(())
            })?;
            last = Some(walked);
        }
        Ok((documents, last.expect("there is one segment at least")))
    }

    /// The active segment.
    pub(crate) fn active_segment(&self) -> Segment {
        self.state().active.segment.clone()
    }

    /// Adds the bytes that a writer wrote to the active segment between two offsets. `next` is the
    /// first revision in them. Returns the offset and the revision after them.
    pub(crate) fn read_on(&self, from: u32, to: u32, next: u64) -> Result<(u32, u64), StoreError> {
        let segment = self.active_segment();
        let mut bytes = vec![0; to.saturating_sub(from) as usize];
        let name = segment_name(segment.header.first);
        let read = segment.file.fill_at(&mut bytes, u64::from(from));
        let read = read.map_err(|e| error::disk("reading on", &name, e))?;
        let mut frames = Frames::new(&segment, &bytes[..read], from, next);
        let mut found = Vec::new();
        while let Some(frame) = frames.next_frame() {
            found.push(frame);
        }
        if frames.offset < to {
            return Err(frames.damaged("its writer recorded it as durable"));
        }
        self.update(|state| found.iter().for_each(|frame| state.active.add(frame)));
        Ok((frames.offset, frames.next))
    }
}
