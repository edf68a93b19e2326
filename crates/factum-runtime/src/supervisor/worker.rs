//! A worker, its settings, and the context of a run.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use factum_kernel::{Clock, Timestamp};
use tokio::sync::watch;

use super::state::WorkerHealth;
use crate::cell::Restart;

/// The default grace: the longest time that a worker may take to stop.
pub const WORKER_GRACE: Duration = Duration::from_secs(10);

/// The default restart policy of a worker: pauses from 100 ms to 30 s, and given up at the tenth
/// failure within five minutes.
pub const WORKER_RESTART: Restart = Restart::new()
    .with_pauses(Duration::from_millis(100), Duration::from_secs(30))
    .with_deaths_max(10, Duration::from_secs(300));

/// The error of a worker's run. The operator `?` converts any error to it.
pub type WorkerError = Box<dyn std::error::Error + Send + Sync>;

type Work = Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>;
pub(super) type Factory = dyn Fn(WorkerContext) -> Work + Send + Sync;
pub(super) type Report = dyn Fn(&WorkerHealth) + Send + Sync;

/// The ends of a run after which a worker is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// After every end, because the worker should always run. An end without an error counts as a
    /// failure.
    #[default]
    Permanent,
    /// After an error or a panic. `Ok(())` means that the work is done.
    Transient,
    /// Never.
    Never,
}

/// The effect of a worker's failure on other workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RestartStrategy {
    /// None: only the worker itself is restarted.
    #[default]
    OneForOne,
    /// The workers of the named group that were added after it depend on it. They are stopped, the
    /// last added first, and started again after it, the first added first. While it is given up,
    /// they wait.
    RestForOne(Arc<str>),
}

/// Long-running work with a name, which is restarted when it fails.
///
/// A function makes the work's future, once per run, so that a run begins without any state of a
/// failed one. The future should end when [`WorkerContext::stopping`] completes.
///
/// ```
/// use factum_runtime::{RestartPolicy, Worker};
///
/// let heartbeat = Worker::new("heartbeat", |cx| async move {
///     let second = std::time::Duration::from_secs(1);
///     while cx.until_stopping(cx.clock().sleep(second)).await.is_some() {
///         // send the heartbeat
///     }
///     Ok(())
/// });
/// assert_eq!(heartbeat.with_policy(RestartPolicy::Transient).name(), "heartbeat");
/// ```
#[must_use]
pub struct Worker {
    pub(super) name: Arc<str>,
    pub(super) policy: RestartPolicy,
    pub(super) strategy: RestartStrategy,
    pub(super) restart: Restart,
    pub(super) grace: Option<Duration>,
    pub(super) report: Option<Arc<Report>>,
    pub(super) factory: Arc<Factory>,
}

impl Worker {
    /// Makes a worker. Its name is unique in its supervisor. By default it is permanent and in no
    /// group, is restarted as [`WORKER_RESTART`] says, and has [`WORKER_GRACE`] to stop.
    ///
    /// A panic of `work` or of its future counts as a failure. Catching it needs `panic =
    /// "unwind"`.
    pub fn new<F>(
        name: impl Into<Arc<str>>,
        work: impl Fn(WorkerContext) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        Self {
            name: name.into(),
            policy: RestartPolicy::default(),
            strategy: RestartStrategy::default(),
            restart: WORKER_RESTART,
            grace: Some(WORKER_GRACE),
            report: None,
            factory: Arc::new(move |cx| Box::pin(work(cx))),
        }
    }

    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets the ends of a run after which the worker is restarted.
    pub fn with_policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the effect of the worker's failure on other workers.
    pub fn with_strategy(mut self, strategy: RestartStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the pauses before a restart, and the limit at which the worker is given up.
    pub fn with_restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets the longest time that the worker may take to stop before its future is dropped. `None`
    /// is for work that has its own limit: its future is never dropped.
    pub fn with_grace(mut self, grace: impl Into<Option<Duration>>) -> Self {
        self.grace = grace.into();
        self
    }

    /// Sets a function that gets the worker's health after each change of its state, in order. It
    /// must return quickly. A panic of it is logged and changes nothing else.
    ///
    /// ```
    /// use factum_runtime::{Worker, WorkerState};
    ///
    /// let worker = Worker::new("statements", |_| async { Ok(()) });
    /// let worker = worker.with_report(|health| {
    ///     if health.state == WorkerState::GivenUp {
    ///         eprintln!("{} needs a person: {:?}", health.name, health.cause);
    ///     }
    /// });
    /// # let _ = worker;
    /// ```
    pub fn with_report(mut self, report: impl Fn(&WorkerHealth) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Worker");
        debug.field("name", &self.name).field("policy", &self.policy);
        debug.field("strategy", &self.strategy).finish_non_exhaustive()
    }
}

/// The context of one run of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerContext {
    pub(super) name: Arc<str>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stop: watch::Receiver<bool>,
}

impl WorkerContext {
    /// The worker's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The supervisor's clock, the worker's only source of time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The present time of the clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// True if the worker should stop.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Completes when the worker should stop; immediately if it should stop already.
    pub async fn stopping(&self) {
        // An error means that the supervisor is gone, so the worker should stop too.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Waits for a future and returns its value. If the worker should stop first, drops the future
    /// and returns `None`.
    pub async fn until_stopping<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopping() => None,
            done = future => Some(done),
        }
    }
}
