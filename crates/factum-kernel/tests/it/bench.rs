//! What the tests of the typed layer stand on: a bank in memory, its time under control.

use std::sync::Arc;

use factum_kernel::{Clock, Kernel, Metadata, Repository, StreamId, TagKey, Timestamp};
use factum_memory::{MemoryOptions, MemoryStore};
use factum_testing::{
    SeededIds, VirtualClock,
    bank::{Account, AccountCommand},
};

/// A bank in memory.
pub(crate) struct Bench {
    /// The store under everything.
    pub(crate) store: Arc<MemoryStore>,
    /// The clock of rules and store; sleeping moves it.
    pub(crate) clock: VirtualClock,
    /// What repositories are made of.
    pub(crate) kernel: Kernel,
}

impl Bench {
    /// An empty bank, in the morning of the first of March 2026.
    pub(crate) fn new() -> Self {
        let clock = VirtualClock::auto_advancing("2026-03-01T08:00:00Z".parse().unwrap());
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let options = MemoryOptions::new().with_clock(shared.clone());
        let store = Arc::new(MemoryStore::with_options(options));
        let kernel = Kernel::new(store.clone(), store.clone())
            .with_clock(shared)
            .with_ids(Arc::new(SeededIds::new(7)))
            .with_tag_key(TagKey::new([1; 32]));
        Self { store, clock, kernel }
    }

    /// The accounts, without snapshots.
    pub(crate) fn accounts(&self) -> Repository<Account> {
        Repository::new(self.kernel.clone())
    }

    /// Opens an account and puts money on it, one event per deposit.
    pub(crate) async fn open(&self, key: &str, deposits: &[u64]) {
        self.accounts().execute(key, &open(key)).await.unwrap();
        self.deposit(key, deposits).await;
    }

    /// Puts money on an account.
    pub(crate) async fn deposit(&self, key: &str, deposits: &[u64]) {
        for cents in deposits {
            let deposit = AccountCommand::Deposit { cents: *cents };
            self.accounts().execute(key, &deposit).await.unwrap();
        }
    }

    /// The balance and version of an account.
    pub(crate) async fn balance(&self, key: &str) -> (u64, u64) {
        let loaded = self.accounts().load(key).await.unwrap();
        (loaded.state.balance_cents, loaded.version.value())
    }
}

/// Opens an account with an address of its own.
pub(crate) fn open(key: &str) -> AccountCommand {
    AccountCommand::Open { owner: key.into(), email: format!("{key}@example.org") }
}

/// The stream of an account.
pub(crate) fn stream(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

/// Nothing known.
pub(crate) fn no_metadata() -> Metadata {
    Metadata::new()
}

/// A time of the first of March 2026.
pub(crate) fn at(time: &str) -> Timestamp {
    format!("2026-03-01T{time}Z").parse().unwrap()
}
