//! The builds of a projection that this process runs, and those that it knows of.

use std::sync::{Arc, OnceLock};

use factum_consumer::{ConsumerHandle, ConsumerName, StopCause, StopReason, Target, WaitError};
use factum_kernel::{Monotonic, Position};
use tokio::sync::watch;

use super::{BuildError, Targets, handover::stored_position};

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
        let here = async {
            match running {
                Some(running) => running.consumer.comes_to(position).await.err(),
                None => Some(StopReason::Fenced),
            }
        };
        let stopped = tokio::select! {
            biased;
            stopped = here => stopped,
            changed = local.changed() => match changed {
                Ok(()) => continue,
                Err(_) => {
                    let reason = local.borrow().end();
                    return Err(WaitError::Stopped { consumer, reason });
                }
            },
        };
        let look = match stopped {
            None => return Ok(()),
            // Another process maintains it.
            Some(StopReason::Fenced) => true,
            // Another build takes its place, or it is paused when it ends. The caller's timeout
            // limits the wait.
            Some(StopReason::Asked) => false,
            Some(reason) => return Err(WaitError::Stopped { consumer, reason }),
        };
        let kernel = stored.kernel();
        if look
            && stored_position(kernel, targets, &consumer, partitions)
                .await
                .is_ok_and(|it| it >= position)
        {
            return Ok(());
        }
        tokio::select! {
            biased;
            changed = local.changed() => if changed.is_err() {
                let reason = local.borrow().end();
                return Err(WaitError::Stopped { consumer, reason });
            },
            () = stored.kernel().clock().sleep(REFRESH / LOOKS) => {}
        }
    }
}
