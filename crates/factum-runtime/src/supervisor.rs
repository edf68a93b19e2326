//! The supervisor of long-running work: consumers, queues, timers, and the application's own
//! workers.
//!
//! `machine.rs` decides what happens to a worker. This file has the tasks and the lock around it.

mod machine;
mod state;
mod task;
mod worker;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_kernel::{Clock, IdSource};
use tokio::{runtime::Handle, sync::watch, task::AbortHandle};

use machine::{Effect, Input, Machine, Moment, Rules, Ticket, WorkerId};
use task::{Run, Timer};
use worker::{Factory, Report};

pub use state::{SupervisorError, WorkerHealth, WorkerState, WorkersStopped};
pub use worker::{
    RestartPolicy, RestartStrategy, WORKER_GRACE, WORKER_RESTART, Worker, WorkerContext,
    WorkerError,
};

/// The most workers of one supervisor.
pub const WORKERS_MAX: usize = 4_096;

/// Keeps workers running: starts them, restarts those that fail, and stops them in order. Cheap to
/// clone.
///
/// A worker that fails is restarted after a pause that doubles with each failure. A worker that
/// fails too often within a time window is given up, which [`health`](Self::health) reports. A
/// worker is not affected by failures of others, unless they are in one
/// [`RestartStrategy::RestForOne`] group.
///
/// When the last handle is dropped, all workers are asked to stop at the same time, and nothing
/// waits for them. [`shutdown`](Self::shutdown) stops them in order.
///
/// # Guarantees
/// - There is at most one run of a worker at a time.
/// - A worker that fails or panics never ends another worker or the supervisor.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
/// use factum_kernel::{SystemClock, SystemIds};
/// use factum_runtime::{RestartPolicy, Supervisor, Worker, WorkerState};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let supervisor = Supervisor::new(Arc::new(SystemClock), Arc::new(SystemIds));
/// let runs = Arc::new(AtomicU32::new(0));
/// let worker = Worker::new("statements", move |_| {
///     let run = runs.fetch_add(1, Ordering::Relaxed);
///     async move { if run == 0 { Err("the printer jams".into()) } else { Ok(()) } }
/// });
/// supervisor.add(worker.with_policy(RestartPolicy::Transient))?;
/// supervisor.until(|workers| workers[0].state == WorkerState::Stopped).await;
/// let statements = &supervisor.health()[0];
/// assert_eq!(statements.restarts, 1);
/// assert_eq!(statements.cause.as_deref(), Some("the printer jams"));
/// assert!(supervisor.shutdown().await.dropped.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

/// The state that all handles and tasks share. Tasks hold only weak references, so that it is
/// dropped with the last handle.
struct Shared {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    inner: Mutex<Inner>,
    /// The number of changes so far. A change wakes the callers that wait for one.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    machine: Machine,
    staff: HashMap<WorkerId, Staff>,
    /// The effects to perform: by one thread at a time, in order, without the lock.
    effects: VecDeque<Effect>,
    is_performing: bool,
    added: u64,
}

/// The parts that a worker runs with.
struct Staff {
    name: Arc<str>,
    factory: Arc<Factory>,
    report: Option<Arc<Report>>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    run: Option<AbortHandle>,
    timer: Option<AbortHandle>,
}

impl Supervisor {
    /// Makes a supervisor without workers.
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        let inner = Mutex::default();
        let changes = watch::Sender::new(0);
        Self { shared: Arc::new(Shared { clock, ids, inner, changes }) }
    }

    /// Starts a worker, also while others are running.
    ///
    /// # Errors
    /// `NameTaken`, `TooMany`, `Closed`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn add(&self, worker: Worker) -> Result<(), SupervisorError> {
        let runtime = Handle::current();
        let Worker { name, policy, strategy, restart, grace, report, factory } = worker;
        let mut inner = self.shared.lock();
        if inner.machine.is_closing() {
            return Err(SupervisorError::Closed);
        }
        if inner.machine.id(&name).is_some() {
            return Err(SupervisorError::NameTaken(name));
        }
        if inner.machine.len() >= WORKERS_MAX {
            return Err(SupervisorError::TooMany(WORKERS_MAX));
        }
        let id = WorkerId(inner.added);
        inner.added += 1;
        let stop = watch::Sender::new(false);
        let run = None;
        let timer = None;
        let staff = Staff { name: name.clone(), factory, report, runtime, stop, run, timer };
        inner.staff.insert(id, staff);
        let rules = Rules { name, policy, strategy, restart, grace };
        self.shared.take(inner, Input::Add(id, rules));
        Ok(())
    }

    /// Stops a worker within its grace, and removes it. Returns true if the worker stopped by
    /// itself. If it did not, its future is dropped at its current await point, and its name stays
    /// taken until the future is gone.
    ///
    /// # Errors
    /// `Unknown`.
    ///
    /// # Cancel safety
    /// If this future is dropped, the worker stops nevertheless.
    pub async fn remove(&self, name: &str) -> Result<bool, SupervisorError> {
        let mut changes = self.shared.changes.subscribe();
        let id = self.shared.lock().machine.id(name);
        let id = id.ok_or_else(|| SupervisorError::Unknown(name.into()))?;
        self.shared.apply(Input::Remove(id));
        loop {
            let has_stopped = self.shared.lock().machine.has_stopped(id);
            match has_stopped {
                Some(false) => {}
                Some(true) => return Ok(false),
                None => return Ok(true),
            }
            // This can't fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Restarts a worker that was given up, has ended, or is backing off, and resets its failure
    /// count. A running worker is stopped first, together with the workers of its group that need
    /// it. From then on the worker runs on the caller's runtime, if there is one, because its
    /// former runtime may have ended.
    ///
    /// # Errors
    /// `Unknown`, `Closed`.
    pub fn restart(&self, name: &str) -> Result<(), SupervisorError> {
        let mut inner = self.shared.lock();
        if inner.machine.is_closing() {
            return Err(SupervisorError::Closed);
        }
        let id = inner.machine.id(name).ok_or_else(|| SupervisorError::Unknown(name.into()))?;
        if let (Some(staff), Ok(runtime)) = (inner.staff.get_mut(&id), Handle::try_current()) {
            staff.runtime = runtime;
        }
        self.shared.take(inner, Input::Restart(id));
        Ok(())
    }

    /// The health of each worker, in the order in which the workers were added.
    pub fn health(&self) -> Vec<WorkerHealth> {
        self.shared.lock().machine.health()
    }

    /// Waits until `condition` holds for the workers' health: for example, until one is given up.
    pub async fn until(&self, mut condition: impl FnMut(&[WorkerHealth]) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !condition(&self.health()) {
            // This can't fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Stops all workers for good, in the reverse of the order in which they were added. Each
    /// worker is asked to stop when the workers added after it have stopped. A worker that has not
    /// stopped at the end of its grace is dropped and reported. A second call waits for the same
    /// shutdown.
    ///
    /// # Cancel safety
    /// If this future is dropped, the workers stop nevertheless.
    pub async fn shutdown(&self) -> WorkersStopped {
        let mut changes = self.shared.changes.subscribe();
        self.shared.apply(Input::Close);
        loop {
            let stopped = self.shared.lock().machine.stopped();
            if let Some(dropped) = stopped {
                return WorkersStopped { dropped };
            }
            // This can't fail: `self` holds the sender.
            let _ = changes.changed().await;
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.shared.lock().machine.len();
        f.debug_struct("Supervisor").field("workers", &workers).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(self: &Arc<Self>, input: Input) {
        self.take(self.lock(), input);
    }

    fn take<'a>(self: &'a Arc<Self>, mut inner: MutexGuard<'a, Inner>, input: Input) {
        let effects = inner.machine.on(input, Moment::of(&*self.clock));
        inner.effects.extend(effects);
        // When a runtime that is shutting down refuses a task, the task reports its end during
        // `perform`.
        if inner.is_performing {
            return;
        }
        inner.is_performing = true;
        let mut gone = Vec::new();
        while let Some(effect) = inner.effects.pop_front() {
            drop(inner);
            gone.extend(self.perform(effect));
            inner = self.lock();
        }
        inner.is_performing = false;
        drop(inner);
        self.changes.send_modify(|count| *count += 1);
        // Last, because it drops values of the user, whose destructors may panic.
        drop(gone);
    }

    /// Performs an effect. Returns the staff of a worker that is removed.
    fn perform(self: &Arc<Self>, effect: Effect) -> Option<Staff> {
        match effect {
            Effect::Start(id, ticket) => self.start(id, ticket),
            Effect::AskToStop(id) => self.of(id, |staff| staff.stop.send_replace(true)),
            Effect::Drop(id) => self.of(id, |staff| staff.run.take().map(|run| run.abort())),
            Effect::Pause(id, ticket, pause) => {
                let pause = pause / 2 + self.ids.jitter(pause / 2);
                self.ring(id, ticket, pause);
            }
            Effect::Grace(id, ticket, grace) => self.ring(id, ticket, grace),
            Effect::Silence(id) => self.of(id, |staff| staff.set_timer(None)),
            Effect::Tell(id, health) => self.tell(id, &health),
            Effect::Forget(id) => {
                let mut staff = self.lock().staff.remove(&id)?;
                staff.set_timer(None);
                return Some(staff);
            }
        }
        None
    }

    fn start(self: &Arc<Self>, id: WorkerId, ticket: Ticket) {
        let mut inner = self.lock();
        let Some(staff) = inner.staff.get_mut(&id) else { return };
        staff.set_timer(None);
        staff.stop = watch::Sender::new(false);
        let name = staff.name.clone();
        let factory = staff.factory.clone();
        let runtime = staff.runtime.clone();
        let cx = WorkerContext { name, clock: self.clock.clone(), stop: staff.stop.subscribe() };
        drop(inner);
        let run = runtime.spawn(Run::new(Arc::downgrade(self), id, ticket).run(factory, cx));
        self.of(id, |staff| staff.run = Some(run.abort_handle()));
    }

    /// Calls the worker's report, which is the user's code and may panic.
    fn tell(&self, id: WorkerId, health: &WorkerHealth) {
        let report = self.lock().staff.get(&id).and_then(|staff| staff.report.clone());
        let Some(report) = report else { return };
        if catch_unwind(AssertUnwindSafe(|| report(health))).is_err() {
            tracing::error!(worker = %health.name, "the report of a worker's state has panicked");
        }
    }

    /// Sets the worker's timer, and ends an older one.
    fn ring(self: &Arc<Self>, id: WorkerId, ticket: Ticket, after: Duration) {
        let Some(runtime) = self.lock().staff.get(&id).map(|staff| staff.runtime.clone()) else {
            return;
        };
        let timer = Timer::new(Arc::downgrade(self), id, ticket);
        let timer = runtime.spawn(timer.run(self.clock.clone(), after));
        self.of(id, |staff| staff.set_timer(Some(timer.abort_handle())));
    }

    fn of<T>(&self, id: WorkerId, act: impl FnOnce(&mut Staff) -> T) {
        if let Some(staff) = self.lock().staff.get_mut(&id) {
            act(staff);
        }
    }
}

impl Staff {
    fn set_timer(&mut self, timer: Option<AbortHandle>) {
        if let Some(old) = std::mem::replace(&mut self.timer, timer) {
            old.abort();
        }
    }
}
