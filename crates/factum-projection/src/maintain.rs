//! Maintained projections: a changed version is built beside the old one, which serves until the
//! new one has caught up. This file contains the public handle.

mod closure;
mod error;
mod handover;
mod keeper;
mod local;
mod outdated;
mod rebuild;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod tables;

use std::{fmt, sync::Arc, time::Duration};

use factum_consumer::{
    ConsumerHandle, ConsumerName, ConsumerOptions, Consumers, HandleError, Target, WaitError,
    part::{Names, Work},
};
use factum_kernel::{Event, Position, RecordedEvent};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    model_build::{Build, StoredBuilds},
    projection::{Projection, ProjectionWork},
    sql::is_sql_outage,
};

use closure::ClosureWork;
pub use closure::ProjectionFn;
pub use error::BuildError;
pub(crate) use handover::{stored_divergence, stored_reach};
use keeper::{Keeper, Plan};
pub(crate) use local::{Local, RunningBuild};
pub use rebuild::{Rebuild, RebuildProgress};

pub(crate) type Targets<T> = Arc<dyn Fn(&ConsumerName) -> T + Send + Sync>;

/// A projection that is maintained over its versions and rebuilds. Cheap to clone; dropping it
/// changes nothing.
///
/// Each construction of the read model is a [`Build`], stored under a name of its own. Readers see
/// one build, the *serving* one. A program with a larger [`Projection::VERSION`] begins the next
/// build by itself; [`rebuild`](Self::rebuild) begins one of the same version. A build that has
/// caught up takes the place of the serving build, in one write.
///
/// # Guarantees
/// - Readers never see a build that has not caught up, except if there is none before it: at the
///   first start, and after [`reset`](Self::reset).
/// - A build that takes over contains everything that readers saw in the build before.
///   [`roll_back`](Self::roll_back) may go back in time.
/// - A process may die at any time. The next start, or [`resume`](Self::resume) in another process,
///   continues the build that was under way.
/// - If several processes ask for a rebuild, one begins it; the others get an error.
/// - A build with parked streams does not take over; see [`building`](Self::building).
///
/// The build before the serving one is kept until [`discard_old`](Self::discard_old) or until the
/// next build takes over; no events are added to it. Nor are events added to a build of an older
/// version, unless a program of that version runs.
///
/// ```
/// use std::time::Duration;
/// use factum_consumer::{ConsumerOptions, Consumers};
/// use factum_projection::{Documents, ProjectionFn, Projections};
/// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
/// let owners = ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, owners| {
///     match event {
///         AccountEvent::Opened { owner, .. } => owners.put(recorded.stream().key(), &owner),
///         _ => Ok(()),
///     }
/// });
/// let documents = kernel.clone();
/// let owners = Consumers::new(kernel)
///     .maintain_fn(owners, move |_| Documents::new(&documents), ConsumerOptions::new())
///     .await?;
///
/// let email = "ada@example.org".to_owned();
/// let open = AccountCommand::Open { owner: "Ada".into(), email };
/// let position = accounts.execute("ada", &open).await?.position.expect("it is an event");
/// owners.wait_for(position, Duration::from_secs(5)).await?;
/// assert_eq!(owners.read_model::<String>().get("ada").await?.as_deref(), Some("Ada"));
///
/// owners.rebuild().await?.done().await?;
/// assert_eq!(owners.read_model::<String>().get("ada").await?.as_deref(), Some("Ada"));
/// # Ok(()) }
/// ```
pub struct Maintained<T: Target> {
    stored: Arc<StoredBuilds>,
    targets: Targets<T>,
    requests: mpsc::Sender<(Request, Reply)>,
    local: watch::Receiver<Local<T>>,
}

/// A request to the keeper of a projection.
#[derive(Debug)]
pub(crate) enum Request {
    Rebuild,
    Cancel(Build),
    RollBack,
    DiscardOld,
    Reset,
    Pause,
    Resume,
}

/// The channel for the keeper's reply to a request.
pub(crate) type Reply = oneshot::Sender<Result<Build, BuildError>>;

/// Maintains a projection over its versions.
pub(crate) async fn maintain<P: Projection>(
    consumers: &Consumers,
    projection: P,
    targets: impl Fn(&ConsumerName) -> P::Target + Send + Sync + 'static,
    options: ConsumerOptions,
) -> Result<Maintained<P::Target>, BuildError> {
    let work = Arc::new(ProjectionWork { projection, names: Names::new(options.unknown) });
    let declaring = work.clone();
    let targets = move |name: &_| declaring.projection.declare(targets(name));
    let plan = Plan { work, version: P::VERSION, targets: Arc::new(targets), options };
    keep(consumers, P::NAME, plan).await
}

/// Maintains a projection that is a closure.
pub(crate) async fn maintain_fn<E, T, H>(
    consumers: &Consumers,
    projection: ProjectionFn<E, T, H>,
    targets: impl Fn(&ConsumerName) -> T + Send + Sync + 'static,
    options: ConsumerOptions,
) -> Result<Maintained<T>, BuildError>
where
    E: Event,
    T: Target,
    H: Fn(E, &RecordedEvent, &mut T::Tx) -> Result<(), HandleError> + Send + Sync + 'static,
{
    let ProjectionFn { name, version, handler, .. } = projection;
    let work = Arc::new(ClosureWork::new(handler, options.unknown));
    let plan = Plan { work, version, targets: Arc::new(targets), options };
    keep(consumers, &name, plan).await
}

async fn keep<W: Work>(
    consumers: &Consumers,
    name: &str,
    plan: Plan<W>,
) -> Result<Maintained<W::Target>, BuildError> {
    let name = ConsumerName::new(name)?;
    let consumers = consumers.clone().with_outages(is_sql_outage);
    let stored = Arc::new(StoredBuilds::new(consumers.kernel().clone(), name));
    let targets = plan.targets.clone();
    let (requests, local) = Keeper::start(consumers.clone(), plan, stored.clone()).await?;
    let maintained = Maintained { stored, targets, requests, local };
    consumers.enter(maintained.name().clone(), Arc::new(maintained.clone()));
    Ok(maintained)
}

impl<T: Target> Maintained<T> {
    /// The name of the projection.
    pub fn name(&self) -> &ConsumerName {
        self.stored.name()
    }

    /// The build that readers see, as far as this process knows: a change by another process is
    /// known within some seconds.
    pub fn serving(&self) -> Build {
        self.local.borrow().builds.serving
    }

    /// The build that readers saw before, if it is kept.
    pub fn previous(&self) -> Option<Build> {
        self.local.borrow().builds.previous
    }

    /// The name under which the serving build is stored.
    pub fn serving_name(&self) -> ConsumerName {
        self.serving().consumer(self.name())
    }

    /// The consumer of the serving build, with its health and dead letters, if this process runs
    /// it.
    pub fn consumer(&self) -> Option<ConsumerHandle> {
        self.local.borrow().serving.as_ref().map(|running| running.consumer.clone())
    }

    /// The target of the serving build, if this process runs it.
    pub fn target(&self) -> Option<Arc<T>> {
        self.local.borrow().serving.as_ref().map(|running| running.target.clone())
    }

    /// The build that is under way in this process: begun by a new version or by
    /// [`rebuild`](Self::rebuild), or left by a process that died.
    ///
    /// A build with parked streams does not take over: retry or discard its dead letters.
    pub fn building(&self) -> Option<Rebuild<T>> {
        let build = self.local.borrow().building.as_ref().map(|running| running.build);
        build.map(|build| Rebuild::new(self.clone(), build))
    }

    /// Builds the read model from the start, beside the serving build, and swaps it in when it has
    /// caught up. Returns when the build has begun.
    ///
    /// The build begins where the serving build began, also with
    /// [`StartFrom::Now`](factum_consumer::StartFrom::Now). Until the swap, each event is projected
    /// twice. That has no other effect, because a projection writes only to its target, and
    /// consumers are never rebuilt.
    ///
    /// # Errors
    /// [`BuildError::Building`] while a build is under way, in this process or another; errors of
    /// the store.
    pub async fn rebuild(&self) -> Result<Rebuild<T>, BuildError> {
        let build = self.request(Request::Rebuild).await?;
        Ok(Rebuild::new(self.clone(), build))
    }

    /// Swaps the serving build with the earlier one, at once. Readers see the earlier build as it
    /// was when it was replaced; it continues from there if it is of this program's version. A
    /// build under way is dropped.
    ///
    /// A second call swaps them again. A version that was rolled back is not built again by a start
    /// of its program; a larger version is, and [`rebuild`](Self::rebuild) builds either.
    ///
    /// # Errors
    /// [`BuildError::NothingKept`]; errors of the store.
    pub async fn roll_back(&self) -> Result<Build, BuildError> {
        self.request(Request::RollBack).await
    }

    /// Drops the build before the serving one. Its space is freed some seconds later, when no
    /// reader uses it any more.
    ///
    /// # Errors
    /// [`BuildError::NothingKept`]; errors of the store.
    pub async fn discard_old(&self) -> Result<Build, BuildError> {
        self.request(Request::DiscardOld).await
    }

    /// Begins the read model from the start, at once: readers see it grow. All earlier builds are
    /// dropped.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reset(&self) -> Result<Build, BuildError> {
        self.request(Request::Reset).await
    }

    /// Pauses the projection after the current events, until [`resume`](Self::resume) or the next
    /// start. It pauses this process only; other processes that run the projection continue.
    ///
    /// # Errors
    /// [`BuildError::Closed`], [`BuildError::RuntimeEnded`].
    pub async fn pause(&self) -> Result<(), BuildError> {
        self.request(Request::Pause).await.map(|_| ())
    }

    /// Resumes the projection in this process: after a pause, after its consumers stopped, and with
    /// builds that another process works on or has left.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn resume(&self) -> Result<(), BuildError> {
        self.request(Request::Resume).await.map(|_| ())
    }

    /// Waits until the build that readers see contains every event up to this position, also if
    /// another process maintains it. Then only the stored progress counts, so events that the
    /// projection does not handle count late.
    ///
    /// # Errors
    /// [`WaitError::Behind`] after the timeout, [`WaitError::Unread`] if the build's program can't
    /// read one of the events, [`WaitError::Stopped`] if the position can't be reached any more.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let clock = self.stored.kernel().clock().clone();
        let reached = local::reach(self.local.clone(), &self.stored, &self.targets, position);
        tokio::select! {
            biased;
            reached = reached => reached,
            () = clock.sleep(timeout) => Err(WaitError::Behind {
                consumer: self.serving_name(),
                position,
                reached: self.consumer().map_or(Position::ZERO, |it| it.health().position),
                waited: timeout,
            }),
        }
    }

    async fn request(&self, request: Request) -> Result<Build, BuildError> {
        let (reply, replied) = oneshot::channel();
        let _ = self.requests.send((request, reply)).await;
        replied.await.unwrap_or_else(|_| Err(self.local.borrow().error(self.name())))
    }

    pub(crate) fn stored(&self) -> &Arc<StoredBuilds> {
        &self.stored
    }

    pub(crate) fn local(&self) -> watch::Receiver<Local<T>> {
        self.local.clone()
    }
}

impl<T: Target> Clone for Maintained<T> {
    fn clone(&self) -> Self {
        Self {
            stored: self.stored.clone(),
            targets: self.targets.clone(),
            requests: self.requests.clone(),
            local: self.local.clone(),
        }
    }
}

impl<T: Target> fmt::Debug for Maintained<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintained")
            .field("name", self.name())
            .field("serving", &self.serving())
            .finish_non_exhaustive()
    }
}
