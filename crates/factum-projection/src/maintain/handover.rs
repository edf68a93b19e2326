//! How a build that has caught up takes the place of the serving one: nothing that a reader has
//! seen may be missing from it.

use std::{sync::Arc, time::Duration};

use factum_core::{Kernel, Position, ReadQuery, StoreError};

use super::{BuildError, Running, Targets, keeper::Keeper};
use crate::{
    build::Builds,
    health::{ConsumerHealth, ConsumerState},
    name::ConsumerName,
    progress::{self, Progress},
    target::{Commits, Opened, Save, Target, TargetError},
    work::Work,
};

/// A build that is behind by no more is about to have caught up.
const NEAR_POSITIONS: u64 = 1_000;
/// So long the serving build may stand still for it.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

/// Why a build does not take over now.
enum NotNow {
    /// Another one does, or it was cancelled.
    Superseded,
    /// Later, perhaps.
    Later,
}

/// Waits until a build has come to the end of the log, as it was when it was near.
pub(super) async fn caught_up<T>(building: Option<Running<T>>, kernel: &Kernel) {
    let Some(running) = building else { return std::future::pending().await };
    let mut health = running.consumer.watch();
    let has_begun = |it: &ConsumerHealth| it.state != ConsumerState::Starting;
    if let Ok(begun) = health.wait_for(has_begun).await {
        let now = (kernel.clock().now(), begun.position);
        running.since.get_or_init(|| now);
    }
    let is_near = |it: &ConsumerHealth| {
        let reads = matches!(it.state, ConsumerState::CatchingUp | ConsumerState::Live);
        reads && it.parked == 0 && it.lag_events() <= NEAR_POSITIONS
    };
    while health.wait_for(is_near).await.is_ok() {
        // Whatever its health says of the head is a hint.
        let page = kernel.events().read(ReadQuery::log().with_events_max(1)).await;
        if let Ok(page) = page
            && health.wait_for(|it| it.position >= page.head).await.is_ok()
        {
            return;
        }
        kernel.clock().sleep(HANDOVER_MAX).await;
    }
    std::future::pending::<()>().await;
}

impl<W: Work> Keeper<W> {
    /// Lets the build take over that this process works on. False: not now.
    pub(super) async fn hand_over(&mut self) -> bool {
        let Some(running) = self.local.borrow().building.clone() else { return true };
        match self.try_hand_over(&running).await {
            Ok(builds) => {
                self.promote(builds.clone()).await;
                // Where it fails, it is done the next time.
                let _ = self.follow(builds).await;
            }
            Err(NotNow::Superseded) => {
                if let Ok(Some(builds)) = self.stored.read().await {
                    let _ = self.follow(builds).await;
                }
            }
            Err(NotNow::Later) => return false,
        }
        true
    }

    async fn try_hand_over(&mut self, running: &Running<W::Target>) -> Result<Arc<Builds>, NotNow> {
        let builds = self.stored.read().await.map_err(|_| NotNow::Later)?;
        let builds = builds.ok_or(NotNow::Later)?;
        // In memory, each process makes its own; another one was first.
        if builds.serving == running.build {
            return Ok(builds);
        }
        if builds.building != Some(running.build) {
            return Err(NotNow::Superseded);
        }
        let serving = self.local.borrow().serving.clone();
        let swapped = match &serving {
            Some(serving) if !holds(serving).await => Err(NotNow::Later),
            _ => self.swap(running, serving.as_ref(), &builds).await,
        };
        if swapped.is_err()
            && let Some(serving) = serving
        {
            self.go_on(&serving).await;
        }
        swapped
    }

    /// Nothing came of it: the serving build goes on.
    async fn go_on(&self, serving: &Running<W::Target>) {
        match W::Target::COMMITS {
            Commits::Snapshots => serving.consumer.resume().await,
            // Its fence may have moved. Where it can't start, the consumers are closed.
            Commits::EachBatch => {
                serving.consumer.stop().await;
                let _ = self.serve(serving.build).await;
            }
        }
    }

    /// The serving build stands still now, as far as this process runs it.
    async fn swap(
        &self,
        running: &Running<W::Target>,
        serving: Option<&Running<W::Target>>,
        builds: &Builds,
    ) -> Result<Arc<Builds>, NotNow> {
        let mut reached = serving.map_or(Position::ZERO, |it| it.consumer.health().position);
        if W::Target::COMMITS == Commits::EachBatch {
            let name = builds.serving.consumer(self.stored.name());
            let (clock, target) = (self.stored.kernel().clock(), (self.plan.targets)(&name));
            let frozen = tokio::select! {
                biased;
                frozen = freeze(&target, &name) => frozen,
                () = clock.sleep(HANDOVER_MAX) => return Err(NotNow::Later),
            };
            reached = reached.max(frozen.map_err(|_| NotNow::Later)?);
        }
        comes_to(running, reached).await?;
        let (build, name) = (running.build, self.stored.name());
        let swap = |found: Option<Builds>| {
            let mut builds = found.ok_or_else(|| BuildError::NothingKept(name.clone()))?;
            // A write whose answer was lost may have been ours.
            if builds.serving != build {
                builds.swap(build).map_err(|unfit| BuildError::of(unfit, name))?;
            }
            Ok((builds, ()))
        };
        match self.stored.change(swap).await {
            Ok((builds, ())) => Ok(builds),
            Err(BuildError::Superseded { .. }) => Err(NotNow::Superseded),
            Err(_) => Err(NotNow::Later),
        }
    }
}

/// Lets a build stand still; false if it does not within a while.
async fn holds<T>(serving: &Running<T>) -> bool {
    serving.consumer.pause().await;
    let mut health = serving.consumer.watch();
    let stands_still =
        |it: &ConsumerHealth| matches!(it.state, ConsumerState::Paused | ConsumerState::Stopped(_));
    tokio::select! {
        biased;
        _ = health.wait_for(stands_still) => true,
        () = serving.consumer.clock.sleep(HANDOVER_MAX) => false,
    }
}

async fn comes_to<T>(running: &Running<T>, position: Position) -> Result<(), NotNow> {
    running.consumer.wait_for(position, HANDOVER_MAX).await.map_err(|_| NotNow::Later)?;
    if running.consumer.health().parked == 0 { Ok(()) } else { Err(NotNow::Later) }
}

/// Takes a build away from whoever works on it, in any process: its fence moves. Answers with how
/// far it has come, and it comes no further.
async fn freeze<T: Target>(target: &T, name: &ConsumerName) -> Result<Position, TargetError> {
    loop {
        let Opened { fence, progress, .. } = target.look(name).await?;
        let Some(progress) = progress else { return Ok(Position::ZERO) };
        let mut progress = read(&progress)?;
        let position = progress.position();
        // By another than whoever works on it: that one stops when it sees this.
        progress.by = progress.by.wrapping_add(1);
        let progress = progress::encode(&progress);
        let (letters, events) = (Vec::new(), 0);
        let save = Save { expected: fence, progress, mark: None, letters, events };
        match target.save(name, save).await {
            Ok(_) => return Ok(position),
            // It has come further meanwhile, or the answer was lost.
            Err(TargetError::Fenced | TargetError::Unknown(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}

/// How far a build has come, as it is stored.
pub(crate) async fn stored_position<T: Target>(
    targets: &Targets<T>,
    name: &ConsumerName,
) -> Result<Position, TargetError> {
    let opened = targets(name).look(name).await?;
    opened.progress.map_or(Ok(Position::ZERO), |progress| position(&progress))
}

/// After which position a build began; `None`: it has not, or has forgotten.
pub(super) async fn began_after<T: Target>(
    targets: &Targets<T>,
    name: &ConsumerName,
) -> Result<Option<Position>, TargetError> {
    let opened = targets(name).look(name).await?;
    opened.progress.map_or(Ok(None), |progress| read(&progress).map(|it| it.began_after))
}

fn position(progress: &[u8]) -> Result<Position, TargetError> {
    read(progress).map(|progress| progress.position())
}

fn read(progress: &[u8]) -> Result<Progress, TargetError> {
    progress::decode(progress)
        .map_err(|error| TargetError::Refused(Arc::new(StoreError::corrupt(error.to_string()))))
}
