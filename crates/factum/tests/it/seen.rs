//! Commands that are answered after read models have handled their events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use factum::{
    Aggregate, App, Command, CommandId, Consumer, Context, Decision, Documents, Event, HandleError,
    Metadata, Position, ProjectionFn, RecordedEvent, SendError, Verdict,
    consumer::{ConsumerHandle, StopReason, WaitError},
    runtime::CommandError,
    sentence,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent, AccountRejection};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

const SOON: Duration = Duration::from_millis(20);
/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);

fn open(owner: &str) -> AccountCommand {
    AccountCommand::Open { owner: owner.into(), email: format!("{owner}@example.org") }
}

fn deposit() -> AccountCommand {
    AccountCommand::Deposit { cents: 5 }
}

/// A consumer that handles one event per permit, and counts them.
struct Gated {
    consumer: ConsumerHandle,
    gate: Arc<Semaphore>,
    count: Arc<AtomicU64>,
}

async fn gated(app: &App, name: &str) -> Gated {
    let gate = Arc::new(Semaphore::new(0));
    let count = Arc::new(AtomicU64::new(0));
    let waits = gate.clone();
    let counts = count.clone();
    let consumer = Consumer::new(name, move |_: AccountEvent, _: RecordedEvent| {
        let waits = waits.clone();
        let counts = counts.clone();
        async move {
            waits.acquire().await?.forget();
            counts.fetch_add(1, Ordering::SeqCst);
            Ok::<(), HandleError>(())
        }
    });
    Gated { consumer: app.consumers().start(consumer).await.unwrap(), gate, count }
}

#[tokio::test]
async fn the_answer_comes_when_all_that_are_named_have_seen_it() {
    let app = App::open("memory:").await.unwrap();
    let mails = gated(&app, "mails").await;
    let bonus = gated(&app, "bonus").await;
    for (key, first, second) in [("ada", &mails, &bonus), ("bob", &bonus, &mails)] {
        let asking = app.command::<Account>(key, open(key)).seen_by("mails").seen_by("bonus");
        let mut asking = asking.within(LONG).into_future();
        let one_has_seen_it = async {
            first.gate.add_permits(1);
            let count = first.count.load(Ordering::SeqCst) + 1;
            while first.count.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
            let head = *app.kernel().events().head().borrow();
            first.consumer.wait_for(head, LONG).await.unwrap();
        };
        tokio::select! {
            biased;
            () = one_has_seen_it => {}
            done = &mut asking => panic!("{done:?}"),
        }
        let pending = std::future::poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx).is_pending()));
        assert!(pending.await, "the other has not seen it");
        second.gate.add_permits(1);
        let done = asking.await.unwrap();
        assert_eq!(done.position, Some(second.consumer.health().position));
    }
    app.close().await.unwrap();
}

#[tokio::test]
async fn a_name_that_nobody_has_is_told_before_the_command_is_sent() {
    let app = App::open("memory:").await.unwrap();
    let mails = gated(&app, "mails").await.gate;
    mails.add_permits(9);
    let told = app.command::<Account>("ada", open("ada")).seen_by("mails").seen_by("males").await;
    let Err(SendError::NotSent(WaitError::Unknown(name))) = &told else { panic!("{told:?}") };
    assert_eq!(name, "males");
    assert_eq!(
        sentence(&told.unwrap_err()),
        "the command was not sent: no consumer or projection of this name was started in this \
         program, and no documents of one are in the store: name=males"
    );
    assert_eq!(app.load::<Account>("ada").await.unwrap().version.value(), 0);
}

#[tokio::test]
async fn what_took_effect_and_was_not_seen_is_told_with_its_position() {
    let app = App::open("memory:").await.unwrap();
    let _mails = gated(&app, "mails").await;
    let told = app.command::<Account>("ada", open("ada")).seen_by("mails").within(SOON).await;
    let Err(SendError::Unseen { position, error: WaitError::Behind { waited, .. } }) = told else {
        panic!("{told:?}")
    };
    assert!(waited <= SOON, "{waited:?}");
    assert_eq!(position, Some(Position::new(1)), "to wait for it again");
    assert_eq!(app.load::<Account>("ada").await.unwrap().version.value(), 1);

    // A stopped consumer ends the wait at once, even if others are still slow.
    let other = gated(&app, "other").await.consumer;
    assert_eq!(other.stop().await, StopReason::Asked);
    let asking = app.command::<Account>("ada", deposit()).seen_by("mails").seen_by("other");
    let told = asking.within(LONG).await.unwrap_err();
    let text = sentence(&told);
    assert!(
        text.starts_with("the command took effect, but a read model has not shown it"),
        "{text}"
    );
    assert!(text.contains(": the consumer has stopped"), "{text}");
    let SendError::Unseen { position, error } = told else { panic!("{told:?}") };
    assert!(matches!(error, WaitError::Stopped { .. }), "{error}");
    assert_eq!(position, Some(Position::new(2)));
}

#[tokio::test]
async fn rejections_and_failures_are_those_of_the_entity() {
    let app = App::open("memory:").await.unwrap();
    let _mails = gated(&app, "mails").await;
    let told = app.command::<Account>("ada", deposit()).seen_by("mails").await.unwrap_err();
    assert!(matches!(told.rejection(), Some(AccountRejection::NotOpen)), "{told}");
    let told = app.command::<Account>("", deposit()).seen_by("mails").await.unwrap_err();
    assert!(matches!(told, SendError::Failed(CommandError::Entity(_))), "{told}");
}

/// A lamp is lit once. Lighting it again changes nothing.
#[derive(Debug, Default)]
struct Lamp {
    is_lit: bool,
}

#[derive(Serialize, Deserialize, Command)]
struct Light {}

#[derive(Debug, Event)]
enum LampEvent {
    Lit,
}

impl Aggregate for Lamp {
    const CATEGORY: &'static str = "lamp";
    type Command = Light;
    type Event = LampEvent;
    type Rejection = std::fmt::Error;

    fn decide(&self, _: &Light, _: &Context<'_>) -> Verdict<Self> {
        Ok(if self.is_lit { Decision::nothing() } else { [LampEvent::Lit].into() })
    }

    fn evolve(&mut self, LampEvent::Lit: &LampEvent) {
        self.is_lit = true;
    }
}

/// A caller that repeats a command because the first answer was lost relies on its events.
#[tokio::test]
async fn a_command_that_changes_nothing_is_answered_when_what_it_rests_on_was_seen() {
    let app = App::open("memory:").await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let gated = gate.clone();
    let lamps = Consumer::new("lamps", move |_: LampEvent, _: RecordedEvent| {
        let gate = gated.clone();
        async move {
            gate.acquire().await?.forget();
            Ok(())
        }
    });
    app.consumers().start(lamps).await.unwrap();
    let id = CommandId::derived("hall", "light");
    let again = || app.command::<Lamp>("hall", Light {}).seen_by("lamps");
    let first = again().once(id).with_metadata(Metadata::new()).within(SOON).await;
    assert!(matches!(first, Err(SendError::Unseen { .. })), "{first:?}");
    // The answers are not based on later events.
    app.command::<Account>("ada", open("ada")).await.unwrap();
    for asking in [again(), again().once(id)] {
        let told = asking.within(SOON).await;
        let Err(SendError::Unseen { error: WaitError::Behind { position, .. }, .. }) = told else {
            panic!("{told:?}")
        };
        assert_eq!(position.value(), 1);
    }
    gate.add_permits(1);
    let nothing = again().within(LONG).await.unwrap();
    assert_eq!((nothing.position, nothing.version.value()), (None, 1));
    let replayed = again().once(id).within(LONG).await.unwrap();
    assert_eq!((replayed.position.map(Position::value), replayed.replayed), (Some(1), true));
}

#[tokio::test]
async fn read_models_over_rebuilds_and_of_other_programs_are_named_alike() {
    let store = Arc::new(factum::memory::MemoryStore::new());
    let stores = factum::store::Stores { events: store.clone(), documents: store };
    let app = App::builder().open_stores(stores.clone()).await.unwrap();
    let other = App::builder().open_stores(stores).await.unwrap();
    let owners =
        ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, owners| match event {
            AccountEvent::Opened { owner, .. } => owners.put(recorded.stream().key(), &owner),
            _ => Ok(()),
        });
    let owners = app.project_fn(owners).await.unwrap();
    app.command::<Account>("ada", open("ada")).seen_by("owners").within(LONG).await.unwrap();
    owners.rebuild().await.unwrap().done().await.unwrap();
    app.command::<Account>("bob", open("bob")).seen_by("owners").within(LONG).await.unwrap();
    other.command::<Account>("eve", open("eve")).seen_by("owners").within(LONG).await.unwrap();
    for key in ["ada", "bob", "eve"] {
        assert_eq!(owners.read_model::<String>().get(key).await.unwrap().as_deref(), Some(key));
    }
}
