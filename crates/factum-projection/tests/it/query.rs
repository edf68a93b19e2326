//! Read models in documents: keys, pages, indexes, changes, waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use factum_consumer::{ConsumerOptions, ConsumerState, Consumers, FailurePolicy, StopReason};
use factum_kernel::{
    Kernel, KeyRange, Position, RecordedEvent, ScanQuery, SystemClock, TagKey, Timestamp,
};
use factum_memory::MemoryStore;
use factum_projection::{
    DOCUMENT_KEY_BYTES_MAX, Documents, Freshness, Index, IndexRange, Maintained, ModelChange,
    ModelQuery, ProjectionFn, Projections, QueryError, ReadModel, Stale,
};
use factum_testing::{Fault, FaultRates, FaultyDocuments, VirtualClock, bank::AccountEvent};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, Ledger, until},
};

/// A change of a document. Each deposit executes the next step.
#[derive(Debug, Clone)]
enum Step {
    Put(String, Person),
    Remove(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Person {
    name: String,
    age: i64,
    tags: Vec<String>,
}

type Steps = Arc<Mutex<Vec<Step>>>;

/// A read model that executes the steps, with three indexes.
async fn people(kernel: &Kernel, steps: &Steps, batch: usize) -> Maintained<Documents> {
    let steps = steps.clone();
    let projection = ProjectionFn::<_, Documents, _>::new(
        "people",
        1,
        move |event: AccountEvent, _: &RecordedEvent, documents| {
            let AccountEvent::Deposited { cents } = event else { return Ok(()) };
            match steps.lock().unwrap()[cents as usize - 1].clone() {
                Step::Put(key, person) => documents.put(&key, &person)?,
                Step::Remove(key) => documents.remove(&key),
            }
            Ok(())
        },
    );
    let targets = {
        let kernel = kernel.clone();
        move |_: &_| {
            Documents::new(&kernel)
                .with_index(Index::new("name", |it: &Person| [it.name.as_str().into()]))
                .with_index(Index::new("age", |it: &Person| (it.age != 0).then(|| it.age.into())))
                .with_index(Index::new("tag", |it: &Person| {
                    it.tags.iter().map(|tag| tag.as_str().into()).collect::<Vec<_>>()
                }))
        }
    };
    let short = Duration::from_millis(1);
    let failure = FailurePolicy::new().with_pause(short, short);
    let options = ConsumerOptions::new().with_batch_events_max(batch).with_failure(failure);
    Consumers::new(kernel.clone()).maintain_fn(projection, targets, options).await.unwrap()
}

fn person(name: &str, age: i64, tags: &[&str]) -> Person {
    let tags = tags.iter().copied().map(Into::into).collect();
    Person { name: name.into(), age, tags }
}

/// Reads all pages of a query.
async fn all<T: serde::de::DeserializeOwned>(
    model: &ReadModel<T>,
    query: ModelQuery,
    page_max: usize,
) -> Vec<(String, T)> {
    let mut query = query.with_documents_max(page_max);
    let mut found = Vec::new();
    loop {
        let page = model.list(query.clone()).await.unwrap();
        assert!(page.documents.len() <= page_max);
        found.extend(page.documents);
        match page.next {
            Some(next) => query = query.then(next),
            None => return found,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = prop::sample::select(vec!["a", "a\0", "b", "b/c", "ü"]).prop_map(String::from);
    let name = prop::sample::select(vec!["", "\0", "ada", "ada\0", "bob"]);
    let tags = prop::collection::vec(prop::sample::select(vec!["x", "y", "z"]), 0..4);
    let put = (key.clone(), name, -2..3_i64, tags)
        .prop_map(|(key, name, age, tags)| Step::Put(key, person(name, age, &tags)));
    prop_oneof![4 => put, 1 => key.prop_map(Step::Remove)]
}

/// The expected answer of a query: the entries of a plain map, in order of value and key.
fn entries<V: Ord>(
    model: &BTreeMap<String, Person>,
    values: impl Fn(&Person) -> Vec<V>,
    is_in: impl Fn(&V) -> bool,
) -> Vec<(String, Person)> {
    let mut entries = Vec::new();
    for (key, person) in model {
        let mut values = values(person);
        values.sort();
        values.dedup();
        entries.extend(values.into_iter().map(|value| (value, key.clone(), person.clone())));
    }
    entries.sort_by(|left, right| (&left.0, &left.1).cmp(&(&right.0, &right.1)));
    entries.into_iter().filter(|it| is_in(&it.0)).map(|(_, key, person)| (key, person)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn indexes_say_what_a_plain_model_says(
        steps in prop::collection::vec(step(), 1..40),
        batch in 1..9_usize,
        page_max in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(steps, batch, page_max));
    }
}

async fn check(steps: Vec<Step>, batch: usize, page_max: usize) {
    let bench = Bench::new();
    bench.open("ada").await;
    let count = steps.len() as u64;
    let steps_all = Arc::new(Mutex::new(steps.clone()));
    let mut plain = BTreeMap::new();
    for step in &steps {
        match step.clone() {
            Step::Put(key, person) => drop(plain.insert(key, person)),
            Step::Remove(key) => drop(plain.remove(&key)),
        }
    }
    // Half of the steps come before a restart, which empties the cache of documents.
    bench.deposits("ada", count / 2).await;
    let before = people(&bench.kernel, &steps_all, batch).await;
    before.wait_for(bench.head(), LONG).await.unwrap();
    before.consumer().unwrap().stop().await;
    for cents in count / 2 + 1..=count {
        bench.deposit("ada", cents).await;
    }
    let people = people(&bench.kernel, &steps_all, batch).await;
    people.wait_for(bench.head(), LONG).await.unwrap();
    let model = people.read_model::<Person>();
    let documents: Vec<_> = plain.clone().into_iter().collect();
    assert_eq!(all(&model, ModelQuery::all(), page_max).await, documents);
    for (key, person) in &plain {
        assert_eq!(model.get(key).await.unwrap().as_ref(), Some(person));
    }
    let found = |index: &'static str, range| all(&model, ModelQuery::index(index, range), page_max);
    let names = |it: &Person| vec![it.name.clone()];
    let ages = |it: &Person| if it.age == 0 { vec![] } else { vec![it.age] };
    for name in ["", "\0", "ada", "ada\0", "eve"] {
        let expected = entries(&plain, names, |it| it == name);
        assert_eq!(found("name", IndexRange::equal(name)).await, expected);
        let expected = entries(&plain, names, |it| &it[..] > name);
        let range = (std::ops::Bound::Excluded(name), std::ops::Bound::Unbounded);
        assert_eq!(found("name", IndexRange::within::<&str>(range)).await, expected);
    }
    assert_eq!(found("age", IndexRange::all()).await, entries(&plain, ages, |_| true));
    let expected = entries(&plain, ages, |it| (-1..2).contains(it));
    assert_eq!(found("age", IndexRange::within(-1_i64..2)).await, expected);
    let mut expected = entries(&plain, |it| it.tags.clone(), |it| &it[..] >= "y");
    let tagged = IndexRange::within("y"..);
    assert_eq!(found("tag", tagged.clone()).await, expected);
    expected.reverse();
    let backward = ModelQuery::index("tag", tagged).backward();
    assert_eq!(all(&model, backward, page_max).await, expected);
}

#[tokio::test]
async fn a_listing_stays_in_its_build_while_another_takes_over() {
    let bench = Bench::new();
    for at in 0..10 {
        bench.open(&format!("a{at}")).await;
        bench.deposits(&format!("a{at}"), 1).await;
    }
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let model = ledgers.read_model::<Ledger>();
    let query = ModelQuery::keys("a").with_documents_max(4);
    let first = model.list(query.clone()).await.unwrap();
    let next = first.next.unwrap();
    // A client has stored the continuation meanwhile.
    let next = serde_json::to_string(&next).unwrap();
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    let next = serde_json::from_str(&next).unwrap();
    let second = model.list(query.clone().then(next)).await.unwrap();
    let keys: Vec<_> = second.documents.iter().map(|(key, _)| &key[..]).collect();
    assert_eq!(keys, ["a4", "a5", "a6", "a7"]);
    ledgers.discard_old().await.unwrap();
    let gone = model.list(query.then(second.next.unwrap())).await.unwrap_err();
    assert!(matches!(gone, QueryError::Replaced(_)), "{gone}");
}

#[tokio::test]
async fn pages_while_the_model_changes_skip_and_repeat_nothing_that_stays() {
    let bench = Arc::new(Bench::new());
    for at in 0..30 {
        bench.open(&format!("a{at:02}")).await;
        bench.deposits(&format!("a{at:02}"), 1).await;
    }
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let writer = tokio::spawn({
        let bench = bench.clone();
        async move {
            for at in 0..200 {
                let _ = bench.deposit(&format!("a{:02}", at % 30), 1).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let model = ledgers.read_model::<Ledger>();
    while !writer.is_finished() {
        let found = all(&model, ModelQuery::all(), 3).await;
        let expected: Vec<_> = (0..30).map(|at| format!("a{at:02}")).collect();
        assert_eq!(found.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), expected);
        // A page of an index shows one moment: each document is at the value that it contains.
        let query = ModelQuery::index("cents", IndexRange::within(2_u64..5));
        let page = model.list(query).await.unwrap();
        assert!(page.documents.iter().all(|(_, ledger)| (2..5).contains(&ledger.cents)));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_key_that_is_too_long_gets_an_error_of_one_sentence_and_a_text_may_be_long() {
    let long = "x".repeat(DOCUMENT_KEY_BYTES_MAX + 1);
    let name = "n".repeat(300);
    let steps = vec![
        Step::Put(long.clone(), person("ada", 1, &[])),
        Step::Put(String::new(), person("ada", 1, &[])),
        Step::Put("b".into(), person(&name, 1, &[])),
        Step::Remove(long.clone()),
        Step::Put("x".repeat(DOCUMENT_KEY_BYTES_MAX), person(&name[..253], 1, &[])),
    ];
    let errors = ["bytes=513", "bytes=0"];
    let bench = Bench::new();
    for at in 1..=steps.len() as u64 {
        bench.open(&format!("a{at}")).await;
        bench.deposit(&format!("a{at}"), at).await;
    }
    let people = people(&bench.kernel, &Arc::new(Mutex::new(steps)), 100).await;
    people.wait_for(bench.head(), LONG).await.unwrap();
    let letters = people.consumer().unwrap().dead_letters().await;
    assert_eq!(letters.len(), errors.len());
    for (letter, error) in letters.iter().zip(errors) {
        assert!(letter.error.ends_with(error), "{}", letter.error);
    }
    let model = people.read_model::<Person>();
    assert_eq!(model.get(&long).await.unwrap(), None);
    assert_eq!(model.get(&long[1..]).await.unwrap().unwrap().name.len(), 253);
    let found = all(&model, ModelQuery::index("name", IndexRange::equal(name)), 10).await;
    assert_eq!(found.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_batch_that_is_more_than_one_write_is_halved_until_it_fits() {
    let bench = Bench::new();
    bench.open("ada").await;
    // Each document with its three entries is four; 1,000 documents go in one write.
    let steps: Vec<_> =
        (0..600).map(|at| Step::Put(format!("p{at:03}"), person("ada", at, &["x"]))).collect();
    bench.deposits("ada", 600).await;
    let people = people(&bench.kernel, &Arc::new(Mutex::new(steps)), 1_000).await;
    people.wait_for(bench.head(), LONG).await.unwrap();
    let health = people.consumer().unwrap().health();
    assert_eq!((health.parked, health.handled), (0, 601));
    let model = people.read_model::<Person>();
    assert_eq!(all(&model, ModelQuery::all(), 1_000).await.len(), 600);
    let tagged = ModelQuery::index("tag", IndexRange::equal("x"));
    assert_eq!(all(&model, tagged, 1_000).await.len(), 600);
}

#[tokio::test]
async fn an_index_that_is_added_later_needs_a_new_version() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposits("ada", 3).await;
    let old = bench.keep::<1>(&Gate::open()).await;
    old.wait_for(bench.head(), LONG).await.unwrap();
    let model = bench.ledgers();
    let query = ModelQuery::index("cents", IndexRange::all());
    let told = model.list(query.clone()).await.unwrap_err();
    assert!(matches!(&told, QueryError::NoIndex { index, .. } if index == "cents"), "{told}");
    bench.consumers.close().await;
    // The same version, with an index added.
    let again = bench.again();
    let kernel = again.kernel.clone();
    let targets =
        move |_: &_| Documents::new(&kernel).with_index(Index::new("none", |_: &Vec<u64>| None));
    let projection = crate::ledger::Ledgers::<1>(Gate::open());
    let options = ConsumerOptions::new();
    let refused = again.consumers.maintain(projection, targets, options).await.unwrap();
    let position = bench.deposit("ada", 1).await;
    refused.wait_for(position, LONG).await.unwrap_err();
    let state = refused.consumer().unwrap().health().state;
    let ConsumerState::Stopped(StopReason::Broken(told)) = state else { panic!("{state:?}") };
    assert!(told.to_string().contains("raise the projection's version"), "{told}");
    // A new version has the index.
    let new = bench.again().keep::<2>(&Gate::open()).await;
    new.building().unwrap().done().await.unwrap();
    let model = new.read_model::<Ledger>();
    assert_eq!(model.list(query).await.unwrap().documents[0].1.cents, 7);
}

#[tokio::test]
async fn changes_are_sent_as_they_happen_and_missed_ones_are_reported() {
    let bench = Bench::new();
    bench.open("ada").await;
    let steps: Vec<_> = [
        Step::Put("a".into(), person("ada", 1, &[])),
        Step::Remove("a".into()),
        Step::Put("b".into(), person("bob", 2, &[])),
    ]
    .into_iter()
    .chain((0..300).map(|at| Step::Put("c".into(), person("eve", at, &[]))))
    .collect();
    let people = people(&bench.kernel, &Arc::new(Mutex::new(steps)), 1).await;
    people.wait_for(bench.head(), LONG).await.unwrap();
    let mut changes = people.changes::<Person>();
    let mut slow = people.changes::<Person>();
    for cents in 1..=3 {
        bench.deposit("ada", cents).await;
    }
    let put = |key: &str, value| ModelChange::Put { key: key.into(), value };
    assert_eq!(changes.next().await.unwrap().unwrap(), put("a", person("ada", 1, &[])));
    let removed = ModelChange::Removed { key: "a".into() };
    assert_eq!(changes.next().await.unwrap().unwrap(), removed);
    assert_eq!(changes.next().await.unwrap().unwrap(), put("b", person("bob", 2, &[])));
    // The projection does not wait for the slow listener.
    for cents in 4..=303 {
        bench.deposit("ada", cents).await;
    }
    people.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(slow.next().await.unwrap().unwrap(), ModelChange::Missed);
    let last = put("c", person("eve", 299, &[]));
    while slow.next().await.unwrap().unwrap() != last {}
    // Another build serves, so all documents may differ.
    people.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(slow.next().await.unwrap().unwrap(), ModelChange::Missed);
    bench.deposit("ada", 3).await;
    assert_eq!(slow.next().await.unwrap().unwrap(), put("b", person("bob", 2, &[])));
}

#[tokio::test]
async fn a_reader_chooses_to_wait_or_to_take_a_stale_model() {
    let bench = Bench::new();
    bench.open("ada").await;
    let gate = Gate::after(2);
    let elsewhere = bench.ledgers();
    assert!(matches!(elsewhere.get("ada").await, Err(QueryError::NotStarted(_))));
    let ledgers = bench.keep::<2>(&gate).await;
    let seen = bench.deposit("ada", 5).await;
    ledgers.wait_for(seen, LONG).await.unwrap();
    let unseen = bench.deposit("ada", 6).await;
    let short = Duration::from_millis(20);
    for model in [ledgers.read_model(), elsewhere] {
        assert_eq!(model.wait_for(seen, LONG, Stale::Fail).await.unwrap(), Freshness::Fresh);
        let told = model.wait_for(unseen, short, Stale::Fail).await.unwrap_err().to_string();
        assert!(told.contains("position=3 reached=2"), "{told}");
        let stale = model.wait_for(unseen, short, Stale::Serve).await.unwrap();
        assert_eq!(stale, Freshness::Stale);
        assert_eq!(model.get("ada").await.unwrap().unwrap().cents, 5);
    }
    let model = bench.ledgers();
    let waiting = tokio::spawn(async move {
        let _ = model.wait_for(unseen, LONG, Stale::Fail).await.unwrap();
        model.get("ada").await.unwrap().unwrap().cents
    });
    gate.let_pass(u64::MAX);
    assert_eq!(waiting.await.unwrap(), 11);
    assert!(Position::ZERO < unseen);
}

#[tokio::test]
async fn a_continuation_gives_access_to_nothing_outside_of_its_query() {
    let bench = Bench::new();
    for key in ["a1", "a2", "b1", "c1", "c2"] {
        bench.open(key).await;
        bench.deposits(key, 1).await;
    }
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let model = ledgers.read_model::<Ledger>();
    let keys = async |query: ModelQuery| {
        let page = model.list(query).await.unwrap();
        page.documents.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    let first = model.list(ModelQuery::all().with_documents_max(1)).await.unwrap();
    let next = first.next.unwrap();
    assert_eq!(keys(ModelQuery::keys("c").then(next)).await, ["c1", "c2"]);
    let last = model.list(ModelQuery::all().with_documents_max(1).backward()).await.unwrap();
    let before = ModelQuery::keys("a").backward().then(last.next.unwrap());
    assert_eq!(keys(before).await, ["a2", "a1"]);
}

#[tokio::test]
async fn a_listener_learns_that_the_answer_to_a_write_was_lost() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SystemClock);
    let faulty = FaultyDocuments::new(store.clone(), 0, FaultRates::none(), clock);
    let faulty = Arc::new(faulty);
    let kernel = Kernel::new(store, faulty.clone()).with_tag_key(TagKey::new([1; 32]));
    let bench = Bench::on(kernel);
    bench.open("ada").await;
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let mut changes = ledgers.changes::<Ledger>();
    faulty.next_write(Fault::DropReply);
    bench.deposit("ada", 1).await;
    assert_eq!(changes.next().await.unwrap().unwrap(), ModelChange::Missed);
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    bench.deposit("ada", 2).await;
    let put = ModelChange::Put { key: "ada".into(), value: Ledger { count: 2, cents: 3 } };
    assert_eq!(changes.next().await.unwrap().unwrap(), put);
}

#[tokio::test]
async fn a_read_that_takes_longer_than_its_build_is_kept_begins_again() {
    let clock = VirtualClock::new(Timestamp::from_micros(1_700_000_000_000_000));
    let store = Arc::new(MemoryStore::new());
    let kernel = Kernel::new(store.clone(), store.clone()).with_tag_key(TagKey::new([1; 32]));
    let bench = Bench::on(kernel.with_clock(Arc::new(clock.clone())));
    bench.open("ada").await;
    bench.deposits("ada", 4).await;
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    // A reader in another program, with slow access to the store.
    let slow = FaultyDocuments::new(store.clone(), 0, FaultRates::none(), Arc::new(clock.clone()));
    let slow = Arc::new(slow);
    let elsewhere = Kernel::new(store, slow.clone()).with_clock(Arc::new(clock.clone()));
    let model = ReadModel::<Ledger>::new(&elsewhere, "ledgers").unwrap();
    for is_list in [false, true] {
        assert_eq!(model.get("ada").await.unwrap().unwrap().cents, 10);
        let before = ledgers.serving_name();
        slow.next_read(Fault::Delay(Duration::from_secs(60)));
        let reading = tokio::spawn({
            let model = model.clone();
            async move {
                match is_list {
                    false => model.get("ada").await.unwrap().unwrap(),
                    true => model.list(ModelQuery::all()).await.unwrap().documents.remove(0).1,
                }
            }
        });
        ledgers.rebuild().await.unwrap().done().await.unwrap();
        ledgers.discard_old().await.unwrap();
        let prefix = KeyRange::prefix(format!("$model/{before}/"));
        until(|| async {
            clock.advance(Duration::from_millis(500));
            let page = bench.kernel.documents().scan(ScanQuery::new(prefix.clone())).await;
            page.unwrap().documents.is_empty()
        })
        .await;
        assert!(!reading.is_finished());
        clock.advance(Duration::from_secs(60));
        assert_eq!(reading.await.unwrap().cents, 10);
    }
}
