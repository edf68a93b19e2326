//! A store that counts its version conflicts. It forwards everything to the store inside.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use factum::{
    EventStore,
    store::{AppendBatch, AppendError, Appended},
};
use factum_testing::{ForwardEvents, Forwarding};

/// The number of version conflicts that a store has answered with. Clones share the counter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conflicts(Arc<AtomicU64>);

impl Conflicts {
    /// The number of conflicts so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// A store that forwards to `store` and counts its conflicts here.
    pub(crate) fn of(&self, store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
        Arc::new(Forwarding(Counted { store, conflicts: self.clone() }))
    }
}

#[derive(Debug)]
struct Counted {
    store: Arc<dyn EventStore>,
    conflicts: Conflicts,
}

#[async_trait]
impl ForwardEvents for Counted {
    fn events(&self) -> Arc<dyn EventStore> {
        self.store.clone()
    }

    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let outcome = self.store.append(batch).await;
        if let Err(AppendError::Conflict(_)) = &outcome {
            self.conflicts.0.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }
}
