//! Partitions: in order within, in parallel across, and their number.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering},
};

use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerName, ConsumerOptions, ConsumerState, Consumers,
    FailurePolicy, Fence, HandleError, PARTITIONS_MAX, Partitions, ReleaseError, Save, StartError,
    StartFrom, StopCause, StopReason, Target, TargetError,
};
use factum_kernel::{
    KeyRange, OrDeleted, Position, RecordedEvent, ScanQuery, StreamId, decode_event, sentence,
};
use factum_projection::{Build, Documents, DocumentsTx, Projection, Projections};
use factum_testing::bank::AccountEvent;
use tokio::sync::watch;

use crate::{
    bench::{Bench, Counts, Fails, LONG, counts_in_memory, in_documents, options},
    ledger::{Gate, Ledgers, documents, until},
    rebuild::is_right,
};

const PARTITIONS: usize = 4;

pub(crate) fn shared_out() -> ConsumerOptions {
    options().with_partitions(Partitions::by_stream(PARTITIONS)).with_batch_events_max(7)
}

fn names() -> impl Iterator<Item = String> {
    (0..12).map(|n| format!("a{n}"))
}

async fn accounts(bench: &Bench) {
    for name in names() {
        bench.open(&name).await;
    }
    for cents in 1..=10 {
        for name in names() {
            bench.deposit(&name, cents + 100).await;
        }
    }
}

async fn count(bench: &Bench, fails: &Fails) -> ConsumerHandle {
    let target = Documents::new(&bench.kernel);
    let counts = bench.consumers.start_projection(Counts(fails.clone()), target, shared_out());
    counts.await.unwrap().consumer().clone()
}

#[tokio::test]
async fn every_event_takes_effect_once_and_in_the_order_of_its_stream() {
    let bench = Bench::new();
    accounts(&bench).await;
    let counts = count(&bench, &Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    accounts_go_on(&bench).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
    let parts = counts.partitions();
    let worked = parts.iter().filter(|(_, health)| health.handled > 0).count();
    assert_eq!((parts.len(), worked), (PARTITIONS, PARTITIONS));
    assert_eq!(parts[3].0.as_str(), "counts@1#3");
    assert_eq!(counts.stop().await, StopReason::Asked);
    // Each partition continues at its checkpoint.
    let again = count(&bench, &Fails::default()).await;
    bench.deposit("a1", 7).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(again.health().handled, 1);
    assert_eq!(bench.counted().await, bench.fold().await);
}

async fn accounts_go_on(bench: &Bench) {
    for name in names() {
        bench.deposit(&name, 500).await;
    }
}

/// The events whose handlers have begun, and the signal that lets them end.
#[derive(Clone)]
struct Inside(Arc<watch::Sender<BTreeSet<Position>>>, Arc<watch::Sender<bool>>);

#[tokio::test]
async fn partitions_run_in_parallel_and_a_stream_in_order() {
    let bench = Bench::new();
    for name in names() {
        bench.open(&name).await;
    }
    for name in names() {
        bench.deposit(&name, 1).await;
    }
    let inside = Inside(Arc::default(), Arc::default());
    let handler = {
        let inside = inside.clone();
        move |_: AccountEvent, recorded: RecordedEvent| {
            let Inside(here, is_open) = inside.clone();
            async move {
                here.send_if_modified(|here| here.insert(recorded.position()));
                let _ = is_open.subscribe().wait_for(|it| *it).await;
                Ok::<(), HandleError>(())
            }
        }
    };
    let consumer = Consumer::new("all", handler).with_options(shared_out());
    let all = bench.consumers.start(consumer).await.unwrap();
    let mut here = inside.0.subscribe();
    here.wait_for(|here| here.len() == PARTITIONS).await.unwrap();
    inside.1.send_replace(true);
    all.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(here.borrow().len(), 24);
}

#[tokio::test]
async fn a_failure_in_one_partition_delays_no_other() {
    let bench = Bench::new();
    accounts(&bench).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = count(&bench, &fails).await;
    for name in ["a1", "a2"] {
        bench.deposit(name, 13).await;
        bench.deposit(name, 14).await;
    }
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let letters = counts.dead_letters().await;
    let streams: Vec<_> = letters.iter().map(|letter| letter.stream.key().to_owned()).collect();
    assert_eq!(streams, ["a1", "a2"]);
    assert_eq!(counts.health().parked, 2);
    assert!(counts.retry(&letters[0].stream).await.is_err());
    fails.errs.store(false, Ordering::SeqCst);
    for letter in &letters {
        counts.retry(&letter.stream).await.unwrap();
    }
    let nothing = counts.retry(&letters[0].stream).await.unwrap_err();
    assert_eq!(nothing, ReleaseError::NothingParked(letters[0].stream.clone()));
    assert_eq!(bench.counted().await, bench.fold().await);
}

#[tokio::test]
async fn a_partition_that_stops_stops_the_consumer_and_its_reason_is_seen() {
    let bench = Bench::new();
    accounts(&bench).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let target = Documents::new(&bench.kernel);
    let failure = FailurePolicy::new().with_retries_max(0).then_stop();
    let options = shared_out().with_failure(failure);
    let counts =
        bench.consumers.start_projection(Counts(fails.clone()), target, options).await.unwrap();
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let position = bench.deposit("a1", 13).await;
    let told = counts.wait_for(position, LONG).await.unwrap_err();
    assert!(sentence(&told).contains("thirteen"), "{told}");
    let reason = StopReason::Failed { position, error: StopCause::new("thirteen") };
    assert_eq!(counts.health().state, ConsumerState::Stopped(reason));
    fails.errs.store(false, Ordering::SeqCst);
    let again = count(&bench, &fails).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
}

/// One document that all partitions write.
struct Sum;

impl Projection for Sum {
    const NAME: &'static str = "sum";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        _: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        let before = tx.get::<u64>("sum").await?.unwrap_or_default();
        // Other partitions get their turn between the read and the write.
        tokio::task::yield_now().await;
        tx.put("sum", &(before + cents))
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_document_that_several_partitions_write_loses_nothing() {
    let bench = Bench::new();
    accounts(&bench).await;
    let target = Documents::new(&bench.kernel);
    let sum = bench.consumers.start_projection(Sum, target, shared_out()).await.unwrap();
    for cents in 1..=20 {
        for name in names() {
            bench.deposit(&name, cents).await;
        }
    }
    sum.wait_for(bench.head(), LONG).await.unwrap();
    let expected: u64 = bench.fold().await.values().flat_map(|it| &it.cents).sum();
    let found = in_documents::<u64>(&**bench.kernel.documents(), "$model/sum@1/").await;
    assert_eq!(found, BTreeMap::from([("sum".to_owned(), expected)]));
    assert_eq!(sum.health().parked, 0);
}

/// Stores for each event the title that its account's first event set, in a document that another
/// partition writes.
struct Titles;

impl Projection for Titles {
    const NAME: &'static str = "titles";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        if recorded.stream().key() == "title" {
            return tx.put("title", &cents);
        }
        let title = tx.get::<u64>("title").await?.unwrap_or_default();
        tx.put(&format!("last/{}", recorded.stream().key()), &title)
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

#[tokio::test]
async fn writes_of_another_partition_are_seen_by_the_next_batch() {
    let bench = Bench::new();
    for name in names().chain(["title".to_owned()]) {
        bench.open(&name).await;
    }
    let target = Documents::new(&bench.kernel);
    let titles = bench.consumers.start_projection(Titles, target, shared_out()).await.unwrap();
    for title in 1..=10 {
        let position = bench.deposit("title", title).await;
        titles.wait_for(position, LONG).await.unwrap();
        for name in names() {
            bench.deposit(&name, 1).await;
        }
        titles.wait_for(bench.head(), LONG).await.unwrap();
        let prefix = "$model/titles@1/last/";
        let found = in_documents::<u64>(&**bench.kernel.documents(), prefix).await;
        assert!(found.values().all(|it| *it == title), "{title}: {found:?}");
    }
}

/// Checks that events with one partition key are handled in order.
async fn in_order_by(partitions: Partitions, key: fn(&RecordedEvent) -> String) {
    let bench = Bench::new();
    accounts(&bench).await;
    let seen: Arc<Mutex<BTreeMap<String, Vec<Position>>>> = Arc::default();
    let noted = seen.clone();
    let handler = move |_: AccountEvent, recorded: RecordedEvent| {
        let noted = noted.clone();
        async move {
            let mut noted = noted.lock().unwrap();
            noted.entry(key(&recorded)).or_default().push(recorded.position());
            Ok::<(), HandleError>(())
        }
    };
    let options = options().with_partitions(partitions);
    let consumer = Consumer::new("all", handler).with_options(options);
    let all = bench.consumers.start(consumer).await.unwrap();
    all.wait_for(bench.head(), LONG).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|positions| positions.is_sorted()), "{seen:?}");
    let count: usize = seen.values().map(Vec::len).sum();
    assert_eq!(count as u64, bench.head().value());
}

#[tokio::test]
async fn events_of_one_key_are_handled_in_order_whatever_their_stream() {
    let last = |event: &RecordedEvent| event.stream().key()[1..].len().to_string();
    let by = Partitions::by(3, move |event| Some(last(event)));
    in_order_by(by, last).await;
    let cents = |event: &AccountEvent| match event {
        AccountEvent::Deposited { cents } => Some((cents % 3).to_string()),
        _ => None,
    };
    in_order_by(Partitions::by_event(3, cents), |recorded| {
        let mut key = recorded.stream().to_string();
        let mut note = |event| {
            if let AccountEvent::Deposited { cents } = event {
                key = (cents % 3).to_string();
            }
        };
        decode_event(recorded, &mut note).unwrap();
        key
    })
    .await;
    // Events without the tag are partitioned by stream.
    in_order_by(Partitions::by_tag(3, "email"), |event| {
        let tag = event.tags().find(|tag| tag.starts_with("email:"));
        tag.map_or_else(|| event.stream().to_string(), ToString::to_string)
    })
    .await;
}

/// A late partition would forget what a deleted stream has begun again.
#[tokio::test]
async fn partitions_by_a_key_are_refused_where_deletions_are_handled() {
    let bench = Bench::new();
    let by_key = || options().with_partitions(Partitions::by_tag(3, "email"));
    let target = Documents::new(&bench.kernel);
    let counts = Counts(Fails::default());
    let told = bench.consumers.start_projection(counts, target, by_key()).await.unwrap_err();
    assert!(matches!(told, StartError::PartitionedByKey(_)), "{told}");
    let documents = bench.kernel.clone();
    let targets = move |_: &_| Documents::new(&documents);
    let counts = Counts(Fails::default());
    let told = bench.consumers.maintain(counts, targets, by_key()).await.unwrap_err();
    assert!(sentence(&told).contains("choose partitions by stream"), "{told}");
    let handler = async |_: OrDeleted<AccountEvent>, _| Ok::<(), HandleError>(());
    let looks = Consumer::new("looks", handler).with_options(by_key());
    let told = bench.consumers.start(looks).await.unwrap_err();
    assert!(matches!(told, StartError::PartitionedByKey(_)), "{told}");
    // With one partition, the key means nothing.
    let one = options().with_partitions(Partitions::by_tag(1, "email"));
    let looks = Consumer::new("looks", handler).with_options(one);
    bench.consumers.start(looks).await.unwrap();
}

/// A process may die after it has stored the beginning of one partition.
#[tokio::test]
async fn all_partitions_begin_where_the_first_one_began() {
    let bench = Bench::new();
    accounts(&bench).await;
    let began = bench.head();
    let handler = async |_: AccountEvent, _| Ok::<(), HandleError>(());
    let now = || {
        let options = shared_out().from(StartFrom::Now);
        Consumer::new("all", handler).with_options(options)
    };
    bench.consumers.start(now()).await.unwrap().stop().await;
    let documents = bench.kernel.documents();
    documents.clear(KeyRange::prefix("$consumer/all#2/")).await.unwrap();
    accounts_go_on(&bench).await;
    let again = bench.again();
    let all = again.consumers.start(now()).await.unwrap();
    all.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(all.health().handled, bench.head().value() - began.value());
}

/// A batch of one partition reads a document, and caches that it is absent; another partition adds
/// it.
#[tokio::test]
async fn documents_that_another_partition_has_added_are_removed_with_their_prefix() {
    let bench = Bench::new();
    let target = Documents::new(&bench.kernel);
    let name = |at: usize| format!("rows@1#{at}").parse::<ConsumerName>().unwrap();
    let save = |fence| Save {
        expected: fence,
        progress: "p".into(),
        mark: None,
        letters: Vec::new(),
        events: 1,
    };
    let mut first = target.begin(&name(0)).await.unwrap();
    assert_eq!(first.get::<u64>("x").await.unwrap(), None);
    let fence = target.commit(&name(0), first, save(Fence(0))).await.unwrap();
    let mut second = target.begin(&name(1)).await.unwrap();
    second.put("x", &7_u64).unwrap();
    target.commit(&name(1), second, save(Fence(0))).await.unwrap();
    let mut outcome = Err(TargetError::Overtaken);
    // A batch that was overtaken is handled again.
    while let Err(TargetError::Overtaken) = outcome {
        let mut first = target.begin(&name(0)).await.unwrap();
        first.remove_prefix("").await.unwrap();
        outcome = target.commit(&name(0), first, save(fence)).await;
    }
    outcome.unwrap();
    let left = in_documents::<u64>(&**bench.kernel.documents(), "$model/rows@1/").await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn another_number_of_partitions_is_refused() {
    let bench = Bench::new();
    accounts(&bench).await;
    count(&bench, &Fails::default()).await.stop().await;
    for partitions in [1, 3, PARTITIONS_MAX] {
        let options = options().with_partitions(Partitions::by_stream(partitions));
        let target = Documents::new(&bench.kernel);
        let counts = bench
            .consumers
            .start_projection(Counts(Fails::default()), target, options)
            .await
            .unwrap();
        let told = counts.wait_for(bench.head(), LONG).await.unwrap_err();
        let told = sentence(&told);
        assert!(told.contains(&format!("partitions={partitions} stored=4")), "{told}");
    }
    let counts = count(&bench, &Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
}

#[tokio::test]
async fn a_consumer_that_began_without_partitions_is_not_partitioned_later() {
    let bench = Bench::new();
    accounts(&bench).await;
    let before = bench.count(&Fails::default()).await;
    before.wait_for(bench.head(), LONG).await.unwrap();
    before.stop().await;
    // The stored state from before the number of partitions was stored.
    let layout = KeyRange::prefix("$partitions/");
    bench.kernel.documents().clear(layout).await.unwrap();
    let told =
        count(&bench, &Fails::default()).await.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(sentence(&told).contains("partitions=4 stored=1"), "{told}");
}

#[tokio::test]
async fn a_model_in_memory_has_no_partitions() {
    let bench = Bench::new();
    let counts = counts_in_memory(&Fails::default()).with_options(shared_out());
    let told = bench.consumers.fold(counts).await.unwrap_err();
    assert!(matches!(told, StartError::OnePartition(_)), "{told}");
}

#[tokio::test]
async fn a_rebuild_takes_another_number_of_partitions() {
    let bench = Bench::new();
    for name in ["ada", "bob", "cyd", "dan"] {
        bench.open(name).await;
        bench.deposits(name, 30).await;
    }
    let begun = bench.keep::<2>(&Gate::open()).await;
    begun.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    drop(begun);
    let keep = async |consumers: &Consumers| {
        let targets = documents::<2>(&bench.kernel);
        consumers.maintain(Ledgers::<2>(Gate::open()), targets, shared_out()).await.unwrap()
    };
    let consumers = Consumers::new(bench.kernel.clone());
    let ledgers = keep(&consumers).await;
    assert_eq!(ledgers.consumer().unwrap().partitions().len(), 1, "what serves stays as it is");
    is_right(&bench, &ledgers, 465).await;
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(ledgers.serving(), Build { version: 2, generation: 1 });
    let parts = ledgers.consumer().unwrap().partitions();
    assert_eq!(parts.len(), PARTITIONS);
    assert_eq!(parts[0].0.as_str(), "ledgers@2.1#0");
    bench.deposit("ada", 35).await;
    is_right(&bench, &ledgers, 500).await;
    // Any program finds the consumer and waits for it.
    let ledger = bench.ledgers().get("bob").await.unwrap().unwrap();
    assert_eq!((ledger.count, ledger.cents), (30, 465));
    ledgers.discard_old().await.unwrap();
    ledgers.reset().await.unwrap();
    is_right(&bench, &ledgers, 500).await;
    let keys = || async {
        let all = KeyRange::prefix("$consumer/ledgers@2.1");
        let page = bench.kernel.documents().scan(ScanQuery::new(all)).await.unwrap();
        page.documents.len()
    };
    until(|| async { keys().await == 0 }).await;
}

#[tokio::test]
async fn all_partitions_are_rewound() {
    let bench = Bench::new();
    accounts(&bench).await;
    let seen: Arc<Mutex<Vec<Position>>> = Arc::default();
    let start = async |from: StartFrom| {
        let noted = seen.clone();
        let handler = move |_: AccountEvent, recorded: RecordedEvent| {
            noted.lock().unwrap().push(recorded.position());
            async { Ok::<(), HandleError>(()) }
        };
        let consumer = Consumer::new("all", handler).with_options(shared_out().from(from));
        bench.consumers.start(consumer).await.unwrap()
    };
    let all = start(StartFrom::Start).await;
    all.wait_for(bench.head(), LONG).await.unwrap();
    all.stop().await;
    seen.lock().unwrap().clear();
    let to = Position::new(100);
    bench.consumers.rewind(all.name(), to).await.unwrap();
    let again = start(StartFrom::Now).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    let expected: Vec<_> = (101..=bench.head().value()).map(Position::new).collect();
    assert_eq!(seen, expected);
    let ada = StreamId::new("account", "ada").unwrap();
    assert!(again.discard(&ada).await.is_err());
}
