//! How workers fare, and what a shutdown left.

use std::{sync::Arc, time::Duration};

use factum_kernel::{ErrorKind, Timestamp};

/// How a worker fares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerHealth {
    /// Its name.
    pub name: Arc<str>,
    /// What it is doing.
    pub state: WorkerState,
    /// Since when.
    pub since: Timestamp,
    /// How often it was started again since it was added.
    pub restarts: u64,
    /// What its last failure was, also if it runs again.
    pub cause: Option<Arc<str>>,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// It runs.
    Running,
    /// It failed, and is started again about so long after that; half of it is random.
    BackingOff(Duration),
    /// It starts when those of its group that it needs run again.
    Waiting,
    /// It was asked to stop, or its future was dropped and is not gone yet.
    Stopping,
    /// It ended, and is not to be started again.
    Stopped,
    /// It failed too often, and is not started again until it is asked to by
    /// [`Supervisor::restart`](crate::Supervisor::restart).
    GivenUp,
}

/// What the shutdown of a supervisor left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WorkersStopped {
    /// Those that did not stop in time: their futures were dropped where they waited.
    pub dropped: Vec<Arc<str>>,
}

/// Why a supervisor does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Names are unique: remove the other first, or choose another name.
    #[error("another worker has this name, choose another: name={0}")]
    NameTaken(Arc<str>),
    /// There are [`WORKERS_MAX`](crate::WORKERS_MAX) workers: let one do the work of several.
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
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NameTaken(_) | Self::TooMany(_) | Self::Unknown(_) => ErrorKind::Invalid,
            Self::Closed => ErrorKind::Closed,
        }
    }
}
