//! Outages as the handlers of consumers meet them through the application: entities, transactions,
//! and their end.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum::{
    App, AppBuilder, Consumer, ConsumerOptions, EntityOptions, ErrorKind, HandleError,
    RecordedEvent, RetryPolicy, SendError, TagKey,
    aggregate::{ExecuteError, Repository, StepRejected},
    consumer::{ConsumerHandle, ConsumerHealth, ConsumerState, FailurePolicy},
    memory::MemoryStore,
    runtime::{AskError, Entities, Restart},
    store::{Stores, SystemClock},
};
use factum_testing::{
    FaultRates, FaultyDocuments, FaultyStore,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
};

pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The ways in which a handler uses an account.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Execute,
    ExecuteInAnEnum,
    Command,
    CommandInAnEnum,
    Transaction,
}

pub(crate) const WAYS: [Way; 5] =
    [Way::Execute, Way::ExecuteInAnEnum, Way::Command, Way::CommandInAnEnum, Way::Transaction];

/// An error as a user would write it.
#[derive(Debug, thiserror::Error)]
enum Unpaid {
    #[error(transparent)]
    Execute(#[from] ExecuteError<AccountRejection>),
    #[error(transparent)]
    Ask(#[from] AskError<AccountRejection>),
    #[error(transparent)]
    Send(#[from] SendError<AccountRejection>),
    #[error(transparent)]
    Transaction(#[from] SendError<StepRejected>),
}

fn open(key: &str) -> AccountCommand {
    AccountCommand::Open { owner: key.into(), email: format!("{key}@example.org") }
}

const BONUS: AccountCommand = AccountCommand::Deposit { cents: 1 };

async fn pay(app: &App, way: Way) -> Result<(), HandleError> {
    let accounts = Repository::<Account>::new(app.kernel().clone());
    let accounts = accounts.with_retry(RetryPolicy::never());
    let execute = || accounts.execute("bonus", &BONUS);
    let command = || app.command::<Account>("bonus", BONUS);
    match way {
        Way::Execute => drop(execute().await?),
        Way::ExecuteInAnEnum => drop(execute().await.map_err(Unpaid::from)?),
        Way::Command => drop(command().await?),
        Way::CommandInAnEnum => drop(command().await.map_err(Unpaid::from)?),
        Way::Transaction => {
            let paid = app.transaction().command::<Account>("bonus", BONUS).await;
            drop(paid.map_err(Unpaid::from)?);
        }
    }
    Ok(())
}

/// An application whose executions give up after few attempts.
pub(crate) fn hasty() -> AppBuilder {
    let restart = Restart::new().with_pauses(Duration::from_millis(1), Duration::from_millis(4));
    App::builder()
        .aggregate::<Account>()
        .with_tag_key(TagKey::new([1; 32]))
        .with_retry(RetryPolicy::never())
        .with_entities(EntityOptions::new().with_restart(restart))
}

/// The first failure that is the event's own fault parks it.
fn no_retries() -> ConsumerOptions {
    let failure = FailurePolicy::new()
        .with_retries_max(0)
        .with_pause(Duration::from_millis(1), Duration::from_millis(4))
        .with_timeout(LONG);
    ConsumerOptions::new().with_failure(failure)
}

async fn start<F>(
    app: &App,
    handler: impl Fn(AccountEvent, RecordedEvent) -> F + Send + Sync + 'static,
) -> ConsumerHandle
where
    F: Future<Output = Result<(), HandleError>> + Send + 'static,
{
    let consumer = Consumer::new("bonus", handler).with_options(no_retries());
    app.consumers().start(consumer).await.unwrap()
}

/// Waits until the handler has been retrying for a while.
async fn is_away_for_long(consumer: &ConsumerHandle) {
    let is_over = |it: &ConsumerHealth| match it.state {
        ConsumerState::Retrying { position: None, attempts, .. } => attempts >= 5,
        // The execution has given up, and the caller sees its error.
        ConsumerState::Stopped(_) => true,
        _ => it.parked > 0,
    };
    consumer.watch().wait_for(is_over).await.unwrap();
}

/// An outage that begins while an event is handled, and lasts longer than all its attempts.
pub(crate) async fn is_outlasted(
    app: &App,
    way: Way,
    go_away: impl Fn() + Send + Sync + 'static,
    come_back: impl FnOnce(),
) {
    app.command::<Account>("bonus", open("bonus")).await.unwrap();
    let due = app.command::<Account>("ada", open("ada")).await.unwrap().position.unwrap();
    let begins = AtomicBool::new(true);
    let payer = app.clone();
    let bonus = start(app, move |_, recorded| {
        let is_due = recorded.stream().key() == "ada";
        if is_due && begins.swap(false, Ordering::SeqCst) {
            go_away();
        }
        let app = payer.clone();
        async move { if is_due { pay(&app, way).await } else { Ok(()) } }
    })
    .await;
    is_away_for_long(&bonus).await;
    come_back();
    bonus.wait_for(due, LONG).await.unwrap();
    assert_eq!(bonus.dead_letters().await, [], "{way:?}");
    let paid = app.load::<Account>("bonus").await.unwrap().state.balance_cents;
    assert!(paid >= 1, "{way:?}");
    app.close().await.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_store_is_no_attempt_by_any_way_to_an_aggregate() {
    for way in WAYS {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SystemClock);
        let none = FaultRates::none();
        let events = Arc::new(FaultyStore::new(store.clone(), 1, none, clock.clone()));
        let documents = Arc::new(FaultyDocuments::new(store, 1, none, clock));
        let stores = Stores { events: events.clone(), documents: documents.clone() };
        let app = hasty().open_stores(stores).await.unwrap();
        let first = events.clone();
        let second = documents.clone();
        let go_away = move || {
            first.go_away();
            second.go_away();
        };
        let come_back = move || {
            events.come_back();
            documents.come_back();
        };
        is_outlasted(&app, way, go_away, come_back).await;
    }
}

#[tokio::test]
async fn entities_that_are_shut_down_under_a_consumer_are_no_fault_of_its_events() {
    let store = Arc::new(MemoryStore::new());
    let stores = Stores { events: store.clone(), documents: store };
    let app = hasty().open_stores(stores).await.unwrap();
    let accounts = Repository::<Account>::new(app.kernel().clone());
    let own = Entities::new(accounts, EntityOptions::new());
    own.ask("bonus", open("bonus")).await.unwrap();
    own.shutdown(LONG).await;
    let bonus = start(&app, move |_, _| {
        let own = own.clone();
        async move {
            own.ask("bonus", BONUS).await.map_err(Unpaid::from)?;
            Ok(())
        }
    })
    .await;
    is_away_for_long(&bonus).await;
    assert_eq!(bonus.dead_letters().await, []);
    app.close().await.unwrap();
}

#[tokio::test]
async fn the_kind_of_an_error_is_told_by_the_facade_too() {
    let app = App::open("memory:").await.unwrap();
    let unseen = app.command::<Account>("ada", open("ada")).seen_by("nothing").await.unwrap_err();
    assert_eq!(unseen.kind(), ErrorKind::Invalid);
    let refused = App::open("mongo://here").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    app.close().await.unwrap();
    let closed = app.command::<Account>("ada", open("ada")).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closed);
}
