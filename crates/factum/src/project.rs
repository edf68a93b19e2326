//! The short way to start a projection.

use std::{fmt, future::IntoFuture, pin::Pin};

use factum_consumer::{ConsumerOptions, HandleError, StartError};
use factum_kernel::{Event, RecordedEvent};
use factum_projection::{
    BuildError, Documents, DocumentsTx, Fold, Maintained, MemoryModel, Projection, ProjectionFn,
    Projections,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::app::App;

type Started = Result<Maintained<Documents>, BuildError>;
type Starting = Pin<Box<dyn Future<Output = Started> + Send>>;

/// A projection that starts when this is awaited.
///
/// # Errors
/// The future returns the errors of
/// [`Projections::maintain`](factum_projection::Projections::maintain).
#[must_use = "the projection starts only when it is awaited"]
pub struct StartProjection {
    options: ConsumerOptions,
    start: Box<dyn FnOnce(ConsumerOptions) -> Starting + Send>,
}

impl App {
    /// Starts a projection into documents of this application's own store, and maintains it across
    /// its versions; see [`Maintained`]. For another target, use [`consumers`](Self::consumers).
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum::{
    ///     Aggregate, App, Documents, DocumentsTx, HandleError, Projection, RecordedEvent,
    /// };
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// /// The owner of each account.
    /// struct Owners;
    ///
    /// impl Projection for Owners {
    ///     const NAME: &'static str = "owners";
    ///     const CATEGORIES: &[&str] = &[Account::CATEGORY];
    ///     type Event = AccountEvent;
    ///     type Target = Documents;
    ///
    ///     async fn project(
    ///         &self,
    ///         event: AccountEvent,
    ///         recorded: &RecordedEvent,
    ///         owners: &mut DocumentsTx,
    ///     ) -> Result<(), HandleError> {
    ///         let key = recorded.stream().key();
    ///         match event {
    ///             AccountEvent::Opened { owner, .. } => owners.put(key, &owner),
    ///             _ => Ok(()),
    ///         }
    ///     }
    ///
    ///     async fn forget(
    ///         &self,
    ///         deletion: &RecordedEvent,
    ///         owners: &mut DocumentsTx,
    ///     ) -> Result<(), HandleError> {
    ///         owners.remove(deletion.stream().key());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// let owners = app.project(Owners).await?;
    ///
    /// let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    /// let opened = app.command::<Account>("a1", open).await?;
    /// owners.wait_for(opened.position.expect("it is an event"), Duration::from_secs(5)).await?;
    /// assert_eq!(owners.read_model::<String>().get("a1").await?.as_deref(), Some("Ada"));
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn project<P: Projection<Target = Documents>>(&self, projection: P) -> StartProjection {
        let app = self.clone();
        StartProjection::new(move |options| {
            Box::pin(async move {
                let kernel = app.kernel().clone();
                let targets = move |_: &_| Documents::new(&kernel);
                app.consumers().maintain(projection, targets, options).await
            })
        })
    }

    /// Like [`project`](Self::project), for a projection that is a closure.
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum::{App, Documents, ProjectionFn};
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// let owners = ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, owners| {
    ///     match event {
    ///         AccountEvent::Opened { owner, .. } => owners.put(recorded.stream().key(), &owner),
    ///         _ => Ok(()),
    ///     }
    /// });
    /// let owners = app.project_fn(owners).await?;
    /// # let email = "ada@example.org".to_owned();
    /// # let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// # let done = app.command::<Account>("ada", open).await?;
    /// # owners.wait_for(done.position.unwrap(), Duration::from_secs(5)).await?;
    /// assert_eq!(owners.read_model::<String>().get("ada").await?.as_deref(), Some("Ada"));
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn project_fn<E, H>(&self, projection: ProjectionFn<E, Documents, H>) -> StartProjection
    where
        E: Event,
        H: Fn(E, &RecordedEvent, &mut DocumentsTx) -> Result<(), HandleError>
            + Send
            + Sync
            + 'static,
    {
        let app = self.clone();
        StartProjection::new(move |options| {
            Box::pin(async move {
                let kernel = app.kernel().clone();
                let targets = move |_: &_| Documents::new(&kernel);
                app.consumers().maintain_fn(projection, targets, options).await
            })
        })
    }

    /// Starts an in-memory model; see [`Fold`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum::{App, Fold};
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// let opened = Fold::new("opened", 1, |count: &mut u64, event, _| {
    ///     *count += u64::from(matches!(event, AccountEvent::Opened { .. }));
    /// });
    /// let opened = app.fold(opened).await?;
    /// # let email = "ada@example.org".to_owned();
    /// # let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// # let done = app.command::<Account>("ada", open).await?;
    /// # opened.wait_for(done.position.unwrap(), Duration::from_secs(5)).await?;
    /// assert_eq!(*opened.read().await?, 1);
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`Projections::fold`](factum_projection::Projections::fold).
    pub async fn fold<M, E, F>(&self, fold: Fold<M, E, F>) -> Result<MemoryModel<M>, StartError>
    where
        M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
        E: Event,
        F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
    {
        self.consumers().fold(fold).await
    }
}

impl StartProjection {
    fn new(start: impl FnOnce(ConsumerOptions) -> Starting + Send + 'static) -> Self {
        Self { options: ConsumerOptions::new(), start: Box::new(start) }
    }

    /// Sets the options: the start position, the batches, and the handling of failures.
    pub fn with_options(mut self, options: ConsumerOptions) -> Self {
        self.options = options;
        self
    }
}

impl IntoFuture for StartProjection {
    type Output = Started;
    type IntoFuture = Starting;

    fn into_future(self) -> Starting {
        (self.start)(self.options)
    }
}

impl fmt::Debug for StartProjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartProjection").field("options", &self.options).finish_non_exhaustive()
    }
}
