//! Reading beside a writer: the log as far as the writer says that it is durable, read on at every
//! question.

use std::sync::{Arc, Mutex, PoisonError};

use factum_core::StoreError;

use crate::{
    cache::Cache,
    disk::{File, Files},
    documents::{Documents, Folder},
    error,
    frames::Frames,
    index::Index,
    lineage,
    log::{Log, View},
    recovery::list,
    replay::Replay,
    run::Run,
    segment::{Segment, segment_name, segments_in},
    tail::{SYNCED, read_synced},
    walk::{End, read_chain},
};

/// How often a look is repeated when the writer changes what is looked at.
const ATTEMPTS: usize = 8;

/// Follows the log of a writer.
#[derive(Debug)]
pub(crate) struct LogFollower {
    pub(crate) log: Arc<Log>,
    /// Where a renewed lineage is.
    top: Arc<dyn Files>,
    synced: Arc<dyn File>,
    /// How far was read: the segment, and the offset in it.
    seen: Mutex<(u64, u32)>,
}

/// The file that says how far a log is durable. Without one, nobody has opened it for writing.
fn open_synced(files: &dyn Files) -> Result<Arc<dyn File>, StoreError> {
    files.open(SYNCED).map_err(|e| error::disk("opening for reading only", SYNCED, e))
}

/// How far a log is durable: the segment, and the offset in it.
fn synced_or_wait(synced: &dyn File) -> Result<(u64, u32), StoreError> {
    read_synced(synced).ok_or_else(|| {
        StoreError::unavailable("the journal is just being opened for writing, try again")
    })
}

impl LogFollower {
    pub(crate) fn open(top: Arc<dyn Files>, files: Arc<dyn Files>) -> Result<Self, StoreError> {
        let synced = open_synced(&*files)?;
        let renewed = lineage::renewed(&*top)?;
        let (mut view, seen, lineage) = repeated(|| load(&*files, &*synced))?;
        view.lineage = renewed.unwrap_or(lineage);
        let log = Arc::new(Log::new(files, lineage, view));
        Ok(Self { log, top, synced, seen: Mutex::new(seen) })
    }

    /// Reads on.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(synced) = read_synced(&*self.synced).filter(|synced| *synced != *seen) else {
            return Ok(());
        };
        let lineage = lineage::renewed(&*self.top)?.unwrap_or(self.log.lineage);
        let is_another = lineage != self.log.peek(|view| view.lineage);
        if synced.0 != seen.0 || is_another {
            // Segments were sealed since, and perhaps runs merged; or it is another log by now.
            let (mut view, now, _) = repeated(|| load(&*self.log.files, &*self.synced))?;
            view.lineage = lineage;
            self.log.update(|there| *there = view);
            // Some may have been rewritten: who holds the old files keeps the disk from the space.
            self.log.forget_all();
            *seen = now;
            return Ok(());
        }
        // A part may be in memory when it fails; then everything is looked at anew the next time.
        let from = std::mem::take(&mut *seen).1;
        *seen = (synced.0, read_on(&self.log, from, synced.1)?);
        Ok(())
    }
}

/// Adds the frames of the active segment from one offset to another. The answer: how far it came.
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
        return Err(frames.damaged("its writer says that it is durable"));
    }
    let (head, end) = (frames.next - 1, frames.offset);
    // All at once, so that no reader sees a stream further than the log.
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

/// Everything, as far as it is durable.
fn load(
    files: &dyn Files,
    synced: &dyn File,
) -> Result<(View, (u64, u32), factum_core::Lineage), StoreError> {
    // First how far, then the files: they hold at least as much.
    let (last, end) = synced_or_wait(synced)?;
    let names = list(files)?;
    let mut firsts = segments_in(&names);
    firsts.retain(|first| *first <= last);
    let headers = read_chain(files, &firsts)?;
    let Some((active, sealed)) = headers.split_last().filter(|(it, _)| it.first == last) else {
        return Err(error::damaged("the segment that is written is missing", last, 0));
    };
    let (cache, lineage) = (Cache::new(), active.lineage);
    let mut index = Index::new(files, lineage, &cache);
    index.load_only(&names, sealed, active)?;
    index.replay(&Segment::open(files, last)?, End::Synced(end))?;
    Ok((index.into_view(), (last, end), lineage))
}

/// Looks again when a file has gone meanwhile: the writer merges runs and removes the old ones.
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
    files: Arc<dyn Files>,
    synced: Arc<dyn File>,
    seen: Mutex<Seen>,
}

/// How far documents were read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    segment: u64,
    end: u32,
    /// The next revision.
    next: u64,
}

impl DocumentFollower {
    pub(crate) fn open(files: Arc<dyn Files>) -> Result<Self, StoreError> {
        let synced = open_synced(&*files)?;
        let (documents, seen) = repeated(|| load_documents(&files, &*synced, &[]))?;
        Ok(Self { documents: Arc::new(documents), files, synced, seen: Mutex::new(seen) })
    }

    /// Reads on.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = |synced: &(u64, u32)| *synced != (seen.segment, seen.end);
        let Some((segment, end)) = read_synced(&*self.synced).filter(is_news) else {
            return Ok(());
        };
        if segment == seen.segment
            && end >= seen.end
            && let Ok((end, next)) = self.documents.read_on(seen.end, end, seen.next)
        {
            (seen.end, seen.next) = (end, next);
            return Ok(());
        }
        // Segments were sealed since, and perhaps runs written. What is open stays readable, even
        // when the writer has removed it meanwhile. Or the log was repaired: it ends before what
        // was read, or goes on otherwise, and runs may be others.
        let is_behind = segment > seen.segment;
        let known = if is_behind { self.documents.runs() } else { Arc::default() };
        let (documents, now) = repeated(|| load_documents(&self.files, &*self.synced, &known))?;
        self.documents.replace(documents);
        *seen = now;
        Ok(())
    }
}

/// The documents, as far as they are durable.
fn load_documents(
    files: &Arc<dyn Files>,
    synced: &dyn File,
    known: &[Arc<Run>],
) -> Result<(Documents, Seen), StoreError> {
    let (segment, end) = synced_or_wait(synced)?;
    let mut folder = Folder::look(&**files, &list(&**files)?, known)?;
    folder.firsts.retain(|first| *first <= segment);
    if folder.firsts.last() != Some(&segment) {
        return Err(error::damaged("the segment that is written is missing", segment, 0));
    }
    let headers = read_chain(&**files, &folder.firsts)?;
    let found = (folder, &headers[..]);
    let (documents, walked) = Documents::load(files.clone(), None, found, End::Synced(end))?;
    Ok((documents, Seen { segment, end: walked.end, next: walked.next }))
}
