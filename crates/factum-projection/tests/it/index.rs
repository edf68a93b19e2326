//! Indexes: composite values, beginnings of texts, and declarations that change.

use std::sync::Arc;

use factum_consumer::{ConsumerHandle, ConsumerOptions, ConsumerState, FailurePolicy, StopReason};
use factum_kernel::RecordedEvent;
use factum_projection::{
    BuildError, Documents, DocumentsTx, Index, IndexRange, IndexValue, Maintained, ModelQuery,
    ProjectionFn, Projections, ReadModel,
};
use factum_testing::bank::AccountEvent;
use serde::{Deserialize, Serialize};

use crate::{
    bench::{Bench, LONG, options},
    ledger::until,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Guest {
    city: String,
    nights: u64,
}

/// A guest for each deposit: the number of nights is in cents.
async fn guests(bench: &Bench, index: Index) -> Maintained<Documents> {
    let kernel = bench.kernel.clone();
    let targets = move |_: &_| Documents::new(&kernel).with_index(index.clone());
    let guests = ProjectionFn::new("guests", 1, |event, recorded: &RecordedEvent, tx: &mut _| {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        let tx: &mut DocumentsTx = tx;
        let city = recorded.stream().key().to_owned();
        tx.put(&format!("{city}/{cents}"), &Guest { city: city.clone(), nights: cents })
    });
    bench.consumers.maintain_fn(guests, targets, options()).await.unwrap()
}

fn of_nights(index: &str, values: fn(u64) -> Option<u64>) -> Index {
    Index::new(index, move |guest: &Guest| values(guest.nights).map(IndexValue::from))
}

async fn keys(model: &ReadModel<Guest>, range: IndexRange) -> Vec<String> {
    let page = model.list(ModelQuery::index("nights", range)).await.unwrap();
    page.documents.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn composite_values_are_found_by_their_parts_without_texts_put_together() {
    let bench = Bench::new();
    for city in ["graz", "wien"] {
        bench.open(city).await;
        bench.deposits(city, 4).await;
    }
    let index = Index::new("nights", |guest: &Guest| [(guest.city.as_str(), guest.nights).into()]);
    let guests = guests(&bench, index).await;
    guests.wait_for(bench.head(), LONG).await.unwrap();
    let model = guests.read_model::<Guest>();
    let graz = keys(&model, IndexRange::all().under("graz")).await;
    assert_eq!(graz, ["graz/1", "graz/2", "graz/3", "graz/4"]);
    assert_eq!(keys(&model, IndexRange::within(3_u64..).under("wien")).await, ["wien/3", "wien/4"]);
    assert_eq!(keys(&model, IndexRange::equal(("graz", 2_u64))).await, ["graz/2"]);
    assert_eq!(keys(&model, IndexRange::all().under("gra")).await, [""; 0]);
    let across = IndexRange::within(("graz", 4_u64)..=("wien", 1_u64));
    assert_eq!(keys(&model, across).await, ["graz/4", "wien/1"]);
}

#[tokio::test]
async fn texts_are_found_by_their_beginning() {
    let bench = Bench::new();
    let long = "w".repeat(60);
    for city in ["graz", "gries", "wien", long.as_str()] {
        bench.open(city).await;
        bench.deposits(city, 1).await;
    }
    let index = Index::new("nights", |guest: &Guest| {
        // Longer than an index sorts by.
        [IndexValue::from(guest.city.repeat(10))]
    });
    let guests = guests(&bench, index).await;
    guests.wait_for(bench.head(), LONG).await.unwrap();
    let model = guests.read_model::<Guest>();
    assert_eq!(keys(&model, IndexRange::beginning("g")).await, ["graz/1", "gries/1"]);
    assert_eq!(keys(&model, IndexRange::beginning("gri")).await, ["gries/1"]);
    assert_eq!(keys(&model, IndexRange::beginning("x")).await, [""; 0]);
    let whole = long.repeat(10);
    assert_eq!(keys(&model, IndexRange::equal(whole.as_str())).await, [format!("{long}/1")]);
    assert_eq!(keys(&model, IndexRange::equal(format!("{whole}w"))).await, [""; 0]);
}

/// An entry whose document no longer had the value used to stay forever: a row that is not there.
#[tokio::test]
async fn an_index_that_changes_without_a_new_version_does_not_start() {
    let changed: [(&str, Index); 4] = [
        ("other values", of_nights("nights", |nights| Some(nights + 1))),
        ("fewer documents", of_nights("nights", |nights| (nights > 1).then_some(nights))),
        ("more documents", of_nights("nights", Some)),
        ("other keys", of_nights("nights", |nights| (nights != 2).then_some(nights)).for_keys("g")),
    ];
    for (what, index) in changed {
        let bench = Bench::new();
        bench.open("graz").await;
        bench.deposits("graz", 3).await;
        let index_before = of_nights("nights", |nights| (nights != 2).then_some(nights));
        let before = guests(&bench, index_before).await;
        before.wait_for(bench.head(), LONG).await.unwrap();
        bench.consumers.close().await;
        let again = bench.again();
        let after = guests(&again, index).await;
        let refused = stopped(&after.consumer().unwrap()).await;
        assert!(refused.contains("raise the projection's version"), "{what}: {refused}");
        // The other remedy.
        after.rebuild().await.unwrap().done().await.unwrap();
        after.wait_for(bench.head(), LONG).await.unwrap();
    }
}

#[tokio::test]
async fn an_index_that_stays_the_same_starts_again() {
    let bench = Bench::new();
    bench.open("graz").await;
    bench.deposits("graz", 100).await;
    let index = || of_nights("nights", |nights| (nights != 2).then_some(nights));
    guests(&bench, index()).await.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    let again = bench.again();
    let guests = guests(&again, index()).await;
    let position = bench.deposit("graz", 101).await;
    guests.wait_for(position, LONG).await.unwrap();
}

async fn stopped(consumer: &ConsumerHandle) -> String {
    until(|| async { matches!(consumer.health().state, ConsumerState::Stopped(_)) }).await;
    match consumer.health().state {
        ConsumerState::Stopped(StopReason::Broken(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A value that CBOR does not hold.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Asked {
    times: u64,
    answer: Option<Option<bool>>,
}

#[tokio::test]
async fn a_document_that_does_not_read_back_fails_and_names_its_field() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 5).await;
    let target = Documents::new(&bench.kernel);
    let asked = ProjectionFn::<_, Documents, _>::new("asked", 1, |event, _, documents| {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        documents.put("a", &Asked { times: cents, answer: (cents == 3).then_some(None) })
    });
    let target = Arc::new(std::sync::Mutex::new(Some(target)));
    let targets = move |_: &_| target.lock().unwrap().take().unwrap();
    let asked = bench.consumers.maintain_fn(asked, targets, options()).await.unwrap();
    asked.wait_for(bench.head(), LONG).await.unwrap();
    let letters = asked.consumer().unwrap().dead_letters().await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.position.value(), 4);
    assert!(letter.error.ends_with("field=answer: key=a"), "{}", letter.error);
    let before = Asked { times: 2, answer: None };
    assert_eq!(asked.read_model::<Asked>().get("a").await.unwrap(), Some(before));
}

/// It used to wait forever.
#[tokio::test]
async fn waiting_for_a_build_with_a_parked_event_is_an_error_that_names_the_event() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 3).await;
    let kernel = bench.kernel.clone();
    let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let thirds = {
        let fails = fails.clone();
        ProjectionFn::<_, Documents, _>::new("thirds", 1, move |event, _, documents| match event {
            AccountEvent::Deposited { cents: 3 }
                if fails.load(std::sync::atomic::Ordering::SeqCst) =>
            {
                Err("three".into())
            }
            AccountEvent::Deposited { cents } => documents.put("last", &cents),
            _ => Ok(()),
        })
    };
    let short = std::time::Duration::from_millis(1);
    let failure = FailurePolicy::new().with_retries_max(1).with_pause(short, short);
    let options = ConsumerOptions::new().with_failure(failure);
    let targets = move |_: &_| Documents::new(&kernel);
    let thirds = bench.consumers.maintain_fn(thirds, targets, options).await.unwrap();
    thirds.wait_for(bench.head(), LONG).await.unwrap();
    fails.store(true, std::sync::atomic::Ordering::SeqCst);
    let rebuild = thirds.rebuild().await.unwrap();
    let error = rebuild.done().await.unwrap_err();
    let text = error.to_string();
    let BuildError::Parked { letter, .. } = error else { panic!("{text}") };
    assert_eq!((letter.position.value(), &letter.error[..]), (4, "three"));
    for part in ["retry the event", "stream=account-ada event=account.deposited position=4"] {
        assert!(text.contains(part), "{text}");
    }
    fails.store(false, std::sync::atomic::Ordering::SeqCst);
    rebuild.consumer().unwrap().retry(&letter.stream).await.unwrap();
    rebuild.done().await.unwrap();
    assert_eq!(thirds.serving(), rebuild.build());
}
