//! The health of workers, and the result of a shutdown.

use std::{sync::Arc, time::Duration};

use factum_kernel::{ErrorKind, Timestamp};

/// The health of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerHealth {
    /// The worker's name.
    pub name: Arc<str>,
    /// The present state of the worker.
    pub state: WorkerState,
    /// The time at which the worker entered this state.
    pub since: Timestamp,
    /// The number of restarts since the worker was added.
    pub restarts: u64,
    /// The number of failures in a row. A run that lasts for the window of the restart policy ends
    /// the row.
    pub failures: u32,
    /// The last failure. It stays when the worker runs again.
    pub cause: Option<Arc<str>>,
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// The worker runs.
    Running,
    /// The worker failed, and is restarted after about this long. Half of the pause is random.
    BackingOff(Duration),
    /// The worker starts when the workers of its group that it needs are running.
    Waiting,
    /// The worker was asked to stop, or its future was dropped and is not gone yet.
    Stopping,
    /// The worker ended, and will not be restarted.
    Stopped,
    /// The worker failed too often. Only [`Supervisor::restart`](crate::Supervisor::restart) starts
    /// it again.
    GivenUp,
}

/// The result of a supervisor's shutdown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkersStopped {
    /// The workers that did not stop in time. Their futures were dropped at their current await
    /// point.
    pub dropped: Vec<Arc<str>>,
}

/// The reason why a supervisor refused a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Another worker has this name. Remove that worker first, or choose another name.
    #[error("another worker has this name, choose another: name={0}")]
    NameTaken(Arc<str>),
    /// There are already [`WORKERS_MAX`](crate::WORKERS_MAX) workers. Let one worker do the work of
    /// several.
    #[error("there are too many workers, let one do the work of several: max={0}")]
    TooMany(usize),
    /// No worker has this name.
    #[error("no worker has this name: name={0}")]
    Unknown(Arc<str>),
    /// The supervisor was shut down.
    #[error("the supervisor is shut down")]
    Closed,
}

impl SupervisorError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NameTaken(_) | Self::TooMany(_) | Self::Unknown(_) => ErrorKind::Invalid,
            Self::Closed => ErrorKind::Closed,
        }
    }
}
