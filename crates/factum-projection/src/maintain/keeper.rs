//! The keeper of a projection: the task that starts and stops the consumers of its builds, swaps in
//! a build that has caught up, and clears dropped builds.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use factum_consumer::{
    ConsumerHandle, ConsumerOptions, Consumers, HandleError, StartFrom, Target,
    part::{Bell, Launch, Work, can_run, caught},
};
use factum_kernel::StoreError;
use tokio::sync::{mpsc, watch};

use super::{
    BuildError, Local, Reply, Request, RunningBuild, Targets,
    handover::{began_after, caught_up},
    outdated::Current,
};

use crate::model_build::{Build, Builds, CLEAR_AFTER, REFRESH, Refusal, StoredBuilds};

/// The most requests that wait for the keeper.
const REQUESTS_MAX: usize = 16;
/// The builds are read again after this many times [`REFRESH`] even if the bell has not rung: a
/// process of an earlier version may have changed them.
const RESTS_MAX: u32 = 5;

type TargetOf<W> = <W as Work>::Target;
type Handles<W> = (mpsc::Sender<(Request, Reply)>, watch::Receiver<Local<TargetOf<W>>>);

/// The parts of a projection that all its builds share.
pub(crate) struct Plan<W: Work> {
    pub(crate) work: Arc<W>,
    pub(crate) version: u32,
    pub(crate) targets: Targets<W::Target>,
    pub(crate) options: ConsumerOptions,
}

/// The state of the keeper's task.
pub(crate) struct Keeper<W: Work> {
    pub(super) consumers: Consumers,
    pub(super) plan: Plan<W>,
    pub(super) stored: Arc<StoredBuilds>,
    pub(super) local: watch::Sender<Local<TargetOf<W>>>,
    requests: mpsc::Receiver<(Request, Reply)>,
    is_paused: bool,
    /// True after a failed handover: the next attempt is later.
    pub(super) is_put_off: bool,
    /// Rings when another process has changed the builds, if the store supports that.
    bell: Option<Bell>,
    /// The number of rounds in which the builds need not be read.
    rests: u32,
    is_clearing: Arc<AtomicBool>,
    /// The position up to which the earlier build lacks no deletion.
    pub(super) current: Option<Current>,
}

impl<W: Work> Keeper<W> {
    pub(super) async fn start(
        consumers: Consumers,
        plan: Plan<W>,
        stored: Arc<StoredBuilds>,
    ) -> Result<Handles<W>, BuildError> {
        let version = plan.version;
        let partitions = plan.options.partitions.count();
        can_run(stored.name(), &*plan.work, &plan.options.partitions)?;
        let begin = |found: Option<Builds>| {
            let mut builds = found.unwrap_or_else(|| Builds::first(version, partitions));
            builds.start(version, partitions);
            Ok::<_, BuildError>((builds, ()))
        };
        let (builds, ()) = stored.change(begin).await?;
        let (requests, taken) = mpsc::channel(REQUESTS_MAX);
        let local = Local {
            builds: builds.clone(),
            serving: None,
            building: None,
            has_runtime_ended: false,
        };
        let (local, seen) = watch::channel(local);
        let bell = consumers.bell();
        let mut keeper = Self {
            consumers,
            plan,
            stored,
            local,
            requests: taken,
            is_paused: false,
            is_put_off: false,
            bell,
            rests: 0,
            is_clearing: Arc::default(),
            current: None,
        };
        keeper.follow(builds).await?;
        tokio::spawn(keeper.run());
        Ok((requests, seen))
    }

    async fn run(mut self) {
        loop {
            // A panic in a target or in the store ends only the current round.
            match caught(self.turn()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(panic) => {
                    let projection = self.stored.name();
                    tracing::error!(%projection, panic, "keeping a projection's builds panicked");
                    self.stored.kernel().clock().sleep(REFRESH).await;
                }
            }
        }
    }

    /// Does the next thing that is due. Returns false when the consumers are closed.
    async fn turn(&mut self) -> bool {
        let kernel = self.stored.kernel().clone();
        let building = self.local.borrow().building.clone();
        tokio::select! {
            biased;
            Some((request, reply)) = self.requests.recv() => {
                let _ = reply.send(self.execute(request).await);
            }
            () = caught_up(building, &kernel), if !self.is_put_off => {
                self.is_put_off = !self.hand_over().await;
            }
            () = kernel.clock().sleep(REFRESH) => {
                if self.consumers.is_closed() {
                    return false;
                }
                self.is_put_off = false;
                self.look().await;
                // If this fails, the next round does it.
                let _ = self.drop_outdated().await;
            }
        }
        true
    }

    /// Follows changes by other processes.
    async fn look(&mut self) {
        let has_rung = self.bell.as_mut().is_none_or(Bell::take_ring);
        self.rests = if has_rung { 0 } else { self.rests.saturating_sub(1) };
        if self.rests > 0 {
            return;
        }
        // If this fails, the next round does it.
        if let Ok(Some(builds)) = self.stored.read().await
            && self.follow(builds).await.is_ok()
        {
            self.rests = RESTS_MAX;
        }
    }

    async fn execute(&mut self, request: Request) -> Result<Build, BuildError> {
        if self.consumers.is_closed() {
            return Err(BuildError::Closed(self.stored.name().clone()));
        }
        let version = self.plan.version;
        let partitions = self.plan.options.partitions.count();
        match request {
            Request::Rebuild => self.change(|it| it.begin(version, partitions)).await,
            Request::Cancel(build) => self.change(|it| it.cancel(build).map(|()| build)).await,
            Request::DiscardOld => self.change(Builds::discard_old).await,
            Request::RollBack | Request::Reset => {
                let is_reset = matches!(request, Request::Reset);
                let change = |builds: &mut Builds| match is_reset {
                    true => Ok(builds.reset(version, partitions)),
                    false => builds.roll_back(),
                };
                let builds = self.local.borrow().builds.clone();
                if let Some(previous) = builds.previous.filter(|_| !is_reset) {
                    // The previous build is still frozen since the handover to another build.
                    self.unfreeze(&builds, previous, None).await;
                }
                self.change(change).await
            }
            Request::Pause => {
                self.is_paused = true;
                let local = self.local.borrow().clone();
                for running in local.serving.iter().chain(&local.building) {
                    running.consumer.pause().await;
                }
                Ok(local.builds.serving)
            }
            Request::Resume => {
                self.is_paused = false;
                let build = self.change(|it| Ok(it.serving)).await?;
                self.restart().await?;
                Ok(build)
            }
        }
    }

    /// Resumes paused consumers, and starts stopped ones.
    async fn restart(&self) -> Result<(), BuildError> {
        let local = self.local.borrow().clone();
        if let Some(running) = local.serving {
            match running.consumer.has_ended() {
                true => self.serve(running.build).await?,
                false => running.consumer.resume().await,
            }
        }
        if let Some(running) = local.building {
            match running.consumer.has_ended() {
                true => self.build(running.build).await?,
                false => running.consumer.resume().await,
            }
        }
        Ok(())
    }

    /// Changes the stored builds, and follows the change.
    pub(super) async fn change(
        &mut self,
        change: impl Fn(&mut Builds) -> Result<Build, Refusal>,
    ) -> Result<Build, BuildError> {
        let name = self.stored.name().clone();
        let version = self.plan.version;
        let partitions = self.plan.options.partitions.count();
        let changed = self.stored.change(|found| {
            let mut builds = found.unwrap_or_else(|| Builds::first(version, partitions));
            let build = change(&mut builds).map_err(|refusal| BuildError::of(refusal, &name))?;
            Ok::<_, BuildError>((builds, build))
        });
        let (builds, build) = changed.await?;
        self.follow(builds).await?;
        Ok(build)
    }

    /// Starts and stops consumers as the stored builds require, after a start or after a change by
    /// any process.
    pub(super) async fn follow(&mut self, builds: Arc<Builds>) -> Result<(), BuildError> {
        self.local.send_if_modified(|local| {
            std::mem::replace(&mut local.builds, builds.clone()) != builds
        });
        let building = self.local.borrow().building.clone();
        let is_wanted =
            |it: &RunningBuild<_>| builds.building == Some(it.build) || builds.serving == it.build;
        if let Some(running) = building.filter(|it| !is_wanted(it)) {
            self.local.send_modify(|local| local.building = None);
            self.retire(&running.consumer).await;
        }
        self.follow_serving(&builds).await?;
        let mine = builds.building.filter(|it| it.version == self.plan.version);
        if let Some(build) = mine
            && self.local.borrow().building.is_none()
        {
            self.build(build).await?;
        }
        self.clear_dropped();
        Ok(())
    }

    /// Runs the serving build if it is of this version. All processes of the version do so, and
    /// leases decide which of them works on it.
    async fn follow_serving(&mut self, builds: &Arc<Builds>) -> Result<(), BuildError> {
        let (serving, building) = self.here();
        if serving == Some(builds.serving) {
            return Ok(());
        }
        if building == Some(builds.serving) {
            // Another process has swapped in the build that this process works on too.
            self.promote(builds.clone()).await;
            return Ok(());
        }
        let mut before = None;
        self.local.send_if_modified(|local| {
            before = local.serving.take();
            before.is_some()
        });
        if let Some(before) = before {
            self.retire(&before.consumer).await;
        }
        match builds.serving.version == self.plan.version {
            true => self.serve(builds.serving).await,
            false => Ok(()),
        }
    }

    /// The builds that this process works on.
    fn here(&self) -> (Option<Build>, Option<Build>) {
        let local = self.local.borrow();
        let build = |running: &Option<RunningBuild<_>>| running.as_ref().map(|it| it.build);
        (build(&local.serving), build(&local.building))
    }

    /// Makes the build under way the serving one in this process, and stops the one before.
    pub(super) async fn promote(&mut self, builds: Arc<Builds>) {
        let mut before = None;
        self.local.send_modify(|local| {
            local.builds = builds;
            before = std::mem::replace(&mut local.serving, local.building.take());
        });
        if let Some(before) = before {
            self.retire(&before.consumer).await;
        }
    }

    /// Stops the consumer of a build that does not serve any more.
    async fn retire(&self, consumer: &ConsumerHandle) {
        consumer.stop().await;
        self.consumers.forget(consumer.name());
    }

    /// Starts the consumer of the serving build.
    pub(super) async fn serve(&self, build: Build) -> Result<(), BuildError> {
        let running = self.launch(build, self.plan.options.clone()).await?;
        self.local.send_modify(|local| local.serving = Some(running));
        Ok(())
    }

    /// Starts the consumer of a build beside the serving one.
    async fn build(&self, build: Build) -> Result<(), BuildError> {
        let mut options = self.plan.options.clone();
        if options.from == StartFrom::Now {
            // Begins where the serving build began, because the events since then are part of the
            // read model.
            let (serving, partitions) = {
                let builds = &self.local.borrow().builds;
                (builds.serving.consumer(self.stored.name()), builds.partitions(builds.serving))
            };
            let began = began_after(&self.plan.targets, &serving, partitions).await;
            let began = began.map_err(|error| {
                StoreError::unavailable(format!(
                    "where the serving build began can't be read, try again, {error}: \
                     consumer={serving}"
                ))
            })?;
            options.from = began.map_or(StartFrom::Now, StartFrom::After);
        }
        let running = self.launch(build, options).await?;
        self.local.send_modify(|local| local.building = Some(running));
        Ok(())
    }

    async fn launch(
        &self,
        build: Build,
        options: ConsumerOptions,
    ) -> Result<RunningBuild<TargetOf<W>>, BuildError> {
        let name = build.consumer(self.stored.name());
        let target = Arc::new((self.plan.targets)(&name));
        let partitions = self.local.borrow().builds.partitions(build);
        let consumer = self.consumers.launch(Launch {
            name,
            work: self.plan.work.clone(),
            target: target.clone(),
            options: options.clone().with_partitions(options.partitions.of(partitions)),
            is_layout_kept: false,
            handover: Some(self.stored.clone()),
        });
        let consumer = consumer.await?;
        if self.is_paused {
            consumer.pause().await;
        }
        Ok(RunningBuild { build, target, consumer, since: Arc::new(OnceLock::new()) })
    }

    /// Clears dropped builds after the time in which a reader may still use them.
    fn clear_dropped(&self) {
        let dropped = self.local.borrow().builds.dropped.clone();
        if dropped.is_empty() {
            return self.local.borrow().note_undropped(None);
        }
        if self.is_clearing.swap(true, Ordering::SeqCst) {
            return;
        }
        let stored = self.stored.clone();
        let targets = self.plan.targets.clone();
        let is_clearing = self.is_clearing.clone();
        let local = self.local.subscribe();
        tokio::spawn(async move {
            stored.kernel().clock().sleep(CLEAR_AFTER).await;
            let mut undropped = None;
            for build in dropped {
                // A build that can't be cleared stays in the list and is tried again.
                let failed = match caught(clear(&stored, &targets, build)).await {
                    Ok(cleared) => cleared.err().map(|error| error.to_string()),
                    Err(panic) => Some(panic),
                };
                undropped = undropped.or(failed.map(|error| format!("{error}: build={build}")));
            }
            local.borrow().note_undropped(undropped);
            is_clearing.store(false, Ordering::SeqCst);
        });
    }
}

/// The keeper ends with the consumers or with its runtime.
impl<W: Work> Drop for Keeper<W> {
    fn drop(&mut self) {
        if !self.consumers.is_closed() {
            self.local.send_modify(|local| local.has_runtime_ended = true);
        }
    }
}

async fn clear<T: Target>(
    stored: &StoredBuilds,
    targets: &Targets<T>,
    build: Build,
) -> Result<(), HandleError> {
    let name = build.consumer(stored.name());
    targets(&name).clear(&name).await?;
    Ok(stored.remove_cleared(build).await?)
}
