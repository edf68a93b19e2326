//! The aggregates of one kind: what they are, and how they fare.

use std::{convert::Infallible, fmt, sync::Arc};

use factum_kernel::{
    Aggregate, At, DeleteError, ExecuteError, ExpectedVersion, History, InvalidSnapshotPolicy,
    LoadError, Loaded, Metadata, Repository, SnapshotPolicy, SnapshotStats, StreamInfo,
    StreamVersion,
};
use factum_runtime::{
    Entities, EntityError, EntityInfo, EntityOptions, EntityStats, QuarantinedEntity,
};
use serde::{Serialize, de::DeserializeOwned};

/// The aggregates of one kind, as they are stored and as they run: [`App::aggregate`]. Cheap to
/// clone. Commands are sent by [`App::command`].
///
/// ```
/// use factum::{App, At, StreamVersion};
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

    /// The state of one as the log has it.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, key: impl AsRef<str>) -> Result<Loaded<A>, LoadError> {
        self.repository().load(key.as_ref()).await
    }

    /// The state of one as it was.
    ///
    /// # Errors
    /// `Truncated` where the history of that moment is gone, else see [`LoadError`].
    pub async fn load_at(&self, key: impl AsRef<str>, at: At) -> Result<Loaded<A>, LoadError> {
        self.repository().load_at(key.as_ref(), at).await
    }

    /// The events of one that are kept, oldest first, page by page.
    ///
    /// # Errors
    /// A key that no stream can have.
    pub fn history(&self, key: impl AsRef<str>) -> Result<History<A::Event>, LoadError> {
        self.repository().history(key.as_ref())
    }

    /// The state of one that runs, after every command that was accepted before.
    ///
    /// # Errors
    /// See [`EntityError`].
    pub async fn state(&self, key: impl AsRef<str>) -> Result<Loaded<A>, EntityError>
    where
        A: Clone,
    {
        self.entities.state(key).await
    }

    /// What is computed from the state of one that runs and its version, after every command that
    /// was accepted before. It may be computed more than once; the last one counts.
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

    /// What is known of one that runs; `None` if it is neither in memory nor in trouble.
    ///
    /// # Errors
    /// A key that no stream can have.
    pub fn entity(&self, key: impl AsRef<str>) -> Result<Option<EntityInfo>, EntityError> {
        self.entities.entity(key)
    }

    /// Those that were used last, the last one first; at most
    /// [`LISTED_MAX`](factum_runtime::LISTED_MAX).
    pub fn recent(&self, count: usize) -> Vec<EntityInfo> {
        self.entities.recent(count)
    }

    /// The idle ones that weigh most, the heaviest first; at most
    /// [`LISTED_MAX`](factum_runtime::LISTED_MAX).
    pub fn heaviest(&self, count: usize) -> Vec<EntityInfo> {
        self.entities.heaviest(count)
    }

    /// Those that take no commands until they are released.
    pub fn quarantined(&self) -> Vec<QuarantinedEntity> {
        self.entities.quarantined()
    }

    /// Lets a quarantined one take commands again. Whether it was one.
    ///
    /// # Errors
    /// A key that no stream can have.
    pub fn release(&self, key: impl AsRef<str>) -> Result<bool, EntityError> {
        self.entities.release(key)
    }

    /// What they have done, and are doing.
    pub fn stats(&self) -> EntityStats {
        self.entities.stats()
    }

    /// How snapshots have fared; `None` where none are kept.
    pub fn snapshot_stats(&self) -> Option<Arc<SnapshotStats>> {
        self.repository().snapshot_stats()
    }

    /// Erases one: its events and its snapshots; see [`Repository::delete`]. No command: no layer
    /// sees it.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn delete(
        &self,
        key: impl AsRef<str>,
        expected: ExpectedVersion,
    ) -> Result<StreamInfo, DeleteError> {
        self.repository().delete(key.as_ref(), expected).await
    }

    /// Appends a summary of the state and erases what is before it; see [`Repository::summarise`].
    /// No command: no layer sees it.
    ///
    /// # Errors
    /// Those of [`Repository::summarise`].
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

/// How the aggregates of one kind are kept: [`AppBuilder::aggregate_with`].
///
/// [`AppBuilder::aggregate_with`]: crate::AppBuilder::aggregate_with
#[must_use]
pub struct AggregateOptions<A: Aggregate> {
    entities: Option<EntityOptions>,
    snapshots: Option<Arc<Snapshots<A>>>,
}

type Snapshots<A> = dyn Fn(Repository<A>) -> Repository<A> + Send + Sync;

impl<A: Aggregate> AggregateOptions<A> {
    /// As the application keeps all of them, without snapshots.
    pub fn new() -> Self {
        Self { entities: None, snapshots: None }
    }

    /// Sets what the entities of this kind are made with, instead of
    /// [`AppBuilder::with_entities`](crate::AppBuilder::with_entities).
    pub fn with_entities(mut self, options: EntityOptions) -> Self {
        self.entities = Some(options);
        self
    }

    /// Keeps snapshots of the states, which shorten the first command for an aggregate with a long
    /// history.
    ///
    /// # Errors
    /// A policy that makes no sense.
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

    /// The entities of the kind, on a plain repository.
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
