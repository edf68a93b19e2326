//! The handover from the serving build to a new one that has caught up. Readers must not lose
//! anything that they have seen.

use std::{sync::Arc, time::Duration};

use factum_consumer::{
    ConsumerHealth, ConsumerName, ConsumerState, Target, TargetError, UnreadEvent, WaitError,
    part::{StoredPart, Work, caught, diverged, said_position, set_frozen},
};
use factum_kernel::{Diverged, Kernel, Position, ReadQuery, Revision};

use super::{RunningBuild, Targets, keeper::Keeper};

use crate::model_build::{Build, Builds};

/// The largest lag at which a build is close to catching up.
const NEAR_POSITIONS: u64 = 1_000;
/// The longest time that the serving build is paused for a handover.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

/// The reason why a build does not take over now.
enum NotNow {
    /// Another build takes over, or this one was cancelled.
    Superseded,
    /// A later attempt may succeed.
    Later,
}

/// Waits until a build is close to the end of the log, and then until it has reached the head of
/// that moment.
pub(super) async fn caught_up<T>(building: Option<RunningBuild<T>>, kernel: &Kernel) {
    let Some(running) = building else { return std::future::pending().await };
    let mut health = running.consumer.watch();
    let has_begun = |it: &ConsumerHealth| it.state != ConsumerState::Starting;
    if let Ok(begun) = health.wait_for(has_begun).await {
        let now = (kernel.clock().monotonic(), begun.position);
        running.since.get_or_init(|| now);
    }
    let is_near = |it: &ConsumerHealth| {
        let reads = matches!(it.state, ConsumerState::CatchingUp | ConsumerState::Live);
        let is_whole = it.parked + it.waiting == 0;
        let is_close = it.lag_events().is_some_and(|events| events <= NEAR_POSITIONS);
        reads && is_whole && is_close
    };
    while health.wait_for(is_near).await.is_ok() {
        // The head in the health is only a hint.
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
    /// Lets this process's build under way take over. Returns false if a later attempt is needed.
    pub(super) async fn hand_over(&mut self) -> bool {
        let Some(running) = self.local.borrow().building.clone() else { return true };
        match self.try_hand_over(&running).await {
            Ok(builds) => {
                self.promote(builds.clone()).await;
                // If this fails, the next round does it.
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

    async fn try_hand_over(
        &mut self,
        running: &RunningBuild<W::Target>,
    ) -> Result<Arc<Builds>, NotNow> {
        let found = self.stored.read_at().await.map_err(|_| NotNow::Later)?;
        let (builds, revision) = found.ok_or(NotNow::Later)?;
        // Another process has completed the handover.
        if builds.serving == running.build {
            return Ok(builds);
        }
        if builds.building != Some(running.build) {
            return Err(NotNow::Superseded);
        }
        // A build that lacks events can't take over, so the serving build is not paused for it.
        check_nothing_waits(running).await?;
        let serving = self.local.borrow().serving.clone();
        if let Some(serving) = &serving
            && !pause_serving(serving).await
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
            self.resume_serving(serving.as_ref(), &handover).await;
        }
        swapped
    }

    /// Resumes the serving build after a failed handover.
    async fn resume_serving(&self, serving: Option<&RunningBuild<W::Target>>, handover: &Handover) {
        // Freezing may have moved the fence of the serving build, so its consumer is started again.
        if let Some(serving) = serving {
            serving.consumer.stop().await;
        }
        self.unfreeze(&handover.builds, handover.builds.serving, Some(handover.number)).await;
        if let Some(serving) = serving {
            // If the consumer can't start, the consumers are closed.
            let _ = self.serve(serving.build).await;
        }
    }

    /// Unfreezes a build that this handover has frozen; with `by: None`, any handover. A build that
    /// stays frozen resumes by itself after a while.
    pub(super) async fn unfreeze(&self, builds: &Builds, build: Build, by: Option<u64>) {
        for name in self.parts(builds, build) {
            let target = (self.plan.targets)(&name.whole());
            let is_ours = |frozen_by| by.is_none_or(|by| by == frozen_by);
            let _ = set_frozen(&target, &name, 0, is_ours).await;
        }
    }

    /// The names under which the partitions of a build are stored.
    fn parts(&self, builds: &Builds, build: Build) -> Vec<ConsumerName> {
        let name = build.consumer(self.stored.name());
        let partitions = builds.partitions(build);
        (0..partitions).map(|at| name.part(at, partitions)).collect()
    }

    /// Swaps the builds. The consumers of the serving build in this process are paused. This
    /// freezes the build for other processes, waits for the new build, and writes.
    async fn swap(
        &self,
        running: &RunningBuild<W::Target>,
        serving: Option<&RunningBuild<W::Target>>,
        handover: &Handover,
    ) -> Result<Arc<Builds>, NotNow> {
        let builds = &handover.builds;
        let reached = serving.map_or(Position::ZERO, |it| it.consumer.health().position);
        let frozen = async {
            let mut frozen = Position::ZERO;
            for name in self.parts(builds, builds.serving) {
                let target = (self.plan.targets)(&name.whole());
                let part = set_frozen(&target, &name, handover.number, |_| true).await?;
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
        let reached = running.consumer.wait_for(reached, HANDOVER_MAX).await;
        reached.map_err(|_| NotNow::Later)?;
        check_nothing_waits(running).await?;
        let mut swapped = Builds::clone(builds);
        swapped.swap(running.build).map_err(|_| NotNow::Superseded)?;
        // The revision is the one from before the freeze: a process that resumes a frozen build
        // changes the builds first, so this write fails then.
        match self.stored.write_at(swapped, handover.revision).await {
            Ok(Some(builds)) => Ok(builds),
            Ok(None) => Err(NotNow::Later),
            Err(_) => self.settle(running.build).await,
        }
    }

    /// Finds out whether a swap with an unknown outcome is stored. If the serving build resumed
    /// before that is known, readers could see events in it that the new build lacks.
    async fn settle(&self, build: Build) -> Result<Arc<Builds>, NotNow> {
        let builds = self.stored.settled().await;
        builds.filter(|builds| builds.serving == build).ok_or(NotNow::Later)
    }
}

/// One attempt at a handover.
struct Handover {
    /// The number that marks the partitions that this handover has frozen.
    number: u64,
    /// The builds before the handover.
    builds: Arc<Builds>,
    revision: Revision,
}

/// Pauses a build. Returns false if it is still busy after [`HANDOVER_MAX`].
async fn pause_serving<T>(serving: &RunningBuild<T>) -> bool {
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

/// Checks that no stream of a build waits, in any process.
async fn check_nothing_waits<T>(running: &RunningBuild<T>) -> Result<(), NotNow> {
    let elsewhere = running.consumer.waiting_elsewhere().await.map_err(|_| NotNow::Later)?;
    let health = running.consumer.health();
    if health.parked + health.waiting + elsewhere == 0 { Ok(()) } else { Err(NotNow::Later) }
}

/// The progress of a build over all its partitions: as stored, or as its workers have reported.
pub(crate) async fn stored_reach<T: Target>(
    kernel: &Kernel,
    targets: &Targets<T>,
    name: &ConsumerName,
    partitions: usize,
) -> Result<StoredReach, TargetError> {
    // Read the report first: the letters of the events up to it are stored by then.
    let said = said_position(&**kernel.documents(), name, partitions).await?;
    let mut position = None;
    let mut unread: Option<UnreadEvent> = None;
    for at in 0..partitions {
        let part = StoredPart::look(&targets(name), &name.part(at, partitions)).await?;
        let least = position.map_or(part.position, |it: Position| it.min(part.position));
        position = Some(least);
        let first = unread.into_iter().chain(part.waiting.first);
        unread = first.min_by_key(|event| event.position);
    }
    Ok(StoredReach { position: position.max(said).unwrap_or_default(), unread })
}

/// The stored progress of a build, over all its partitions.
pub(crate) struct StoredReach {
    pub(crate) position: Position,
    /// The first event that waits for a program that can read it.
    pub(crate) unread: Option<UnreadEvent>,
}

impl StoredReach {
    /// True if the build has reached a position.
    ///
    /// # Errors
    /// An event up to the position waits for a program that can read it.
    pub(crate) fn reaches(
        self,
        position: Position,
        consumer: &ConsumerName,
    ) -> Result<bool, WaitError> {
        if self.position < position {
            return Ok(false);
        }
        let consumer = consumer.clone();
        let unread = self.unread.filter(|event| event.position <= position);
        unread.map_or(Ok(true), |event| Err(WaitError::Unread { consumer, event }))
    }
}

/// The difference between the log and the stored progress of a build, if the log is another one.
/// Its stored position then means nothing in this log.
pub(crate) async fn stored_divergence<T: Target>(
    kernel: &Kernel,
    targets: &Targets<T>,
    name: &ConsumerName,
    partitions: usize,
) -> Result<Option<Diverged>, TargetError> {
    for at in 0..partitions {
        let part = StoredPart::look(&targets(name), &name.part(at, partitions)).await?;
        if let Some(checkpoint) = part.checkpoint
            && let Some(diverged) = diverged(&**kernel.events(), checkpoint).await?
        {
            return Ok(Some(diverged));
        }
    }
    Ok(None)
}

/// The position after which a build began; `None` if it has not begun or did not store it.
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
