//! A step done to one store, and its answer as text, as far as the laws say what it is.

use std::{pin::Pin, task::Poll};

use factum::{
    ReadQuery, RecordedEvent, StoreError,
    event::StreamId,
    read::{Direction, ErasedRange, Page, ReadFrom, Scope},
    store::{
        AppendBatch, AppendError, Appended, ChangeError, ExpectedRevision, Revision, ScanQuery,
        StoreErrorKind, Stores, WriteBatch, WriteError,
    },
};

use super::history::{Entry, Expected, Step};

/// One store, and the revisions that its writes have given.
pub(super) struct Subject {
    stores: Stores,
    revisions: Vec<Revision>,
}

impl Subject {
    pub(super) fn new(stores: Stores) -> Self {
        Self { stores, revisions: Vec::new() }
    }

    pub(super) async fn close(self) {
        self.stores.events.close().await.unwrap();
    }

    pub(super) async fn version(&self, stream: &StreamId) -> u64 {
        self.stores.events.stream_info(stream).await.unwrap().bounds.version.value()
    }

    pub(super) async fn head(&self) -> u64 {
        let query = ReadQuery::log().from(ReadFrom::End);
        self.stores.events.read(query).await.unwrap().head.value()
    }

    pub(super) fn writes(&self) -> usize {
        self.revisions.len()
    }

    pub(super) async fn answer(&mut self, step: &Step) -> String {
        match step {
            Step::Append(batches) => self.append(batches).await,
            Step::Change(stream, change) => {
                match self.stores.events.change(stream, *change).await {
                    Ok(info) => format!("{info:?}"),
                    Err(ChangeError::Store(error)) => invalid(&error),
                    Err(other) => panic!("{other:?}"),
                }
            }
            Step::Read(query) => match self.walk(query.clone()).await {
                Ok(found) => found,
                Err(error) => invalid(&error),
            },
            Step::Info(stream) => {
                format!("{:?}", self.stores.events.stream_info(stream).await.unwrap())
            }
            Step::Write(entries) => self.write(entries).await,
            Step::Get(key) => {
                let found = self.stores.documents.get(key.as_bytes()).await.unwrap();
                format!("{:?}", found.map(|it| (self.name(it.revision), it.key, it.value)))
            }
            Step::Scan(query) => self.scan(query.clone()).await,
            Step::Clear(range) => {
                format!("{:?}", self.stores.documents.clear(range.clone()).await)
            }
            Step::Clock => String::new(),
        }
    }

    /// All at once, queued in their order.
    async fn append(&self, batches: &[AppendBatch]) -> String {
        let store = &self.stores.events;
        let mut running: Vec<_> =
            batches.iter().map(|batch| (store.append(batch.clone()), None)).collect();
        std::future::poll_fn(|cx| {
            for (append, outcome) in &mut running {
                if outcome.is_none()
                    && let Poll::Ready(done) = Pin::new(append).poll(cx)
                {
                    *outcome = Some(done);
                }
            }
            match running.iter().all(|(_, outcome)| outcome.is_some()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let outcomes = running.into_iter().map(|(_, outcome)| of_append(&outcome.unwrap()));
        outcomes.collect::<Vec<_>>().join("; ")
    }

    /// Reads to the end.
    async fn walk(&self, query: ReadQuery) -> Result<String, StoreError> {
        let store = &self.stores.events;
        let mut events = Vec::new();
        let mut erased = Vec::<ErasedRange>::new();
        let mut bounds = None;
        let mut next = Some(query.clone());
        let mut last: Option<Page> = None;
        while let Some(asked) = next {
            let page = store.read(asked.clone()).await?;
            assert!(page.events.len() <= asked.events_max, "{} events", page.events.len());
            events.extend(page.events.iter().cloned());
            erased.extend(&page.erased);
            bounds = bounds.or(page.bounds);
            next = asked.next(&page);
            last = Some(page);
        }
        let last = last.unwrap();
        // No law says at which of the erased positions before the first event a time lies.
        if let ReadFrom::Time(_) = query.from {
            let is_forward = query.direction == Direction::Forward;
            let first = events.first().map(RecordedEvent::position);
            erased.retain(|range| first.is_some_and(|it| (range.first > it) == is_forward));
        }
        erased.sort_by_key(|range| range.first);
        // Where one page ends within a range, the next goes on with it.
        erased.dedup_by(|next, range| {
            let touches = range.last.next() == next.first;
            if touches {
                range.last = next.last;
            }
            touches
        });
        let through = matches!(query.scope, Scope::Log).then_some(last.scanned_through);
        let events: Vec<_> = events.iter().map(of_event).collect();
        Ok(format!("{events:#?} {erased:?} {bounds:?} {:?} {through:?}", last.head))
    }

    async fn write(&mut self, entries: &[Entry]) -> String {
        let batch = entries.iter().fold(WriteBatch::new(), |batch, entry| {
            let expected = match entry.expected {
                Expected::Any => ExpectedRevision::Any,
                Expected::Absent => ExpectedRevision::Absent,
                Expected::Zero => ExpectedRevision::Exact(Revision::ZERO),
                Expected::Write(number) => ExpectedRevision::Exact(self.revisions[number]),
                Expected::Largest => ExpectedRevision::Exact(Revision::new(u64::MAX)),
            };
            match entry.value.clone() {
                Some(value) => batch.put(entry.key, expected, value),
                None => batch.remove(entry.key, expected),
            }
        });
        match self.stores.documents.write(batch).await {
            Ok(revision) if entries.is_empty() => {
                // In some stores a clearing takes revisions as well.
                assert!(self.revisions.iter().all(|given| *given <= revision), "{revision}");
                "nothing written".into()
            }
            Ok(revision) => {
                self.revisions.push(revision);
                "written".into()
            }
            Err(WriteError::Conflict { entry }) => format!("entry {entry} conflicts"),
            Err(WriteError::Store(error)) => invalid(&error),
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn scan(&self, query: ScanQuery) -> String {
        let mut found = Vec::new();
        let mut next = Some(query);
        while let Some(query) = next {
            match self.stores.documents.scan(query.clone()).await {
                Ok(page) => {
                    let documents = page.documents.into_iter();
                    found.extend(documents.map(|it| (self.name(it.revision), it.key, it.value)));
                    next = page.rest.map(|range| {
                        let mut query = query;
                        query.range = range;
                        query
                    });
                }
                Err(error) => return invalid(&error),
            }
        }
        format!("{found:?}")
    }

    /// A revision by the write that gave it.
    fn name(&self, revision: Revision) -> String {
        match self.revisions.iter().position(|given| *given == revision) {
            Some(number) => format!("write {number}"),
            None if revision == Revision::ZERO => "before the first write".into(),
            None => "a revision that no write gave".into(),
        }
    }
}

fn of_event(event: &RecordedEvent) -> String {
    let header = event.header();
    let payload = String::from_utf8_lossy(event.payload());
    let tags: Vec<_> = event.tags().collect();
    format!("{header:?} {} {} {tags:?} {payload}", event.stream(), event.name())
}

fn of_append(outcome: &Result<Appended, AppendError>) -> String {
    match outcome {
        Ok(appended) => format!("{appended:?}"),
        Err(error) => refusal(error),
    }
}

fn refusal(error: &AppendError) -> String {
    match error {
        AppendError::Conflict(conflict) => format!("{conflict:?}"),
        // Any of the events that match may be named.
        AppendError::ConditionFailed { condition, .. } => format!("condition {condition} failed"),
        AppendError::Store(error) => invalid(error),
        other => panic!("{other:?}"),
    }
}

/// Nothing but the kind: each store says it in its own words.
fn invalid(error: &StoreError) -> String {
    assert_eq!(error.kind(), StoreErrorKind::Invalid, "{error:?}");
    "invalid".into()
}
