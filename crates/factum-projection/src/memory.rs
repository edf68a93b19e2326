//! Models in memory: folds of events, with snapshots as documents.

mod apply;
mod folding;
mod order;
mod shown;
mod snapshot;
mod unread;

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use factum_consumer::{
    ConsumerHandle, ConsumerName, ConsumerOptions, Consumers, StartError, WaitError,
};
use factum_kernel::{Event, RecordedEvent};
use serde::{Serialize, de::DeserializeOwned};

use folding::Folding;
pub use shown::MemoryGuard;
use shown::Shown;

/// The default number of events between two snapshots of a model.
pub const SNAPSHOT_EVENTS_DEFAULT: usize = 100_000;

/// The definition of a model in memory: a value, and a function that changes it with each event.
///
/// Each process has its own model, made from the last snapshot and the log. So readers see each
/// event take effect exactly once. Snapshots are documents of the store and only save time: one is
/// taken now and then and at a clean stop.
///
/// The function must depend only on the model and the event, so that the same events make the same
/// model everywhere. It can't return an error.
///
/// An event has failed if the function panics or exceeds the policy's time. It is never retried: as
/// [`FailurePolicy::then`](factum_consumer::FailurePolicy) says, it is parked with the later events
/// of its stream, or the model stops. The stream of an event that this program can't read waits,
/// and the next start tries it first. If a failed event has left the model half changed, the model
/// is restored from the last snapshot. Readers wait until it has reached the position that they
/// saw.
///
/// It gets no deletions, and keeps what it has folded of a deleted stream, unless its event is
/// [`OrDeleted`](factum_kernel::OrDeleted).
///
/// ```
/// use std::time::Duration;
/// use factum_consumer::Consumers;
/// use factum_projection::{Fold, Projections};
/// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
/// let total = Fold::new("total", 1, |total: &mut u64, event, _| {
///     if let AccountEvent::Deposited { cents } = event {
///         *total += cents;
///     }
/// });
/// let total = Consumers::new(kernel).fold(total).await?;
///
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// let done = accounts.execute("ada", &AccountCommand::Deposit { cents: 500 }).await?;
/// total.wait_for(done.position.expect("it is an event"), Duration::from_secs(5)).await?;
/// assert_eq!(*total.read().await?, 500);
/// # Ok(()) }
/// ```
#[must_use = "it starts with `Projections::fold`"]
pub struct Fold<M, E, F> {
    name: String,
    version: u32,
    options: ConsumerOptions,
    snapshot_events: usize,
    apply: F,
    kind: PhantomData<fn() -> (M, E)>,
}

impl<M, E, F> Fold<M, E, F>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
{
    /// A model with this name: letters, digits, `-`, `_`, `.`. A changed function or model needs a
    /// larger version, which is made from the log, beginning where the first version began. No
    /// projection into documents may have the same name and version.
    pub fn new(name: &str, version: u32, apply: F) -> Self {
        Self {
            name: name.into(),
            version,
            options: ConsumerOptions::new(),
            snapshot_events: SNAPSHOT_EVENTS_DEFAULT,
            apply,
            kind: PhantomData,
        }
    }

    /// Sets the options: the start, the batches, the failure policy. A model has one partition.
    pub fn with_options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets the number of events between two snapshots, instead of [`SNAPSHOT_EVENTS_DEFAULT`]. Ten
    /// events that the function does not handle count as one.
    pub fn with_snapshot_events(mut self, snapshot_events: usize) -> Self {
        self.snapshot_events = snapshot_events.max(1);
        self
    }
}

impl<M, E, F> fmt::Debug for Fold<M, E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fold")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A running model in memory, and the consumer that keeps it up to date, with its health and dead
/// letters. Cheap to clone; dropping it changes nothing.
pub struct MemoryModel<M> {
    consumer: ConsumerHandle,
    shown: Arc<Shown<M>>,
}

impl<M: Default + Serialize + DeserializeOwned + Send + Sync + 'static> MemoryModel<M> {
    pub(crate) async fn start<E, F>(
        consumers: &Consumers,
        fold: Fold<M, E, F>,
    ) -> Result<Self, StartError>
    where
        E: Event,
        F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
    {
        let name = ConsumerName::new(&fold.name)?;
        if fold.options.partitions.count() > 1 {
            return Err(StartError::OnePartition(name));
        }
        let shown = Arc::new(Shown::new());
        let consumer = Folding::start(consumers, fold, &name, shown.clone()).await?;
        Ok(Self { consumer, shown })
    }
}

impl<M: Send + Sync + 'static> MemoryModel<M> {
    /// Returns the model between two batches. While the model runs, a reader never sees an older
    /// state than before: it waits while the last snapshot is read and while the model is restored.
    /// Release the guard soon, because nothing is folded while it is held.
    ///
    /// # Errors
    /// [`WaitError::Stopped`] if the model stopped while there was no complete model to show. A
    /// model that stopped otherwise can still be read in its last state. If it stopped while it was
    /// being restored, that state is older than the one seen before.
    pub async fn read(&self) -> Result<MemoryGuard<M>, WaitError> {
        match self.shown.read().await {
            Some(model) => Ok(model),
            None => Err(WaitError::Stopped {
                consumer: self.consumer.name().clone(),
                reason: self.consumer.stop().await,
            }),
        }
    }

    /// The consumer that keeps the model up to date.
    pub fn consumer(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl<M> Clone for MemoryModel<M> {
    fn clone(&self) -> Self {
        Self { consumer: self.consumer.clone(), shown: self.shown.clone() }
    }
}

impl<M> Deref for MemoryModel<M> {
    type Target = ConsumerHandle;

    fn deref(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl<M> fmt::Debug for MemoryModel<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryModel").field("name", self.consumer.name()).finish_non_exhaustive()
    }
}
