//! A record of attempts against a log and their outcomes, compared with the log at the end.

mod check;
mod consumer;
mod recording;
mod violation;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_kernel::{
    AppendBatch, AppendError, Appended, EventId, EventStore, Page, ReadQuery, RecordedEvent, Scope,
    StoreError, StreamId,
};

pub use consumer::{Delivery, Recipient};
pub use recording::RecordingStore;
pub use violation::Violation;

/// Records the attempts of callers, from any number of tasks. A read of the whole log then shows
/// whether any event was lost, invented, doubled or reordered.
///
/// Appends are recorded by [`RecordingStore`], or by hand with [`attempt`](Self::attempt). Attempts
/// with the same event ids are one batch: acknowledged if any attempt was, absent only if every
/// attempt failed. If the outcome of an attempt is unknown, the batch stays open; the log must then
/// hold it whole or not at all.
///
/// ```
/// # use factum_kernel::{AppendBatch, AppendError, Lineage, Page, StoreError};
/// use factum_testing::History;
///
/// # let batch = AppendBatch::new();
/// # let empty_log = [Page::empty(Lineage::new(uuid::Uuid::nil()))];
/// let history = History::new();
/// let attempt = history.attempt(&batch);
/// attempt.ended(&Err(AppendError::Store(StoreError::unavailable("no route to the disk"))));
/// assert!(history.check(&empty_log).is_ok_and(|summary| summary.failed == 1));
/// ```
#[derive(Debug, Default)]
pub struct History {
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    batches: BTreeMap<Vec<EventId>, Tried>,
    /// The streams whose events may be gone.
    changed: BTreeSet<StreamId>,
    readers: Vec<(Reader, Vec<RecordedEvent>)>,
    consumers: Vec<(Recipient, Vec<RecordedEvent>)>,
}

/// A batch, and the known outcomes of its attempts.
#[derive(Debug)]
struct Tried {
    batch: AppendBatch,
    acknowledged: Option<Appended>,
    /// The number of attempts that may have stored it.
    open: usize,
}

/// The counts of a checked history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Summary {
    /// The number of events in the log.
    pub events: u64,
    /// The number of positions whose events are gone.
    pub erased: u64,
    /// The number of streams with events in the log.
    pub streams: usize,
    /// The number of batches that were acknowledged in at least one attempt.
    pub acknowledged: usize,
    /// The number of batches of unknown outcome that the log holds.
    pub unknown_stored: usize,
    /// The number of batches of unknown outcome that the log does not hold.
    pub unknown_absent: usize,
    /// The number of batches whose attempts all failed.
    pub failed: usize,
}

/// A reader that was announced to a [`History`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    name: Arc<str>,
    scope: Scope,
    at: usize,
}

impl History {
    /// An empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that a batch is about to be appended. Record its outcome with [`Attempt::ended`]; an
    /// attempt that is dropped before has an unknown outcome.
    pub fn attempt(&self, batch: &AppendBatch) -> Attempt<'_> {
        let ids: Vec<_> = batch.events().map(|event| event.id).collect();
        let mut records = self.records();
        records.changed.extend(batch.deletions().cloned());
        let tried = records.batches.entry(ids.clone()).or_insert_with(|| Tried {
            batch: batch.clone(),
            acknowledged: None,
            open: 0,
        });
        tried.open += 1;
        Attempt { history: self, ids }
    }

    /// Records that events of a stream may be gone: it was truncated, or given a retention. Those
    /// of a deleted stream are known from the batch that deletes it.
    pub fn changed(&self, stream: &StreamId) {
        self.records().changed.insert(stream.clone());
    }

    /// Announces a reader that must see every event of a scope, once and in order, from the first
    /// that it sees to the last.
    pub fn reader(&self, name: &str, scope: Scope) -> Reader {
        let mut records = self.records();
        let reader = Reader { name: name.into(), scope, at: records.readers.len() };
        records.readers.push((reader.clone(), vec![]));
        reader
    }

    /// Records that a reader got an event.
    pub fn delivered(&self, to: &Reader, event: &RecordedEvent) {
        self.records().readers[to.at].1.push(event.clone());
    }

    /// Announces a consumer of the events of a scope that have one of these names. By the time of
    /// the check it must have seen all of them.
    pub fn consumer(
        &self,
        name: &str,
        delivery: Delivery,
        scope: Scope,
        names: &[&str],
    ) -> Recipient {
        let mut records = self.records();
        let names = names.iter().map(|name| (*name).into()).collect();
        let at = records.consumers.len();
        let recipient = Recipient { name: name.into(), delivery, scope, names, at };
        records.consumers.push((recipient.clone(), vec![]));
        recipient
    }

    /// Records that a consumer got an event; or, if its effects are stored with its progress, that
    /// the effect is there.
    pub fn took_effect(&self, at: &Recipient, event: &RecordedEvent) {
        self.records().consumers[at.at].1.push(event.clone());
    }

    /// Compares the record with the pages of a forward read of the whole log.
    ///
    /// # Errors
    /// The first violation found.
    pub fn check(&self, log: &[Page]) -> Result<Summary, Violation> {
        check::check(&self.records(), log)
    }

    /// Reads the whole log, and compares. No caller may append in the meantime.
    ///
    /// # Errors
    /// The first violation found, or that the log could not be read.
    pub async fn check_store(&self, store: &dyn EventStore) -> Result<Summary, Violation> {
        self.check(&read_pages(store).await?)
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_pages(store: &dyn EventStore) -> Result<Vec<Page>, StoreError> {
    let mut pages = vec![];
    let mut query = Some(ReadQuery::log());
    while let Some(asked) = query {
        let page = store.read(asked.clone()).await?;
        query = asked.next(&page);
        pages.push(page);
    }
    Ok(pages)
}

/// An append in progress; see [`History::attempt`].
#[derive(Debug)]
#[must_use = "say how it ended"]
pub struct Attempt<'a> {
    history: &'a History,
    ids: Vec<EventId>,
}

impl Attempt<'_> {
    /// Records the outcome of the append.
    pub fn ended(self, outcome: &Result<Appended, AppendError>) {
        let mut records = self.history.records();
        let tried = records.batches.get_mut(&self.ids).expect("noted when the attempt began");
        match outcome {
            Ok(appended) => tried.acknowledged = Some(appended.clone()),
            // It stays open.
            Err(AppendError::Indeterminate(_)) => {}
            Err(_) => tried.open -= 1,
        }
    }
}
