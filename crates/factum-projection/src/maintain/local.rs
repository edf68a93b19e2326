//! What one process does for a projection: the builds that it runs, and those it knows of.

use std::sync::{Arc, OnceLock};

use factum_consumer::{ConsumerHandle, ConsumerName, StopReason, Target, WaitError};
use factum_kernel::{Monotonic, Position};
use tokio::sync::watch;

use super::{BuildError, Targets, handover::stored_position};

use crate::model_build::{Build, Builds, REFRESH, StoredBuilds};

/// A stored position is looked at so many times in [`REFRESH`] by those who wait for it.
const LOOKS: u32 = 20;

/// What this process knows and runs of a projection.
pub(crate) struct Local<T> {
    pub(crate) builds: Arc<Builds>,
    /// What readers of this process see, if it runs it.
    pub(crate) serving: Option<Running<T>>,
    pub(crate) building: Option<Running<T>>,
    /// The runtime of its keeper has ended: nothing of this changes any more.
    pub(crate) is_left: bool,
}

impl<T> Local<T> {
    /// Why nothing of it changes any more, where that is so.
    pub(super) fn end(&self) -> StopReason {
        let left = "the runtime that maintained it has ended, maintain it again";
        if self.is_left { StopReason::Broken(left.into()) } else { StopReason::Asked }
    }

    /// Lets health say what keeps a build from being dropped.
    pub(super) fn note_undropped(&self, undropped: Option<String>) {
        if let Some(serving) = &self.serving {
            serving.consumer.note_undropped(undropped);
        }
    }

    pub(super) fn error(&self, projection: &ConsumerName) -> BuildError {
        let end = if self.is_left { BuildError::RuntimeEnded } else { BuildError::Closed };
        end(projection.clone())
    }
}

/// A build that this process works on.
pub(crate) struct Running<T> {
    pub(crate) build: Build,
    pub(crate) target: Arc<T>,
    pub(crate) consumer: ConsumerHandle,
    /// When and where it set out.
    pub(crate) since: Arc<OnceLock<(Monotonic, Position)>>,
}

impl<T> Clone for Local<T> {
    fn clone(&self) -> Self {
        let serving = self.serving.clone();
        let building = self.building.clone();
        Self { builds: self.builds.clone(), serving, building, is_left: self.is_left }
    }
}

impl<T> Clone for Running<T> {
    fn clone(&self) -> Self {
        Self {
            build: self.build,
            target: self.target.clone(),
            consumer: self.consumer.clone(),
            since: self.since.clone(),
        }
    }
}

/// Waits until what readers see has come to a position, whoever maintains it.
pub(crate) async fn come_to<T: Target>(
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
            // Another build takes its place, or it is paused by its end: who waits has a limit.
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
