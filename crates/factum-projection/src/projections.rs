//! What the consumers of a program can do above handling events: maintain projections, fold models
//! in memory, and wait for either by its name.

use std::{future::Future, sync::Arc, time::Duration};

use factum_consumer::{
    ConsumerName, ConsumerOptions, Consumers, HandleError, StartError, Target, WaitError,
    part::{Launch, Names},
};
use factum_kernel::{Event, Position, RecordedEvent};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    arrival,
    maintain::{self, BuildError, Maintained, ProjectionFn},
    memory::{Fold, MemoryModel},
    model_build::StoredBuilds,
    projection::{Projecting, Projection, ProjectionHandle},
    sql::is_sql_outage,
};

/// Projections and models in memory of a program, run by its [`Consumers`]. Import it to start
/// them.
///
/// ```
/// use factum_consumer::Consumers;
/// use factum_projection::{Fold, Projections};
/// use factum_testing::bank::AccountEvent;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// let consumers = Consumers::new(kernel);
/// let opened = consumers.fold(Fold::new("opened", 1, |count: &mut u64, event, _| {
///     *count += u64::from(matches!(event, AccountEvent::Opened { .. }));
/// }))?;
/// assert_eq!(*opened.read().await?, 0);
/// # Ok(()) }
/// ```
pub trait Projections {
    /// Starts a projection into a target.
    ///
    /// # Errors
    /// See [`StartError`].
    fn project<P: Projection>(
        &self,
        projection: P,
        target: P::Target,
        options: ConsumerOptions,
    ) -> Result<ProjectionHandle<P>, StartError>;

    /// Maintains a projection over its versions. `targets` makes the target of a build, whose name
    /// it is given; one in tables of one's own is made by `of_build`.
    ///
    /// Begin with it before the version changes for the first time: a version that
    /// [`project`](Self::project) ran is not known as an older one.
    ///
    /// # Errors
    /// A name that is none or runs already, closed consumers, and those of the store.
    fn maintain<P: Projection>(
        &self,
        projection: P,
        targets: impl Fn(&ConsumerName) -> P::Target + Send + Sync + 'static,
        options: ConsumerOptions,
    ) -> impl Future<Output = Result<Maintained<P::Target>, BuildError>> + Send;

    /// Maintains a projection that is a closure.
    ///
    /// # Errors
    /// Those of [`maintain`](Self::maintain).
    fn maintain_fn<E, T, H>(
        &self,
        projection: ProjectionFn<E, T, H>,
        targets: impl Fn(&ConsumerName) -> T + Send + Sync + 'static,
        options: ConsumerOptions,
    ) -> impl Future<Output = Result<Maintained<T>, BuildError>> + Send
    where
        E: Event,
        T: Target,
        H: Fn(E, &RecordedEvent, &mut T::Tx) -> Result<(), HandleError> + Send + Sync + 'static;

    /// Starts a model in memory. Readers see what the last snapshot holds, and then each batch.
    ///
    /// # Errors
    /// See [`StartError`].
    fn fold<M, E, F>(&self, fold: Fold<M, E, F>) -> Result<MemoryModel<M>, StartError>
    where
        M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Event,
        F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static;

    /// Waits until the consumer or projection of this name has come to a position: one that was
    /// maintained or started in this program, or else a projection whose documents another process
    /// maintains in the store.
    ///
    /// Of a maintained projection it is what readers see, over rebuilds and new versions, as
    /// [`Maintained::wait_for`] does; of one elsewhere what is stored, as
    /// [`ReadModel::wait_for`](crate::ReadModel::wait_for) does.
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum_consumer::{Consumer, Consumers, WaitError};
    /// use factum_projection::Projections;
    /// use factum_testing::bank::AccountEvent;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// let consumers = Consumers::new(kernel);
    /// consumers.start(Consumer::new("mails", |_: AccountEvent, _| async { Ok(()) }))?;
    /// let (head, wait) = (factum_kernel::Position::ZERO, Duration::from_secs(5));
    /// consumers.wait_for("mails", head, wait).await?;
    ///
    /// let misspelt = consumers.wait_for("males", head, wait).await;
    /// assert!(matches!(misspelt, Err(WaitError::Unknown(name)) if name == "males"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WaitError::Unknown`] at once, [`WaitError::Behind`] when the time is over,
    /// [`WaitError::Stopped`] if it will never come.
    fn wait_for(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), WaitError>> + Send;

    /// Whether there is anything of this name to [wait for](Self::wait_for): asked before a
    /// command is sent, so that a mistake is not found when it has taken effect.
    ///
    /// # Errors
    /// [`WaitError::Unknown`], and [`WaitError::Store`] where the store has to be asked.
    fn can_wait_for(&self, name: &str) -> impl Future<Output = Result<(), WaitError>> + Send;
}

impl Projections for Consumers {
    fn project<P: Projection>(
        &self,
        projection: P,
        target: P::Target,
        options: ConsumerOptions,
    ) -> Result<ProjectionHandle<P>, StartError> {
        let name = ConsumerName::new(P::NAME)?;
        // It may have been maintained before, and be held by who maintains it elsewhere.
        let builds = StoredBuilds::new(self.kernel().clone(), name.clone());
        let work = Projecting { projection, names: Names::new(options.unknown) };
        let target = Arc::new(work.projection.declare(target));
        let consumer = self.clone().with_outages(is_sql_outage).launch(Launch {
            name: name.versioned(P::VERSION),
            work: Arc::new(work),
            target: target.clone(),
            options,
            is_layout_kept: true,
            handover: Some(Arc::new(builds)),
        })?;
        Ok(ProjectionHandle { consumer, target })
    }

    async fn maintain<P: Projection>(
        &self,
        projection: P,
        targets: impl Fn(&ConsumerName) -> P::Target + Send + Sync + 'static,
        options: ConsumerOptions,
    ) -> Result<Maintained<P::Target>, BuildError> {
        maintain::maintain(self, projection, targets, options).await
    }

    async fn maintain_fn<E, T, H>(
        &self,
        projection: ProjectionFn<E, T, H>,
        targets: impl Fn(&ConsumerName) -> T + Send + Sync + 'static,
        options: ConsumerOptions,
    ) -> Result<Maintained<T>, BuildError>
    where
        E: Event,
        T: Target,
        H: Fn(E, &RecordedEvent, &mut T::Tx) -> Result<(), HandleError> + Send + Sync + 'static,
    {
        maintain::maintain_fn(self, projection, targets, options).await
    }

    fn fold<M, E, F>(&self, fold: Fold<M, E, F>) -> Result<MemoryModel<M>, StartError>
    where
        M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Event,
        F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
    {
        MemoryModel::start(self, fold)
    }

    async fn wait_for(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        arrival::wait_for(self, name, position, timeout).await
    }

    async fn can_wait_for(&self, name: &str) -> Result<(), WaitError> {
        arrival::can_wait_for(self, name).await
    }
}
