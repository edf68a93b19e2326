//! The consumers of a program.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_core::{Event, Kernel, RecordedEvent};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::{
    arrival::Arrives,
    bus::EventBus,
    consumer::{Consumer, Handling},
    error::{HandleError, StartError},
    handle::{ConsumerHandle, Order, ProjectionHandle},
    health::{ConsumerHealth, ConsumerState},
    name::ConsumerName,
    option::ConsumerOptions,
    projection::Projection,
    source::Reading,
    tail::Tail,
    target::Checkpoints,
    work::{Names, Projecting, Work},
    worker::Worker,
};

/// So many consumers read pages of their own at a time; the others wait for their turn.
pub const CATCHING_UP_MAX: usize = 4;
/// So many orders wait for a consumer.
const ORDERS_MAX: usize = 16;

/// The consumers of a program: they share one reader of the log's end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Consumers {
    pub(crate) reading: Reading,
    running: Arc<Mutex<Running>>,
}

#[derive(Debug, Default)]
struct Running {
    handles: HashMap<ConsumerName, ConsumerHandle>,
    maintained: HashMap<ConsumerName, Arc<dyn Arrives>>,
    is_closed: bool,
}

impl Consumers {
    /// The consumers of a log. One for each program and log is enough.
    pub fn new(kernel: Kernel) -> Self {
        let tail = Arc::new(Tail::new(kernel.clone()));
        let catching_up = Arc::new(Semaphore::new(CATCHING_UP_MAX));
        Self { reading: Reading { kernel, tail, catching_up }, running: Arc::default() }
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
        self.begin(name, work, Arc::new(target), consumer.options)
    }

    /// Starts a projection into a target.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn project<P: Projection>(
        &self,
        projection: P,
        target: P::Target,
        options: ConsumerOptions,
    ) -> Result<ProjectionHandle<P>, StartError> {
        let name = ConsumerName::new(P::NAME)?.versioned(P::VERSION);
        let work = Projecting { projection, names: Names::new(options.unknown) };
        let target = Arc::new(work.projection.declare(target));
        let consumer = self.begin(name, work, target.clone(), options)?;
        Ok(ProjectionHandle { consumer, target })
    }

    pub(crate) fn begin<W: Work>(
        &self,
        name: ConsumerName,
        work: W,
        target: Arc<W::Target>,
        options: ConsumerOptions,
    ) -> Result<ConsumerHandle, StartError> {
        let mut running = self.running();
        if running.is_closed {
            return Err(StartError::Closed(name));
        }
        if running.handles.get(&name).is_some_and(is_running) {
            return Err(StartError::Running(name));
        }
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let (health, seen) = watch::channel(ConsumerHealth::new());
        let clock = self.reading.kernel.clock().clone();
        let handle = ConsumerHandle { name: name.clone(), orders, health: seen, clock };
        let kernel = &self.reading.kernel;
        let worker = Worker {
            id: Worker::<W>::new_id(kernel),
            name: name.clone(),
            work: Arc::new(work),
            target,
            options,
            reading: self.reading.clone(),
            orders: taken,
            health,
            is_paused: false,
            letters: BTreeMap::new(),
            pace: None,
            failing: None,
            unreached: 0,
            looked_at: None,
            is_owner: false,
            redo: None,
        };
        tokio::spawn(worker.run());
        running.handles.insert(name, handle.clone());
        Ok(handle)
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

    /// Lets all of them stop after the batches at hand, and starts no more.
    pub async fn close(&self) {
        self.running().is_closed = true;
        let handles = self.list();
        // All are told first: one that takes long holds up no other.
        for handle in &handles {
            let _ = handle.orders.try_send(Order::Stop);
        }
        for handle in handles {
            handle.stop().await;
        }
        // What makes their targets may hold the application that holds these consumers.
        self.running().maintained.clear();
    }

    /// Whether one of this name runs in this program.
    pub(crate) fn is_running(&self, name: &ConsumerName) -> bool {
        self.running().handles.get(name).is_some_and(is_running)
    }

    /// Takes note of a projection that is maintained here, the last of a name.
    pub(crate) fn enter(&self, name: ConsumerName, maintained: Arc<dyn Arrives>) {
        let mut running = self.running();
        if !running.is_closed {
            running.maintained.insert(name, maintained);
        }
    }

    /// The projection of this name that is maintained here.
    pub(crate) fn maintained(&self, name: &ConsumerName) -> Option<Arc<dyn Arrives>> {
        self.running().maintained.get(name).cloned()
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.reading.kernel
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.running().is_closed
    }

    /// Leaves a stopped one out of the list: what it did is over, and another does it now.
    pub(crate) fn forget(&self, name: &ConsumerName) {
        let mut running = self.running();
        if running.handles.get(name).is_some_and(|handle| !is_running(handle)) {
            running.handles.remove(name);
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_running(handle: &ConsumerHandle) -> bool {
    !matches!(handle.health.borrow().state, ConsumerState::Stopped(_))
        && handle.health.has_changed().is_ok()
}
