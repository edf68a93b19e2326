//! A build under way.

use std::{fmt, time::Duration};

use factum_consumer::{ConsumerHandle, ConsumerState, StopReason, Target};
use factum_kernel::Position;

use super::{Ask, BuildError, Local, Maintained};

use crate::model_build::Build;

/// A build under way. Dropping it changes nothing: it takes over when it has caught up.
#[must_use]
pub struct Rebuild<T: Target> {
    maintained: Maintained<T>,
    build: Build,
}

/// How far a build has come.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// Everything up to here is in it.
    pub position: Position,
    /// The last position of the log that is known of.
    pub head: Position,
    /// Positions per second, since this process works on it; `None` before any was passed.
    pub rate: Option<f64>,
    /// When it will have caught up, at this rate.
    pub remaining: Option<Duration>,
    /// What its consumer is doing.
    pub state: ConsumerState,
    /// Streams that wait behind a parked event. Until they are retried or discarded, it does not
    /// take over.
    pub parked: usize,
}

impl<T: Target> Rebuild<T> {
    pub(super) fn new(maintained: Maintained<T>, build: Build) -> Self {
        Self { maintained, build }
    }

    /// Which one.
    pub fn build(&self) -> Build {
        self.build
    }

    /// Its consumer, while this process works on it: health, dead letters.
    pub fn consumer(&self) -> Option<ConsumerHandle> {
        let local = self.maintained.local();
        let local = local.borrow();
        let running = local.building.as_ref().filter(|running| running.build == self.build);
        running.map(|running| running.consumer.clone())
    }

    /// How far it has come; `None` when it is not under way any more.
    pub fn progress(&self) -> Option<RebuildProgress> {
        let local = self.maintained.local();
        let running = local.borrow().building.clone().filter(|it| it.build == self.build)?;
        let health = running.consumer.health();
        let rate = running.since.get().and_then(|(at, from)| {
            let passed = health.position.value().saturating_sub(from.value());
            let seconds = running.consumer.clock().monotonic().saturating_since(*at).as_secs_f64();
            (passed > 0 && seconds > 0.0).then(|| passed as f64 / seconds)
        });
        let left = health.lag_events() as f64;
        let remaining = rate.and_then(|rate| Duration::try_from_secs_f64(left / rate).ok());
        let position = health.position;
        let head = health.head;
        let parked = health.parked;
        Some(RebuildProgress { position, head, rate, remaining, state: health.state, parked })
    }

    /// Gives it up; readers keep what they see.
    ///
    /// # Errors
    /// [`BuildError::Superseded`] if it is not under way any more, perhaps because it has taken
    /// over.
    pub async fn cancel(&self) -> Result<(), BuildError> {
        self.maintained.ask(Ask::Cancel(self.build)).await.map(|_| ())
    }

    /// Waits until readers see it.
    ///
    /// # Errors
    /// [`BuildError::Superseded`] if it was given up, [`BuildError::Stopped`] if it stands still.
    pub async fn done(&self) -> Result<(), BuildError> {
        let projection = self.maintained.name();
        let mut local = self.maintained.local();
        loop {
            let running = {
                let local = local.borrow_and_update();
                match self.outcome(&local) {
                    Some(true) => return Ok(()),
                    Some(false) => {
                        let projection = projection.clone();
                        let build = self.build;
                        return Err(BuildError::Superseded { projection, build });
                    }
                    None => local.building.clone().filter(|it| it.build == self.build),
                }
            };
            let stopped = async {
                match running {
                    Some(running) => stops(&running.consumer).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = local.changed() => if changed.is_err() {
                    return Err(local.borrow().error(projection));
                },
                reason = stopped => {
                    let projection = projection.clone();
                    let build = self.build;
                    return Err(BuildError::Stopped { projection, build, reason });
                }
            }
        }
    }

    /// Whether it has come to be seen; `None`: it is on its way.
    fn outcome(&self, local: &Local<T>) -> Option<bool> {
        let is_on_its_way = local.building.as_ref().is_some_and(|it| it.build == self.build);
        (!is_on_its_way).then(|| local.builds.keeps(self.build))
    }
}

/// Waits until a consumer stops for good: not because it was told to, and not because another
/// process goes on with it.
async fn stops(consumer: &ConsumerHandle) -> StopReason {
    let mut health = consumer.watch();
    let found = health.wait_for(|health| reason(&health.state).is_some()).await;
    match found.ok().and_then(|health| reason(&health.state)) {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

fn reason(state: &ConsumerState) -> Option<StopReason> {
    match state {
        ConsumerState::Stopped(StopReason::Asked | StopReason::Fenced) => None,
        ConsumerState::Stopped(reason) => Some(reason.clone()),
        _ => None,
    }
}

impl<T: Target> fmt::Debug for Rebuild<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild").field("build", &self.build).finish_non_exhaustive()
    }
}
