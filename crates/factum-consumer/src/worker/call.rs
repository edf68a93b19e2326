//! A worker's calls of its target, which may never answer. The health shows since when a batch
//! waits for the target, and a consumer that must stop does not wait forever.

use std::{
    future::Future,
    ops::Deref,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_kernel::Clock;

use crate::{
    error::HandleError,
    health::Place,
    name::ConsumerName,
    target::{Fence, Opened, Save, Target, TargetError},
};

/// The longest wait for a target's answer when the consumer must stop.
const STOP_MAX: Duration = Duration::from_secs(10);
/// The duration of a commit after which the health's watchers are notified.
const SLOW: Duration = Duration::from_secs(1);

const SILENT: &str = "the target has not answered, and the consumer must stop";

/// The limit on the wait for a target's answers, which applies once the consumer must stop.
#[derive(Debug)]
pub struct Patience {
    health: Place,
    clock: Arc<dyn Clock>,
    /// True if a call was given up because the consumer must stop.
    is_silent: AtomicBool,
}

impl Patience {
    /// The limit for a consumer that reports its health here.
    pub fn new(health: Place, clock: Arc<dyn Clock>) -> Self {
        Self { health, clock, is_silent: AtomicBool::new(false) }
    }

    /// Waits for the answer to a call. Gives the call up some time after the consumer must stop.
    pub async fn answered<R>(
        &self,
        call: impl Future<Output = Result<R, TargetError>>,
    ) -> Result<R, TargetError> {
        let silent = async {
            self.health.halted().await;
            if !self.is_silent.load(Ordering::Relaxed) {
                self.clock.sleep(STOP_MAX).await;
                self.is_silent.store(true, Ordering::Relaxed);
            }
        };
        tokio::select! {
            biased;
            answer = call => answer,
            () = silent => Err(TargetError::Unknown(Arc::from(HandleError::from(SILENT)))),
        }
    }
}

/// The target of a worker, with a limit on the wait for its answers.
pub(crate) struct Calls<T> {
    target: Arc<T>,
    patience: Patience,
}

impl<T: Target> Calls<T> {
    pub(crate) fn new(target: Arc<T>, health: Place, clock: Arc<dyn Clock>) -> Self {
        Self { target, patience: Patience::new(health, clock) }
    }

    /// The target, for calls that no worker waits for.
    pub(crate) fn target(&self) -> &Arc<T> {
        &self.target
    }

    pub(crate) async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.patience.answered(self.target.open(consumer)).await
    }

    pub(crate) async fn look(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.patience.answered(self.target.look(consumer)).await
    }

    pub(crate) async fn begin(
        &self,
        consumer: &ConsumerName,
        event_max: Duration,
    ) -> Result<T::Tx, TargetError> {
        self.storing(self.target.begin_within(consumer, event_max)).await
    }

    pub(crate) async fn commit(
        &self,
        consumer: &ConsumerName,
        tx: T::Tx,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let expected = save.expected;
        let fence = self.storing(self.target.commit(consumer, tx, save)).await?;
        Ok(expected.moved_to(fence))
    }

    pub(crate) async fn save(
        &self,
        consumer: &ConsumerName,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let expected = save.expected;
        let fence = self.storing(self.target.save(consumer, save)).await?;
        Ok(expected.moved_to(fence))
    }

    /// Waits for a call that delays a batch, and reports in the health since when.
    async fn storing<R>(
        &self,
        call: impl Future<Output = Result<R, TargetError>>,
    ) -> Result<R, TargetError> {
        let Patience { health, clock, .. } = &self.patience;
        let since = clock.now();
        health.change_if(|health| {
            health.committing_since = Some(since);
            false
        });
        let mut call = pin!(self.patience.answered(call));
        let quick = tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            () = clock.sleep(SLOW) => None,
        };
        let is_slow = quick.is_none();
        let answer = match quick {
            Some(answer) => answer,
            None => {
                health.change(|_| {});
                call.await
            }
        };
        health.change_if(|health| {
            health.committing_since = None;
            is_slow
        });
        answer
    }
}

/// For the target's functions that need no wait.
impl<T> Deref for Calls<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.target
    }
}
