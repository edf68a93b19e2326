//! The end of an application while its consumers are busy, or transactions are under way.

use std::{fmt, future::IntoFuture, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use factum::{
    App, CommandId, Consumer, ConsumerOptions, EntityOptions, ErrorKind, EventStore, HandleError,
    RecordedEvent, TagKey, Worker,
    consumer::{ConsumerHandle, ConsumerHealth, ConsumerState, FailurePolicy},
    store::{AppendBatch, AppendError, Appended, Clock, Stores, SystemClock},
};
use factum_testing::{
    ForwardEvents, Forwarding, VirtualClock,
    bank::{Account, AccountCommand, AccountEvent},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    send::{DEPOSIT, in_memory},
    tally::{Count, Tally},
};

const LONG: Duration = Duration::from_secs(60);
const LIVES: u64 = 4;
/// The application closes after a consumer has begun this many events.
const EVENTS_PER_LIFE: u64 = 40;

fn open(key: &str) -> AccountCommand {
    AccountCommand::Open { owner: key.into(), email: format!("{key}@example.org") }
}

async fn opened(path: &Path) -> App {
    let builder = App::builder().aggregate::<Account>().with_tag_key(TagKey::new([1; 32]));
    builder.open(path.to_str().unwrap()).await.unwrap()
}

/// The first failure parks the event.
fn no_retries() -> ConsumerOptions {
    let failure = FailurePolicy::new().with_retries_max(0).with_timeout(LONG);
    ConsumerOptions::new().with_failure(failure).with_batch_events_max(5)
}

fn is_customer(event: &AccountEvent, recorded: &RecordedEvent) -> bool {
    matches!(event, AccountEvent::Opened { .. }) && recorded.stream().key() != "bonus"
}

/// Pays a bonus for each customer once, by an entity.
async fn pay_bonuses(app: &App, begun: watch::Sender<u64>) -> ConsumerHandle {
    let payer = app.clone();
    let bonus = Consumer::new("bonus", move |event: AccountEvent, recorded: RecordedEvent| {
        let app = payer.clone();
        let begun = begun.clone();
        async move {
            if !is_customer(&event, &recorded) {
                return Ok(());
            }
            begun.send_modify(|begun| *begun += 1);
            let id = CommandId::new(recorded.id().as_uuid());
            let deposit = AccountCommand::Deposit { cents: 1 };
            app.command::<Account>("bonus", deposit).once(id).await?;
            Ok(())
        }
    });
    app.consumers().start(bonus.with_options(no_retries())).await.unwrap()
}

/// Waits until the consumer has stopped, or one of its events has failed.
async fn is_over(app: &App, name: &str) {
    let consumers = app.consumers().list();
    let consumer = consumers.iter().find(|it| it.name().as_str() == name).unwrap();
    let is_over =
        |it: &ConsumerHealth| it.parked > 0 || matches!(it.state, ConsumerState::Stopped(_));
    consumer.watch().wait_for(is_over).await.unwrap();
}

/// Delays the workers' shutdown while consumers work, like a worker with a long task.
fn linger(app: &App) {
    let lingering = app.clone();
    let worker = Worker::new("lingering", move |cx| {
        let app = lingering.clone();
        async move {
            cx.stopping().await;
            is_over(&app, "mails").await;
            Ok(())
        }
    });
    app.supervisor().add(worker.with_grace(LONG)).unwrap();
}

/// Delays the entities' shutdown while consumers work, by one entity with a long task.
async fn be_busy(app: &App) {
    let accounts = app.aggregate::<Account>();
    let busy = app.clone();
    let (begins, mut has_begun) = watch::channel(false);
    tokio::spawn(async move {
        let look = move |_: &Account, _| {
            begins.send_replace(true);
            let wait = is_over(&busy, "bonus");
            tokio::task::block_in_place(|| Handle::current().block_on(wait));
        };
        accounts.look("0", look).await
    });
    has_begun.wait_for(|begun| *begun).await.unwrap();
}

type Letter = oneshot::Sender<()>;

/// Sends letters by a worker, which confirms each.
async fn send_letters(app: &App) -> ConsumerHandle {
    let (post, letters) = mpsc::channel::<Letter>(1);
    let letters = Arc::new(Mutex::new(Some(letters)));
    let worker = Worker::new("post", move |cx| {
        let letters = letters.clone();
        async move {
            // Dropped with this run, so that senders notice its end.
            let mut letters = letters.lock().await.take().ok_or("it runs once")?;
            while let Some(Some(sent)) = cx.until_stopping(letters.recv()).await {
                let _ = sent.send(());
            }
            Ok(())
        }
    });
    app.supervisor().add(worker).unwrap();
    let mails = Consumer::new("mails", move |event: AccountEvent, recorded: RecordedEvent| {
        let post = post.clone();
        async move {
            if is_customer(&event, &recorded) {
                let (letter, is_sent) = oneshot::channel();
                post.send(letter).await?;
                is_sent.await.map_err(|_| HandleError::from("the post is closed"))?;
            }
            Ok(())
        }
    });
    app.consumers().start(mails.with_options(no_retries())).await.unwrap()
}

/// Opens accounts until the application has closed, so that there are always events to handle.
fn win_customers(app: &App, life: u64) -> JoinHandle<u64> {
    let app = app.clone();
    tokio::spawn(async move {
        for customer in 0.. {
            let key = format!("{life}-{customer}");
            if app.command::<Account>(&key, open(&key)).await.is_err() {
                return customer;
            }
        }
        unreachable!("it ends with the store")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_application_that_closes_fails_no_event_that_needs_its_entities_or_workers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut customers = 0;
    for life in 0..LIVES {
        let app = opened(&path).await;
        if life == 0 {
            app.command::<Account>("bonus", open("bonus")).await.unwrap();
        }
        linger(&app);
        let (begun, mut seen) = watch::channel(0);
        let consumers = [pay_bonuses(&app, begun).await, send_letters(&app).await];
        be_busy(&app).await;
        let won = win_customers(&app, life);
        seen.wait_for(|begun| *begun >= EVENTS_PER_LIFE).await.unwrap();
        if life % 2 == 1 {
            app.consumers().close().await;
        }
        app.close().await.unwrap();
        for consumer in consumers {
            assert_eq!(consumer.health().parked, 0, "{}", consumer.name());
        }
        customers += won.await.unwrap();
    }

    let app = opened(&path).await;
    let consumers = [pay_bonuses(&app, watch::channel(0).0).await, send_letters(&app).await];
    let head = *app.kernel().events().head().borrow();
    for consumer in consumers {
        consumer.wait_for(head, LONG).await.unwrap();
        assert_eq!(consumer.dead_letters().await, [], "{}", consumer.name());
    }
    let paid = app.load::<Account>("bonus").await.unwrap().state.balance_cents;
    assert_eq!(paid, customers, "each once");
    app.close().await.unwrap();
}

/// A log whose appends wait at a gate.
struct Gated {
    log: Arc<dyn EventStore>,
    gate: Arc<Semaphore>,
    waiting: watch::Sender<usize>,
}

impl fmt::Debug for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gated").finish_non_exhaustive()
    }
}

#[async_trait]
impl ForwardEvents for Gated {
    fn events(&self) -> Arc<dyn EventStore> {
        self.log.clone()
    }

    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.gate.acquire().await.unwrap().forget();
        self.log.append(batch).await
    }
}

/// An application with ada, whose appends wait at the gate; the watch counts them.
struct GatedApp {
    app: App,
    gate: Arc<Semaphore>,
    waits: watch::Receiver<usize>,
}

async fn gated(clock: Arc<dyn Clock>) -> GatedApp {
    let Stores { events, documents } = in_memory();
    let gate = Arc::new(Semaphore::new(1));
    let (waiting, waits) = watch::channel(0);
    let events = Arc::new(Forwarding(Gated { log: events, gate: gate.clone(), waiting }));
    // The clock may move by itself.
    let entities = EntityOptions::new().with_deadline(None).with_idle(None);
    let builder = App::builder().with_clock(clock).with_entities(entities);
    let app = builder.open_stores(Stores { events, documents }).await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    GatedApp { app, gate, waits }
}

#[tokio::test]
async fn an_application_that_closes_waits_for_transactions_and_decisions_under_way() {
    let GatedApp { app, gate, mut waits } = gated(Arc::new(SystemClock)).await;
    let both = app.transaction().command::<Account>("ada", DEPOSIT).decide::<Tally>(Count);
    let both = tokio::spawn(both.into_future());
    let decided = tokio::spawn(app.decide::<Tally>(Count).into_future());
    waits.wait_for(|waiting| *waiting == 3).await.unwrap();
    let closing = app.clone();
    let closing = tokio::spawn(async move { closing.close().await });
    // A transaction is refused from the moment at which the application waits only for others.
    let refused = loop {
        let late =
            app.transaction().expecting::<Account>("ada", factum::event::StreamVersion::ZERO);
        let refused = late.await.unwrap_err();
        if refused.kind() != ErrorKind::Conflict {
            break refused;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.kind(), ErrorKind::Closed);
    assert!(!closing.is_finished());
    gate.add_permits(16);
    let stored = both.await.unwrap().unwrap().events;
    let stored = stored + decided.await.unwrap().unwrap().events;
    assert_eq!(stored, 3);
    closing.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_application_that_closes_waits_for_no_transaction_for_ever() {
    let clock = VirtualClock::auto_advancing("2026-03-01T08:00:00Z".parse().unwrap());
    let GatedApp { app, gate, mut waits } = gated(Arc::new(clock)).await;
    let stuck = app.transaction().command::<Account>("ada", DEPOSIT);
    let stuck = tokio::spawn(stuck.into_future());
    waits.wait_for(|waiting| *waiting == 2).await.unwrap();
    app.close().await.unwrap();
    assert!(!stuck.is_finished());
    gate.add_permits(1);
    assert_eq!(stuck.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
}
