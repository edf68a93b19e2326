//! A build under way.

use std::{fmt, time::Duration};

use factum_consumer::{ConsumerHandle, ConsumerState, DeadLetter, StopReason, Target};
use factum_kernel::Position;

use super::{BuildError, Local, Maintained, Request};

use crate::model_build::{Build, REFRESH};

/// A build under way. Dropping this handle changes nothing: the build takes over when it has caught
/// up.
#[must_use]
pub struct Rebuild<T: Target> {
    maintained: Maintained<T>,
    build: Build,
}

/// The progress of a build.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// The position up to which all events are in the build.
    pub position: Position,
    /// The last known position of the log.
    pub head: Position,
    /// Positions per second since this process began to work on the build; `None` before any
    /// progress.
    pub rate: Option<f64>,
    /// The time until the build has caught up, at this rate.
    pub remaining: Option<Duration>,
    /// The state of the build's consumer.
    pub state: ConsumerState,
    /// The number of streams that wait for a parked event. The build does not take over until they
    /// are retried or discarded.
    pub parked: usize,
    /// The number of streams that wait for a program that can read their next event. The build does
    /// not take over until one runs.
    pub waiting: usize,
}

impl<T: Target> Rebuild<T> {
    pub(super) fn new(maintained: Maintained<T>, build: Build) -> Self {
        Self { maintained, build }
    }

    /// The version and generation of the build.
    pub fn build(&self) -> Build {
        self.build
    }

    /// The consumer of the build, with its health and dead letters, while this process works on it.
    pub fn consumer(&self) -> Option<ConsumerHandle> {
        let local = self.maintained.local();
        let local = local.borrow();
        let running = local.building.as_ref().filter(|running| running.build == self.build);
        running.map(|running| running.consumer.clone())
    }

    /// The progress of the build; `None` when it is not under way any more.
    pub fn progress(&self) -> Option<RebuildProgress> {
        let local = self.maintained.local();
        let running = local.borrow().building.clone().filter(|it| it.build == self.build)?;
        let health = running.consumer.health();
        let rate = running.since.get().and_then(|(at, from)| {
            let passed = health.position.value().saturating_sub(from.value());
            let seconds = running.consumer.clock().monotonic().saturating_since(*at).as_secs_f64();
            (passed > 0 && seconds > 0.0).then(|| passed as f64 / seconds)
        });
        let left = health.lag_events().unwrap_or_default() as f64;
        let remaining = rate.and_then(|rate| Duration::try_from_secs_f64(left / rate).ok());
        let position = health.position;
        let head = health.head;
        let parked = health.parked;
        let waiting = health.waiting;
        let state = health.state;
        Some(RebuildProgress { position, head, rate, remaining, state, parked, waiting })
    }

    /// Cancels the build. Readers keep the serving build.
    ///
    /// # Errors
    /// [`BuildError::Superseded`] if the build is not under way any more, perhaps because it has
    /// taken over.
    pub async fn cancel(&self) -> Result<(), BuildError> {
        self.maintained.request(Request::Cancel(self.build)).await.map(|_| ())
    }

    /// Waits until readers see the build.
    ///
    /// # Errors
    /// [`BuildError::Superseded`] if the build was dropped, [`BuildError::Stopped`] if its consumer
    /// has stopped, and [`BuildError::Parked`] as soon as an event is parked in it. The build goes
    /// on after that: when the event is retried or discarded, call this again.
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
            let hindered = async {
                match running {
                    Some(running) => hindered(&running.consumer).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = local.changed() => if changed.is_err() {
                    return Err(local.borrow().error(projection));
                },
                hindrance = hindered => {
                    let projection = projection.clone();
                    let build = self.build;
                    return Err(match hindrance {
                        Hindrance::Stopped(reason) => {
                            BuildError::Stopped { projection, build, reason }
                        }
                        Hindrance::Parked(letter) => {
                            BuildError::Parked { projection, build, letter }
                        }
                    });
                }
            }
        }
    }

    /// The outcome of the build: true if readers have seen it, false if it was dropped, `None`
    /// while it is under way.
    fn outcome(&self, local: &Local<T>) -> Option<bool> {
        let is_under_way = local.building.as_ref().is_some_and(|it| it.build == self.build);
        (!is_under_way).then(|| local.builds.keeps(self.build))
    }
}

/// The reason why a build waits for the operator.
enum Hindrance {
    Stopped(StopReason),
    Parked(Box<DeadLetter>),
}

async fn hindered(consumer: &ConsumerHandle) -> Hindrance {
    tokio::select! {
        biased;
        reason = stops(consumer) => Hindrance::Stopped(reason),
        letter = parks(consumer) => Hindrance::Parked(letter),
    }
}

/// Waits until an event is parked, or can't be read by this program, in any process.
async fn parks(consumer: &ConsumerHandle) -> Box<DeadLetter> {
    let mut health = consumer.watch();
    loop {
        let is_parked = {
            let here = async {
                health.wait_for(|health| health.parked + health.waiting > 0).await.is_ok()
            };
            tokio::select! {
                biased;
                is_parked = here => is_parked,
                () = consumer.clock().sleep(REFRESH) => {
                    consumer.waiting_elsewhere().await.is_ok_and(|waiting| waiting > 0)
                }
            }
        };
        if is_parked && let Some(letter) = consumer.dead_letters().await.into_iter().next() {
            return Box::new(letter);
        }
        consumer.clock().sleep(REFRESH).await;
    }
}

/// Waits until a consumer stops with a failure: not on request, and not because another process
/// took over.
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
