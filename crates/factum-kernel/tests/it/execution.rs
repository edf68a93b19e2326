//! Commands to events.

use std::sync::Arc;

use async_trait::async_trait;
use factum_kernel::{
    Aggregate, AlongError, AppendBatch, AppendCondition, Appended, Content, Context, Decision,
    DeleteError, EventId, EventName, EventStore, ExecuteError, ExpectedVersion, Matching, Metadata,
    NewEvent, Position, Query, ReadQuery, Repository, RetryPolicy, StoreErrorKind, StreamId,
    StreamVersion, Tag, Transaction, TransactionError, Verdict,
};
use factum_macros::Event;
use factum_testing::bank::{Account, AccountCommand, AccountEvent, AccountRejection};

use crate::{
    bench::{Bench, at, no_metadata, open, stream},
    meddled::{Meddler, meddled},
};

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
    let kernel = factum_kernel::Kernel::new(bench.store.clone(), bench.store.clone());
    let refused = Repository::<Account>::new(kernel).execute("ada", &open("ada")).await;
    let Err(ExecuteError::Encode(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("set one with `with_tag_key`"), "{error}");
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

/// Deposits on the same account before each append, so many times.
struct Rival {
    bench: Arc<Bench>,
    times: usize,
}

#[async_trait]
impl Meddler for Rival {
    async fn before_append(&self, nth: usize) {
        if nth < self.times {
            self.bench.deposit("ada", &[1_000]).await;
        }
    }
}

async fn with_rival(times: usize) -> (Arc<Bench>, Repository<Account>) {
    let bench = Arc::new(Bench::new());
    bench.open("ada", &[500]).await;
    let rival = Rival { bench: bench.clone(), times };
    let store = meddled(bench.store.clone(), rival);
    (bench.clone(), Repository::new(bench.kernel.clone().with_events(store)))
}

#[tokio::test]
async fn after_a_conflict_the_command_is_decided_on_the_new_state() {
    let (_, accounts) = with_rival(1).await;
    let done = accounts.execute("ada", &AccountCommand::Withdraw { cents: 500 }).await.unwrap();
    assert_eq!(done.events, [AccountEvent::Withdrawn { cents: 500 }]);
    assert_eq!((done.state.balance_cents, done.version.value()), (1_000, 4));
}

#[tokio::test]
async fn conflicts_are_given_up_after_as_many_as_allowed() {
    let (bench, accounts) = with_rival(usize::MAX).await;
    let accounts = accounts.with_retry(RetryPolicy::new().with_conflicts_max(3));
    let refused = accounts.execute("ada", &AccountCommand::Withdraw { cents: 500 }).await;
    assert!(matches!(refused, Err(ExecuteError::Conflict(_))), "{refused:?}");
    assert_eq!(bench.balance("ada").await.1, 2 + 4, "four attempts, four rivals");
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
    let accounts = bench.accounts();
    let metadata = no_metadata();
    let deposit = AccountCommand::Deposit { cents: 1 };
    let done = accounts.execute_along("ada", &deposit, &metadata, &note("1", 1)).await.unwrap();
    assert_eq!(done.position, Some(Position::new(4)), "the note is behind the deposit");

    let again = accounts.execute_along("ada", &deposit, &metadata, &note("1", 2)).await;
    let Err(AlongError::Conflict(conflict)) = again else { panic!("{again:?}") };
    assert_eq!(conflict.stream.as_str(), "note-1", "not tried again: only the caller can decide");

    let taken = Query::tag(Tag::new("note", "1").unwrap());
    let unless = AppendCondition { fail_if_events_match: taken, after: Position::ZERO };
    let once = note("2", 1).unless(unless);
    let refused = accounts.execute_along("ada", &deposit, &metadata, &once).await;
    assert!(matches!(refused, Err(AlongError::Condition { condition: 0, .. })), "{refused:?}");
    assert_eq!(bench.balance("ada").await, (501, 3));
}

#[tokio::test]
async fn a_decision_without_events_still_checks_the_version_for_what_rides_along() {
    let bench = Bench::new();
    let ada = bench.accounts();
    let metadata = no_metadata();
    let missing = ada.delete("ada", ExpectedVersion::Any).await.unwrap();
    let nothing = (StreamVersion::ZERO, None);
    assert_eq!((missing.version, missing.position), nothing, "deleting nothing does nothing");
    let refused = ada
        .execute_along("ada", &AccountCommand::Deposit { cents: 1 }, &metadata, &note("1", 1))
        .await;
    let Err(AlongError::Execute(ExecuteError::Rejected(no))) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(no, AccountRejection::NotOpen);
    assert_eq!(bench.store.read(ReadQuery::log()).await.unwrap().events.len(), 0);
}

#[tokio::test]
async fn a_batch_that_rides_along_must_hold_an_event() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let check = AppendBatch::new().check(stream("bob"), ExpectedVersion::NoStream);
    let deposit = AccountCommand::Deposit { cents: 1 };
    let refused = bench.accounts().execute_along("ada", &deposit, &no_metadata(), &check).await;
    let is_refused = matches!(refused, Err(AlongError::Execute(ExecuteError::Store(_))));
    assert!(is_refused, "whatever the command leads to");
}

#[tokio::test]
async fn a_batch_that_rides_along_can_not_write_the_aggregates_stream() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let along = AppendBatch::new()
        .write(stream("ada"), ExpectedVersion::Any, note("1", 1).events().cloned())
        .write(stream("bob"), ExpectedVersion::Any, note("2", 1).events().cloned());
    let deposit = AccountCommand::Deposit { cents: 1 };
    let refused = bench.accounts().execute_along("ada", &deposit, &no_metadata(), &along).await;
    let Err(AlongError::Execute(ExecuteError::Store(error))) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert_eq!(bench.balance("ada").await, (0, 1), "nothing is stored that the answer leaves out");
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel, prefix = "member")]
enum MemberEvent {
    Joined {
        #[event(tag, hashed)]
        email: String,
    },
    Counted {
        by: u8,
    },
    #[event(summary)]
    Summarised {
        count: u16,
    },
}

/// Guards its members' addresses with the wrong kind of tag, and counts up to 255. Its summary is
/// one of a program that counted further.
#[derive(Debug, Default)]
struct Member {
    count: u8,
}

impl Aggregate for Member {
    const CATEGORY: &'static str = "member";
    type Command = MemberEvent;
    type Event = MemberEvent;
    type Rejection = std::fmt::Error;

    fn decide(&self, command: &MemberEvent, _: &Context<'_>) -> Verdict<Self> {
        let decision = Decision::from([command.clone()]);
        Ok(match command {
            MemberEvent::Joined { email } => {
                decision.unless(Matching::tag("email", email), std::fmt::Error)
            }
            _ => decision,
        })
    }

    fn evolve(&mut self, event: &MemberEvent) {
        match event {
            MemberEvent::Joined { .. } => {}
            MemberEvent::Counted { by } => {
                self.count = self.count.checked_add(*by).expect("a rule should have said no");
            }
            MemberEvent::Summarised { count } => {
                self.count = u8::try_from(*count).expect("it counts up to 255");
            }
        }
    }

    fn summary(&self) -> Option<MemberEvent> {
        Some(MemberEvent::Summarised { count: u16::from(self.count) * 2 })
    }
}

#[tokio::test]
async fn a_guard_that_could_never_match_what_it_guards_is_an_error() {
    let bench = Bench::new();
    let members = Repository::<Member>::new(bench.kernel.clone());
    let join = MemberEvent::Joined { email: "ada@example.org".into() };
    let refused = members.execute("ada", &join).await.unwrap_err();
    assert!(refused.to_string().contains("use Matching::hashed_tag"), "{refused}");
    let inside = Transaction::new(bench.kernel.clone()).execute(&members, "ada", join);
    assert!(matches!(inside.commit(&no_metadata()).await, Err(TransactionError::Encode(_))));
}

#[tokio::test]
async fn an_event_that_evolve_panics_on_is_not_stored() {
    let bench = Bench::new();
    let members = Repository::<Member>::new(bench.kernel.clone());
    members.execute("ada", &MemberEvent::Counted { by: 200 }).await.unwrap();
    let one_more = members.clone();
    let panicked = tokio::spawn(async move {
        one_more.execute("ada", &MemberEvent::Counted { by: 200 }).await.map(drop)
    });
    assert!(panicked.await.unwrap_err().is_panic());
    assert_eq!(members.load("ada").await.unwrap().state.count, 200, "the stream still loads");
}

#[tokio::test]
async fn a_summary_that_evolve_panics_on_is_not_stored() {
    let bench = Bench::new();
    let members = Repository::<Member>::new(bench.kernel.clone());
    members.execute("ada", &MemberEvent::Counted { by: 200 }).await.unwrap();
    let summarised = tokio::spawn({
        let members = members.clone();
        async move { members.summarise("ada", &no_metadata()).await.map(drop) }
    });
    assert!(summarised.await.unwrap_err().is_panic());
    let kept = members.load("ada").await.unwrap();
    assert_eq!((kept.state.count, kept.version.value()), (200, 1), "its history is kept");
}

/// Answers with this instead of what is so.
struct Liar(fn(Appended) -> Appended);

impl Meddler for Liar {
    fn answer(&self, appended: Appended) -> Appended {
        self.0(appended)
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_what_was_sent_is_not_believed() {
    let lies: [fn(Appended) -> Appended; 3] = [
        |told| told.with_events(2),
        |told| Appended::new(told.first, [].into_iter().collect(), told.recorded_at),
        |told| {
            let versions = told.versions.iter().map(|version| version.next()).collect();
            Appended::new(told.first, versions, told.recorded_at)
        },
    ];
    for lie in lies {
        let bench = Bench::new();
        let store = meddled(bench.store.clone(), Liar(lie));
        let accounts = Repository::<Account>::new(bench.kernel.clone().with_events(store));
        let told = tokio::spawn(async move { accounts.execute("ada", &open("ada")).await });
        assert!(told.await.unwrap_err().is_panic());
    }
}

#[tokio::test]
async fn a_deletion_tells_a_wrong_key_from_another_version() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let accounts = bench.accounts();
    let refused = accounts.delete("", ExpectedVersion::Any).await;
    assert!(matches!(refused, Err(DeleteError::Key(_))), "{refused:?}");
    let refused = accounts.delete("ada", ExpectedVersion::NoStream).await;
    let Err(DeleteError::Conflict(conflict)) = refused else { panic!("{refused:?}") };
    assert_eq!((conflict.stream, conflict.actual.value()), (stream("ada"), 1));
    bench.store.close().await.unwrap();
    let refused = accounts.delete("ada", ExpectedVersion::Any).await;
    assert!(matches!(refused, Err(DeleteError::Store(_))), "{refused:?}");
}
