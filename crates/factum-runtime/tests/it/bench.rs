//! The common ground of these tests: a bank whose store can be made to fail.

use std::{sync::Arc, time::Duration};

use factum_kernel::{Aggregate, Clock, Kernel, Repository, TagKey};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_runtime::{Entities, EntityOptions};
use factum_testing::{
    FaultRates, FaultyStore, History, RecordingStore, SeededIds, VirtualClock,
    bank::{Account, AccountCommand},
};

pub(crate) const DEPOSIT: AccountCommand = AccountCommand::Deposit { cents: 1 };

/// A bank in memory.
pub(crate) struct Bench {
    /// The store below all others.
    pub(crate) store: Arc<MemoryStore>,
    /// The store that the entities use. It fails on purpose, and writes to the store below.
    pub(crate) faulty: Arc<FaultyStore>,
    /// The attempts that were made.
    pub(crate) history: Arc<History>,
    pub(crate) clock: VirtualClock,
    pub(crate) kernel: Kernel,
}

impl Bench {
    /// A clock that the test moves.
    pub(crate) fn new() -> Self {
        Self::on(VirtualClock::new(morning()), 1, FaultRates::none())
    }

    /// A clock that moves with every sleep, and a store with random failures.
    pub(crate) fn rough(seed: u64, rates: FaultRates) -> Self {
        Self::on(VirtualClock::auto_advancing(morning()), seed, rates)
    }

    fn on(clock: VirtualClock, seed: u64, rates: FaultRates) -> Self {
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let store =
            Arc::new(MemoryStore::with_options(MemoryOptions::new().with_clock(shared.clone())));
        let faulty = Arc::new(FaultyStore::new(store.clone(), seed, rates, shared.clone()));
        let history = Arc::new(History::new());
        let recording = Arc::new(RecordingStore::new(faulty.clone(), history.clone()));
        let kernel = Kernel::new(recording, store.clone())
            .with_clock(shared)
            .with_ids(Arc::new(SeededIds::new(seed)))
            .with_tag_key(TagKey::new([1; 32]));
        Self { store, faulty, history, clock, kernel }
    }

    pub(crate) fn entities<A: Aggregate>(&self, options: EntityOptions) -> Entities<A> {
        Entities::new(Repository::new(self.kernel.clone()), options)
    }

    pub(crate) fn accounts(&self) -> Entities<Account> {
        self.entities(options())
    }

    /// The balance and version of an account, read without the entities and the failures.
    pub(crate) async fn balance(&self, key: &str) -> (u64, u64) {
        let kernel = Kernel::new(self.store.clone(), self.store.clone());
        let loaded = Repository::<Account>::new(kernel).load(key).await.unwrap();
        (loaded.state.balance_cents, loaded.version.value())
    }
}

pub(crate) fn morning() -> factum_kernel::Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

/// No deadline and no idle time, so that only the test's own sleeps happen.
pub(crate) fn options() -> EntityOptions {
    EntityOptions::new().with_deadline(None).with_idle(None)
}

pub(crate) fn open(key: &str) -> AccountCommand {
    AccountCommand::Open { owner: key.into(), email: format!("{key}@example.org") }
}

pub(crate) fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
