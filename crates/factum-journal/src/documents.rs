//! The document store: a log of its own, in the format of the events' log, and sorted runs.
//!
//! The content of the log is also in memory, by key. A full segment is written as a run and then
//! removed; runs are merged. The log therefore holds only what no run holds yet, and neither memory
//! nor the time of opening grows with the number of documents. A removed document is an entry
//! without a value, which stays until no older run can hold the key.

mod folder;
mod group;
mod keeper;
mod level;
mod merged;
mod queue;
mod table;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use factum_kernel::{
    Direction, Document, ExpectedRevision, KeyRange, PAGE_BYTES_MAX, PAGE_EVENTS_MAX, ScanPage,
    ScanQuery, StoreError, WriteBatch,
};

use crate::{
    cache::Cache,
    disk::Files,
    run::{Run, RunEntries},
    segment::Segment,
};

pub(crate) use folder::{BEGIN, Folder, put_begin, read_begin};
pub(crate) use keeper::DocumentKeeper;

use group::DocumentWriter;
use keeper::Duties;
use merged::{Merged, Source};
use queue::Queue;
use table::{Item, Table};

/// The most bytes of the runs of documents that the cache holds.
const CACHE_BYTES_MAX: usize = 32 << 20;
/// The most documents that one step of a clear removes.
const CLEAR_STEP: usize = 1_000;

/// The documents of a journal.
#[derive(Debug)]
pub(crate) struct Documents {
    files: Arc<dyn Files>,
    /// `None`: the documents are only read.
    sizes: Option<Sizes>,
    cache: Cache,
    state: RwLock<State>,
    writer: Mutex<Option<DocumentWriter>>,
    queue: Queue,
    /// Held by the thread that writes the run of a segment.
    flushing: Mutex<()>,
    duties: Duties,
}

/// The sizes of new files, and when they are merged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// The bytes of a segment of the log.
    pub(crate) segment_bytes: u32,
    /// This many runs of one level are merged into one of the next level.
    pub(crate) fanout: usize,
}

/// The sources of documents at one moment. A value in an `Arc` never changes.
#[derive(Debug)]
pub(crate) struct State {
    /// The runs, oldest first.
    runs: Arc<Vec<Arc<Run>>>,
    /// The segments whose run is not written yet, oldest first.
    sealed: Vec<Arc<Table>>,
    /// The active segment.
    active: Table,
}

impl State {
    fn new(runs: Vec<Arc<Run>>, first: &Segment) -> Self {
        Self { runs: Arc::new(runs), sealed: Vec::new(), active: Table::new(first) }
    }

    fn in_memory(&self, key: &[u8]) -> Option<&Item> {
        let sealed = || self.sealed.iter().rev().find_map(|table| table.item(key));
        self.active.item(key).or_else(sealed)
    }

    /// Begins a segment.
    fn seal(&mut self, next: &Segment) {
        let full = std::mem::replace(&mut self.active, Table::new(next));
        self.sealed.push(Arc::new(full));
    }
}

impl Documents {
    /// Documents that can only be read until [`Self::begin_writing`] is called.
    fn new(files: Arc<dyn Files>, sizes: Option<Sizes>, state: State) -> Self {
        Self {
            files,
            sizes,
            cache: Cache::of(CACHE_BYTES_MAX),
            state: RwLock::new(state),
            writer: Mutex::default(),
            queue: Queue::default(),
            flushing: Mutex::default(),
            duties: Duties::default(),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, for all readers at once.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        let found = self.find(key)?;
        Ok(found.and_then(|item| item.into_document(Bytes::copy_from_slice(key))))
    }

    /// The newest item of a key.
    fn find(&self, key: &[u8]) -> Result<Option<Item>, StoreError> {
        let runs = {
            let state = self.state();
            if let Some(item) = state.in_memory(key) {
                return Ok(Some(item.clone()));
            }
            state.runs.clone()
        };
        for run in runs.iter().rev().filter(|run| run.may_hold(key)) {
            if let Some(entry) = run.at(&self.cache, key)? {
                return Item::decode(entry.value()).map(Some).ok_or_else(|| run.damaged(0));
            }
        }
        Ok(None)
    }

    pub(crate) fn scan(&self, query: &ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        let documents_max = query.documents_max.min(PAGE_EVENTS_MAX);
        let bytes_max = query.bytes_max.min(PAGE_BYTES_MAX);
        let ScanQuery { range, direction, .. } = query;
        // All of one moment: what can still change is copied, and the rest never changes.
        let (active, sealed, runs) = {
            let state = self.state();
            let active = state.active.page(range, *direction, documents_max, bytes_max);
            (active, state.sealed.clone(), state.runs.clone())
        };
        let mut sources: Vec<Source<'_>> = vec![Box::new(active.into_iter().map(Ok))];
        sources.extend(sealed.iter().rev().map(|table| table.source(range, *direction)));
        for run in runs.iter().rev() {
            sources.push(source(run, Some(&self.cache), range, *direction));
        }
        let mut page = Vec::new();
        let mut bytes = 0;
        for found in Merged::new(sources, *direction) {
            let (key, item) = found?;
            let Some(document) = item.into_document(key) else { continue };
            bytes += document.key.len() + document.value.len();
            if page.len() >= documents_max || (bytes > bytes_max && !page.is_empty()) {
                return Ok(ScanPage::new(query, page, true));
            }
            page.push(document);
        }
        Ok(ScanPage::new(query, page, false))
    }

    /// A write that removes documents of a range, at most as many as one write may hold; and the
    /// range that remains.
    pub(crate) fn removal(
        &self,
        range: KeyRange,
        write_documents_max: usize,
    ) -> Result<(WriteBatch, Option<KeyRange>), StoreError> {
        let documents_max = write_documents_max.clamp(1, CLEAR_STEP);
        let query = ScanQuery::new(range).with_documents_max(documents_max);
        let page = self.scan(&query.with_bytes_max(PAGE_BYTES_MAX))?;
        let keys = page.documents.into_iter().map(|document| document.key);
        let remove = |batch: WriteBatch, key| batch.remove(key, ExpectedRevision::Any);
        Ok((keys.fold(WriteBatch::new(), remove), page.rest))
    }

    /// The number of documents. Reads all runs, one block of each at a time.
    pub(crate) fn count(&self) -> Result<u64, StoreError> {
        let state = self.state();
        let all = KeyRange::all();
        let forward = Direction::Forward;
        let tables =
            std::iter::once(&state.active).chain(state.sealed.iter().rev().map(|it| &**it));
        let mut sources: Vec<Source<'_>> =
            tables.map(|table| table.source(&all, forward)).collect();
        sources.extend(state.runs.iter().rev().map(|run| source(run, None, &all, forward)));
        let mut count = 0;
        for found in Merged::new(sources, forward) {
            count += u64::from(found?.1.value.is_some());
        }
        Ok(count)
    }

    /// Replaces the state, for a reader beside a writer.
    pub(crate) fn replace(&self, with: Self) {
        let state = with.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.update(|there| *there = state);
    }

    /// The open runs.
    pub(crate) fn runs(&self) -> Arc<Vec<Arc<Run>>> {
        self.state().runs.clone()
    }
}

/// The revision in a run's entry; `None` if the value is not an entry's.
pub(crate) fn revision_of(value: &[u8]) -> Option<u64> {
    let item = Item::decode(value).filter(|_| value[0] <= 1)?;
    (item.value.is_some() || item.encode().len() == value.len()).then_some(item.revision)
}

/// The entries of a run, as a source of [`Merged`].
fn source<'s>(
    run: &Arc<Run>,
    cache: Option<&'s Cache>,
    range: &KeyRange,
    direction: Direction,
) -> Source<'s> {
    let entries = RunEntries::new(run.clone(), cache, range.clone(), direction);
    let run = run.clone();
    Box::new(entries.map(move |entry| {
        let entry = entry?;
        let item = Item::decode(entry.value()).ok_or_else(|| run.damaged(0))?;
        Ok((Bytes::copy_from_slice(entry.key()), item))
    }))
}

#[cfg(test)]
mod tests;
