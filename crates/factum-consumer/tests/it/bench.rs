//! The test bench: a log in memory, and its consumers.

use std::{sync::Arc, time::Duration};

use factum_consumer::{ConsumerOptions, Consumers, FailurePolicy};
use factum_kernel::{DocumentStore, Kernel, Position, Repository, TagKey};
use factum_memory::MemoryStore;
use factum_testing::bank::{Account, AccountCommand};

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Options with short pauses.
pub(crate) fn quick() -> ConsumerOptions {
    let pause = Duration::from_millis(1);
    ConsumerOptions::new().with_failure(FailurePolicy::new().with_pause(pause, pause))
}

pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    pub(crate) consumers: Consumers,
    accounts: Repository<Account>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with_documents(|documents| documents)
    }

    /// A bench whose documents are wrapped.
    pub(crate) fn with_documents(
        wrap: impl FnOnce(Arc<dyn DocumentStore>) -> Arc<dyn DocumentStore>,
    ) -> Self {
        let store = Arc::new(MemoryStore::new());
        let documents = wrap(store.clone());
        let kernel = Kernel::new(store, documents).with_tag_key(TagKey::new([1; 32]));
        let consumers = Consumers::new(kernel.clone());
        let accounts = Repository::new(kernel.clone());
        Self { kernel, consumers, accounts }
    }

    pub(crate) async fn open(&self, key: &str) {
        let email = format!("{key}@example.org");
        let open = AccountCommand::Open { owner: key.into(), email };
        self.accounts.execute(key, &open).await.unwrap();
    }

    pub(crate) async fn deposit(&self, key: &str, cents: u64) {
        self.accounts.execute(key, &AccountCommand::Deposit { cents }).await.unwrap();
    }

    pub(crate) fn head(&self) -> Position {
        *self.kernel.events().head().borrow()
    }
}
