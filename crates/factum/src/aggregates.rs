//! The aggregates of one kind: states, history, and the entities that run them.

use std::{convert::Infallible, fmt, sync::Arc};

use factum_kernel::{
    Aggregate, At, DeleteError, Deleted, ExecuteError, ExpectedVersion, History,
    InvalidSnapshotPolicy, LoadError, Loaded, Metadata, Repository, SnapshotPolicy, SnapshotStats,
    StreamInfo, StreamVersion,
};
use factum_runtime::{
    Entities, EntityError, EntityInfo, EntityOptions, EntityStats, QuarantinedEntity,
};
use serde::{Serialize, de::DeserializeOwned};

/// The aggregates of one kind, as they are stored and as they run: [`App::aggregate`]. Cheap to
/// clone. Commands are sent by [`App::command`].
///
/// ```
/// use factum::{App, At, event::StreamVersion};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let app = App::open("memory:").await?;
/// # let email = "ada@example.org".to_owned();
/// # app.command::<Account>("ada", AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// # app.command::<Account>("ada", AccountCommand::Deposit { cents: 500 }).await?;
/// let accounts = app.aggregate::<Account>();
/// assert_eq!(accounts.look("ada", |ada, _| ada.balance_cents).await?, 500);
/// let was = accounts.load_at("ada", At::Version(StreamVersion::new(1))).await?;
/// assert_eq!((was.state.balance_cents, accounts.stats().commands), (0, 2));
/// # Ok(()) }
/// ```
///
/// [`App::aggregate`]: crate::App::aggregate
/// [`App::command`]: crate::App::command
pub struct Aggregates<A: Aggregate> {
    entities: Entities<A>,
}

impl<A: Aggregate> Aggregates<A> {
    pub(crate) fn new(entities: Entities<A>) -> Self {
        Self { entities }
    }

    fn repository(&self) -> &Repository<A> {
        self.entities.repository()
    }

    /// Loads the state of an aggregate from the log.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, key: impl AsRef<str>) -> Result<Loaded<A>, LoadError> {
        self.repository().load(key.as_ref()).await
    }

    /// Loads the state of an aggregate at a version or a time.
    ///
    /// # Errors
    /// `Truncated` if the history of that moment was deleted, else see [`LoadError`].
    pub async fn load_at(&self, key: impl AsRef<str>, at: At) -> Result<Loaded<A>, LoadError> {
        self.repository().load_at(key.as_ref(), at).await
    }

    /// The events of an aggregate, oldest first, page by page.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn history(&self, key: impl AsRef<str>) -> Result<History<A::Event>, LoadError> {
        self.repository().history(key.as_ref())
    }

    /// The state of the aggregate's entity, after every command that was accepted before this call.
    ///
    /// # Errors
    /// See [`EntityError`].
    pub async fn state(&self, key: impl AsRef<str>) -> Result<Loaded<A>, EntityError>
    where
        A: Clone,
    {
        self.entities.state(key).await
    }

    /// A value that is computed from the state of the aggregate's entity and its version, after
    /// every command that was accepted before this call. It may be computed more than once; the
    /// last one counts.
    ///
    /// # Errors
    /// See [`EntityError`].
    pub async fn look<R: Send + 'static>(
        &self,
        key: impl AsRef<str>,
        look: impl Fn(&A, StreamVersion) -> R + Send + 'static,
    ) -> Result<R, EntityError> {
        self.entities.look(key, look).await
    }

    /// The known facts about an aggregate's entity; `None` if it is not in memory and did not fail
    /// recently.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn entity(&self, key: impl AsRef<str>) -> Result<Option<EntityInfo>, EntityError> {
        self.entities.entity(key)
    }

    /// The most recently used entities, the last used first; at most
    /// [`LISTED_MAX`](factum_runtime::LISTED_MAX).
    pub fn recent(&self, count: usize) -> Vec<EntityInfo> {
        self.entities.recent(count)
    }

    /// The heaviest idle entities, the heaviest first; at most
    /// [`LISTED_MAX`](factum_runtime::LISTED_MAX).
    pub fn heaviest(&self, count: usize) -> Vec<EntityInfo> {
        self.entities.heaviest(count)
    }

    /// The entities that take no commands until they are released.
    pub fn quarantined(&self) -> Vec<QuarantinedEntity> {
        self.entities.quarantined()
    }

    /// Lets a quarantined entity take commands again. Returns true if it was quarantined.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn release(&self, key: impl AsRef<str>) -> Result<bool, EntityError> {
        self.entities.release(key)
    }

    /// Counters of the entities since the application was opened, and their present numbers.
    pub fn stats(&self) -> EntityStats {
        self.entities.stats()
    }

    /// Counters of the snapshots; `None` if the kind has no snapshots.
    pub fn snapshot_stats(&self) -> Option<Arc<SnapshotStats>> {
        self.repository().snapshot_stats()
    }

    /// Erases an aggregate: its events and its snapshots; see [`Repository::delete`]. This is no
    /// command, so no layer sees it.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn delete(
        &self,
        key: impl AsRef<str>,
        expected: ExpectedVersion,
    ) -> Result<Deleted, DeleteError> {
        self.repository().delete(key.as_ref(), expected).await
    }

    /// Appends a summary of the state and erases the events before it; see
    /// [`Repository::summarise`]. This is no command, so no layer sees it.
    ///
    /// # Errors
    /// See [`Repository::summarise`].
    pub async fn summarise(
        &self,
        key: impl AsRef<str>,
        metadata: &Metadata,
    ) -> Result<StreamInfo, ExecuteError<Infallible>> {
        self.repository().summarise(key.as_ref(), metadata).await
    }
}

// A derived `Clone` would ask for `A: Clone`.
impl<A: Aggregate> Clone for Aggregates<A> {
    fn clone(&self) -> Self {
        Self { entities: self.entities.clone() }
    }
}

impl<A: Aggregate> fmt::Debug for Aggregates<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aggregates").field("category", &A::CATEGORY).finish_non_exhaustive()
    }
}

/// The options for the aggregates of one kind: [`AppBuilder::aggregate_with`].
///
/// [`AppBuilder::aggregate_with`]: crate::AppBuilder::aggregate_with
#[must_use]
pub struct AggregateOptions<A: Aggregate> {
    entities: Option<EntityOptions>,
    snapshots: Option<Arc<Snapshots<A>>>,
}

type Snapshots<A> = dyn Fn(Repository<A>) -> Repository<A> + Send + Sync;

impl<A: Aggregate> AggregateOptions<A> {
    /// The application's options for entities, without snapshots.
    pub fn new() -> Self {
        Self { entities: None, snapshots: None }
    }

    /// Sets the options for the entities of this kind, instead of those of
    /// [`AppBuilder::with_entities`](crate::AppBuilder::with_entities).
    pub fn with_entities(mut self, options: EntityOptions) -> Self {
        self.entities = Some(options);
        self
    }

    /// Stores snapshots of the states. They shorten the first command for an aggregate with a long
    /// history.
    ///
    /// # Errors
    /// The policy is invalid.
    pub fn with_snapshots(mut self, policy: SnapshotPolicy) -> Result<Self, InvalidSnapshotPolicy>
    where
        A: Serialize + DeserializeOwned,
    {
        let policy = policy.validate()?;
        self.snapshots = Some(Arc::new(move |repository: Repository<A>| {
            repository.with_snapshots(policy).expect("the policy was validated")
        }));
        Ok(self)
    }

    /// Makes the entities of the kind from a plain repository.
    pub(crate) fn entities(&self, on: Repository<A>, default: EntityOptions) -> Entities<A> {
        let repository = match &self.snapshots {
            Some(snapshots) => snapshots(on),
            None => on,
        };
        Entities::new(repository, self.entities.unwrap_or(default))
    }
}

impl<A: Aggregate> Default for AggregateOptions<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Aggregate> fmt::Debug for AggregateOptions<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("AggregateOptions");
        out.field("entities", &self.entities).finish_non_exhaustive()
    }
}
