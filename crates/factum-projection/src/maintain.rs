//! Projections over their versions: a changed one is built beside the old one, which serves until
//! the new one has caught up. This file holds what people see of that.

mod closure;
mod error;
mod handover;
mod keeper;
mod local;
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
    projection::{Projecting, Projection},
    sql::is_sql_outage,
};

use closure::Applying;
pub use closure::ProjectionFn;
pub use error::BuildError;
pub(crate) use handover::stored_position;
use keeper::{Keeper, Plan};
pub(crate) use local::{Local, Running};
pub use rebuild::{Rebuild, RebuildProgress};

pub(crate) type Targets<T> = Arc<dyn Fn(&ConsumerName) -> T + Send + Sync>;

/// A projection that is kept over its versions and rebuilds. Cheap to clone; dropping it changes
/// nothing.
///
/// Each making of the read model is a [`Build`] of its own, kept under a name of its own. Readers
/// see one of them, the *serving* one. A program with a larger [`Projection::VERSION`] begins the
/// next build by itself; [`rebuild`](Self::rebuild) begins one of the same version. When it has
/// caught up it takes the place of the serving one, in one write.
///
/// # Guarantees
/// - Readers never see a build that has not caught up, except where there is none before it: at
///   the first start, and after [`reset`](Self::reset).
/// - A build that takes over holds everything that was in the one before, so what was read once is
///   read again. [`roll_back`](Self::roll_back) may go back in time.
/// - A process may die at any time; the next start, or [`resume`](Self::resume) in another
///   process, goes on with the build that was under way.
/// - Of several processes that rebuild, one does; the others are told.
/// - A build with parked streams does not take over; see [`building`](Self::building).
///
/// The build before the serving one is kept until [`discard_old`](Self::discard_old), or until it
/// is the last but one; it stands still meanwhile. A build of an older version stands still too,
/// unless a program of that version runs.
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
    orders: mpsc::Sender<(Ask, Answer)>,
    local: watch::Receiver<Local<T>>,
}

/// What a projection's keeper is told.
#[derive(Debug)]
pub(crate) enum Ask {
    Rebuild,
    Cancel(Build),
    RollBack,
    DiscardOld,
    Reset,
    Pause,
    Resume,
}

/// Where it says what came of it.
pub(crate) type Answer = oneshot::Sender<Result<Build, BuildError>>;

/// Maintains a projection over its versions.
pub(crate) async fn maintain<P: Projection>(
    consumers: &Consumers,
    projection: P,
    targets: impl Fn(&ConsumerName) -> P::Target + Send + Sync + 'static,
    options: ConsumerOptions,
) -> Result<Maintained<P::Target>, BuildError> {
    let work = Arc::new(Projecting { projection, names: Names::new(options.unknown) });
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
    let work = Arc::new(Applying::new(handler, options.unknown));
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
    let (orders, local) = Keeper::start(consumers.clone(), plan, stored.clone()).await?;
    let maintained = Maintained { stored, targets, orders, local };
    consumers.enter(maintained.name().clone(), Arc::new(maintained.clone()));
    Ok(maintained)
}

impl<T: Target> Maintained<T> {
    /// The name of the projection.
    pub fn name(&self) -> &ConsumerName {
        self.stored.name()
    }

    /// The build that readers see, as this process knows: another's doing is known within some
    /// seconds.
    pub fn serving(&self) -> Build {
        self.local.borrow().builds.serving
    }

    /// The build that readers saw before, if it is kept.
    pub fn previous(&self) -> Option<Build> {
        self.local.borrow().builds.previous
    }

    /// The name under which the serving build is kept.
    pub fn serving_name(&self) -> ConsumerName {
        self.serving().consumer(self.name())
    }

    /// The consumer of the serving build, if this process runs it: its health, its dead letters.
    pub fn consumer(&self) -> Option<ConsumerHandle> {
        self.local.borrow().serving.as_ref().map(|running| running.consumer.clone())
    }

    /// The target of the serving build, if this process runs it.
    pub fn target(&self) -> Option<Arc<T>> {
        self.local.borrow().serving.as_ref().map(|running| running.target.clone())
    }

    /// The build that is under way in this process: begun by a new version, by
    /// [`rebuild`](Self::rebuild), or left by a process that died.
    ///
    /// While streams are parked in it, it does not take over: retry or discard its dead letters.
    pub fn building(&self) -> Option<Rebuild<T>> {
        let build = self.local.borrow().building.as_ref().map(|running| running.build);
        build.map(|build| Rebuild::new(self.clone(), build))
    }

    /// Builds the read model anew beside the serving one, and swaps it in when it has caught up.
    /// Returns when it has begun.
    ///
    /// It begins where the first one did, also with
    /// [`StartFrom::Now`](factum_consumer::StartFrom::Now). Meanwhile each event is projected twice.
    /// That has no other effect than the build: a projection writes to its target and nowhere else,
    /// and consumers are never rebuilt.
    ///
    /// # Errors
    /// [`BuildError::Building`] while a build is under way, here or in another process; those of
    /// the store.
    pub async fn rebuild(&self) -> Result<Rebuild<T>, BuildError> {
        let build = self.ask(Ask::Rebuild).await?;
        Ok(Rebuild::new(self.clone(), build))
    }

    /// Shows readers what they saw before, at once and as it stood then; it goes on from there if
    /// it is of this program's version. A build under way is given up. A second time it goes
    /// forward again. A version that was rolled back does not come again by itself; a larger one
    /// does, and [`rebuild`](Self::rebuild) too.
    ///
    /// # Errors
    /// [`BuildError::NothingKept`]; those of the store.
    pub async fn roll_back(&self) -> Result<Build, BuildError> {
        self.ask(Ask::RollBack).await
    }

    /// Lets the build before the serving one go. Its space is given back some seconds later, when
    /// no reader can be in it any more.
    ///
    /// # Errors
    /// [`BuildError::NothingKept`]; those of the store.
    pub async fn discard_old(&self) -> Result<Build, BuildError> {
        self.ask(Ask::DiscardOld).await
    }

    /// Begins the read model anew, at once: readers see it grow. What there was goes, the earlier
    /// build included.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reset(&self) -> Result<Build, BuildError> {
        self.ask(Ask::Reset).await
    }

    /// Lets it wait, after the batches at hand, until [`resume`](Self::resume) or the next start.
    /// In this process: where several run it, pause it in each.
    ///
    /// # Errors
    /// [`BuildError::Closed`], [`BuildError::RuntimeEnded`].
    pub async fn pause(&self) -> Result<(), BuildError> {
        self.ask(Ask::Pause).await.map(|_| ())
    }

    /// Lets it go on, in this process: what was paused, what had stopped, and what another process
    /// works on or left when it died.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn resume(&self) -> Result<(), BuildError> {
        self.ask(Ask::Resume).await.map(|_| ())
    }

    /// Waits until what readers see holds every event up to this position, also where another
    /// process maintains it. There only what it has stored counts: events that the projection does
    /// not handle are counted late.
    ///
    /// # Errors
    /// [`WaitError::Behind`] when the time is over, [`WaitError::Stopped`] if it will never come.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let clock = self.stored.kernel().clock().clone();
        let come = local::come_to(self.local.clone(), &self.stored, &self.targets, position);
        tokio::select! {
            biased;
            come = come => come,
            () = clock.sleep(timeout) => Err(WaitError::Behind {
                consumer: self.serving_name(),
                position,
                reached: self.consumer().map_or(Position::ZERO, |it| it.health().position),
                waited: timeout,
            }),
        }
    }

    async fn ask(&self, ask: Ask) -> Result<Build, BuildError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.orders.send((ask, answer)).await;
        answered.await.unwrap_or_else(|_| Err(self.local.borrow().error(self.name())))
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
            orders: self.orders.clone(),
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
