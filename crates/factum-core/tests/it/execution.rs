//! Commands to events.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use factum_core::{
    AppendBatch, AppendCondition, AppendError, Appended, Content, EventId, EventName, EventStore,
    ExecuteError, ExpectedVersion, Guarantees, Metadata, NewEvent, Page, Position, Query,
    ReadQuery, Repository, RetryPolicy, StoreError, StreamChange, StreamId, StreamInfo,
    StreamVersion, Tag,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent, AccountRejection};
use tokio::sync::watch;

use crate::bench::{Bench, at, no_metadata, open, stream};

#[tokio::test]
async fn a_command_becomes_events_with_position_and_metadata() {
    let bench = Bench::new();
    let metadata = Metadata::new().with_user("ada");
    let done = bench.accounts().execute_with("ada", &open("ada"), &metadata).await.unwrap();
    assert_eq!((done.version.value(), done.position), (1, Some(Position::new(1))));
    assert_eq!(done.state.owner, "ada");

    let page = bench.store.read(ReadQuery::log()).await.unwrap();
    let [recorded] = &page.events[..] else { panic!("one event") };
    assert_eq!(recorded.name(), "account.opened");
    assert_eq!(recorded.metadata(), metadata);
    assert_eq!(recorded.recorded_at(), at("08:00:00"));
    assert!(recorded.tags().all(|tag| tag.starts_with("email:#")), "hashed, never plain");
}

#[tokio::test]
async fn a_rejection_is_a_value_and_stores_nothing() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    let refused = bench.accounts().execute("ada", &AccountCommand::Withdraw { cents: 700 }).await;
    let Err(ExecuteError::Rejected(no)) = refused else { panic!("{refused:?}") };
    assert_eq!(no, AccountRejection::InsufficientFunds { balance_cents: 500 });
    assert_eq!(bench.balance("ada").await, (500, 2));
}

#[tokio::test]
async fn a_guard_that_fails_is_its_rejection() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let again = AccountCommand::Open { owner: "Bob".into(), email: "ada@example.org".into() };
    let refused = bench.accounts().execute("bob", &again).await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(AccountRejection::EmailTaken))));
    assert_eq!(bench.balance("bob").await, (0, 0));
}

#[tokio::test]
async fn a_hashed_tag_without_a_key_is_an_error_that_says_what_to_do() {
    let bench = Bench::new();
    let kernel = factum_core::Kernel::new(bench.store.clone(), bench.store.clone());
    let refused = Repository::<Account>::new(kernel).execute("ada", &open("ada")).await;
    let Err(ExecuteError::Encode(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("set one with `Kernel::with_tag_key`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_writers_all_get_through_and_no_update_is_lost() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let writers = (0..16).map(|_| {
        let accounts = bench.accounts().with_retry(RetryPolicy::new().with_conflicts_max(1_000));
        tokio::spawn(async move {
            for _ in 0..20 {
                accounts.execute("ada", &AccountCommand::Deposit { cents: 1 }).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(bench.balance("ada").await, (320, 321));
}

/// Appends a deposit by somebody else before each append, so many times.
#[derive(Debug)]
struct Rival {
    bench: Bench,
    left: AtomicUsize,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl EventStore for Rival {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            self.bench.deposit("ada", &[1_000]).await;
        }
        self.bench.store.append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.bench.store.read(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.bench.store.stream_info(stream).await
    }

    async fn change(&self, s: &StreamId, change: StreamChange) -> Result<StreamInfo, AppendError> {
        self.bench.store.change(s, change).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.bench.store.head()
    }

    fn guarantees(&self) -> Guarantees {
        self.bench.store.guarantees()
    }

    async fn close(&self) -> Result<(), StoreError> {
        EventStore::close(&*self.bench.store).await
    }
}

#[tokio::test]
async fn after_a_conflict_the_command_is_decided_on_the_new_state() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    let kernel = bench.kernel.clone();
    let rival = Arc::new(Rival { bench, left: AtomicUsize::new(1) });
    let accounts = Repository::<Account>::new(kernel.with_events(rival.clone()));
    let done = accounts.execute("ada", &AccountCommand::Withdraw { cents: 500 }).await.unwrap();
    assert_eq!(done.events, [AccountEvent::Withdrawn { cents: 500 }]);
    assert_eq!((done.state.balance_cents, done.version.value()), (1_000, 4));
}

#[tokio::test]
async fn conflicts_are_given_up_after_as_many_as_allowed() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    let kernel = bench.kernel.clone();
    let rival = Arc::new(Rival { bench, left: AtomicUsize::new(usize::MAX) });
    let accounts = Repository::<Account>::new(kernel.with_events(rival.clone()))
        .with_retry(RetryPolicy::new().with_conflicts_max(3));
    let refused = accounts.execute("ada", &AccountCommand::Withdraw { cents: 500 }).await;
    assert!(matches!(refused, Err(ExecuteError::Conflict(_))), "{refused:?}");
    assert_eq!(rival.bench.balance("ada").await.1, 2 + 4, "four attempts, four rivals");
}

fn note(key: &str, attempt: u8) -> AppendBatch {
    let id = EventId::derived(at("08:00:00"), &[key.as_bytes(), &[attempt]].concat());
    let event = NewEvent::new(id, EventName::from_static("note.taken"), Content::Json, "{}");
    let event = event.with_tag(Tag::new("note", key).unwrap());
    AppendBatch::new().write(
        StreamId::new("note", key).unwrap(),
        ExpectedVersion::NoStream,
        [event],
    )
}

#[tokio::test]
async fn a_batch_that_rides_along_is_stored_with_the_events_or_neither() {
    let bench = Bench::new();
    bench.open("ada", &[500]).await;
    let (accounts, metadata) = (bench.accounts(), no_metadata());
    let deposit = AccountCommand::Deposit { cents: 1 };
    let done = accounts.execute_along("ada", &deposit, &metadata, &note("1", 1)).await.unwrap();
    assert_eq!(done.position, Some(Position::new(4)), "the note is behind the deposit");

    let again = accounts.execute_along("ada", &deposit, &metadata, &note("1", 2)).await;
    let Err(ExecuteError::Conflict(conflict)) = again else { panic!("{again:?}") };
    assert_eq!(conflict.stream.as_str(), "note-1", "not tried again: only the caller can decide");

    let taken = Query::tag(Tag::new("note", "1").unwrap());
    let unless = AppendCondition { fail_if_events_match: taken, after: Position::ZERO };
    let once = note("2", 1).unless(unless);
    let refused = accounts.execute_along("ada", &deposit, &metadata, &once).await;
    assert!(matches!(refused, Err(ExecuteError::Along { condition: 0, .. })), "{refused:?}");
    assert_eq!(bench.balance("ada").await, (501, 3));
}

#[tokio::test]
async fn a_decision_without_events_still_checks_the_version_for_what_rides_along() {
    let bench = Bench::new();
    let (ada, metadata) = (bench.accounts(), no_metadata());
    let retention = StreamChange::Delete(ExpectedVersion::Any);
    let missing = bench.store.change(&stream("ada"), retention).await.unwrap();
    assert_eq!(missing.bounds.version, StreamVersion::ZERO, "deleting nothing does nothing");
    let refused = ada
        .execute_along("ada", &AccountCommand::Deposit { cents: 1 }, &metadata, &note("1", 1))
        .await;
    assert!(matches!(refused, Err(ExecuteError::Rejected(AccountRejection::NotOpen))));
    assert_eq!(bench.store.read(ReadQuery::log()).await.unwrap().events.len(), 0);
}
