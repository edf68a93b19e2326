//! A log, its consumers, and a read model that counts the events that it was given.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{ConsumerHandle, ConsumerOptions, Consumers, FailurePolicy, HandleError};
use factum_kernel::{
    Cbor, Codec, DocumentStore, Kernel, KeyRange, Position, ReadLog, ReadQuery, RecordedEvent,
    Repository, ScanQuery, StreamId, TagKey, Writers, decode_event,
};
use factum_memory::MemoryStore;
use factum_projection::{
    Documents, DocumentsTx, Fold, MemoryModel, Projection, ProjectionHandle, Projections,
    is_sql_outage,
};
use factum_testing::{
    bank::{Account, AccountCommand, AccountEvent},
    tell,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::ledger::Gate;

/// The time without a heartbeat after which other programs take a member for dead.
pub(crate) const LEASE: Duration = Duration::from_millis(250);
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    pub(crate) consumers: Consumers,
    pub(crate) accounts: Repository<Account>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::on(Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32])))
    }

    pub(crate) fn on(kernel: Kernel) -> Self {
        if kernel.events().guarantees().writers == Writers::ManyProcesses {
            return Self::among_others(kernel);
        }
        let consumers = Consumers::new(kernel.clone()).with_outages(is_sql_outage);
        let accounts = Repository::new(kernel.clone());
        Self { kernel, consumers, accounts }
    }

    /// One of several programs on one log, with a short time to wait for a dead member.
    pub(crate) fn among_others(kernel: Kernel) -> Self {
        let consumers = Consumers::new(kernel.clone()).with_lease(LEASE);
        let consumers = consumers.with_outages(is_sql_outage);
        let accounts = Repository::new(kernel.clone());
        Self { kernel, consumers, accounts }
    }

    /// Another program that shares the consumers.
    pub(crate) fn another(&self) -> Self {
        Self::among_others(self.kernel.clone())
    }

    /// Another program on the same log.
    pub(crate) fn again(&self) -> Self {
        Self::on(self.kernel.clone())
    }

    pub(crate) async fn open(&self, key: &str) {
        let email = format!("{key}@example.org");
        let open = AccountCommand::Open { owner: key.into(), email };
        self.accounts.execute(key, &open).await.unwrap();
    }

    pub(crate) async fn deposit(&self, key: &str, cents: u64) -> Position {
        let done = self.accounts.execute(key, &AccountCommand::Deposit { cents }).await.unwrap();
        done.position.expect("a deposit is an event")
    }

    /// Appends deposits: Ada's second is thirteen cents, Bob has no such deposit.
    pub(crate) async fn thirteen(&self) {
        for key in ["ada", "bob"] {
            self.open(key).await;
        }
        for cents in [1, 13, 2, 3] {
            self.deposit("ada", cents).await;
            self.deposit("bob", cents + 100).await;
        }
    }

    pub(crate) fn head(&self) -> Position {
        *self.kernel.events().head().borrow()
    }

    pub(crate) async fn count(&self, fails: &Fails) -> ProjectionHandle<Counts> {
        let options = options();
        let target = Documents::new(&self.kernel);
        self.consumers.start_projection(Counts(fails.clone()), target, options).await.unwrap()
    }

    pub(crate) async fn count_in_memory(&self, fails: &Fails) -> MemoryModel<Counted> {
        self.consumers.fold(counts_in_memory(fails)).await.unwrap()
    }

    /// The expected content: a fold of the log.
    pub(crate) async fn fold(&self) -> BTreeMap<String, Count> {
        let mut counts = BTreeMap::<String, Count>::new();
        let mut log = ReadLog::new(self.kernel.events().clone(), ReadQuery::log());
        while let Some(event) = log.next().await {
            let event = event.unwrap();
            let mut found = None;
            if event.name() == "account.deposited" {
                decode_event::<AccountEvent>(&event, &mut |it| found = Some(it)).unwrap();
            }
            if let Some(AccountEvent::Deposited { cents }) = found {
                counts.entry(event.stream().key().into()).or_default().cents.push(cents);
            }
        }
        counts
    }

    /// The content of the read model in documents.
    pub(crate) async fn counted(&self) -> BTreeMap<String, Count> {
        in_documents(&**self.kernel.documents(), "$model/counts@1/").await
    }
}

pub(crate) fn ada() -> StreamId {
    StreamId::new("account", "ada").unwrap()
}

/// Fails unless Ada's thirteen cents, and they alone, are parked after this many attempts.
pub(crate) async fn is_parked(consumer: &ConsumerHandle, attempts: u32, error: &str) {
    let [letter] = &consumer.dead_letters().await[..] else { panic!("one is parked") };
    assert_eq!((letter.stream.clone(), letter.version.value()), (ada(), 3));
    assert!(letter.error.contains(error), "{}", letter.error);
    assert_eq!(letter.attempts, attempts);
    assert_eq!(consumer.health().parked, 1);
}

/// The documents with this prefix.
pub(crate) async fn in_documents<T: DeserializeOwned>(
    documents: &dyn DocumentStore,
    prefix: &str,
) -> BTreeMap<String, T> {
    let query = ScanQuery::new(KeyRange::prefix(prefix.to_owned()));
    let page = documents.scan(query).await.unwrap();
    assert_eq!(page.rest, None, "a test's model is small");
    let found = page.documents.iter().map(|document| {
        let key = document.key.strip_prefix(prefix.as_bytes()).unwrap();
        let value = Cbor::decode(&document.value).unwrap();
        (String::from_utf8(key.to_vec()).unwrap(), value)
    });
    found.collect()
}

pub(crate) fn options() -> ConsumerOptions {
    let failure = FailurePolicy::new()
        .with_retries_max(2)
        .with_pause(Duration::from_millis(1), Duration::from_millis(4))
        .with_timeout(Duration::from_millis(300));
    ConsumerOptions::new().with_failure(failure)
}

/// The deposits that were seen of one account: their order and number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) cents: Vec<u64>,
}

/// The way in which deposits of 13 cents fail, if they do, and deposits wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fails {
    pub(crate) errs: Arc<AtomicBool>,
    pub(crate) panics: Arc<AtomicBool>,
    pub(crate) hangs: Arc<AtomicBool>,
    pub(crate) spins: Arc<AtomicBool>,
    pub(crate) aborts: Arc<AtomicBool>,
    /// Lets each deposit into documents through.
    pub(crate) gate: Gate,
    /// Tells a parent process of every event.
    pub(crate) tells: bool,
}

impl Fails {
    pub(crate) async fn on(&self, cents: u64) -> Result<(), HandleError> {
        if cents == 13 && self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if cents == 13 && self.errs.load(Ordering::SeqCst) {
            return Err("thirteen".into());
        }
        self.within(cents);
        Ok(())
    }

    /// In a fold, where an error is a panic.
    fn within(&self, cents: u64) {
        if self.tells {
            tell("at work");
        }
        if cents != 13 {
            return;
        }
        assert!(!self.panics.load(Ordering::SeqCst), "thirteen is too much");
        assert!(!self.errs.load(Ordering::SeqCst), "thirteen");
        if self.aborts.load(Ordering::SeqCst) {
            std::process::abort();
        }
        while self.spins.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
    }
}

pub(crate) struct Counts(pub(crate) Fails);

impl Projection for Counts {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        self.0.gate.pass().await;
        // The failure comes after half of the effect, of which nothing may stay.
        tx.update(recorded.stream().key(), |count: &mut Count| count.cents.push(cents)).await?;
        self.0.on(cents).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        documents.remove(deletion.stream().key());
        Ok(())
    }
}

pub(crate) type Counted = BTreeMap<String, Count>;

/// The same projection as a model in memory.
pub(crate) fn counts_in_memory(
    fails: &Fails,
) -> Fold<
    Counted,
    AccountEvent,
    impl Fn(&mut Counted, AccountEvent, &RecordedEvent) + Send + Sync + use<>,
> {
    let fails = fails.clone();
    let count = move |counts: &mut Counted, event: AccountEvent, recorded: &RecordedEvent| {
        let AccountEvent::Deposited { cents } = event else { return };
        counts.entry(recorded.stream().key().into()).or_default().cents.push(cents);
        fails.within(cents);
    };
    Fold::new("counts-in-memory", 1, count).with_options(options())
}
