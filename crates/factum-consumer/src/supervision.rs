//! The loop of a consumer as a worker of a supervisor, which restarts it after a panic. The loop
//! pauses by itself after every other failure, because it takes orders meanwhile.

use std::{future::Future, sync::Arc};

use factum_runtime::{
    RestartPolicy, Supervisor, WORKER_RESTART, Worker, WorkerError, WorkerHealth, WorkerState,
};
use tokio::sync::Mutex;

use crate::{
    caught::caught,
    health::{ConsumerState, Place, StopCause, StopReason},
    option::FailurePolicy,
};

/// The loop of one partition, or of a model in memory. A panic ends a run, and the next run goes on
/// with the same value.
pub trait EventLoop: Send + 'static {
    /// Runs until the consumer stops, and returns the reason.
    fn run(&mut self) -> impl Future<Output = StopReason> + Send;

    /// Releases what others wait for: the partition, and the readers of a model. Called once, after
    /// the last run and before the health says `Stopped`.
    fn leave(&mut self);
}

/// A loop between its runs, and the place where it reports its health.
struct Kept<L> {
    /// Locked by the only run. `None` after the loop has ended.
    event_loop: Mutex<Option<L>>,
    health: Place,
}

/// Adds a loop to the supervisor of its consumer, which starts it.
pub(crate) fn supervise<L: EventLoop>(
    supervisor: &Supervisor,
    name: &str,
    health: Place,
    failure: &FailurePolicy,
    event_loop: L,
) {
    let kept = Arc::new(Kept { event_loop: Mutex::new(Some(event_loop)), health });
    let told = kept.clone();
    let work = move |_| {
        let kept = kept.clone();
        async move { kept.run().await }
    };
    let worker = Worker::new(name, work)
        .with_policy(RestartPolicy::Transient)
        .with_restart(WORKER_RESTART.with_pauses(failure.pause, failure.pause_max))
        // The loop stops after its current batch, and limits its wait for a silent target.
        .with_grace(None)
        .with_report(move |health| told.follow(health));
    supervisor.add(worker).expect("the supervisor is this consumer's, and its partitions are few");
}

impl<L: EventLoop> Kept<L> {
    async fn run(&self) -> Result<(), WorkerError> {
        let mut kept = self.event_loop.lock().await;
        let Some(event_loop) = kept.as_mut() else { return Ok(()) };
        match caught(event_loop.run()).await {
            Ok(reason) => {
                self.end(kept.take().expect("it has run"), reason);
                Ok(())
            }
            Err(panic) => Err(format!("the target or the store panicked: {panic}").into()),
        }
    }

    /// Follows the supervisor's decision after a run that did not end the loop.
    fn follow(&self, worker: &WorkerHealth) {
        let error = worker.cause.as_deref().unwrap_or_default().to_owned();
        let ended = "the runtime has ended: start the consumer again";
        let reason = match worker.state {
            WorkerState::BackingOff(_) => None,
            WorkerState::GivenUp => Some(StopReason::Broken(StopCause::new(error.clone()))),
            WorkerState::Stopped if self.health.is_halted() => Some(StopReason::Asked),
            WorkerState::Stopped => Some(StopReason::Broken(StopCause::new(ended))),
            _ => return,
        };
        let mut kept = self.event_loop.try_lock().expect("no run is under way");
        // A loop that has ended may still fail: when it is dropped.
        let Some(event_loop) = kept.take() else { return };
        match reason {
            Some(reason) => self.end(event_loop, reason),
            None => {
                *kept = Some(event_loop);
                let attempts = worker.failures;
                self.health.tell(ConsumerState::Retrying { position: None, attempts, error });
            }
        }
    }

    fn end(&self, mut event_loop: L, reason: StopReason) {
        if reason != StopReason::Asked {
            self.health.halt();
        }
        // Release the partition before the health says `Stopped`: the consumer may be started again
        // then.
        event_loop.leave();
        self.health.stop(reason);
    }
}
