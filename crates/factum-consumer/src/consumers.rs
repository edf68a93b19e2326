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
    consumer::{Consumer, Handling},
    error::{HandleError, StartError, WaitError},
    handle::ConsumerHandle,
    hold::Answering,
    lease::{Bell, Membership},
    name::ConsumerName,
    outage::{Outages, TellsOutage},
    source::Reading,
    tail::Tail,
    target::Checkpoints,
    work::Names,
};

pub use launch::Launch;

/// So many consumers read pages of their own at a time; the others wait for their turn.
pub const CATCHING_UP_MAX: usize = 4;

/// How long a process may be silent before others take over what it works on.
pub const CONSUMER_LEASE: Duration = Duration::from_secs(5);

/// The consumers of a program: they share one reader of the log's end. Cheap to clone.
///
/// On a store that several processes may write, those that run the same consumer share it: each
/// partition is worked on by one of them, and the others stand by. Who comes gets a share after a
/// moment, what a process that stops worked on goes on elsewhere at once, and what one that died
/// did after [`CONSUMER_LEASE`] at most. Nothing depends on clocks, and whoever is taken for dead
/// by mistake stores nothing any more. Models in memory are each process's own.
#[derive(Debug, Clone)]
pub struct Consumers {
    pub(crate) reading: Reading,
    /// Where several processes run them.
    pub(crate) membership: Option<Membership>,
    pub(crate) outages: Outages,
    running: Arc<Mutex<Running>>,
}

/// What comes to positions of the log under a name, and is no consumer of its own.
pub trait Arrives: fmt::Debug + Send + Sync {
    /// Waits until it has come to a position.
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
    /// The consumers of a log. One for each program and log is enough.
    pub fn new(kernel: Kernel) -> Self {
        let tail = Arc::new(Tail::new(kernel.clone()));
        let catching_up = Arc::new(Semaphore::new(CATCHING_UP_MAX));
        let is_shared = kernel.events().guarantees().writers == Writers::ManyProcesses;
        let membership = is_shared.then(|| Membership::new(kernel.clone(), CONSUMER_LEASE));
        let reading = Reading { kernel, tail, catching_up, shared: None };
        let outages = Outages::default();
        Self { reading, membership, outages, running: Arc::default() }
    }

    /// Sets how long a process may be silent before others take over what it works on, instead of
    /// [`CONSUMER_LEASE`], and that it shares consumers whatever the store says. It says that it
    /// lives five times as often.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        let membership = Some(Membership::new(self.reading.kernel.clone(), lease));
        Self { membership, ..self }
    }

    /// Also takes for an outage what this says of a handler's error: for the errors of a database
    /// driver or of another library. An attempt that fails because of an outage does not count
    /// against its event. Those of Factum's own errors are known.
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

    /// Starts a consumer.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<E, H, F>(&self, consumer: Consumer<E, H>) -> Result<ConsumerHandle, StartError>
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
    }

    /// Events of an enum from now on, without a checkpoint.
    pub fn events<E: Event>(&self) -> EventBus<E> {
        EventBus::new(self.reading.clone())
    }

    /// Those that were started, by name.
    pub fn list(&self) -> Vec<ConsumerHandle> {
        let mut handles: Vec<_> = self.running().handles.values().cloned().collect();
        handles.sort_by(|left, right| left.name.cmp(&right.name));
        handles
    }

    /// Lets all of them stop after the batches at hand, and starts no more. A target that does not
    /// answer is waited for ten seconds.
    pub async fn close(&self) {
        self.running().is_closed = true;
        let handles = self.list();
        // All are told first: one that takes long holds up no other.
        handles.iter().for_each(ConsumerHandle::tell_to_stop);
        for handle in handles {
            handle.stop().await;
        }
        // What makes targets may hold the application that holds these consumers.
        let arriving = std::mem::take(&mut self.running().arriving);
        drop(arriving);
        if let Some(membership) = &self.membership {
            // Where the store can't be reached, others find out by themselves.
            tokio::select! {
                () = membership.ended() => {}
                () = self.reading.kernel.clock().sleep(CONSUMER_LEASE) => {}
            }
        }
    }

    /// Whether one of this name runs in this program.
    pub(crate) fn is_running(&self, name: &ConsumerName) -> bool {
        self.running().handles.get(name).is_some_and(is_running)
    }

    /// Starts a consumer, unless one of its name runs.
    pub(crate) fn enter_started(
        &self,
        name: &ConsumerName,
        start: impl FnOnce() -> ConsumerHandle,
    ) -> Result<ConsumerHandle, StartError> {
        let mut running = self.running();
        if running.is_closed {
            return Err(StartError::Closed(name.clone()));
        }
        if running.handles.get(name).is_some_and(is_running) {
            return Err(StartError::Running(name.clone()));
        }
        let handle = start();
        running.handles.insert(name.clone(), handle.clone());
        Ok(handle)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For what is run above consumers: see `part.rs`.
#[doc(hidden)]
impl Consumers {
    /// What they read through.
    pub fn reading(&self) -> Reading {
        self.reading.clone()
    }

    /// Takes note of what has this name from now on.
    pub fn enter(&self, name: ConsumerName, arrives: Arc<dyn Arrives>) {
        let mut running = self.running();
        if !running.is_closed {
            running.arriving.insert(name, arrives);
        }
    }

    /// What was entered under this name.
    pub fn entered(&self, name: &ConsumerName) -> Option<Arc<dyn Arrives>> {
        self.running().arriving.get(name).cloned()
    }

    /// What they run on.
    pub fn kernel(&self) -> &Kernel {
        &self.reading.kernel
    }

    /// What is heard of other processes while a consumer here shares its partitions with them.
    pub fn bell(&self) -> Option<Bell> {
        self.membership.as_ref().map(Membership::bell)
    }

    /// Whether nothing is started any more.
    pub fn is_closed(&self) -> bool {
        self.running().is_closed
    }

    /// Leaves a stopped one out of the list: what it did is over, and another does it now.
    pub fn forget(&self, name: &ConsumerName) {
        let mut running = self.running();
        if running.handles.get(name).is_some_and(|handle| !is_running(handle)) {
            running.handles.remove(name);
        }
    }
}

fn is_running(handle: &ConsumerHandle) -> bool {
    !handle.has_ended()
}
