//! How a build that has caught up takes the place of the serving one: nothing that a reader has
//! seen may be missing from it.

use std::{sync::Arc, time::Duration};

use factum_consumer::{
    ConsumerHealth, ConsumerName, ConsumerState, Target, TargetError,
    part::{StoredPart, Work, caught, said_position, set_held},
};
use factum_kernel::{Kernel, Position, ReadQuery, Revision};

use super::{Running, Targets, keeper::Keeper};

use crate::model_build::{Build, Builds};

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
        let now = (kernel.clock().monotonic(), begun.position);
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
            && running.consumer.comes_to(page.head).await.is_ok()
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
        let found = self.stored.read_at().await.map_err(|_| NotNow::Later)?;
        let (builds, revision) = found.ok_or(NotNow::Later)?;
        // Another process was first.
        if builds.serving == running.build {
            return Ok(builds);
        }
        if builds.building != Some(running.build) {
            return Err(NotNow::Superseded);
        }
        // It lacks something: nobody need stand still for it.
        lacks_nothing(running).await?;
        let serving = self.local.borrow().serving.clone();
        if let Some(serving) = &serving
            && !holds(serving).await
        {
            serving.consumer.resume().await;
            return Err(NotNow::Later);
        }
        let kernel = self.stored.kernel();
        let (number, _) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
        let handover = Handover { number: number | 1, builds, revision };
        let swapped = caught(self.swap(running, serving.as_ref(), &handover)).await;
        let swapped = match swapped {
            Ok(swapped) => swapped,
            Err(_) => self.settle(running.build).await,
        };
        if swapped.is_err() {
            self.go_on(serving.as_ref(), &handover).await;
        }
        swapped
    }

    /// Nothing came of it: the serving build goes on.
    async fn go_on(&self, serving: Option<&Running<W::Target>>, handover: &Handover) {
        // Its fence may have moved.
        if let Some(serving) = serving {
            serving.consumer.stop().await;
        }
        self.thaw(&handover.builds, handover.builds.serving, Some(handover.number)).await;
        if let Some(serving) = serving {
            // Where it can't start, the consumers are closed.
            let _ = self.serve(serving.build).await;
        }
    }

    /// Lets a build go on that was frozen: by this handover, or by whichever. What stays frozen
    /// goes on by itself after a while.
    pub(super) async fn thaw(&self, builds: &Builds, build: Build, by: Option<u64>) {
        for name in self.parts(builds, build) {
            let target = (self.plan.targets)(&name.whole());
            let is_ours = |frozen_by| by.is_none_or(|by| by == frozen_by);
            let _ = set_held(&target, &name, 0, is_ours).await;
        }
    }

    /// The names under which the partitions of a build are kept.
    fn parts(&self, builds: &Builds, build: Build) -> Vec<ConsumerName> {
        let name = build.consumer(self.stored.name());
        let partitions = builds.partitions(build);
        (0..partitions).map(|at| name.part(at, partitions)).collect()
    }

    /// The serving build stands still now, as far as this process runs it.
    async fn swap(
        &self,
        running: &Running<W::Target>,
        serving: Option<&Running<W::Target>>,
        handover: &Handover,
    ) -> Result<Arc<Builds>, NotNow> {
        let builds = &handover.builds;
        let reached = serving.map_or(Position::ZERO, |it| it.consumer.health().position);
        let frozen = async {
            let mut frozen = Position::ZERO;
            for name in self.parts(builds, builds.serving) {
                let target = (self.plan.targets)(&name.whole());
                let part = set_held(&target, &name, handover.number, |_| true).await?;
                frozen = frozen.max(part);
            }
            Ok::<_, TargetError>(frozen)
        };
        let frozen = tokio::select! {
            biased;
            frozen = frozen => frozen,
            () = self.stored.kernel().clock().sleep(HANDOVER_MAX) => return Err(NotNow::Later),
        };
        let reached = reached.max(frozen.map_err(|_| NotNow::Later)?);
        let come = running.consumer.wait_for(reached, HANDOVER_MAX).await;
        come.map_err(|_| NotNow::Later)?;
        lacks_nothing(running).await?;
        let mut swapped = Builds::clone(builds);
        swapped.swap(running.build).map_err(|_| NotNow::Superseded)?;
        // Where the builds are as they were before anything was frozen: whoever goes on with what
        // was frozen changes them first.
        match self.stored.write_at(swapped, handover.revision).await {
            Ok(Some(builds)) => Ok(builds),
            Ok(None) => Err(NotNow::Later),
            Err(_) => self.settle(running.build).await,
        }
    }

    /// Perhaps it is written. Were the build before to go on then, readers would see there what the
    /// new one does not have yet.
    async fn settle(&self, build: Build) -> Result<Arc<Builds>, NotNow> {
        let builds = self.stored.settled().await;
        builds.filter(|builds| builds.serving == build).ok_or(NotNow::Later)
    }
}

/// One try to let a build take over.
struct Handover {
    /// What it freezes says that it has.
    number: u64,
    /// As they were before.
    builds: Arc<Builds>,
    revision: Revision,
}

/// Lets a build stand still; false if it does not within a while.
async fn holds<T>(serving: &Running<T>) -> bool {
    serving.consumer.pause().await;
    let mut health = serving.consumer.watch();
    let stands_still =
        async { while !serving.consumer.stands_still() && health.changed().await.is_ok() {} };
    tokio::select! {
        biased;
        () = stands_still => true,
        () = serving.consumer.clock().sleep(HANDOVER_MAX) => false,
    }
}

/// Whether nothing is parked in a build, in any process.
async fn lacks_nothing<T>(running: &Running<T>) -> Result<(), NotNow> {
    let elsewhere = running.consumer.parked_elsewhere().await.map_err(|_| NotNow::Later)?;
    let parked = running.consumer.health().parked + elsewhere;
    if parked == 0 { Ok(()) } else { Err(NotNow::Later) }
}

/// How far a build has come in all its partitions: as it is stored, or as whoever works on it has
/// said.
pub(crate) async fn stored_position<T: Target>(
    kernel: &Kernel,
    targets: &Targets<T>,
    name: &ConsumerName,
    partitions: usize,
) -> Result<Position, TargetError> {
    let mut position = None;
    for at in 0..partitions {
        let part = StoredPart::look(&targets(name), &name.part(at, partitions)).await?.position;
        position = Some(position.map_or(part, |position: Position| position.min(part)));
    }
    let said = said_position(&**kernel.documents(), name, partitions).await?;
    Ok(position.max(said).unwrap_or_default())
}

/// After which position a build began; `None`: it has not, or has forgotten.
pub(super) async fn began_after<T: Target>(
    targets: &Targets<T>,
    name: &ConsumerName,
    partitions: usize,
) -> Result<Option<Position>, TargetError> {
    let mut began = None;
    for at in 0..partitions {
        let part = StoredPart::look(&targets(name), &name.part(at, partitions)).await?;
        let Some(part) = part.began_after else { return Ok(None) };
        began = Some(began.map_or(part, |began: Position| began.min(part)));
    }
    Ok(began)
}
