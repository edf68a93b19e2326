//! A command with an id takes effect once: after restarts, through other processes, and after any
//! answer to its first attempt.

use std::{path::Path, sync::Arc};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    Aggregate, COMMAND_TAG, Command, CommandId, Context, Decision, EventStore, ExpectedVersion,
    IdTaken, Kernel, Matching, Metadata, Position, ReadQuery, Repository, RetryPolicy, StreamId,
    TagKey, Uuid, Verdict,
};
use factum_macros::{Command, Event};
use factum_runtime::{
    AskError, CommandError, CommandRouter, Commands, DispatchError, Entities, EntityError,
    EntityOptions, OtherWriters, Outcome,
};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::{
    Fault, FaultRates, History, RecordingStore,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
};
use serde::{Deserialize, Serialize};

use crate::{
    bench::{Bench, DEPOSIT, millis, open, options},
    counter::{Counter, CounterCommand},
    polling::poll_times,
};

fn id(n: u128) -> CommandId {
    CommandId::new(Uuid::from_u128(n))
}

/// An answer that is compared with others.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    version: u64,
    position: Option<u64>,
    events: usize,
    replayed: bool,
}

impl Told {
    /// The answer to a command that stored one event in a log of one stream.
    fn at(version: u64, replayed: bool) -> Self {
        Self { version, position: Some(version), events: 1, replayed }
    }
}

fn told(outcome: &Outcome<Account>) -> Told {
    let Outcome { version, position, events, replayed, .. } = outcome;
    Told {
        version: version.value(),
        position: position.map(Position::value),
        events: events.len(),
        replayed: *replayed,
    }
}

async fn deposit(accounts: &Entities<Account>, key: &str, id: CommandId) -> Outcome<Account> {
    accounts.ask_once(key, id, DEPOSIT, Metadata::new()).await.unwrap()
}

fn withdraw(cents: u64) -> AccountCommand {
    AccountCommand::Withdraw { cents }
}

#[tokio::test]
async fn a_repeat_is_answered_with_what_was_stored() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    let first = deposit(&accounts, "ada", id(7)).await;
    accounts.ask("ada", withdraw(1)).await.unwrap();
    let again = deposit(&accounts, "ada", id(7)).await;
    assert_eq!(told(&first), Told::at(2, false));
    assert_eq!(told(&again), Told::at(2, true));
    assert_eq!(again.events, [AccountEvent::Deposited { cents: 1 }]);
    // Decided again, the withdrawal would be rejected, because the account is empty.
    let last = accounts.ask_once("ada", id(8), DEPOSIT, Metadata::new()).await.unwrap();
    let spent = accounts.ask_once("ada", id(9), withdraw(1), Metadata::new()).await.unwrap();
    let spent_again = accounts.ask_once("ada", id(9), withdraw(1), Metadata::new()).await.unwrap();
    assert_eq!((last.replayed, spent.replayed, spent_again.replayed), (false, false, true));
    assert_eq!(bench.balance("ada").await, (0, 5));
    let commands = accounts.stats().commands;
    let rejected = accounts.stats().rejected;
    assert_eq!((commands, rejected), (7, 0));
}

#[tokio::test]
async fn its_events_carry_the_id_and_those_of_others_do_not() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    deposit(&accounts, "ada", id(7)).await;
    let cause = Uuid::from_u128(1);
    let talk = Uuid::from_u128(2);
    let metadata = Metadata::new().with_causation_id(cause).with_correlation_id(talk);
    accounts.ask_once("ada", id(8), DEPOSIT, metadata).await.unwrap();
    let ada = StreamId::new("account", "ada").unwrap();
    let page = bench.store.read(ReadQuery::stream(ada)).await.unwrap();
    let found: Vec<_> = page
        .events
        .iter()
        .map(|event| {
            let metadata = event.metadata();
            let mut tags = event.tags();
            let tag = tags.find_map(|tag| Some(tag.strip_prefix(COMMAND_TAG)?.to_owned()));
            (metadata.causation_id, metadata.correlation_id, tag)
        })
        .collect();
    let seven = id(7).as_uuid();
    assert_eq!(found[0], (None, None, None));
    assert_eq!(found[1], (Some(seven), Some(seven), Some(format!(":{seven}"))));
    assert_eq!(found[2], (Some(cause), Some(talk), Some(format!(":{}", id(8)))));
}

#[tokio::test]
async fn what_left_nothing_behind_is_decided_again() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    let poor = accounts.ask_once("ada", id(7), withdraw(1), Metadata::new()).await.unwrap_err();
    assert!(matches!(poor.rejection(), Some(AccountRejection::InsufficientFunds { .. })));
    accounts.ask("ada", DEPOSIT).await.unwrap();
    let rich = accounts.ask_once("ada", id(7), withdraw(1), Metadata::new()).await.unwrap();
    assert_eq!(told(&rich), Told::at(3, false));

    let counters = bench.entities::<Counter>(options());
    for _ in 0..2 {
        let nothing = CounterCommand::Nothing;
        let nothing = counters.ask_once("one", id(8), nothing, Metadata::new()).await.unwrap();
        assert_eq!((nothing.version.value(), nothing.replayed), (0, false));
    }
}

/// The error of an id that names another command; by the entities, and by the bus.
async fn refused(bench: &Bench, key: &str, command: AccountCommand) -> [IdTaken; 2] {
    let accounts = bench.accounts();
    let asked = accounts.ask_once(key, id(7), command.clone(), Metadata::new()).await.unwrap_err();
    let AskError::Failed(EntityError::IdTaken(asked)) = asked else { panic!("{asked:?}") };
    let commands = Commands::new(CommandRouter::new().with(accounts), &bench.kernel);
    let sent = commands.dispatch_once::<Account>(key, id(7), command, Metadata::new()).await;
    let Err(DispatchError::Failed(CommandError::Entity(EntityError::IdTaken(sent)))) = sent else {
        panic!("{sent:?}")
    };
    [*asked, *sent]
}

#[tokio::test]
async fn an_id_that_names_another_command_is_refused() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    for key in ["ada", "bob"] {
        accounts.ask(key, open(key)).await.unwrap();
    }
    deposit(&accounts, "ada", id(7)).await;
    let two = AccountCommand::Deposit { cents: 2 };
    for (key, other) in [("bob", DEPOSIT), ("ada", withdraw(1)), ("ada", two)] {
        let name = other.name();
        for taken in refused(&bench, key, other).await {
            assert_eq!(taken.id, id(7));
            assert_eq!(taken.stored[0].to_string(), "account.deposit on account-ada");
            assert_eq!(taken.sent[0].to_string(), format!("{name} on account-{key}"));
        }
    }
    assert!(deposit(&accounts, "ada", id(7)).await.replayed);
    assert_eq!((bench.balance("ada").await, bench.balance("bob").await), ((1, 2), (0, 1)));
}

/// The other command waits for the next burst, which finds the first one in the log.
#[tokio::test]
async fn another_command_with_the_id_in_one_burst_is_refused_alone() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(10)));
    accounts.tell("ada", DEPOSIT).unwrap();
    bench.clock.until_sleeping(1).await;
    let ask = |n, command| {
        let accounts = accounts.clone();
        tokio::spawn(async move { accounts.ask_once("ada", id(n), command, Metadata::new()).await })
    };
    let asks = [ask(7, DEPOSIT), ask(7, withdraw(1)), ask(8, DEPOSIT)];
    while accounts.entity("ada").unwrap().unwrap().queued < 3 {
        tokio::task::yield_now().await;
    }
    bench.clock.advance(millis(10));
    let [first, other, last] = asks;
    assert_eq!(told(&first.await.unwrap().unwrap()), Told::at(3, false));
    let other = other.await.unwrap().unwrap_err();
    assert!(matches!(other, AskError::Failed(EntityError::IdTaken(_))), "{other:?}");
    assert_eq!(told(&last.await.unwrap().unwrap()), Told::at(4, false));
    let stats = accounts.stats();
    assert_eq!((stats.commands, stats.failed, stats.deaths), (4, 1, 0));
}

/// They are sent while an append is under way, so that all of them are in one burst.
#[tokio::test]
async fn repeats_in_one_burst_store_once_and_are_answered_in_order() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(10)));
    accounts.tell("ada", DEPOSIT).unwrap();
    bench.clock.until_sleeping(1).await;
    let asks: Vec<_> = [7, 8, 7, 9, 7]
        .into_iter()
        .map(|n| {
            let accounts = accounts.clone();
            tokio::spawn(async move { deposit(&accounts, "ada", id(n)).await })
        })
        .collect();
    while accounts.entity("ada").unwrap().unwrap().queued < 5 {
        tokio::task::yield_now().await;
    }
    bench.clock.advance(millis(10));
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(told(&ask.await.unwrap()));
    }
    let seven = Told::at(3, true);
    let first = Told::at(3, false);
    assert_eq!(answers, [first, Told::at(4, false), seven, Told::at(5, false), seven]);
    assert_eq!(bench.balance("ada").await, (4, 5));
}

/// A command with guards is last in its burst. No settled command may follow it, or the guard's
/// rejection would go to the wrong caller.
#[tokio::test]
async fn a_guard_that_fails_is_told_to_its_own_command() {
    let bench = Bench::new();
    let repository = Repository::new(bench.kernel.clone()).with_retry(RetryPolicy::never());
    let accounts = Entities::<Account>::new(repository, options());
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_read(Fault::Delay(millis(10)));
    accounts.tell("eve", DEPOSIT).unwrap();
    bench.clock.until_sleeping(1).await;
    let taken = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.ask("eve", open("ada")).await }
    });
    let unseen = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.ask_once("eve", id(7), DEPOSIT, Metadata::new()).await }
    });
    while accounts.entity("eve").unwrap().unwrap().queued < 2 {
        tokio::task::yield_now().await;
    }
    bench.faulty.next_read(Fault::FailBefore);
    bench.clock.advance(millis(10));
    let taken = taken.await.unwrap();
    let unseen = unseen.await.unwrap();
    assert!(matches!(&taken, Err(AskError::Rejected(AccountRejection::EmailTaken))), "{taken:?}");
    assert!(matches!(&unseen, Err(AskError::Failed(EntityError::Store(_)))), "{unseen:?}");
}

#[tokio::test]
async fn what_was_stored_and_answered_as_unknown_is_known_to_the_repeat() {
    let bench = Bench::rough(1, FaultRates::none());
    let repository = Repository::new(bench.kernel.clone()).with_retry(RetryPolicy::never());
    let accounts = Entities::<Account>::new(repository, options());
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::DropReply);
    let unknown = accounts.ask_once("ada", id(7), DEPOSIT, Metadata::new()).await.unwrap_err();
    let is_unknown = matches!(unknown, AskError::Failed(EntityError::Indeterminate(_)));
    assert!(is_unknown, "{unknown:?}");
    assert_eq!(told(&deposit(&accounts, "ada", id(7)).await), Told::at(2, true));
    bench.faulty.next_append(Fault::DropRequest);
    accounts.ask_once("ada", id(8), DEPOSIT, Metadata::new()).await.unwrap_err();
    assert_eq!(told(&deposit(&accounts, "ada", id(8)).await), Told::at(3, false));
    assert_eq!(bench.balance("ada").await, (2, 3));
}

/// Deciding it without the search could store it twice. The other commands in the burst are not
/// affected.
#[tokio::test]
async fn what_can_not_be_looked_up_is_not_decided() {
    let bench = Bench::rough(1, FaultRates::none());
    let repository = Repository::new(bench.kernel.clone()).with_retry(RetryPolicy::never());
    let accounts = Entities::<Account>::new(repository, options());
    accounts.ask("ada", open("ada")).await.unwrap();
    deposit(&accounts, "ada", id(7)).await;
    bench.faulty.next_read(Fault::FailBefore);
    let failed = accounts.ask_once("ada", id(7), DEPOSIT, Metadata::new()).await.unwrap_err();
    assert!(matches!(failed, AskError::Failed(EntityError::Store(_))), "{failed:?}");
    accounts.ask("ada", DEPOSIT).await.unwrap();
    assert!(deposit(&accounts, "ada", id(7)).await.replayed);
    assert_eq!(bench.balance("ada").await, (2, 3));
}

#[tokio::test]
async fn commands_without_an_id_read_nothing() {
    let bench = Bench::new();
    let accounts = bench.entities::<Account>(options().with_other_writers(OtherWriters::None));
    accounts.ask("ada", open("ada")).await.unwrap();
    (0..9).for_each(|_| bench.faulty.next_read(Fault::FailBefore));
    for _ in 0..9 {
        accounts.ask("ada", DEPOSIT).await.unwrap();
    }
}

#[tokio::test]
async fn history_that_is_gone_is_forgotten() {
    let bench = Bench::rough(1, FaultRates::none());
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    deposit(&accounts, "ada", id(7)).await;
    let repository = Repository::<Account>::new(bench.kernel.clone());
    repository.summarise("ada", &Metadata::new()).await.unwrap();
    assert_eq!(told(&deposit(&accounts, "ada", id(7)).await), Told::at(4, false));
    assert!(deposit(&accounts, "ada", id(7)).await.replayed);
    repository.delete("ada", ExpectedVersion::Any).await.unwrap();
    let gone = accounts.ask_once("ada", id(7), DEPOSIT, Metadata::new()).await.unwrap_err();
    assert_eq!(gone.rejection(), Some(&AccountRejection::NotOpen));
}

async fn on_journal(path: &Path) -> (Arc<JournalStore>, Entities<Account>) {
    let store = Arc::new(JournalStore::open(JournalOptions::new(path)).await.unwrap());
    let kernel = Kernel::new(store.clone(), store.clone()).with_tag_key(TagKey::new([1; 32]));
    (store, Entities::new(Repository::new(kernel), EntityOptions::new()))
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, accounts) = on_journal(folder.path()).await;
    accounts.ask("ada", open("ada")).await.unwrap();
    deposit(&accounts, "ada", id(7)).await;
    drop(accounts.shutdown(millis(1_000)).await);
    store.close().await.unwrap();
    drop((store, accounts));
    let (_store, accounts) = on_journal(folder.path()).await;
    assert_eq!(told(&deposit(&accounts, "ada", id(7)).await), Told::at(2, true));
}

/// A runtime on a SQLite file, as another process would have it.
async fn on_sqlite(path: &Path, history: &Arc<History>) -> Entities<Account> {
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
    let recording = Arc::new(RecordingStore::new(store.clone(), history.clone()));
    let kernel = Kernel::new(recording, store).with_tag_key(TagKey::new([1; 32]));
    Entities::new(Repository::new(kernel), options().with_other_writers(OtherWriters::None))
}

/// Every id is sent several times at the same time, to both runtimes. Each takes effect once.
#[tokio::test(flavor = "multi_thread")]
async fn two_runtimes_and_many_callers_store_each_id_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bank.db");
    let history = Arc::default();
    let runtimes = [on_sqlite(&path, &history).await, on_sqlite(&path, &history).await];
    runtimes[0].ask("ada", open("ada")).await.unwrap();
    let mut asks = tokio::task::JoinSet::new();
    for n in 0..120 {
        let accounts = runtimes[n % 2].clone();
        asks.spawn(async move {
            let id = id(n as u128 / 4);
            loop {
                match accounts.ask_once("ada", id, DEPOSIT, Metadata::new()).await {
                    Ok(outcome) => return (id, told(&outcome)),
                    Err(AskError::Failed(EntityError::Conflict(_))) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let answers = asks.join_all().await;
    assert_eq!(answers.iter().filter(|(_, told)| !told.replayed).count(), 30);
    for (id, told) in &answers {
        let same = answers.iter().filter(|(other, _)| other == id).map(|(_, same)| *same);
        let replayed = told.replayed;
        assert!(same.into_iter().all(|same| Told { replayed, ..same } == *told));
    }
    let ada = runtimes[1].state("ada").await.unwrap();
    assert_eq!((ada.state.balance_cents, ada.version.value()), (30, 31));
}

/// Whatever a dropped call has stored, after the repeat it is stored once.
#[tokio::test]
async fn a_caller_dropped_at_any_await_repeats_and_stores_once() {
    for times in 0..16 {
        for fault in [None, Some(Fault::Delay(millis(5))), Some(Fault::DropReply)] {
            let bench = Bench::rough(1, FaultRates::none());
            let accounts = bench.accounts();
            accounts.ask("ada", open("ada")).await.unwrap();
            fault.into_iter().for_each(|fault| bench.faulty.next_append(fault));
            let dropped = accounts.ask_once("ada", id(7), DEPOSIT, Metadata::new());
            poll_times(dropped, times).await;
            let repeated = deposit(&accounts, "ada", id(7)).await;
            let is_stored_before = times > 0;
            let expected = Told::at(2, is_stored_before);
            assert_eq!(told(&repeated), expected, "times={times} fault={fault:?}");
            assert_eq!(bench.balance("ada").await, (1, 2));
        }
    }
}

/// The store fails at random, and callers repeat until they get an answer: each id is in the log
/// once, and every answer has its position.
#[tokio::test]
async fn rough_stores_and_stubborn_callers_store_each_id_once() {
    for seed in 0..40 {
        let bench = Bench::rough(seed, FaultRates::rough());
        let retry = RetryPolicy::new().with_repeats_max((seed % 3) as u32);
        let repository = || Repository::<Account>::new(bench.kernel.clone()).with_retry(retry);
        let two = [Entities::new(repository(), options()), Entities::new(repository(), options())];
        while two[0].ask("ada", open("ada")).await.is_err()
            && two[0].state("ada").await.map_or(true, |ada| ada.version.value() == 0)
        {}
        let mut asks = tokio::task::JoinSet::new();
        for n in 0..24 {
            let accounts = two[n % 2].clone();
            asks.spawn(async move {
                let id = id(n as u128 / 3);
                loop {
                    match accounts.ask_once("ada", id, DEPOSIT, Metadata::new()).await {
                        Ok(outcome) => return (id, outcome.version, outcome.position),
                        Err(AskError::Rejected(no)) => panic!("seed={seed}: {no}"),
                        Err(AskError::Failed(EntityError::Quarantined { cause })) => {
                            panic!("seed={seed}: {cause}")
                        }
                        Err(AskError::Failed(_)) => tokio::task::yield_now().await,
                    }
                }
            });
        }
        let answers = asks.join_all().await;
        assert_eq!(bench.balance("ada").await, (8, 9), "seed={seed}");
        let mut told: Vec<_> = answers.clone();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), 8, "seed={seed}: every id has one answer");
        bench.history.check_store(&*bench.store).await.unwrap();
    }
}

/// Takes names. The guarded command takes a name only if it is free.
#[derive(Debug, Default)]
struct Collector;

#[derive(Serialize, Deserialize, Command)]
#[command(crate = factum_kernel)]
enum Collect {
    Any(String),
    Unique(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(crate = factum_kernel)]
enum CollectorEvent {
    Collected {
        #[event(tag)]
        name: String,
    },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is taken")]
struct Collected;

impl Aggregate for Collector {
    const CATEGORY: &'static str = "collector";
    type Command = Collect;
    type Event = CollectorEvent;
    type Rejection = Collected;

    fn decide(&self, command: &Collect, _: &Context<'_>) -> Verdict<Self> {
        Ok(match command {
            Collect::Any(name) => {
                Decision::from([CollectorEvent::Collected { name: name.clone() }])
            }
            Collect::Unique(name) => {
                Decision::from([CollectorEvent::Collected { name: name.clone() }])
                    .unless(Matching::tag("name", name), Collected)
            }
        })
    }

    fn evolve(&mut self, _: &CollectorEvent) {}
}

/// As above, after a command with guards: the other command is found in the log.
#[tokio::test]
async fn a_repeat_behind_a_guard_that_fails_is_told_what_it_stored() {
    let bench = Bench::new();
    let collectors = bench.entities::<Collector>(options());
    let ask = |n, command| {
        let collectors = collectors.clone();
        tokio::spawn(
            async move { collectors.ask_once("eve", id(n), command, Metadata::new()).await },
        )
    };
    ask(7, Collect::Any("x".into())).await.unwrap().unwrap();
    bench.faulty.next_append(Fault::Delay(millis(10)));
    collectors.tell("eve", Collect::Any("y".into())).unwrap();
    bench.clock.until_sleeping(1).await;
    let taken = ask(8, Collect::Unique("x".into()));
    let again = ask(7, Collect::Any("x".into()));
    while collectors.entity("eve").unwrap().unwrap().queued < 2 {
        tokio::task::yield_now().await;
    }
    bench.clock.advance(millis(10));
    assert_eq!(taken.await.unwrap().unwrap_err().rejection(), Some(&Collected));
    let again = again.await.unwrap().unwrap();
    assert_eq!((again.version.value(), again.replayed), (1, true));
}
