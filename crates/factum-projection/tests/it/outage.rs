//! Outages: attempts during an outage don't count as attempts of the event.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerHealth, ConsumerOptions, ConsumerState, HandleError,
    ReleaseError, StopReason,
};
use factum_kernel::{
    DocumentStore, ExecuteError, Kernel, Repository, RetryPolicy, StoreError, StoreErrorKind,
    SystemClock, TagKey,
};
use factum_memory::MemoryStore;
use factum_testing::{
    Fault, FaultRates, FaultyDocuments, FaultyStore,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
};

use crate::bench::{Bench, Fails, LONG, options};

/// A store whose events or documents can be made unavailable.
#[derive(Clone)]
pub(crate) struct Faulty {
    events: Arc<FaultyStore>,
    documents: Arc<FaultyDocuments>,
}

#[derive(Debug, Clone, Copy)]
enum Away {
    Events,
    Documents,
    Both,
}

/// The form in which the handler reports the store's error.
#[derive(Debug, Clone, Copy)]
enum Report {
    AsItIs,
    InAnEnum,
    Text,
    Panic,
    Nothing,
}

/// A user's own error.
#[derive(Debug, thiserror::Error)]
enum Unpaid {
    #[error(transparent)]
    Account(#[from] ExecuteError<AccountRejection>),
    #[error(transparent)]
    Rate(#[from] StoreError),
}

impl Faulty {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SystemClock);
        let none = FaultRates::none();
        let events = Arc::new(FaultyStore::new(store.clone(), 1, none, clock.clone()));
        Self { events, documents: Arc::new(FaultyDocuments::new(store, 1, none, clock)) }
    }

    fn bench(&self) -> Bench {
        let kernel = Kernel::new(self.events.clone(), self.documents.clone());
        Bench::on(kernel.with_tag_key(TagKey::new([1; 32])))
    }

    fn go_away(&self, away: Away) {
        match away {
            Away::Events => self.events.go_away(),
            Away::Documents => self.documents.go_away(),
            Away::Both => {
                self.events.go_away();
                self.documents.go_away();
            }
        }
    }

    fn come_back(&self) {
        self.events.come_back();
        self.documents.come_back();
    }
}

/// Pays a bonus, for which the handler reads the log and a document.
async fn pay(
    accounts: &Repository<Account>,
    documents: &Arc<dyn DocumentStore>,
) -> Result<(), Unpaid> {
    documents.get(b"rate").await?;
    accounts.execute("bonus", &AccountCommand::Deposit { cents: 1 }).await?;
    Ok(())
}

async fn say(
    accounts: &Repository<Account>,
    documents: &Arc<dyn DocumentStore>,
    says: Report,
) -> Result<(), HandleError> {
    match (says, pay(accounts, documents).await) {
        (_, Ok(())) => Ok(()),
        (Report::AsItIs, Err(Unpaid::Account(error))) => Err(error.into()),
        (Report::AsItIs, Err(Unpaid::Rate(error))) => Err(error.into()),
        (Report::InAnEnum, Err(error)) => Err(error.into()),
        (Report::Text, Err(_)) => Err("the bonus was not paid".into()),
        (Report::Panic, Err(error)) => panic!("{error}"),
        (Report::Nothing, Err(_)) => std::future::pending().await,
    }
}

/// Options that park an event at the first failure of its own.
fn no_retries() -> ConsumerOptions {
    let mut options = options();
    options.failure = options.failure.with_retries_max(0);
    options
}

/// Waits until the consumer has made so many attempts during the outage that none would be left for
/// an event.
pub(crate) async fn uses_up_its_attempts(consumer: &ConsumerHandle) {
    let is_over = |it: &ConsumerHealth| match it.state {
        ConsumerState::Retrying { position: None, attempts, .. } => attempts >= 5,
        // The event was given up; the caller's check sees it.
        ConsumerState::Stopped(_) => true,
        _ => it.parked > 0,
    };
    consumer.watch().wait_for(is_over).await.unwrap();
}

async fn outlasts(away: Away, says: Report) {
    let store = Faulty::new();
    let bench = store.bench();
    for key in ["ada", "bonus"] {
        bench.open(key).await;
    }
    let position = bench.deposit("ada", 13).await;
    let accounts = bench.accounts.clone().with_retry(RetryPolicy::never());
    let documents = bench.kernel.documents().clone();
    let begins = Arc::new(AtomicBool::new(true));
    let at_fault = store.clone();
    let bonus = Consumer::new("bonus", move |event: AccountEvent, _| {
        let accounts = accounts.clone();
        let documents = documents.clone();
        let is_due = matches!(event, AccountEvent::Deposited { cents: 13 });
        // The outage begins while the event is handled.
        if is_due && begins.swap(false, Ordering::SeqCst) {
            at_fault.go_away(away);
        }
        async move { if is_due { say(&accounts, &documents, says).await } else { Ok(()) } }
    });
    let bonus = bench.consumers.start(bonus.with_options(no_retries())).await.unwrap();
    uses_up_its_attempts(&bonus).await;
    store.come_back();
    bonus.wait_for(position, LONG).await.unwrap();
    assert_eq!(bonus.dead_letters().await, [], "{away:?} {says:?}");
    let paid = bench.accounts.load("bonus").await.unwrap();
    assert_eq!(paid.state.balance_cents, 1, "{away:?} {says:?}");
}

#[tokio::test]
async fn an_outage_costs_no_attempt_of_the_event_whatever_its_handler_returns() {
    for away in [Away::Events, Away::Documents, Away::Both] {
        for says in [Report::AsItIs, Report::InAnEnum, Report::Text, Report::Panic, Report::Nothing]
        {
            outlasts(away, says).await;
        }
    }
}

/// The same for an event that is parked already and retried.
#[tokio::test]
async fn a_release_in_an_outage_counts_nothing_against_the_event() {
    let store = Faulty::new();
    let bench = store.bench();
    bench.open("ada").await;
    let position = bench.deposit("ada", 13).await;
    let at_fault = store.clone();
    let is_away = Arc::new(AtomicBool::new(false));
    let goes = is_away.clone();
    let mails = Consumer::new("mails", move |event: AccountEvent, _| {
        let fails = matches!(event, AccountEvent::Deposited { cents: 13 });
        if fails && goes.load(Ordering::SeqCst) {
            at_fault.go_away(Away::Events);
        }
        async move { if fails { Err("thirteen".into()) } else { Ok(()) } }
    });
    let mails = bench.consumers.start(mails.with_options(no_retries())).await.unwrap();
    mails.wait_for(position, LONG).await.unwrap();
    let [before] = &mails.dead_letters().await[..] else { panic!("it is parked") };
    is_away.store(true, Ordering::SeqCst);
    let told = mails.retry(&before.stream).await.unwrap_err();
    assert!(matches!(told, ReleaseError::NotNow(_)), "{told}");
    store.come_back();
    mails.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    let [after] = &mails.dead_letters().await[..] else { panic!("it is parked still") };
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_consumer_stops_only_on_errors_that_are_known_to_be_permanent() {
    for kind in [StoreErrorKind::Internal, StoreErrorKind::Unavailable] {
        let store = Faulty::new();
        let bench = store.bench();
        bench.open("ada").await;
        let position = bench.deposit("ada", 1).await;
        // The outage begins at the start, during a read, and during a write.
        for _ in 0..4 {
            store.documents.next_read(Fault::Refuse(kind));
            store.documents.next_write(Fault::Refuse(kind));
            store.events.next_read(Fault::Refuse(kind));
        }
        let counts = bench.count(&Fails::default()).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(bench.counted().await, bench.fold().await, "{kind:?}");
    }
    for kind in [StoreErrorKind::Corrupt, StoreErrorKind::Closed] {
        let store = Faulty::new();
        let bench = store.bench();
        bench.open("ada").await;
        let counts = bench.count(&Fails::default()).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        store.documents.next_write(Fault::Refuse(kind));
        bench.deposit("ada", 1).await;
        let stopped =
            |state: &ConsumerState| matches!(state, ConsumerState::Stopped(StopReason::Broken(_)));
        counts.watch().wait_for(|it| stopped(&it.state)).await.unwrap();
    }
}

/// The outage lasts so long that the process is killed meanwhile, by a deployment or by its
/// monitor.
#[test]
fn a_process_that_is_killed_in_an_outage_did_not_die_of_the_event() {
    let is_away = Arc::new(AtomicBool::new(true));
    let kernel = Bench::new().kernel;
    let start = async |bench: &Bench| {
        let is_away = is_away.clone();
        let mails = Consumer::new("mails", move |_: AccountEvent, _| {
            let is_away = is_away.load(Ordering::SeqCst);
            async move {
                match is_away {
                    true => Err(StoreError::unavailable("the mail server is away").into()),
                    false => Ok(()),
                }
            }
        });
        bench.consumers.start(mails.with_options(options())).await.unwrap()
    };
    let process = || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build().unwrap()
    };
    process().block_on(async { Bench::on(kernel.clone()).open("ada").await });
    for _ in 0..6 {
        let dies = process();
        // No consumer is asked to stop.
        let left = dies.block_on(async {
            let bench = Bench::on(kernel.clone());
            let mails = start(&bench).await;
            uses_up_its_attempts(&mails).await;
            (bench, mails)
        });
        dies.shutdown_timeout(LONG);
        drop(left);
    }
    is_away.store(false, Ordering::SeqCst);
    process().block_on(async {
        let bench = Bench::on(kernel.clone());
        let mails = start(&bench).await;
        mails.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!(mails.dead_letters().await, []);
    });
}
