//! The consumers of a program.

mod launch;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_kernel::{Event, Kernel, Position, RecordedEvent, Writers};
use tokio::sync::Semaphore;

use crate::{
    bus::EventBus,
    checkpoints::Checkpoints,
    consumer::{Consumer, Handling},
    error::{HandleError, StartError, WaitError},
    freeze::Answering,
    handle::ConsumerHandle,
    lease::{Bell, Membership},
    name::ConsumerName,
    outage::{Outages, TellsOutage},
    source::Reading,
    tail::Tail,
    work::Names,
};

pub use launch::{Launch, can_run};

/// The most consumers that read pages of their own at the same time; the others wait for a permit.
pub const CATCHING_UP_MAX: usize = 4;

/// The time without a heartbeat after which other processes take over the partitions of a process.
pub const CONSUMER_LEASE: Duration = Duration::from_secs(5);

/// The consumers of a program, which share one reader of the log's end. Cheap to clone.
///
/// If the store allows several writing processes, the processes that run the same consumer share
/// its partitions. One process works on each partition; the others stand by. A process that joins
/// gets its share after a moment. The partitions of a process that stops move at once, and those of
/// a process that died after [`CONSUMER_LEASE`] at most.
///
/// No clocks are compared. A process that was taken for dead by mistake can't store anything any
/// more. In-memory models are not shared: each process has its own.
#[derive(Debug, Clone)]
pub struct Consumers {
    pub(crate) reading: Reading,
    /// This process's part in the leases; `None` if no other process can write the store.
    pub(crate) membership: Option<Membership>,
    pub(crate) outages: Outages,
    running: Arc<Mutex<Running>>,
}

/// A loop that follows the log under a name of its own and is no consumer.
pub trait Arrives: fmt::Debug + Send + Sync {
    /// Waits until the loop has handled the log up to `position`.
    fn arrive(&self, position: Position, timeout: Duration)
    -> Answering<'_, Result<(), WaitError>>;
}

#[derive(Debug, Default)]
struct Running {
    handles: HashMap<ConsumerName, ConsumerHandle>,
    arriving: HashMap<ConsumerName, Arc<dyn Arrives>>,
    is_closed: bool,
}

impl Consumers {
    /// The consumers of a log. One value for each program and log is enough.
    pub fn new(kernel: Kernel) -> Self {
        let tail = Arc::new(Tail::new(kernel.clone()));
        let catching_up = Arc::new(Semaphore::new(CATCHING_UP_MAX));
        let is_shared = kernel.events().guarantees().writers == Writers::ManyProcesses;
        let membership = is_shared.then(|| Membership::new(kernel.clone(), CONSUMER_LEASE));
        let reading = Reading { kernel, tail, catching_up, shared: None };
        let outages = Outages::default();
        Self { reading, membership, outages, running: Arc::default() }
    }

    /// Sets the lease to use instead of [`CONSUMER_LEASE`]: the time without a heartbeat after
    /// which other processes take over. Consumers are then shared among processes whatever the
    /// store guarantees. A process sends five heartbeats within a lease.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        let membership = Some(Membership::new(self.reading.kernel.clone(), lease));
        Self { membership, ..self }
    }

    /// Adds a function that recognises outages in a handler's errors, such as the errors of a
    /// database driver or of another library. An attempt that fails because of an outage does not
    /// count against its event. Outages in Factum's own errors are always recognised.
    ///
    /// ```
    /// use std::{error::Error, io};
    /// use factum_consumer::Consumers;
    ///
    /// fn is_unreachable(link: &(dyn Error + 'static)) -> bool {
    ///     let error = link.downcast_ref::<io::Error>();
    ///     error.is_some_and(|error| error.kind() == io::ErrorKind::HostUnreachable)
    /// }
    ///
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// let consumers = Consumers::new(kernel).with_outages(is_unreachable);
    /// # let _ = consumers;
    /// ```
    #[must_use]
    pub fn with_outages(self, tells: TellsOutage) -> Self {
        let outages = self.outages.with(tells);
        Self { outages, ..self }
    }

    /// Starts a consumer. If it begins now, for the first time, the position at the time of this
    /// call is stored before the call returns: no later event is missed, even if the process ends
    /// at once.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start<E, H, F>(
        &self,
        consumer: Consumer<E, H>,
    ) -> Result<ConsumerHandle, StartError>
    where
        E: Event,
        H: Fn(E, RecordedEvent) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), HandleError>> + Send + 'static,
    {
        let name = ConsumerName::new(&consumer.name)?;
        let names = Names::new(consumer.options.unknown);
        let work = Handling { handler: consumer.handler, names };
        let target = Checkpoints::new(self.reading.kernel.documents().clone());
        self.launch(Launch {
            name,
            work: Arc::new(work),
            target: Arc::new(target),
            options: consumer.options,
            is_layout_kept: true,
            handover: None,
        })
        .await
    }

    /// The events of an enum from now on, without a checkpoint.
    pub fn events<E: Event>(&self) -> EventBus<E> {
        EventBus::new(self.reading.clone())
    }

    /// The consumers that were started, by name.
    pub fn list(&self) -> Vec<ConsumerHandle> {
        let mut handles: Vec<_> = self.running().handles.values().cloned().collect();
        handles.sort_by(|left, right| left.name.cmp(&right.name));
        handles
    }

    /// Stops all consumers after their current events, and lets no more start. A target that does
    /// not answer is given ten seconds.
    pub async fn close(&self) {
        self.running().is_closed = true;
        let handles = self.list();
        // Ask all before waiting for one, so that a slow one delays no other.
        handles.iter().for_each(ConsumerHandle::tell_to_stop);
        for handle in handles {
            handle.stop().await;
        }
        // Drop these now: a loop may own the application that owns these consumers.
        let arriving = std::mem::take(&mut self.running().arriving);
        drop(arriving);
        if let Some(membership) = &self.membership {
            // If the store can't be reached, the other processes wait until the lease is over.
            tokio::select! {
                () = membership.ended() => {}
                () = self.reading.kernel.clock().sleep(CONSUMER_LEASE) => {}
            }
        }
    }

    /// True if a consumer of this name runs in this program.
    pub(crate) fn is_running(&self, name: &ConsumerName) -> bool {
        self.running().handles.get(name).is_some_and(is_running)
    }

    /// Calls `start` and adds the consumer, unless a consumer of this name runs.
    pub(crate) fn enter_started(
        &self,
        name: &ConsumerName,
        start: impl FnOnce() -> ConsumerHandle,
    ) -> Result<ConsumerHandle, StartError> {
        let mut running = self.running();
        running.can_start(name)?;
        let handle = start();
        running.handles.insert(name.clone(), handle.clone());
        Ok(handle)
    }

    /// Checks that no consumer of this name runs, and that the consumers are not closed.
    pub(crate) fn can_start(&self, name: &ConsumerName) -> Result<(), StartError> {
        self.running().can_start(name)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the crates above: see `part.rs`.
#[doc(hidden)]
impl Consumers {
    /// The readers that all consumers share.
    pub fn reading(&self) -> Reading {
        self.reading.clone()
    }

    /// Registers a loop under this name.
    pub fn enter(&self, name: ConsumerName, arrives: Arc<dyn Arrives>) {
        let mut running = self.running();
        if !running.is_closed {
            running.arriving.insert(name, arrives);
        }
    }

    /// The loop that was registered under this name.
    pub fn entered(&self, name: &ConsumerName) -> Option<Arc<dyn Arrives>> {
        self.running().arriving.get(name).cloned()
    }

    /// The store, clock and ids that the consumers use.
    pub fn kernel(&self) -> &Kernel {
        &self.reading.kernel
    }

    /// The bell of the store, which rings when another process has left something to look for. It
    /// is heard while a consumer of this process shares its partitions.
    pub fn bell(&self) -> Option<Bell> {
        self.membership.as_ref().map(Membership::bell)
    }

    /// True after [`close`](Self::close): nothing is started any more.
    pub fn is_closed(&self) -> bool {
        self.running().is_closed
    }

    /// Removes a stopped consumer from the list, because another one has taken its place.
    pub fn forget(&self, name: &ConsumerName) {
        let mut running = self.running();
        if running.handles.get(name).is_some_and(|handle| !is_running(handle)) {
            running.handles.remove(name);
        }
    }
}

impl Running {
    fn can_start(&self, name: &ConsumerName) -> Result<(), StartError> {
        if self.is_closed {
            return Err(StartError::Closed(name.clone()));
        }
        if self.handles.get(name).is_some_and(is_running) {
            return Err(StartError::Running(name.clone()));
        }
        Ok(())
    }
}

fn is_running(handle: &ConsumerHandle) -> bool {
    !handle.has_ended()
}
