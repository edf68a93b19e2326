//! Lost, halved and doubled pairs are recognised, and so are gaps in a log.

use std::sync::{Arc, Mutex};

use factum_kernel::{AppendBatch, EventId, EventStore, ExpectedVersion, ReadQuery, SystemClock};
use factum_testing::{
    PairWriter, Pairs,
    batch::{event, stream},
    check_log,
    conformance::{Setup, Subject},
    deletion, positions,
};

use crate::toy::{Flaw, ToySubject};

async fn open(flaw: Flaw) -> Arc<dyn EventStore> {
    let setup = Setup::new(Arc::new(SystemClock));
    ToySubject::new(flaw).open(&setup).await.unwrap().events
}

fn one(payload: &'static str) -> AppendBatch {
    AppendBatch::new().write(stream("one"), ExpectedVersion::Any, [event(payload)])
}

static ACKNOWLEDGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_that_was_acknowledged_is_found() {
    let store = open(Flaw::None).await;
    let acknowledge = |id: EventId| ACKNOWLEDGED.lock().unwrap().push(id.to_string());
    PairWriter::new(store.clone()).write(4, 10, acknowledge).await;
    let pairs = Pairs::read(&*store).await;
    assert_eq!(pairs.count(), 40);
    let acknowledged = ACKNOWLEDGED.lock().unwrap().clone();
    assert_eq!(acknowledged.len(), 40);
    pairs.assert_keeps(&acknowledged);
    assert_eq!(check_log(&*store).await.value(), 80);
    let all = ReadQuery::stream(stream(PairWriter::ALL));
    assert_eq!(positions(&*store, all).await.len(), 40);
}

#[tokio::test]
#[should_panic(expected = "acknowledged, but not there")]
async fn a_lost_pair_is_told() {
    let store = open(Flaw::None).await;
    PairWriter::new(store.clone()).write(1, 3, |_| {}).await;
    Pairs::read(&*store).await.assert_keeps(&["019c0000-0000-7000-8000-000000000000".into()]);
}

#[tokio::test]
#[should_panic(expected = "there more than once")]
async fn a_doubled_pair_is_told() {
    let store = open(Flaw::None).await;
    let second = event("second");
    let pair = one("first").write(stream("all"), ExpectedVersion::Any, [second]);
    store.append(pair.clone()).await.unwrap();
    store.append(pair).await.unwrap();
    Pairs::read(&*store).await.assert_keeps(&[]);
}

#[tokio::test]
#[should_panic(expected = "half a batch at the end")]
async fn half_a_pair_is_told() {
    let store = open(Flaw::None).await;
    PairWriter::new(store.clone()).write(1, 3, |_| {}).await;
    store.append(one("first")).await.unwrap();
    Pairs::read(&*store).await;
}

#[tokio::test]
#[should_panic(expected = "half a batch")]
async fn two_halves_are_no_pair() {
    let store = open(Flaw::None).await;
    store.append(one("second")).await.unwrap();
    store.append(one("first")).await.unwrap();
    Pairs::read(&*store).await;
}

#[tokio::test]
async fn what_is_erased_is_no_hole() {
    let store = open(Flaw::None).await;
    for _ in 0..3 {
        store.append(one("{}")).await.unwrap();
    }
    store.append(deletion(stream("one"))).await.unwrap();
    store.append(one("{}")).await.unwrap();
    assert_eq!(check_log(&*store).await.value(), 5);
}

#[tokio::test]
#[should_panic(expected = "a hole")]
async fn erased_events_that_the_log_does_not_show_are_a_hole() {
    let store = open(Flaw::HidesErased).await;
    store.append(one("{}")).await.unwrap();
    store.append(deletion(stream("one"))).await.unwrap();
    check_log(&*store).await;
}

#[tokio::test]
#[should_panic(expected = "a hole")]
async fn a_position_that_a_conflict_took_is_a_hole() {
    let store = open(Flaw::BurnsPositions).await;
    let stale = AppendBatch::new().write(stream("one"), ExpectedVersion::StreamExists, [event("")]);
    store.append(stale).await.unwrap_err();
    store.append(one("{}")).await.unwrap();
    check_log(&*store).await;
}
