//! Sixteen writers and many consumers on a store that delays, fails and loses answers: the history
//! of appends and deliveries is checked in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerOptions, Consumers, FailurePolicy, HandleError,
};
use factum_kernel::{
    AppendBatch, AppendError, Category, Clock, Content, DocumentStore, EventId, EventName,
    EventStore, ExpectedVersion, IdSource, Kernel, NewEvent, Position, Query, ReadLog, ReadQuery,
    RecordedEvent, Scope, StoreErrorKind, StreamId, SystemClock, SystemIds, Tag,
};
use factum_memory::MemoryStore;
use factum_projection::{Documents, DocumentsTx, Fold, Projection, Projections};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::{
    Delivery, FaultRates, FaultyDocuments, FaultyStore, History, Recipient, RecordingStore,
    bank::AccountEvent,
};

use crate::bench::{LONG, in_documents};

const WRITERS: u64 = 16;
const NAME: &str = "account.deposited";

/// Every kind of failure, at low rates, and delays of up to two milliseconds.
const RATES: FaultRates = FaultRates {
    fail_before: 0.03,
    drop_reply: 0.03,
    drop_request: 0.03,
    fail_read: 0.03,
    delay: 0.2,
    delay_max: Duration::from_millis(2),
};

fn options(scope: Scope) -> ConsumerOptions {
    let pause = Duration::from_millis(1);
    let failure = FailurePolicy::new().with_pause(pause, 4 * pause);
    ConsumerOptions::new().with_failure(failure).with_scope(scope).with_batch_events_max(20)
}

/// The handled positions of each stream.
type Model = BTreeMap<String, Vec<Position>>;

struct InDocuments;

impl Projection for InDocuments {
    const NAME: &'static str = "rough";
    const CATEGORIES: &[&str] = &["account", "savings"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        _: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let key = recorded.stream().key();
        let position = recorded.position();
        tx.update(key, |seen: &mut Vec<Position>| seen.push(position)).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        documents.remove(deletion.stream().key());
        Ok(())
    }
}

async fn append(store: &dyn EventStore, writer: u64, n: u64) {
    let category = if writer.is_multiple_of(2) { "account" } else { "savings" };
    let stream = StreamId::new(category, &format!("{category}-{writer}")).unwrap();
    let id = EventId::new(SystemIds.uuid(SystemClock.now()));
    let payload = format!(r#"{{"cents":{n}}}"#);
    let event = NewEvent::new(id, EventName::from_static(NAME), Content::Json, payload);
    let tag = Tag::new("parity", if n.is_multiple_of(2) { "even" } else { "odd" }).unwrap();
    let event = event.with_tag(tag);
    let mut batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
    loop {
        match store.append(batch.clone()).await {
            Ok(_) => return,
            Err(AppendError::Indeterminate(_)) => batch = batch.repeated(),
            Err(AppendError::Store(error)) => {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

struct Rough {
    history: Arc<History>,
    consumers: Consumers,
    started: Vec<ConsumerHandle>,
}

impl Rough {
    async fn start(&mut self, name: &str, scope: Scope) {
        let recipient = self.history.consumer(name, Delivery::AtLeastOnce, scope.clone(), &[NAME]);
        let history = self.history.clone();
        let note = move |_: AccountEvent, recorded: RecordedEvent| {
            history.took_effect(&recipient, &recorded);
            async { Ok::<(), HandleError>(()) }
        };
        let consumer = Consumer::new(name, note).with_options(options(scope));
        self.started.push(self.consumers.start(consumer).await.unwrap());
    }
}

async fn history_is_whole(events: Arc<dyn EventStore>, documents: Arc<dyn DocumentStore>, n: u64) {
    let clock = Arc::new(SystemClock);
    let history = Arc::new(History::new());
    let faulty = FaultyStore::new(events.clone(), n, RATES, clock.clone());
    let faulty = Arc::new(RecordingStore::new(Arc::new(faulty), history.clone()));
    let rough = FaultyDocuments::new(documents.clone(), n, RATES, clock);
    let kernel = Kernel::new(faulty.clone(), Arc::new(rough));
    let consumers = Consumers::new(kernel.clone());
    let mut bench = Rough { history: history.clone(), consumers, started: Vec::new() };
    let even = Query::tag(Tag::new("parity", "even").unwrap());
    let one = StreamId::new("account", "account-4").unwrap();
    bench.start("all", Scope::Log).await;
    bench.start("all-too", Scope::Log).await;
    bench.start("accounts", Scope::Category(Category::new("account").unwrap())).await;
    bench.start("even", Scope::Query(even)).await;
    bench.start("one", Scope::Stream(one)).await;
    let options = options(Scope::Log);
    let target = Documents::new(&kernel);
    let documented =
        bench.consumers.start_projection(InDocuments, target, options.clone()).await.unwrap();
    let remember = |model: &mut Model, _: AccountEvent, recorded: &RecordedEvent| {
        model.entry(recorded.stream().key().to_owned()).or_default().push(recorded.position());
    };
    let remembered = Fold::new("rough-in-memory", 1, remember).with_snapshot_events(100);
    let remembered = bench.consumers.fold(remembered.with_options(options)).await.unwrap();
    bench.started.extend([documented.consumer().clone(), remembered.consumer().clone()]);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = faulty.clone();
            tokio::spawn(async move {
                for n in 0..40 {
                    append(&*store, writer, n).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let head = *events.head().borrow();
    for consumer in &bench.started {
        consumer.wait_for(head, LONG).await.unwrap();
        assert_eq!(consumer.health().parked, 0, "no event is to blame: {:?}", consumer.name());
    }
    let model = in_documents::<Vec<Position>>(&*documents, "$model/rough@1/").await;
    took_effect(&*events, &history, "documents", &model).await;
    let model = remembered.read().await.unwrap().clone();
    took_effect(&*events, &history, "memory", &model).await;
    let summary = history.check_store(&*events).await.unwrap();
    assert_eq!(summary.events, WRITERS * 40);
    bench.consumers.close().await;
}

/// Adds the content of a read model to the history.
async fn took_effect(events: &dyn EventStore, history: &History, name: &str, model: &Model) {
    let recipient: Recipient = history.consumer(name, Delivery::Once, Scope::Log, &[NAME]);
    let mut by_position = BTreeMap::new();
    let page = events.read(ReadQuery::log().with_events_max(10_000)).await.unwrap();
    by_position.extend(page.events.into_iter().map(|event| (event.position(), event)));
    for position in model.values().flatten() {
        history.took_effect(&recipient, &by_position[position]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_faulty_store_in_memory_every_event_takes_effect_once() {
    for seed in 0..3 {
        let store = Arc::new(MemoryStore::new());
        history_is_whole(store.clone(), store, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_faulty_sqlite_every_event_takes_effect_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
    history_is_whole(store.clone(), store, 7).await;
}

/// A tail that fails again and again does not hide the events that are appended meanwhile.
#[tokio::test]
async fn a_consumer_reaches_each_position_on_a_log_that_fails_at_every_third_read() {
    let store = Arc::new(MemoryStore::new());
    let rates = FaultRates { fail_read: 0.3, ..FaultRates::none() };
    let faulty = Arc::new(FaultyStore::new(store.clone(), 3, rates, Arc::new(SystemClock)));
    let kernel = Kernel::new(faulty, store.clone());
    let consumers = Consumers::new(kernel);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let note = move |_: AccountEvent, recorded: RecordedEvent| {
        noted.lock().unwrap().push(recorded.position());
        async { Ok::<(), HandleError>(()) }
    };
    let consumer = Consumer::new("all", note).with_options(options(Scope::Log));
    let consumer = consumers.start(consumer).await.unwrap();
    for n in 0..40 {
        append(&*store, 0, n).await;
        let head = *store.head().borrow();
        consumer.wait_for(head, LONG).await.unwrap();
        assert_eq!(seen.lock().unwrap().last(), Some(&head));
    }
    let mut log = ReadLog::new(store.clone(), ReadQuery::log());
    let mut all = Vec::new();
    while let Some(event) = log.next().await {
        all.push(event.unwrap().position());
    }
    assert_eq!(*seen.lock().unwrap(), all);
}
