//! The application: a store, and everything that is done with it.

use std::{sync::Arc, time::Duration};

use factum_backend::Registry;
use factum_consumer::{Consumers, EventBus};
#[cfg(feature = "journal")]
use factum_journal::JournalKind;
use factum_kernel::{
    Aggregate, Decided, DecisionModel, Event, ExecuteError, Executed, Kernel, LoadError, Loaded,
    Metadata, ModelError, ReadLog, ReadQuery, Repository, RetryPolicy, Scope, StoreError,
    SubscribeFrom, Subscription, Transaction, execute_model,
};
use factum_memory::MemoryKind;
#[cfg(feature = "postgres")]
use factum_postgres::PostgresKind;
use factum_runtime::{Commands, Entities, Supervisor};
#[cfg(feature = "sqlite")]
use factum_sqlite::SqliteKind;

use crate::{
    builder::{AppBuilder, OpenError},
    catalog::Catalog,
    running::Running,
    stats::AppStats,
};

/// How long closing an application waits for its entities.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// An open store, and everything that is done with it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    kernel: Kernel,
    retry: RetryPolicy,
    catalog: Arc<Catalog>,
    running: Arc<Running>,
}

impl App {
    /// Opens the store that a URL names (`memory:`, `sqlite:./events.db`), or what is at a path:
    /// where nothing is yet, a journal is made there.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url_or_path: &str) -> Result<Self, OpenError> {
        Self::builder().open(url_or_path).await
    }

    /// An application to be opened with something other than the defaults.
    pub fn builder() -> AppBuilder {
        AppBuilder::new()
    }

    /// The kinds of store that are built in.
    pub fn stores() -> Registry {
        let registry = Registry::new().with(MemoryKind);
        #[cfg(feature = "journal")]
        let registry = registry.with(JournalKind);
        #[cfg(feature = "sqlite")]
        let registry = registry.with(SqliteKind);
        #[cfg(feature = "postgres")]
        let registry = registry.with(PostgresKind::new()).with(PostgresKind::spelt_out());
        registry
    }

    pub(crate) fn new(
        kernel: Kernel,
        retry: RetryPolicy,
        catalog: Catalog,
        running: Arc<Running>,
    ) -> Self {
        Self { kernel, retry, catalog: Arc::new(catalog), running }
    }

    /// What it runs on.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The aggregates of one kind.
    ///
    /// # Panics
    /// If another aggregate of this application has their category, or another enum a stored name
    /// of their events: a mistake in the program. [`AppBuilder::aggregate`] finds it when the
    /// application opens.
    pub fn aggregate<A: Aggregate>(&self) -> Repository<A> {
        if let Err(clash) = self.catalog.add::<A>() {
            panic!("{clash}");
        }
        Repository::new(self.kernel.clone()).with_retry(self.retry)
    }

    /// The running aggregates of one kind: the same for whoever asks. With snapshots, or with
    /// options of their own, make them of a [repository](Self::aggregate) by [`Entities::new`];
    /// those are yours to shut down.
    ///
    /// # Panics
    /// As [`aggregate`](Self::aggregate).
    pub fn entities<A: Aggregate>(&self) -> Entities<A> {
        self.running.entities(|| self.aggregate())
    }

    /// The command bus: every aggregate that was named by [`AppBuilder::aggregate`], through the
    /// entities of [`entities`](Self::entities), without layers yet. Make it once, layer it, and
    /// clone it.
    ///
    /// ```
    /// use factum::{App, TracingLayer};
    /// use factum_testing::bank::{Account, AccountCommand};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::builder().aggregate::<Account>().open("memory:").await?;
    /// let commands = app.commands().named::<Account>().layer(TracingLayer::new());
    /// # let email = "ada@example.org".to_owned();
    /// let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// let opened = commands.dispatch::<Account>("ada", open).await?;
    /// assert_eq!(opened.version.value(), 1);
    /// # Ok(()) }
    /// ```
    pub fn commands(&self) -> Commands {
        Commands::new(self.running.router(self), &self.kernel)
    }

    /// What runs for long beside the entities, and is started again when it fails: add workers
    /// of your own, see how each fares.
    pub fn supervisor(&self) -> &Supervisor {
        self.running.supervisor()
    }

    /// The consumers and projections of the application, and its event bus. A read model is begun
    /// with fewer words by [`project`](Self::project).
    ///
    /// ```
    /// use std::{sync::{Arc, atomic::{AtomicU64, Ordering}}, time::Duration};
    /// use factum::{App, Consumer, RecordedEvent};
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// let seen = Arc::new(AtomicU64::new(0));
    /// let counted = seen.clone();
    /// let counter = Consumer::new("counter", move |_: AccountEvent, _: RecordedEvent| {
    ///     counted.fetch_add(1, Ordering::Relaxed);
    ///     async { Ok(()) }
    /// });
    /// let counter = app.consumers().start(counter)?;
    ///
    /// # let email = "ada@example.org".to_owned();
    /// let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// let done = app.execute::<Account>("ada", &open).await?;
    /// counter.wait_for(done.position.unwrap_or_default(), Duration::from_secs(5)).await?;
    /// assert_eq!(seen.load(Ordering::Relaxed), 1);
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn consumers(&self) -> &Consumers {
        self.running.consumers()
    }

    /// Events of an enum from now on, as they are stored; see [`EventBus`].
    pub fn events<E: Event>(&self) -> EventBus<E> {
        self.consumers().events()
    }

    /// What it is doing: its entities of all kinds, those made by [`entities`](Self::entities),
    /// its workers, and its consumers. [`AppBuilder::with_stats_every`] publishes it to other
    /// processes.
    pub fn stats(&self) -> AppStats {
        self.running.stats(&**self.kernel.clock())
    }

    /// Executes a command on the aggregate with this key.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute<A: Aggregate>(
        &self,
        key: &str,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.aggregate::<A>().execute(key, command).await
    }

    /// [`execute`](Self::execute), with metadata for the rule to see and the events to carry.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute_with<A: Aggregate>(
        &self,
        key: &str,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.aggregate::<A>().execute_with(key, command, metadata).await
    }

    /// The state of the aggregate with this key.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load<A: Aggregate>(&self, key: &str) -> Result<Loaded<A>, LoadError> {
        self.aggregate::<A>().load(key).await
    }

    /// Commands on several aggregates, all or nothing.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.kernel.clone()).with_retry(self.retry)
    }

    /// Decides over a query instead of a stream.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub async fn decide<M: DecisionModel>(
        &self,
        command: &M::Command,
        metadata: &Metadata,
    ) -> Result<Decided<M>, ModelError<M::Rejection>> {
        execute_model(&self.kernel, command, metadata, self.retry).await
    }

    /// Reads to the end of what is there.
    pub fn read(&self, query: ReadQuery) -> ReadLog {
        ReadLog::new(self.kernel.events().clone(), query)
    }

    /// Reads what is there, and then what comes.
    pub fn subscribe(&self, scope: Scope, from: SubscribeFrom) -> Subscription {
        Subscription::new(&self.kernel, scope, from)
    }

    /// Shuts down in the order of dependence. First the [`consumers`](Self::consumers) stop after
    /// their current batches, because their handlers may need all the rest. Then the workers of the
    /// [`supervisor`](Self::supervisor) stop, the last first, each within its grace. Then what
    /// [`entities`](Self::entities) accepted finishes, for 30 seconds at most. Then the store
    /// closes. No event's attempt is counted because of it.
    /// [`Supervisor::shutdown`], called before, says which workers did not stop.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.consumers().close().await;
        self.running.shutdown(SHUTDOWN_MAX).await;
        self.kernel.events().close().await
    }
}
