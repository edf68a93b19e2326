//! Batches of two events over two streams, for tests that kill the writer. Half a batch, a lost
//! batch and a doubled batch can be recognised.

use std::{collections::HashMap, sync::Arc, time::Duration};

use factum_kernel::{
    AppendBatch, AppendError, Clock, EventId, EventStore, ExpectedVersion, Position, ReadQuery,
    StoreErrorKind, SystemClock, Tag,
};

use crate::{
    batch::{event, stream},
    scan::pages,
};

/// The streams of the first events, which the tasks of all writers share.
const STREAMS: usize = 5;
/// The pause before a batch is repeated that an unavailable store did not take.
const PAUSE: Duration = Duration::from_millis(20);

/// A writer of pairs. The first event goes to one of five streams, at the version that was read or
/// at any. The second goes to the stream [`PairWriter::ALL`].
#[derive(Debug, Clone)]
pub struct PairWriter {
    store: Arc<dyn EventStore>,
    is_patient: bool,
}

impl PairWriter {
    /// The key of the stream, in the category `account`, that has the second event of each pair.
    pub const ALL: &str = "all";
    /// The tag of each first event.
    pub const TAG: &str = "part:1";

    /// Writes to this store. Any answer but success and a conflict is a failure.
    pub fn new(store: Arc<dyn EventStore>) -> Self {
        Self { store, is_patient: false }
    }

    /// Goes on through outages, by the rules: the same batch again, marked as repeated if its
    /// outcome is unknown.
    #[must_use]
    pub fn through_outages(self) -> Self {
        Self { is_patient: true, ..self }
    }

    /// Appends this many pairs in each of several tasks at once. `acknowledge` is called with the
    /// id of each pair's first event, as soon as the pair is stored.
    ///
    /// # Panics
    /// If the store refuses a pair.
    pub async fn write(&self, tasks: usize, pairs: usize, acknowledge: fn(EventId)) {
        let tasks: Vec<_> = (0..tasks)
            .map(|task| {
                let writer = self.clone();
                tokio::spawn(async move {
                    for pair in 0..pairs {
                        acknowledge(writer.append(task.wrapping_add(pair)).await);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("the store takes pairs");
        }
    }

    /// Appends one pair, and tries again as long as another writer is first.
    async fn append(&self, n: usize) -> EventId {
        loop {
            let Some(batch) = self.pair(n).await else {
                SystemClock.sleep(PAUSE).await;
                continue;
            };
            let id = batch.events().next().expect("a pair has two events").id;
            if self.is_stored(batch).await {
                return id;
            }
        }
    }

    /// The next pair; `None` if the store is away.
    async fn pair(&self, n: usize) -> Option<AppendBatch> {
        let one = stream(&format!("s{}", n % STREAMS));
        let expected = match self.store.stream_info(&one).await {
            Ok(info) if n.is_multiple_of(2) => ExpectedVersion::from(info.bounds.version),
            Ok(_) => ExpectedVersion::Any,
            Err(_) if self.is_patient => return None,
            Err(error) => panic!("the store does not answer: {error}"),
        };
        let tag = Tag::parse(Self::TAG).expect("a valid tag");
        let first = event("first").with_tag(tag);
        let second = event("second");
        let batch = AppendBatch::new().write(one, expected, [first]);
        Some(batch.write(stream(Self::ALL), ExpectedVersion::Any, [second]))
    }

    /// Returns true if the pair is stored; false if another writer was first.
    async fn is_stored(&self, batch: AppendBatch) -> bool {
        let mut batch = batch;
        loop {
            match self.store.append(batch.clone()).await {
                Ok(_) => return true,
                Err(AppendError::Conflict(_)) => return false,
                Err(AppendError::Indeterminate(_)) if self.is_patient => batch = batch.repeated(),
                Err(AppendError::Store(error))
                    if self.is_patient && error.kind() == StoreErrorKind::Unavailable => {}
                Err(other) => panic!("the store refuses a pair: {other:?}"),
            }
            SystemClock.sleep(PAUSE).await;
        }
    }
}

/// The pairs that a store holds.
#[derive(Debug)]
pub struct Pairs {
    /// The number of times that each pair is there, by the id of its first event.
    found: HashMap<String, usize>,
}

impl Pairs {
    /// Reads the whole log, which holds pairs and nothing else.
    ///
    /// # Panics
    /// If half a pair is there, or the events of a pair are not one after the other.
    pub async fn read(store: &dyn EventStore) -> Self {
        let mut found = HashMap::new();
        let mut first = None;
        for page in pages(store, ReadQuery::log()).await {
            for event in &page.events {
                if event.payload() == b"first" {
                    assert_eq!(first.replace(event.position()), None, "half a batch");
                    *found.entry(event.id().to_string()).or_insert(0) += 1;
                } else {
                    let next = first.take().map(Position::next);
                    assert_eq!(next, Some(event.position()), "half a batch");
                }
            }
        }
        assert_eq!(first, None, "half a batch at the end");
        Self { found }
    }

    /// The number of different pairs.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// Checks that each of these pairs is there, and no pair twice. Pairs without an
    /// acknowledgement may be there: their writer was killed before it was answered.
    ///
    /// # Panics
    /// If a pair is lost or doubled.
    pub fn assert_keeps<'a>(&self, acknowledged: impl IntoIterator<Item = &'a String>) {
        let lost: Vec<_> =
            acknowledged.into_iter().filter(|id| !self.found.contains_key(*id)).collect();
        assert!(lost.is_empty(), "acknowledged, but not there: {lost:?}");
        let doubled: Vec<_> = self.found.iter().filter(|(_, count)| **count > 1).collect();
        assert!(doubled.is_empty(), "there more than once: {doubled:?}");
    }
}
