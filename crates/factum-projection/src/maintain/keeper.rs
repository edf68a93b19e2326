//! The task that keeps a projection's builds as they are to be: it starts and stops the consumers
//! of builds, swaps in what has caught up, and clears what was dropped.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use factum_consumer::{
    ConsumerHandle, ConsumerOptions, Consumers, HandleError, StartError, StartFrom, Target,
    part::{Bell, Launch, Work, caught},
};
use factum_kernel::StoreError;
use tokio::sync::{mpsc, watch};

use super::{
    Answer, Ask, BuildError, Local, Running, Targets,
    handover::{began_after, caught_up},
};

use crate::model_build::{Build, Builds, CLEAR_AFTER, REFRESH, StoredBuilds, Unfit};

/// So many orders wait.
const ORDERS_MAX: usize = 16;
/// The builds are read again after this many times [`REFRESH`] although the bell was not heard: a
/// process of an earlier version may have changed them.
const RESTS_MAX: u32 = 5;

type TargetOf<W> = <W as Work>::Target;
type Kept<W> = (mpsc::Sender<(Ask, Answer)>, watch::Receiver<Local<TargetOf<W>>>);

/// How builds are made.
pub(crate) struct Plan<W: Work> {
    pub(crate) work: Arc<W>,
    pub(crate) version: u32,
    pub(crate) targets: Targets<W::Target>,
    pub(crate) options: ConsumerOptions,
}

pub(crate) struct Keeper<W: Work> {
    pub(super) consumers: Consumers,
    pub(super) plan: Plan<W>,
    pub(super) stored: Arc<StoredBuilds>,
    pub(super) local: watch::Sender<Local<TargetOf<W>>>,
    orders: mpsc::Receiver<(Ask, Answer)>,
    is_paused: bool,
    /// The last try to swap came to nothing; the next is later.
    pub(super) is_put_off: bool,
    /// Says when another process has changed the builds, where it can be heard.
    bell: Option<Bell>,
    /// So many times they need not be read.
    rests: u32,
    is_clearing: Arc<AtomicBool>,
}

impl<W: Work> Keeper<W> {
    pub(super) async fn start(
        consumers: Consumers,
        plan: Plan<W>,
        stored: Arc<StoredBuilds>,
    ) -> Result<Kept<W>, BuildError> {
        let version = plan.version;
        let partitions = plan.options.partitions.count();
        if partitions > 1 && !W::Target::IS_PARALLEL {
            return Err(StartError::OnePartition(stored.name().clone()).into());
        }
        let begin = |found: Option<Builds>| {
            let mut builds = found.unwrap_or_else(|| Builds::first(version, partitions));
            builds.start(version, partitions);
            Ok::<_, BuildError>((builds, ()))
        };
        let (builds, ()) = stored.change(begin).await?;
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let local = Local { builds: builds.clone(), serving: None, building: None, is_left: false };
        let (local, seen) = watch::channel(local);
        let bell = consumers.bell();
        let mut keeper = Self {
            consumers,
            plan,
            stored,
            local,
            orders: taken,
            is_paused: false,
            is_put_off: false,
            bell,
            rests: 0,
            is_clearing: Arc::default(),
        };
        keeper.follow(builds).await?;
        tokio::spawn(keeper.run());
        Ok((orders, seen))
    }

    async fn run(mut self) {
        loop {
            // A panic of a target or the store ends nothing but what it was about.
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

    /// What is next; false: it is over.
    async fn turn(&mut self) -> bool {
        let kernel = self.stored.kernel().clone();
        let building = self.local.borrow().building.clone();
        tokio::select! {
            biased;
            Some((ask, answer)) = self.orders.recv() => {
                let _ = answer.send(self.obey(ask).await);
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
            }
        }
        true
    }

    /// Follows what other processes have changed.
    async fn look(&mut self) {
        let has_rung = self.bell.as_mut().is_none_or(Bell::has_rung);
        self.rests = if has_rung { 0 } else { self.rests.saturating_sub(1) };
        if self.rests > 0 {
            return;
        }
        // Where it fails, it is done the next time.
        if let Ok(Some(builds)) = self.stored.read().await
            && self.follow(builds).await.is_ok()
        {
            self.rests = RESTS_MAX;
        }
    }

    async fn obey(&mut self, ask: Ask) -> Result<Build, BuildError> {
        if self.consumers.is_closed() {
            return Err(BuildError::Closed(self.stored.name().clone()));
        }
        let version = self.plan.version;
        let partitions = self.plan.options.partitions.count();
        match ask {
            Ask::Rebuild => self.change(|it| it.begin(version, partitions)).await,
            Ask::Cancel(build) => self.change(|it| it.cancel(build).map(|()| build)).await,
            Ask::DiscardOld => self.change(Builds::discard_old).await,
            Ask::RollBack | Ask::Reset => {
                let is_reset = matches!(ask, Ask::Reset);
                let change = |builds: &mut Builds| match is_reset {
                    true => Ok(builds.reset(version, partitions)),
                    false => builds.roll_back(),
                };
                let builds = self.local.borrow().builds.clone();
                if let Some(previous) = builds.previous.filter(|_| !is_reset) {
                    // It was frozen when another took its place.
                    self.thaw(&builds, previous, None).await;
                }
                self.change(change).await
            }
            Ask::Pause => {
                self.is_paused = true;
                let local = self.local.borrow().clone();
                for running in local.serving.iter().chain(&local.building) {
                    running.consumer.pause().await;
                }
                Ok(local.builds.serving)
            }
            Ask::Resume => {
                self.is_paused = false;
                let build = self.change(|it| Ok(it.serving)).await?;
                self.restart().await?;
                Ok(build)
            }
        }
    }

    /// Lets go on what is paused, and starts what has stopped.
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

    /// Changes what is stored, and follows.
    async fn change(
        &mut self,
        change: impl Fn(&mut Builds) -> Result<Build, Unfit>,
    ) -> Result<Build, BuildError> {
        let name = self.stored.name().clone();
        let version = self.plan.version;
        let partitions = self.plan.options.partitions.count();
        let changed = self.stored.change(|found| {
            let mut builds = found.unwrap_or_else(|| Builds::first(version, partitions));
            let build = change(&mut builds).map_err(|unfit| BuildError::of(unfit, &name))?;
            Ok::<_, BuildError>((builds, build))
        });
        let (builds, build) = changed.await?;
        self.follow(builds).await?;
        Ok(build)
    }

    /// Does what the stored builds ask for, after a start or a change, here or elsewhere.
    pub(super) async fn follow(&mut self, builds: Arc<Builds>) -> Result<(), BuildError> {
        self.local.send_if_modified(|local| {
            std::mem::replace(&mut local.builds, builds.clone()) != builds
        });
        let building = self.local.borrow().building.clone();
        let is_wanted =
            |it: &Running<_>| builds.building == Some(it.build) || builds.serving == it.build;
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

    /// All processes see the same; which of them works on it is a matter of leases.
    async fn follow_serving(&mut self, builds: &Arc<Builds>) -> Result<(), BuildError> {
        let (serving, building) = self.here();
        if serving == Some(builds.serving) {
            return Ok(());
        }
        if building == Some(builds.serving) {
            // Another process has swapped, and this one has worked on it too.
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
        let build = |running: &Option<Running<_>>| running.as_ref().map(|it| it.build);
        (build(&local.serving), build(&local.building))
    }

    /// The build that was made is the one that readers of this process see.
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

    /// Stops the consumer of a build that is not seen any more.
    async fn retire(&self, consumer: &ConsumerHandle) {
        consumer.stop().await;
        self.consumers.forget(consumer.name());
    }

    /// Starts the consumer of the build that readers see.
    pub(super) async fn serve(&self, build: Build) -> Result<(), BuildError> {
        let running = self.launch(build, self.plan.options.clone()).await?;
        self.local.send_modify(|local| local.serving = Some(running));
        Ok(())
    }

    /// Starts the consumer of a build beside it.
    async fn build(&self, build: Build) -> Result<(), BuildError> {
        let mut options = self.plan.options.clone();
        if options.from == StartFrom::Now {
            // From where the first one began: what came since belongs to it too.
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
    ) -> Result<Running<TargetOf<W>>, BuildError> {
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
        })?;
        if self.is_paused {
            consumer.pause().await;
        }
        Ok(Running { build, target, consumer, since: Arc::new(OnceLock::new()) })
    }

    /// Clears what was dropped, when no reader can be in it any more.
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
                // What fails is still said to be dropped, and tried again.
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

/// It ends with the consumers, or with its runtime.
impl<W: Work> Drop for Keeper<W> {
    fn drop(&mut self) {
        if !self.consumers.is_closed() {
            self.local.send_modify(|local| local.is_left = true);
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
    Ok(stored.cleared(build).await?)
}
