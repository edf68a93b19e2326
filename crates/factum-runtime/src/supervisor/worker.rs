//! What is supervised: a worker, the rules for it, and what it is given.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use factum_kernel::{Clock, Timestamp};
use tokio::sync::watch;

use crate::cell::Restart;

/// How long a worker may take to stop, unless it says otherwise.
pub const WORKER_GRACE: Duration = Duration::from_secs(10);

/// Why a run of a worker went wrong. Any error will do, by `?`.
pub type WorkerError = Box<dyn std::error::Error + Send + Sync>;

type Work = Pin<Box<dyn Future<Output = Result<(), WorkerError>> + Send>>;
pub(super) type Factory = dyn Fn(WorkerContext) -> Work + Send + Sync;

/// When a worker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// However it ended: it should always run. An end without an error counts as a failure.
    #[default]
    Permanent,
    /// After an error or a panic. `Ok(())` says that the work is done.
    Transient,
    /// Never.
    Never,
}

/// What the failure of a worker means for others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RestartStrategy {
    /// Nothing: it alone is started again.
    #[default]
    OneForOne,
    /// Those of the named group that were added after it need it: they are stopped, the last
    /// first, and started again behind it, the first first. While it is given up, they wait.
    RestForOne(Arc<str>),
}

/// Something that runs for long, under a name, and is started again when it fails.
///
/// It is made by a function, once for each run, so that nothing of a failed run is left in the
/// next. It ends when [`WorkerContext::stopping`] says so.
///
/// ```
/// use factum_runtime::{RestartPolicy, Worker};
///
/// let heartbeat = Worker::new("heartbeat", |cx| async move {
///     let second = std::time::Duration::from_secs(1);
///     while cx.until_stopping(cx.clock().sleep(second)).await.is_some() {
///         // beat
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
    pub(super) grace: Duration,
    pub(super) factory: Arc<Factory>,
}

impl Worker {
    /// A worker of this name, which is unique in its supervisor: permanent, alone, with pauses
    /// from 100 ms to 30 s, given up at the tenth failure within five minutes, and with
    /// [`WORKER_GRACE`] to stop.
    ///
    /// A panic of `work` or of its future is a failure; it needs `panic = "unwind"`.
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
            restart: Restart::new()
                .with_pauses(Duration::from_millis(100), Duration::from_secs(30))
                .with_deaths_max(10, Duration::from_secs(300)),
            grace: WORKER_GRACE,
            factory: Arc::new(move |cx| Box::pin(work(cx))),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets when it is started again.
    pub fn with_policy(mut self, policy: RestartPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets what its failure means for others.
    pub fn with_strategy(mut self, strategy: RestartStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets how long it pauses before it is started again, and when it is given up.
    pub fn with_restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets how long it may take to stop before its future is dropped.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
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

/// What one run of a worker is given. Cheap to clone.
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

    /// The only way to the time.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The moment it is.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether it is time to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Completes when it is time to stop; at once if it was before.
    pub async fn stopping(&self) {
        // An error says that the supervisor is gone, which means the same.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Waits for a future, unless it is time to stop: then it is dropped, and there is `None`.
    pub async fn until_stopping<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopping() => None,
            done = future => Some(done),
        }
    }
}
