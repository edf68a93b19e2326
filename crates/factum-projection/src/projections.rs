//! The trait `Projections`: maintain projections, fold models in memory, and wait for either by
//! name.

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
    projection::{Projection, ProjectionHandle, ProjectionWork},
    sql::is_sql_outage,
};

/// Starts projections and models in memory on the [`Consumers`] of a program. Import the trait to
/// use its methods.
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
/// let opened = Fold::new("opened", 1, |count: &mut u64, event, _| {
///     *count += u64::from(matches!(event, AccountEvent::Opened { .. }));
/// });
/// let opened = consumers.fold(opened).await?;
/// assert_eq!(*opened.read().await?, 0);
/// # Ok(()) }
/// ```
pub trait Projections {
    /// Starts one version of a projection into a target. No build is made, and no other version
    /// takes over: [`maintain`](Self::maintain) does that, and the application's `project` for
    /// documents of its own store.
    ///
    /// # Errors
    /// See [`StartError`].
    fn start_projection<P: Projection>(
        &self,
        projection: P,
        target: P::Target,
        options: ConsumerOptions,
    ) -> impl Future<Output = Result<ProjectionHandle<P>, StartError>> + Send;

    /// Maintains a projection over its versions. `targets` makes the target of each build from the
    /// build's name. Targets in SQL are made by `PostgresTarget::of_build` or
    /// `SqliteTarget::of_build`.
    ///
    /// Use it from the first version on: a version that
    /// [`start_projection`](Self::start_projection) ran is not known as an older build.
    ///
    /// # Errors
    /// A name that is invalid or already in use, closed consumers, and errors of the store.
    fn maintain<P: Projection>(
        &self,
        projection: P,
        targets: impl Fn(&ConsumerName) -> P::Target + Send + Sync + 'static,
        options: ConsumerOptions,
    ) -> impl Future<Output = Result<Maintained<P::Target>, BuildError>> + Send;

    /// Maintains a projection that is a closure.
    ///
    /// # Errors
    /// As for [`maintain`](Self::maintain).
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

    /// Starts a model in memory. Readers see the last snapshot first, and then the model after each
    /// batch. As with a consumer, the beginning of a model that begins now is stored first.
    ///
    /// # Errors
    /// See [`StartError`].
    fn fold<M, E, F>(
        &self,
        fold: Fold<M, E, F>,
    ) -> impl Future<Output = Result<MemoryModel<M>, StartError>> + Send
    where
        M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Event,
        F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static;

    /// Waits until the consumer or projection of this name has reached a position. It finds what
    /// was started or maintained in this program, and projections whose documents another process
    /// maintains in the store.
    ///
    /// For a maintained projection it waits for the build that readers see, over rebuilds and new
    /// versions, as [`Maintained::wait_for`] does. For a projection in another process it waits for
    /// the stored progress, as [`ReadModel::wait_for`](crate::ReadModel::wait_for) does.
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
    /// consumers.start(Consumer::new("mails", |_: AccountEvent, _| async { Ok(()) })).await?;
    /// let (head, wait) = (factum_kernel::Position::ZERO, Duration::from_secs(5));
    /// consumers.wait_for("mails", head, wait).await?;
    ///
    /// let misspelt = consumers.wait_for("males", head, wait).await;
    /// assert!(matches!(misspelt, Err(WaitError::Unknown(name)) if name == "males"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`WaitError::Unknown`] at once, [`WaitError::Behind`] after the timeout,
    /// [`WaitError::Unread`] if the program of the consumer can't read one of the events,
    /// [`WaitError::Stopped`] if the position can't be reached any more.
    fn wait_for(
        &self,
        name: &str,
        position: Position,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), WaitError>> + Send;

    /// Checks that a consumer or projection of this name exists, so that
    /// [`wait_for`](Self::wait_for) can wait for it. Call it before a command is sent: then a wrong
    /// name is found before the command takes effect.
    ///
    /// # Errors
    /// [`WaitError::Unknown`], and [`WaitError::Store`] if the store can't be read.
    fn can_wait_for(&self, name: &str) -> impl Future<Output = Result<(), WaitError>> + Send;
}

impl Projections for Consumers {
    async fn start_projection<P: Projection>(
        &self,
        projection: P,
        target: P::Target,
        options: ConsumerOptions,
    ) -> Result<ProjectionHandle<P>, StartError> {
        let name = ConsumerName::new(P::NAME)?;
        // The projection may have been maintained before, and another process may have frozen it
        // for a handover.
        let builds = StoredBuilds::new(self.kernel().clone(), name.clone());
        let work = ProjectionWork { projection, names: Names::new(options.unknown) };
        let target = Arc::new(work.projection.declare(target));
        let consumers = self.clone().with_outages(is_sql_outage);
        let consumer = consumers.launch(Launch {
            name: name.versioned(P::VERSION),
            work: Arc::new(work),
            target: target.clone(),
            options,
            is_layout_kept: true,
            handover: Some(Arc::new(builds)),
        });
        let consumer = consumer.await?;
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

    async fn fold<M, E, F>(&self, fold: Fold<M, E, F>) -> Result<MemoryModel<M>, StartError>
    where
        M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Event,
        F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
    {
        MemoryModel::start(self, fold).await
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
