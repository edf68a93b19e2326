//! The builds of a projection that this process runs, and those that it knows of.

use std::sync::{Arc, OnceLock};

use factum_consumer::{ConsumerHandle, ConsumerName, StopCause, StopReason, Target, WaitError};
use factum_kernel::{Monotonic, Position};
use tokio::sync::watch;

use super::{BuildError, Targets, handover::stored_reach};

use crate::model_build::{Build, Builds, REFRESH, StoredBuilds};

/// The number of reads of a stored position in each [`REFRESH`] while a caller waits.
const LOOKS: u32 = 20;

/// The builds of a projection that this process knows and runs.
pub(crate) struct Local<T> {
    pub(crate) builds: Arc<Builds>,
    /// The serving build, if this process runs it.
    pub(crate) serving: Option<RunningBuild<T>>,
    /// The build under way, if this process works on it.
    pub(crate) building: Option<RunningBuild<T>>,
    /// True if the runtime of the keeper has ended, so nothing here changes any more.
    pub(crate) has_runtime_ended: bool,
}

impl<T> Local<T> {
    /// The reason why the keeper has ended.
    pub(super) fn end(&self) -> StopReason {
        let left = "the runtime that maintained it has ended, maintain it again";
        match self.has_runtime_ended {
            true => StopReason::Broken(StopCause::new(left)),
            false => StopReason::Asked,
        }
    }

    /// Sets the health's reason why a build can't be dropped.
    pub(super) fn note_undropped(&self, undropped: Option<String>) {
        if let Some(serving) = &self.serving {
            serving.consumer.note_undropped(undropped);
        }
    }

    pub(super) fn error(&self, projection: &ConsumerName) -> BuildError {
        let end =
            if self.has_runtime_ended { BuildError::RuntimeEnded } else { BuildError::Closed };
        end(projection.clone())
    }
}

/// A build that this process works on.
pub(crate) struct RunningBuild<T> {
    pub(crate) build: Build,
    pub(crate) target: Arc<T>,
    pub(crate) consumer: ConsumerHandle,
    /// The time and position at which this process began to work on the build.
    pub(crate) since: Arc<OnceLock<(Monotonic, Position)>>,
}

impl<T> Clone for Local<T> {
    fn clone(&self) -> Self {
        let serving = self.serving.clone();
        let building = self.building.clone();
        Self {
            builds: self.builds.clone(),
            serving,
            building,
            has_runtime_ended: self.has_runtime_ended,
        }
    }
}

impl<T> Clone for RunningBuild<T> {
    fn clone(&self) -> Self {
        Self {
            build: self.build,
            target: self.target.clone(),
            consumer: self.consumer.clone(),
            since: self.since.clone(),
        }
    }
}

/// Waits until the serving build has reached a position, in any process that maintains it.
pub(crate) async fn reach<T: Target>(
    mut local: watch::Receiver<Local<T>>,
    stored: &StoredBuilds,
    targets: &Targets<T>,
    position: Position,
) -> Result<(), WaitError> {
    loop {
        let (serving, partitions, running) = {
            let local = local.borrow_and_update();
            let serving = local.builds.serving;
            (serving, local.builds.partitions(serving), local.serving.clone())
        };
        let consumer = serving.consumer(stored.name());
        let ended = |reason| WaitError::Stopped { consumer: consumer.clone(), reason };
        let here = async {
            match running {
                Some(running) => running.consumer.comes_to(position).await.err(),
                None => Some(ended(StopReason::Fenced)),
            }
        };
        let unreached = tokio::select! {
            biased;
            unreached = here => unreached,
            changed = local.changed() => match changed {
                Ok(()) => continue,
                Err(_) => {
                    return Err(ended(local.borrow().end()));
                }
            },
        };
        let look = match unreached {
            None => return Ok(()),
            // Another process maintains it.
            Some(WaitError::Stopped { reason: StopReason::Fenced, .. }) => true,
            // Another build takes its place, or it is paused when it ends. The caller's timeout
            // limits the wait.
            Some(WaitError::Stopped { reason: StopReason::Asked, .. }) => false,
            Some(error) => return Err(error),
        };
        let kernel = stored.kernel();
        if look
            && let Ok(reach) = stored_reach(kernel, targets, &consumer, partitions).await
            && reach.reaches(position, &consumer)?
        {
            return Ok(());
        }
        tokio::select! {
            biased;
            changed = local.changed() => if changed.is_err() {
                return Err(ended(local.borrow().end()));
            },
            () = stored.kernel().clock().sleep(REFRESH / LOOKS) => {}
        }
    }
}
