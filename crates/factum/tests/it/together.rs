//! Transactions and decisions: their options, and decisions as steps of a transaction.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use factum::{
    AggregateOptions, App, Command, CommandId, Context, DecisionModel, ErrorKind, Fold, Matching,
    Metadata, ModelDecision, SendError, SnapshotPolicy,
    aggregate::TransactionError,
    event::StreamVersion,
    runtime::{CommandError, IdempotencyLayer},
    sentence,
    store::{Stores, SystemClock},
};
use factum_testing::{
    Fault, FaultRates, FaultyStore,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
};
use serde::{Deserialize, Serialize};

use crate::{
    send::{DEPOSIT, events, in_memory, open},
    tally::{Count, Enough, Tally, TallyEvent},
};

async fn bank() -> App {
    let app = App::open("memory:").await.unwrap();
    for key in ["ada", "bob"] {
        app.command::<Account>(key, open(key)).await.unwrap();
    }
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 100 }).await.unwrap();
    app
}

fn send(to: &str, cents: u64) -> AccountCommand {
    AccountCommand::Send { to: to.into(), cents }
}

fn receive(from: &str, cents: u64) -> AccountCommand {
    AccountCommand::Receive { from: from.into(), cents }
}

fn version(version: u64) -> StreamVersion {
    StreamVersion::new(version)
}

#[tokio::test]
async fn a_transaction_sent_again_is_answered_with_what_it_stored() {
    let app = bank().await;
    let id = CommandId::derived("1", "transfer");
    let transfer = || {
        app.transaction()
            .command::<Account>("ada", send("bob", 60))
            .command::<Account>("bob", receive("ada", 60))
            .once(id)
    };
    let first = transfer().await.unwrap();
    assert_eq!((first.replayed, first.events), (false, 2));
    assert_eq!(first.version::<Account>("bob"), Some(version(2)));
    app.command::<Account>("bob", DEPOSIT).await.unwrap();
    // A second decision would be rejected, because ada has only 40 left.
    let again = transfer().await.unwrap();
    assert_eq!((again.replayed, again.events), (true, 2));
    assert_eq!((again.position, &again.versions), (first.position, &first.versions));
    let bob = again.state::<Account>("bob").unwrap();
    assert_eq!((bob.balance_cents, again.version::<Account>("bob")), (61, Some(version(3))));
    assert_eq!(again.state::<Account>("eve").map(|it| it.balance_cents), None);
    assert_eq!(app.load::<Account>("ada").await.unwrap().state.balance_cents, 40);
}

#[tokio::test]
async fn a_transaction_whose_reply_was_lost_is_known_by_its_id() {
    let Stores { events, documents } = in_memory();
    let none = FaultRates::none();
    let faulty = Arc::new(FaultyStore::new(events, 1, none, Arc::new(SystemClock)));
    let stores = Stores { events: faulty.clone(), documents };
    let retry = factum::RetryPolicy::never();
    let app = App::builder().with_retry(retry).open_stores(stores).await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    let id = CommandId::derived("1", "both");
    let both = || app.transaction().command::<Account>("ada", DEPOSIT).decide::<Tally>(Count);
    faulty.next_append(Fault::DropReply);
    let unknown = both().once(id).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unknown, "{unknown:?}");
    let again = both().once(id).await.unwrap();
    assert_eq!((again.replayed, again.events), (true, 2));
    assert_eq!(again.model::<Tally>().map(|it| it.0), Some(1));
    faulty.next_append(Fault::DropReply);
    let decide = || app.decide::<Tally>(Count).once(CommandId::derived("2", "count"));
    assert_eq!(decide().await.unwrap_err().kind(), ErrorKind::Unknown);
    let again = decide().await.unwrap();
    assert_eq!((again.replayed, again.model.0, again.events), (true, 2, 1));
}

/// Long histories are loaded from snapshots, whoever loads them.
#[tokio::test]
async fn transactions_and_loads_use_the_snapshots_of_their_kind() {
    let stores = in_memory();
    let policy = SnapshotPolicy::every_events(1);
    let accounts = || AggregateOptions::<Account>::new().with_snapshots(policy).unwrap();
    let before = App::builder().aggregate_with(accounts()).open_stores(stores.clone()).await;
    before.unwrap().command::<Account>("ada", open("ada")).await.unwrap();
    let app = App::builder().aggregate_with(accounts()).open_stores(stores).await.unwrap();
    let used = || app.aggregate::<Account>().snapshot_stats().unwrap().used();
    app.load::<Account>("ada").await.unwrap();
    assert_eq!(used(), 1);
    app.transaction().command::<Account>("ada", DEPOSIT).await.unwrap();
    assert_eq!(used(), 2);
}

#[tokio::test]
async fn what_was_rejected_under_an_id_is_decided_again() {
    let app = bank().await;
    let transfer = || {
        let transfer = app.transaction().command::<Account>("ada", send("bob", 101));
        transfer
            .command::<Account>("bob", receive("ada", 101))
            .once(CommandId::derived("1", "both"))
    };
    assert!(transfer().await.unwrap_err().rejection().is_some());
    app.command::<Account>("ada", DEPOSIT).await.unwrap();
    let done = transfer().await.unwrap();
    assert_eq!((done.replayed, done.events), (false, 2));
}

#[tokio::test]
async fn a_transaction_for_another_version_stores_nothing() {
    let app = bank().await;
    let before = events(&app).await;
    let on = |key: &'static str, at| {
        let deposit = app.transaction().command::<Account>("ada", DEPOSIT);
        deposit.expecting::<Account>(key, version(at))
    };
    // The versions of a step's aggregate, of an aggregate that no step reads, and of one that does
    // not exist.
    for (key, at) in [("ada", 1), ("ada", 3), ("bob", 0), ("bob", 2), ("eve", 1)] {
        let refused = on(key, at).await.unwrap_err();
        let SendError::Failed(CommandError::Transaction(TransactionError::Conflict(conflict))) =
            &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(conflict.stream.key(), key);
        assert_eq!(refused.kind(), ErrorKind::Conflict);
    }
    assert_eq!(events(&app).await, before);
    let all = on("ada", 2).expecting::<Account>("bob", version(1));
    let all = all.expecting::<Account>("eve", version(0)).expecting::<Account>("ada", version(2));
    assert_eq!(all.await.unwrap().version::<Account>("ada"), Some(version(3)));
    // The same holds if there is nothing to do.
    let nothing = |at| app.transaction().expecting::<Account>("ada", version(at));
    assert_eq!(nothing(2).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(nothing(3).await.unwrap().position, None);
    // An expected version is no step, so it does not change the number of a rejected step.
    let no = on("ada", 3).command::<Account>("eve", DEPOSIT).await.unwrap_err();
    assert_eq!(no.rejection().unwrap().step, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_transactions_for_one_version_one_wins() {
    let stores = in_memory();
    let apps = [
        App::builder().open_stores(stores.clone()).await.unwrap(),
        App::builder().open_stores(stores).await.unwrap(),
    ];
    for key in ["ada", "bob"] {
        apps[0].command::<Account>(key, open(key)).await.unwrap();
    }
    for round in 0..20 {
        let seen = apps[0].load::<Account>("ada").await.unwrap().version;
        let racing: Vec<_> = (0..6)
            .map(|at| {
                let app = apps[at % 2].clone();
                tokio::spawn(async move {
                    let both = app.transaction().command::<Account>("ada", DEPOSIT);
                    let both = both.command::<Account>("bob", DEPOSIT);
                    both.expecting::<Account>("ada", seen).await
                })
            })
            .collect();
        let mut won = 0;
        for racing in racing {
            match racing.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
            }
        }
        assert_eq!(won, 1, "round {round}");
    }
}

#[tokio::test]
async fn a_decision_in_a_transaction_sees_the_steps_before_it() {
    let app = bank().await;
    let both = app.transaction().command::<Account>("ada", DEPOSIT);
    let both = both.decide::<Tally>(Count).decide::<Tally>(Count).await.unwrap();
    assert_eq!(both.events, 3);
    assert_eq!(
        both.versions.iter().map(|(id, at)| (id.as_str(), at.value())).collect::<Vec<_>>(),
        [("account-ada", 3), ("tally-all", 2)]
    );
    let decided = app.decide::<Tally>(Count).await.unwrap();
    assert_eq!((decided.model.0, decided.versions.len()), (3, 1));
    // A rejection by the decision has the number of its step, and nothing is stored.
    for _ in 3..99 {
        app.decide::<Tally>(Count).await.unwrap();
    }
    let much = app.transaction().command::<Account>("ada", DEPOSIT);
    let much = much.decide::<Tally>(Count).decide::<Tally>(Count);
    let no = much.await.unwrap_err();
    let no = no.rejection().unwrap();
    assert_eq!((no.step, no.downcast_ref()), (2, Some(&Enough)));
    assert_eq!(app.load::<Account>("ada").await.unwrap().version, version(3));
}

/// Doubles the count of the tally on one account.
#[derive(Debug, Default)]
struct Interest(u64);

/// The key of the account.
#[derive(Serialize, Deserialize, Command)]
struct Pay(String);

impl DecisionModel for Interest {
    type Command = Pay;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn query(_: &Pay) -> Matching {
        Matching::events::<AccountEvent>()
    }

    fn evolve(&mut self, event: &AccountEvent, _: &str) {
        if let AccountEvent::Deposited { cents } = event {
            self.0 += cents;
        }
    }

    fn decide(
        &self,
        Pay(key): &Pay,
        _: &Context<'_>,
    ) -> Result<ModelDecision<AccountEvent>, AccountRejection> {
        Ok(ModelDecision::event("account", key, AccountEvent::Deposited { cents: self.0 }))
    }
}

#[tokio::test]
async fn a_command_sees_what_a_decision_wrote_into_its_aggregate() {
    let app = bank().await;
    let done = app
        .transaction()
        .command::<Account>("ada", AccountCommand::Deposit { cents: 50 })
        .decide::<Interest>(Pay("ada".into()))
        // 100, 50, and 150 of interest.
        .command::<Account>("ada", AccountCommand::Withdraw { cents: 300 })
        .await
        .unwrap();
    assert_eq!(done.state::<Account>("ada").unwrap().balance_cents, 0);
    let ada = app.load::<Account>("ada").await.unwrap();
    assert_eq!((ada.state.balance_cents, ada.version), (0, version(5)));
    assert_eq!(done.version::<Account>("ada"), Some(version(5)));
    let blind =
        app.transaction().decide::<Interest>(Pay("bob".into())).command::<Account>("bob", DEPOSIT);
    let refused = blind.await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(
        sentence(&refused),
        "a decision of the transaction writes the stream of a later command, put the command \
         before the decision: stream=account-bob"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_transactions_with_decisions_lose_and_double_nothing() {
    let app = bank().await;
    let racing: Vec<_> = (0..12)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 4 {
                    let both = app.transaction().decide::<Tally>(Count);
                    match both.command::<Account>("bob", DEPOSIT).await {
                        Ok(_) => done += 1,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                    }
                }
            })
        })
        .collect();
    for racing in racing {
        racing.await.unwrap();
    }
    assert_eq!(app.load::<Account>("bob").await.unwrap().state.balance_cents, 48);
    assert_eq!(app.decide::<Tally>(Count).await.unwrap().model.0, 49);
}

/// Counts without reading the count: only the id shows that the decision was made.
#[derive(Debug, Default)]
struct Blind;

#[derive(Serialize, Deserialize, Command)]
struct CountBlindly {}

impl DecisionModel for Blind {
    type Command = CountBlindly;
    type Event = TallyEvent;
    type Rejection = Enough;

    fn query(_: &CountBlindly) -> Matching {
        Matching::tag("tally", "of another kind")
    }

    fn evolve(&mut self, _: &TallyEvent, _: &str) {}

    fn decide(
        &self,
        _: &CountBlindly,
        _: &Context<'_>,
    ) -> Result<ModelDecision<TallyEvent>, Enough> {
        Ok(ModelDecision::event("tally", "all", TallyEvent::Counted))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_decision_that_reads_nothing_of_its_own_takes_effect_once_for_an_id() {
    const ROUNDS: u32 = 100;
    let app = App::open("memory:").await.unwrap();
    for round in 0..ROUNDS {
        let id = CommandId::derived(round.to_be_bytes(), "count");
        let decide = || app.decide::<Blind>(CountBlindly {}).once(id).into_future();
        let racing: Vec<_> = (0..8).map(|_| tokio::spawn(decide())).collect();
        let mut new = 0;
        for racing in racing {
            new += usize::from(!racing.await.unwrap().unwrap().replayed);
        }
        assert_eq!(new, 1, "round {round}");
    }
    assert_eq!(events(&app).await, ROUNDS as usize);
}

#[tokio::test]
async fn transactions_and_decisions_are_answered_when_a_reader_has_seen_them() {
    let app = bank().await;
    let count = |count: &mut u64, _: TallyEvent, _: &_| *count += 1;
    let counted = app.fold(Fold::new("counted", 1, count)).await.unwrap();
    let long = Duration::from_secs(60);
    app.decide::<Tally>(Count).seen_by("counted").within(long).await.unwrap();
    assert_eq!(*counted.read().await.unwrap(), 1);
    let both = app.transaction().decide::<Tally>(Count).decide::<Tally>(Count);
    both.seen_by("counted").within(long).await.unwrap();
    assert_eq!(*counted.read().await.unwrap(), 3);
    let nobody = app.transaction().decide::<Tally>(Count).seen_by("nobody").await;
    assert!(matches!(nobody, Err(SendError::NotSent(_))), "{nobody:?}");
    app.close().await.unwrap();
}

#[tokio::test]
async fn a_model_includes_the_events_of_later_steps() {
    let app = App::open("memory:").await.unwrap();
    let id = CommandId::derived("1", "twice");
    let twice = || app.transaction().decide::<Tally>(Count).decide::<Tally>(Count).once(id);
    let first = twice().await.unwrap();
    assert_eq!(first.model::<Tally>().map(|it| it.0), Some(2));
    let again = twice().await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.model::<Tally>().map(|it| it.0), Some(2));
}

/// Two models may have commands of one name, and one model may be asked about two things.
#[tokio::test]
async fn the_idempotency_layer_takes_no_two_decisions_for_one() {
    let app = App::builder().layer(IdempotencyLayer::new("key")).open("memory:").await.unwrap();
    for count in 1..=2 {
        let sent = Metadata::new().with("key", "17");
        let decided = app.decide::<Tally>(Count).with_metadata(sent).await.unwrap();
        assert_eq!((decided.replayed, decided.model.0), (false, count));
    }
}
