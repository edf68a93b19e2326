//! Stores that fail on purpose, and the kernel's own way through them.

use std::{sync::Arc, time::Duration};

use factum_kernel::{
    AppendBatch, AppendError, Clock, Content, DocumentStore, EventId, EventName, EventStore,
    ExecuteError, ExpectedRevision, ExpectedVersion, Kernel, KeyRange, Metadata, NewEvent, Query,
    ReadQuery, Repository, ScanQuery, Scope, StoreErrorKind, StreamId, SystemClock, TagKey,
    Timestamp, Transaction, WriteBatch, WriteError,
};
use factum_testing::{
    Fault, FaultRates, FaultyDocuments, FaultyStore, History, RecordingStore, SeededIds,
    VirtualClock,
    bank::{Account, AccountCommand, AccountRejection},
    conformance::{Setup, Stores, Subject},
};
use tokio::task::JoinSet;

use crate::toy::{Flaw, ToySubject};

async fn toy() -> Stores {
    ToySubject::new(Flaw::None).open(&Setup::new(Arc::new(SystemClock))).await.unwrap()
}

fn reliable(inner: Arc<dyn EventStore>) -> FaultyStore {
    FaultyStore::new(inner, 1, FaultRates::none(), Arc::new(SystemClock))
}

fn ada() -> StreamId {
    StreamId::new("account", "ada").unwrap()
}

fn batch(number: u64) -> AppendBatch {
    let id = EventId::derived(SystemClock.now(), &number.to_le_bytes());
    let name = EventName::from_static("account.deposited");
    let event = NewEvent::new(id, name, Content::Json, "{}");
    AppendBatch::new().write(ada(), ExpectedVersion::Any, [event])
}

async fn stored(store: &dyn EventStore) -> u64 {
    store.stream_info(&ada()).await.unwrap().bounds.version.value()
}

#[tokio::test]
async fn scripted_faults_come_in_order_and_do_what_they_say() {
    let inner = toy().await.events;
    let store = reliable(inner.clone());
    store.next_append(Fault::FailBefore);
    store.next_append_succeeds();
    store.next_append(Fault::DropRequest);
    store.next_append(Fault::DropReply);

    let refused = store.append(batch(1)).await.unwrap_err();
    assert_eq!(refused.store_kind(), Some(StoreErrorKind::Unavailable));
    assert_eq!(stored(&*inner).await, 0);
    store.append(batch(2)).await.unwrap();
    assert_eq!(stored(&*inner).await, 1);
    let lost = store.append(batch(3)).await.unwrap_err();
    assert!(matches!(lost, AppendError::Indeterminate(_)));
    assert_eq!(stored(&*inner).await, 1, "the request was dropped");
    let lost = store.append(batch(4)).await.unwrap_err();
    assert!(matches!(lost, AppendError::Indeterminate(_)));
    assert_eq!(stored(&*inner).await, 2, "only the reply was dropped");
    store.append(batch(5)).await.unwrap();

    store.next_read(Fault::FailBefore);
    let refused = store.read(ReadQuery::log()).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unavailable);
    assert_eq!(store.read(ReadQuery::log()).await.unwrap().events.len(), 3);
}

#[tokio::test]
async fn a_delay_is_by_the_clock() {
    let clock = VirtualClock::new(Timestamp::EPOCH);
    let inner = toy().await.events;
    let store =
        Arc::new(FaultyStore::new(inner.clone(), 1, FaultRates::none(), Arc::new(clock.clone())));
    store.next_append(Fault::Delay(Duration::from_secs(5)));
    let append = tokio::spawn({
        let store = store.clone();
        async move { store.append(batch(1)).await }
    });
    clock.until_sleeping(1).await;
    assert_eq!(stored(&*inner).await, 0);
    clock.advance(Duration::from_secs(5));
    append.await.unwrap().unwrap();
    assert_eq!(stored(&*inner).await, 1);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_at_about_the_rates() {
    let outcomes = |seed| async move {
        let inner = toy().await.events;
        let rates = FaultRates { delay: 0.0, ..FaultRates::rough() };
        let store = FaultyStore::new(inner, seed, rates, Arc::new(SystemClock));
        let mut outcomes = vec![];
        for number in 0..300 {
            outcomes.push(match store.append(batch(number)).await {
                Ok(_) => 'o',
                Err(AppendError::Indeterminate(_)) => '?',
                Err(_) => 'f',
            });
        }
        String::from_iter(outcomes)
    };
    let one = outcomes(1).await;
    assert_eq!(one, outcomes(1).await);
    assert_ne!(one, outcomes(2).await);
    let count = |which| one.chars().filter(|outcome| *outcome == which).count();
    assert!((15..60).contains(&count('f')), "{} of 300 failed", count('f'));
    assert!((35..100).contains(&count('?')), "{} of 300 are unknown", count('?'));
}

#[tokio::test]
async fn documents_fail_as_planned() {
    let inner = toy().await.documents;
    let store = FaultyDocuments::new(inner.clone(), 1, FaultRates::none(), Arc::new(SystemClock));
    store.next_write(Fault::FailBefore);
    store.next_write_succeeds();
    store.next_write(Fault::DropRequest);
    store.next_write(Fault::DropReply);
    let put = |value: &'static str| WriteBatch::new().put("a", ExpectedRevision::Any, value);
    let value = async || inner.get(b"a").await.unwrap().map(|document| document.value);

    assert!(matches!(store.write(put("1")).await, Err(WriteError::Store(_))));
    assert_eq!(value().await, None);
    store.write(put("2")).await.unwrap();
    assert!(matches!(store.write(put("3")).await, Err(WriteError::Indeterminate(_))));
    assert_eq!(value().await.as_deref(), Some(&b"2"[..]));
    assert!(matches!(store.write(put("4")).await, Err(WriteError::Indeterminate(_))));
    assert_eq!(value().await.as_deref(), Some(&b"4"[..]));

    store.next_read(Fault::FailBefore);
    store.next_read(Fault::FailBefore);
    assert!(store.get(b"a").await.is_err());
    assert!(store.scan(ScanQuery::new(KeyRange::all())).await.is_err());
    store.next_write(Fault::DropReply);
    assert!(store.clear(KeyRange::all()).await.is_err());
    assert_eq!(value().await, None, "cleared, although the reply was lost");
}

/// A kernel on a toy that fails often, with everything recorded.
struct Rough {
    toy: Arc<dyn EventStore>,
    history: Arc<History>,
    kernel: Kernel,
}

impl Rough {
    async fn new(seed: u64) -> Self {
        let stores = toy().await;
        let history = Arc::new(History::new());
        let clock = Arc::new(SystemClock);
        let rates = FaultRates::rough();
        let faulty = FaultyStore::new(stores.events.clone(), seed, rates, clock.clone());
        let documents = FaultyDocuments::new(stores.documents, seed, rates, clock);
        let recording = RecordingStore::new(Arc::new(faulty), history.clone());
        let kernel = Kernel::new(Arc::new(recording), Arc::new(documents))
            .with_ids(Arc::new(SeededIds::new(seed)))
            .with_tag_key(TagKey::new([3; 32]));
        Self { toy: stores.events, history, kernel }
    }

    fn accounts(&self) -> Repository<Account> {
        Repository::new(self.kernel.clone())
    }

    /// Executes until the command is known to be done.
    async fn must(&self, key: &str, command: AccountCommand) {
        let accounts = self.accounts();
        for _ in 0..20 {
            if accounts.execute(key, &command).await.is_ok() {
                return;
            }
        }
        panic!("{command:?} on {key} never succeeds");
    }
}

fn open(key: &str, email: &str) -> AccountCommand {
    AccountCommand::Open { owner: key.into(), email: format!("{email}@example.org") }
}

#[tokio::test(flavor = "multi_thread")]
async fn transfers_conserve_money_on_a_store_that_fails() {
    let rough = Rough::new(5).await;
    for key in ["a", "b", "c"] {
        rough.must(key, open(key, key)).await;
        rough.must(key, AccountCommand::Deposit { cents: 1_000 }).await;
    }
    let mut tellers = JoinSet::new();
    for teller in 0..6_u64 {
        let kernel = rough.kernel.clone();
        let accounts = rough.accounts();
        tellers.spawn(async move {
            for round in 0..6 {
                let (from, to) =
                    [("a", "b"), ("b", "c"), ("c", "a")][((teller + round) % 3) as usize];
                let cents = 1 + (teller * 37 + round * 11) % 90;
                let transfer = Transaction::new(kernel.clone())
                    .execute(&accounts, from, AccountCommand::Send { to: to.into(), cents })
                    .execute(&accounts, to, AccountCommand::Receive { from: from.into(), cents });
                // The outcome does not matter for this test.
                let _ = transfer.commit(&Metadata::new()).await;
            }
        });
    }
    while let Some(teller) = tellers.join_next().await {
        teller.unwrap();
    }
    let summary = rough.history.check_store(&*rough.toy).await.unwrap();
    assert!(summary.acknowledged > 20, "{summary:?}");
    let kernel = rough.kernel.clone().with_events(rough.toy.clone());
    let accounts = Repository::<Account>::new(kernel);
    let mut total = 0;
    for key in ["a", "b", "c"] {
        total += accounts.load(key).await.unwrap().state.balance_cents;
    }
    let log = rough.toy.read(ReadQuery::log()).await.unwrap().events;
    let deposits = log.iter().filter(|event| event.name() == "account.deposited").count() as u64;
    assert!(deposits >= 3, "each account got its deposit");
    assert_eq!(total, deposits * 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_given_once_on_a_store_that_fails() {
    let rough = Rough::new(6).await;
    let mut rivals = JoinSet::new();
    for rival in 0..12 {
        let accounts = rough.accounts();
        rivals.spawn(async move {
            let key = format!("rival-{rival}");
            accounts.execute(&key, &open(&key, "ada")).await
        });
    }
    let mut opened = 0;
    while let Some(outcome) = rivals.join_next().await {
        match outcome.unwrap() {
            Ok(_) => opened += 1,
            Err(ExecuteError::Rejected(rejection)) => {
                assert_eq!(rejection, AccountRejection::EmailTaken);
            }
            // No caller got a definite answer.
            Err(_) => {}
        }
    }
    rough.history.check_store(&*rough.toy).await.unwrap();
    let tag = TagKey::new([3; 32]).hashed("email", "ada@example.org").unwrap();
    let page = rough.toy.read(ReadQuery::matching(Query::tag(tag))).await.unwrap();
    assert_eq!(page.events.len(), 1, "one account has the address");
    assert!(opened <= 1);
}

#[tokio::test]
async fn a_recorded_append_whose_caller_went_away_stays_open() {
    let stores = toy().await;
    let history = Arc::new(History::new());
    let clock = VirtualClock::new(Timestamp::EPOCH);
    let slow = Arc::new(FaultyStore::new(
        stores.events.clone(),
        1,
        FaultRates::none(),
        Arc::new(clock.clone()),
    ));
    slow.next_append(Fault::Delay(Duration::from_secs(1)));
    let store = RecordingStore::new(slow, history.clone());
    let append = tokio::spawn(async move { store.append(batch(1)).await });
    clock.until_sleeping(1).await;
    append.abort();
    assert!(append.await.unwrap_err().is_cancelled());
    let summary = history.check_store(&*stores.events).await.unwrap();
    assert_eq!((summary.unknown_absent, summary.failed), (1, 0));
}

#[tokio::test]
async fn a_recorded_reader_is_checked_against_the_store() {
    let events = toy().await.events;
    let history = Arc::new(History::new());
    let store = RecordingStore::new(events.clone(), history.clone());
    for number in 0..5 {
        store.append(batch(number)).await.unwrap();
    }
    let reader = history.reader("balances", Scope::Log);
    for event in store.read(ReadQuery::log()).await.unwrap().events {
        if event.position().value() != 3 {
            history.delivered(&reader, &event);
        }
    }
    let violation = history.check_store(&*events).await.unwrap_err();
    assert!(violation.to_string().contains("missed an event"), "{violation}");
}
