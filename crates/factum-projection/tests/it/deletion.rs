//! A deleted stream is forgotten: by the read model that serves, by the one that is built beside
//! it, and by the one that served before.

use factum_consumer::HandleError;
use factum_kernel::{
    AppendBatch, Clock as _, Content, EventId, EventName, ExpectedVersion, IdSource as _, NewEvent,
    OrDeleted, RecordedEvent, StreamId, SystemClock, SystemIds,
};
use factum_projection::{Documents, DocumentsTx, Fold, ModelQuery, Projection, Projections};
use factum_testing::{bank::AccountEvent, deletion};

use crate::{
    bench::{Bench, Count, Counted, Fails, LONG, ada, options},
    ledger::{Gate, Ledger, until},
};

fn account(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

/// Two accounts with deposits; ada's is deleted, and bob's has another deposit.
async fn fill(bench: &Bench) {
    for key in ["ada", "bob"] {
        bench.open(key).await;
        bench.deposit(key, 1).await;
    }
}

async fn delete(bench: &Bench, key: &str) {
    bench.accounts.delete(key, ExpectedVersion::Any).await.unwrap();
}

#[tokio::test]
async fn a_deleted_stream_is_forgotten_and_begins_again() {
    let bench = Bench::new();
    fill(&bench).await;
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await.len(), 2);
    delete(&bench, "ada").await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await.keys().collect::<Vec<_>>(), ["bob"]);
    bench.open("ada").await;
    bench.deposit("ada", 7).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [7]);
    assert_eq!(bench.counted().await, bench.fold().await);
}

/// Two kinds of streams may have the same keys.
#[tokio::test]
async fn streams_of_other_categories_are_neither_projected_nor_forgotten() {
    let bench = Bench::new();
    fill(&bench).await;
    let id = EventId::new(SystemIds.uuid(SystemClock.now()));
    let name = EventName::from_static("account.deposited");
    let event = NewEvent::new(id, name, Content::Json, r#"{"cents":9}"#);
    let other = StreamId::new("savings", "ada").unwrap();
    let batch = AppendBatch::new().write(other.clone(), ExpectedVersion::Any, [event]);
    bench.kernel.events().append(batch).await.unwrap();
    bench.kernel.events().append(deletion(other)).await.unwrap();
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1]);
}

#[tokio::test]
async fn a_rebuild_gives_the_same_read_model_as_the_one_that_serves() {
    let bench = Bench::new();
    fill(&bench).await;
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    delete(&bench, "ada").await;
    bench.deposit("bob", 2).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let all = async || {
        let model = ledgers.read_model::<Ledger>();
        model.list(ModelQuery::all()).await.unwrap().documents
    };
    let served = all().await;
    assert_eq!(served.len(), 1, "ada's row is gone: {served:?}");
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(all().await, served);
}

/// No program maintains the build that served before, so none can forget a stream in it.
#[tokio::test]
async fn the_earlier_build_is_dropped_when_a_stream_is_deleted() {
    let bench = Bench::new();
    fill(&bench).await;
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    assert!(ledgers.previous().is_some());
    delete(&bench, "ada").await;
    until(|| async { ledgers.previous().is_none() }).await;
}

#[tokio::test]
async fn a_deletion_frees_a_stream_that_is_parked() {
    let bench = Bench::new();
    fill(&bench).await;
    bench.deposit("ada", 13).await;
    bench.deposit("ada", 2).await;
    let fails = Fails::default();
    fails.errs.store(true, std::sync::atomic::Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(counts.dead_letters().await.len(), 1);
    // In one batch, so that the stream is freed and goes on in one step of the consumer.
    let begins = NewEvent::new(
        EventId::new(SystemIds.uuid(SystemClock.now())),
        EventName::from_static("account.deposited"),
        Content::Json,
        r#"{"cents":5}"#,
    );
    let batch = deletion(account("ada")).write(account("ada"), ExpectedVersion::Any, [begins]);
    bench.kernel.events().append(batch).await.unwrap();
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(counts.dead_letters().await.len(), 0);
    assert_eq!(bench.counted().await["ada"], Count { cents: vec![5] });
    // It stays so when the consumer starts again.
    counts.stop().await;
    let counts = bench.again().count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!((counts.health().parked, counts.dead_letters().await.len()), (0, 0));
}

/// A model in memory of the deposits, which forgets deleted streams and fails at thirteen cents.
fn look(counts: &mut Counted, event: OrDeleted<AccountEvent>, recorded: &RecordedEvent) {
    let key = recorded.stream().key();
    match event {
        OrDeleted::Event(AccountEvent::Deposited { cents }) => {
            assert_ne!(cents, 13);
            counts.entry(key.into()).or_default().cents.push(cents);
        }
        OrDeleted::Event(_) => {}
        OrDeleted::Deleted => drop(counts.remove(key)),
    }
}

#[tokio::test]
async fn a_deletion_frees_a_stream_that_is_parked_in_a_model_in_memory() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fold = || Fold::new("looks", 1, look).with_options(options());
    let looks = bench.consumers.fold(fold()).await.unwrap();
    looks.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(looks.consumer().dead_letters().await.len(), 1);
    delete(&bench, "ada").await;
    bench.open("ada").await;
    bench.deposit("ada", 5).await;
    looks.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(looks.read().await.unwrap()["ada"], Count { cents: vec![5] });
    assert_eq!(looks.consumer().dead_letters().await.len(), 0);
    assert_eq!(looks.consumer().health().parked, 0);
    // It stays so when the model is restored.
    let again = bench.again();
    let looks = again.consumers.fold(fold()).await.unwrap();
    looks.wait_for(again.head(), LONG).await.unwrap();
    assert_eq!(looks.consumer().dead_letters().await.len(), 0);
    assert_eq!(looks.read().await.unwrap()["ada"], Count { cents: vec![5] });
}

/// Fails at thirteen cents, and at each deletion.
struct Keeps;

impl Projection for Keeps {
    const NAME: &'static str = "keeps";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        _: &RecordedEvent,
        _: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        match event {
            AccountEvent::Deposited { cents: 13 } => Err("thirteen".into()),
            _ => Ok(()),
        }
    }

    async fn forget(&self, _: &RecordedEvent, _: &mut DocumentsTx) -> Result<(), HandleError> {
        Err("it is kept".into())
    }
}

#[tokio::test]
async fn a_deletion_that_fails_takes_the_place_of_what_was_parked_of_its_stream() {
    let bench = Bench::new();
    bench.thirteen().await;
    let failure = options().failure.with_parked_max(1);
    let options = options().with_failure(failure);
    let target = Documents::new(&bench.kernel);
    let keeps = bench.consumers.start_projection(Keeps, target, options).await.unwrap();
    keeps.wait_for(bench.head(), LONG).await.unwrap();
    delete(&bench, "ada").await;
    let deleted = bench.head();
    bench.deposit("bob", 7).await;
    keeps.wait_for(bench.head(), LONG).await.unwrap();
    let [letter] = &keeps.dead_letters().await[..] else { panic!("one is parked") };
    assert_eq!((&letter.stream, letter.position), (&ada(), deleted));
    assert_eq!(letter.error, "it is kept");
}

#[tokio::test]
async fn a_closure_keeps_what_it_folded_unless_it_looks_at_deletions() {
    let bench = Bench::new();
    fill(&bench).await;
    let keeps = bench.count_in_memory(&Fails::default()).await;
    let looks = bench.consumers.fold(Fold::new("looks", 1, look)).await.unwrap();
    for model in [&keeps, &looks] {
        model.wait_for(bench.head(), LONG).await.unwrap();
    }
    delete(&bench, "ada").await;
    for (model, left) in [(&keeps, 2), (&looks, 1)] {
        model.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!(model.read().await.unwrap().len(), left);
    }
}
