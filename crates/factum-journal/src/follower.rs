//! Read-only access. Beside a writer, a reader follows the durable end of the log at every read;
//! without a writer, it reads the whole log.

use std::sync::{Arc, Mutex, PoisonError};

use factum_kernel::{Lineage, StoreError};

use crate::{
    cache::Cache,
    disk::Files,
    documents::{Documents, Folder},
    error,
    frames::Frames,
    index::Index,
    lineage,
    log::{Log, View},
    recovery::list,
    replay::Replay,
    run::Run,
    segment::{Segment, SegmentHeader, segment_name, segments_in},
    synced::{Reach, Recorded},
    walk::{End, read_chain},
};

/// The number of attempts if the writer changes the files during a look.
const ATTEMPTS: usize = 8;

/// Follows the log of a writer.
#[derive(Debug)]
pub(crate) struct LogFollower {
    pub(crate) log: Arc<Log>,
    /// The folder that holds a renewed lineage.
    top: Arc<dyn Files>,
    seen: Mutex<Seen>,
}

/// The end of what was read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The content of the file `synced`. Without a writer, more was read than it records.
    recorded: Recorded,
    segment: u64,
    end: u32,
    /// The next position, or the next revision.
    next: u64,
}

/// The end up to which the log may be read.
#[derive(Debug, Clone, Copy)]
struct Bound {
    recorded: Recorded,
    /// `None`: there is no writer, and the log is read to the end of its frames.
    reach: Option<Reach>,
}

impl Bound {
    /// Finds the end up to which these files may be read now.
    fn find(top: &dyn Files, files: &dyn Files) -> Result<Self, StoreError> {
        if let Some(path) = top.moved_from() {
            return Err(error::moved(&path));
        }
        let has_writer = top.has_writer();
        if has_writer.map_err(|e| error::disk("looking for a writer", "", e))? {
            // Read after the look for a writer, because a writer announces itself before it can be
            // seen.
            let recorded = Recorded::read(files)?;
            let reach = recorded.writer_end().ok_or_else(|| {
                StoreError::unavailable("the journal is just being opened for writing, try again")
            })?;
            return Ok(Self { recorded, reach: Some(reach) });
        }
        let recorded = Recorded::read(files)?;
        Ok(Self { recorded, reach: recorded.end_without_writer()? })
    }

    /// The headers of the segments that may be read, at least one.
    fn chain(
        &self,
        files: &dyn Files,
        mut firsts: Vec<u64>,
    ) -> Result<Vec<SegmentHeader>, StoreError> {
        let expected = self.reach.map(|(last, _)| last);
        if let Some(last) = expected {
            firsts.retain(|first| *first <= last);
        }
        let last = firsts.last().copied();
        if last.is_none() || expected.is_some_and(|expected| last != Some(expected)) {
            let what = "the segment that is written is missing";
            return Err(error::damaged(what, expected.unwrap_or(1), 0));
        }
        read_chain(files, &firsts)
    }

    fn end(&self) -> End<'static> {
        self.reach.map_or(End::Open, |(_, end)| End::Synced(end))
    }

    /// Checks an end that no writer recorded: it must be durable, at or after the recorded end, and
    /// still there.
    fn check(&self, files: &dyn Files, last: &Segment, end: u32) -> Result<(), StoreError> {
        if self.reach.is_some() {
            return Ok(());
        }
        let first = last.header.first;
        let name = segment_name(first);
        last.file.sync().map_err(|e| error::disk("securing what was read", &name, e))?;
        if self.recorded.reach().is_some_and(|recorded| recorded > (first, end)) {
            let what = "it ends before the durable end that its writer recorded";
            return Err(error::damaged(what, first, u64::from(end)));
        }
        if Recorded::read(files)? != self.recorded {
            let message = "the journal was opened for writing while it was read, try again";
            return Err(StoreError::unavailable(message));
        }
        Ok(())
    }
}

impl LogFollower {
    pub(crate) fn open(top: Arc<dyn Files>, files: Arc<dyn Files>) -> Result<Self, StoreError> {
        let renewed = lineage::renewed(&*top)?;
        let Loaded { mut view, seen, lineage } = repeated(|| load(&*top, &*files))?;
        view.lineage = renewed.unwrap_or(lineage);
        let log = Arc::new(Log::new(files, lineage, view));
        Ok(Self { log, top, seen: Mutex::new(seen) })
    }

    /// Reads what was added since.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((recorded, (segment, end))) = news(&*self.top, &*self.log.files, &seen.recorded)?
        else {
            return Ok(());
        };
        let lineage = lineage::renewed(&*self.top)?.unwrap_or(self.log.lineage);
        let is_another = lineage != self.log.peek(|view| view.lineage);
        if segment != seen.segment || end < seen.end || is_another {
            // Segments were sealed since, and perhaps runs merged. Or the log is another one by
            // now.
            let Loaded { mut view, seen: now, .. } =
                repeated(|| load(&*self.top, &*self.log.files))?;
            view.lineage = lineage;
            self.log.update(|there| *there = view);
            // Some may have been rewritten, and open old files keep their space on the disk in use.
            self.log.forget_all();
            *seen = now;
            return Ok(());
        }
        // If this fails, a part may be in memory already. Then the next call loads everything
        // again.
        let from = std::mem::replace(&mut seen.end, u32::MAX);
        seen.end = read_on(&self.log, from, end)?;
        seen.recorded = recorded;
        Ok(())
    }
}

/// The durable end that a writer recorded, if it changed since the last look.
fn news(
    top: &dyn Files,
    files: &dyn Files,
    before: &Recorded,
) -> Result<Option<(Recorded, Reach)>, StoreError> {
    if let Some(path) = top.moved_from() {
        return Err(error::moved(&path));
    }
    let recorded = Recorded::read(files)?;
    // A writer that is just coming has not recorded its end yet.
    Ok(recorded.writer_end().filter(|_| recorded != *before).map(|reach| (recorded, reach)))
}

/// Adds the frames of the active segment from one offset to another. Returns the offset that it
/// reached.
fn read_on(log: &Log, from: u32, to: u32) -> Result<u32, StoreError> {
    let view = log.view();
    let segment = view.tables.active().read().segment.clone();
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    let name = segment_name(segment.header.first);
    let read = segment.file.fill_at(&mut bytes, u64::from(from));
    let read = read.map_err(|e| error::disk("reading on", &name, e))?;
    let mut frames = Frames::new(&segment, &bytes[..read], from, view.head + 1);
    let mut found = Vec::new();
    while let Some(frame) = frames.next_frame() {
        found.push(frame);
    }
    if frames.offset < to {
        return Err(frames.damaged("its writer recorded it as durable"));
    }
    let head = frames.next - 1;
    let end = frames.offset;
    // All at once, so that no reader sees a stream's state ahead of the log.
    log.update(|view| {
        let erased = (*view.erased).clone();
        let tables = view.tables.clone();
        let mut replay =
            Replay { tables: &tables, cache: &log.cache, erased, last_at: view.last_at };
        found.iter().try_for_each(|frame| replay.add(frame))?;
        (view.head, view.last_at) = (head, replay.last_at);
        view.erased = Arc::new(replay.erased);
        Ok(end)
    })
}

/// Everything that was durable at a moment.
struct Loaded {
    view: View,
    seen: Seen,
    /// The lineage that the segments name.
    lineage: Lineage,
}

/// Loads everything that is durable.
fn load(top: &dyn Files, files: &dyn Files) -> Result<Loaded, StoreError> {
    // The end first, then the files, which hold at least as much.
    let bound = Bound::find(top, files)?;
    let names = list(files)?;
    let headers = bound.chain(files, segments_in(&names))?;
    let (last, sealed) = headers.split_last().expect("there is one at least");
    let active = Segment::open(files, last.first)?;
    let cache = Cache::new();
    let lineage = last.lineage;
    let mut index = Index::new(files, lineage, &cache);
    index.load_only(&names, sealed, last)?;
    let walked = index.replay(&active, bound.end())?;
    bound.check(files, &active, walked.end)?;
    let segment = last.first;
    let end = walked.end;
    let seen = Seen { recorded: bound.recorded, segment, end, next: walked.next };
    Ok(Loaded { view: index.into_view(), seen, lineage })
}

/// Repeats a look during which a file was removed: the writer merges runs and removes the old ones.
fn repeated<T>(mut look: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut found = look();
    for _ in 1..ATTEMPTS {
        if found.is_ok() {
            break;
        }
        found = look();
    }
    found
}

/// Follows the documents of a writer.
#[derive(Debug)]
pub(crate) struct DocumentFollower {
    pub(crate) documents: Arc<Documents>,
    /// The folder that a writer locks.
    top: Arc<dyn Files>,
    files: Arc<dyn Files>,
    seen: Mutex<Seen>,
}

impl DocumentFollower {
    pub(crate) fn open(top: Arc<dyn Files>, files: Arc<dyn Files>) -> Result<Self, StoreError> {
        let (documents, seen) = repeated(|| load_documents(&*top, &files, &[]))?;
        Ok(Self { documents: Arc::new(documents), top, files, seen: Mutex::new(seen) })
    }

    /// Reads what was added since.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((recorded, (segment, end))) = news(&*self.top, &*self.files, &seen.recorded)?
        else {
            return Ok(());
        };
        if segment == seen.segment
            && end >= seen.end
            && let Ok((end, next)) = self.documents.read_on(seen.end, end, seen.next)
        {
            *seen = Seen { recorded, segment, end, next };
            return Ok(());
        }
        // Segments were sealed since, and perhaps runs written. Open files stay readable, even
        // after the writer removed them. Or the log was repaired: it may end before the known end
        // or differ, and its runs may be others.
        let is_past = segment > seen.segment;
        let known = if is_past { self.documents.runs() } else { Arc::default() };
        let (documents, now) = repeated(|| load_documents(&*self.top, &self.files, &known))?;
        self.documents.replace(documents);
        *seen = now;
        Ok(())
    }
}

/// Loads the documents that are durable.
fn load_documents(
    top: &dyn Files,
    files: &Arc<dyn Files>,
    known: &[Arc<Run>],
) -> Result<(Documents, Seen), StoreError> {
    let bound = Bound::find(top, &**files)?;
    let folder = Folder::look(&**files, &list(&**files)?, known)?;
    let headers = bound.chain(&**files, folder.firsts.clone())?;
    let (documents, walked) = Documents::load(files.clone(), None, folder, &headers, bound.end())?;
    let active = documents.active_segment();
    bound.check(&**files, &active, walked.end)?;
    let segment = active.header.first;
    Ok((documents, Seen { recorded: bound.recorded, segment, end: walked.end, next: walked.next }))
}
