//! Transactions while another writer stores at the worst moment.

use std::{
    fmt,
    future::IntoFuture,
    pin::Pin,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use factum::{
    Aggregate, App, Command, CommandId, Context, Decision, DecisionModel, Event, EventStore,
    Matching, ModelDecision, Verdict, category,
    event::StreamVersion,
    store::{AppendBatch, AppendError, Appended, Stores},
};
use factum_testing::{ForwardEvents, Forwarding, bank::Account};
use serde::{Deserialize, Serialize};

use crate::send::{DEPOSIT, in_memory, open};

type Other = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A log that lets another writer go first, once.
struct Racing {
    log: Arc<dyn EventStore>,
    before_append: Arc<Mutex<Option<Other>>>,
}

impl fmt::Debug for Racing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Racing").finish_non_exhaustive()
    }
}

#[async_trait]
impl ForwardEvents for Racing {
    fn events(&self) -> Arc<dyn EventStore> {
        self.log.clone()
    }

    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let other = self.before_append.lock().unwrap().take();
        if let Some(other) = other {
            other.await;
        }
        self.log.append(batch).await
    }
}

#[tokio::test]
async fn a_racing_repeat_with_an_expectation_is_recognised() {
    let stores = in_memory();
    let before_append = Arc::new(Mutex::new(None));
    let racing = Racing { log: stores.events.clone(), before_append: before_append.clone() };
    let documents = stores.documents.clone();
    let racing = Stores { events: Arc::new(Forwarding(racing)), documents };
    let other = App::builder().open_stores(stores).await.unwrap();
    other.command::<Account>("ada", open("ada")).await.unwrap();
    let app = App::builder().open_stores(racing).await.unwrap();
    let deposit = |app: &App| {
        app.transaction()
            .command::<Account>("ada", DEPOSIT)
            .expecting::<Account>("ada", StreamVersion::new(1))
            .once(CommandId::derived("order-17", "deposit"))
    };
    let first = deposit(&other).into_future();
    let first = async move { assert!(!first.await.unwrap().replayed) };
    *before_append.lock().unwrap() = Some(Box::pin(first) as Other);
    assert!(deposit(&app).await.unwrap().replayed);
    assert_eq!(app.load::<Account>("ada").await.unwrap().state.balance_cents, 1);
}

#[derive(Debug, Clone, Event)]
#[event(prefix = "seat")]
enum SeatEvent {
    Joined,
}

/// A seat that can be joined once.
#[derive(Debug, Default)]
struct Seat {
    is_taken: bool,
}

/// Runs while the seat is decided, once.
#[derive(Serialize, Deserialize, Command)]
struct Join {
    meanwhile: Hook,
}

/// It is no part of the content.
#[derive(Serialize, Deserialize)]
struct Hook {
    #[serde(skip)]
    run: Mutex<Option<Meanwhile>>,
}

type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the room is full")]
struct Full;

impl Aggregate for Seat {
    const CATEGORY: &'static str = category!("seat");
    type Command = Join;
    type Event = SeatEvent;
    type Rejection = Full;

    fn decide(&self, join: &Join, _: &Context<'_>) -> Verdict<Self> {
        let meanwhile = join.meanwhile.run.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        match self.is_taken {
            true => Ok(Decision::nothing()),
            false => Ok([SeatEvent::Joined].into()),
        }
    }

    fn evolve(&mut self, SeatEvent::Joined: &SeatEvent) {
        self.is_taken = true;
    }
}

/// A room with one seat.
#[derive(Debug, Default)]
struct Room(u64);

/// Checks that the room has a seat.
#[derive(Serialize, Deserialize, Command)]
struct Check {}

impl DecisionModel for Room {
    type Command = Check;
    type Event = SeatEvent;
    type Rejection = Full;

    fn query(_: &Check) -> Matching {
        Matching::events::<SeatEvent>()
    }

    fn evolve(&mut self, SeatEvent::Joined: &SeatEvent, _: &str) {
        self.0 += 1;
    }

    fn decide(&self, _: &Check, _: &Context<'_>) -> Result<ModelDecision<SeatEvent>, Full> {
        if self.0 > 1 { Err(Full) } else { Ok(ModelDecision::nothing()) }
    }
}

/// The seat was read before the other transaction, and the room after it: together they were full.
#[tokio::test]
async fn no_rejection_rests_on_a_state_that_never_was() {
    let stores = in_memory();
    let app = App::builder().open_stores(stores.clone()).await.unwrap();
    let other = App::builder().open_stores(stores).await.unwrap();
    let join = |app: &App, meanwhile| {
        let meanwhile = Hook { run: Mutex::new(meanwhile) };
        let join = Join { meanwhile };
        let transaction = app.transaction().command::<Seat>("ada", join);
        transaction.decide::<Room>(Check {}).allowing_unchanged()
    };
    let first = join(&other, None).into_future();
    let meanwhile = move || {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move { assert_eq!(first.await.unwrap().events, 1) });
        };
        std::thread::spawn(run).join().unwrap();
    };
    let second = join(&app, Some(Box::new(meanwhile) as _)).await.unwrap();
    assert_eq!(second.events, 0, "ada has the seat already");
}
