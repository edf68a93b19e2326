//! The application: an open store, with the operations on it.

use std::{sync::Arc, time::Duration};

use factum_backend::Registry;
use factum_consumer::{Consumers, EventBus};
#[cfg(feature = "journal")]
use factum_journal::JournalKind;
use factum_kernel::{
    Aggregate, Event, Kernel, LoadError, Loaded, ReadLog, ReadQuery, Repository, RetryPolicy,
    Scope, StoreError, SubscribeFrom, Subscription,
};
use factum_memory::MemoryKind;
#[cfg(feature = "postgres")]
use factum_postgres::PostgresKind;
use factum_runtime::{CommandService, Commands, Entities, Supervisor};
#[cfg(feature = "sqlite")]
use factum_sqlite::SqliteKind;

use crate::{
    aggregates::Aggregates,
    builder::{AppBuilder, OpenError},
    catalog::Catalog,
    named::Names,
    running::Running,
    stats::AppStats,
};

/// The longest time that closing an application waits for its entities and transactions.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// An open store, with the operations on it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    core: Arc<Core>,
    running: Arc<Running>,
}

/// The parts of an application that don't run.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) kernel: Kernel,
    pub(crate) retry: RetryPolicy,
    pub(crate) catalog: Catalog,
    /// The aggregates that take commands by name.
    pub(crate) names: Names,
    /// The command bus with all layers.
    pub(crate) commands: Commands<CommandService>,
}

impl App {
    /// Opens the store at a URL (`memory:`, `sqlite:./events.db`) or at a path. If there is
    /// nothing, or an empty folder, at a path that begins with `./`, `../` or `/`, a journal is
    /// created there. Every other text that leads to no store is refused, so that no server's
    /// address becomes one.
    /// [`AppBuilder::existing`] creates nothing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url_or_path: &str) -> Result<Self, OpenError> {
        Self::builder().open(url_or_path).await
    }

    /// A builder, for an application with other settings than the defaults.
    pub fn builder() -> AppBuilder {
        AppBuilder::new()
    }

    /// The kinds of store that are built in.
    pub fn stores() -> Registry {
        let registry = Registry::new().with(MemoryKind);
        #[cfg(feature = "journal")]
        let registry = registry.with(JournalKind);
        #[cfg(not(feature = "journal"))]
        let registry = registry.without("journal", "journal");
        #[cfg(feature = "sqlite")]
        let registry = registry.with(SqliteKind);
        #[cfg(not(feature = "sqlite"))]
        let registry = registry.without("sqlite", "sqlite");
        #[cfg(feature = "postgres")]
        let registry = registry.with(PostgresKind::new()).with(PostgresKind::spelt_out());
        #[cfg(not(feature = "postgres"))]
        let registry = registry.without("postgres", "postgres").without("postgresql", "postgres");
        registry
    }

    pub(crate) fn new(core: Core, running: Arc<Running>) -> Self {
        Self { core: Arc::new(core), running }
    }

    /// The store, clock and ids that this application uses. This is the lower level: a write
    /// through the kernel passes no layer.
    pub fn kernel(&self) -> &Kernel {
        &self.core.kernel
    }

    /// The aggregates of one kind: loads them, also at an earlier version or time, and shows how
    /// their entities are doing. Commands are sent by [`command`](Self::command).
    ///
    /// # Panics
    /// If another aggregate of this application has the same category, or another enum has a stored
    /// name of its events. This is a mistake in the program. [`AppBuilder::aggregate`] finds it
    /// when the application opens.
    pub fn aggregate<A: Aggregate>(&self) -> Aggregates<A> {
        Aggregates::new(self.entities())
    }

    /// The entities of one kind. Every caller gets the same ones.
    pub(crate) fn entities<A: Aggregate>(&self) -> Entities<A> {
        self.running.entities(|| {
            if let Err(clash) = self.core.catalog.add::<A>() {
                panic!("{clash}");
            }
            Repository::new(self.core.kernel.clone()).with_retry(self.core.retry)
        })
    }

    /// The repository of a kind's entities, with snapshots if the kind has them.
    pub(crate) fn repository<A: Aggregate>(&self) -> Repository<A> {
        self.entities::<A>().repository().clone()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.core.names
    }

    pub(crate) fn retry(&self) -> RetryPolicy {
        self.core.retry
    }

    pub(crate) fn commands(&self) -> &Commands<CommandService> {
        &self.core.commands
    }

    /// The supervisor of the application's workers, which restarts workers that fail. Add your own
    /// workers here, and see how each is doing.
    pub fn supervisor(&self) -> &Supervisor {
        self.running.supervisor()
    }

    /// The consumers and projections of the application, and its event bus.
    /// [`project`](Self::project) is the shorter way to start a read model.
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
    /// let counter = app.consumers().start(counter).await?;
    ///
    /// # let email = "ada@example.org".to_owned();
    /// let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// let done = app.command::<Account>("ada", open).await?;
    /// counter.wait_for(done.position.unwrap_or_default(), Duration::from_secs(5)).await?;
    /// assert_eq!(seen.load(Ordering::Relaxed), 1);
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn consumers(&self) -> &Consumers {
        self.running.consumers()
    }

    /// New events of an enum, as they are stored; see [`EventBus`].
    pub fn events<E: Event>(&self) -> EventBus<E> {
        self.consumers().events()
    }

    /// The present state of the application: its entities of all kinds, its workers, and its
    /// consumers.
    /// [`AppBuilder::with_stats_every`] publishes it to other processes.
    pub fn stats(&self) -> AppStats {
        self.running.stats(&**self.core.kernel.clock())
    }

    /// Loads the state of the aggregate with this key.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load<A: Aggregate>(&self, key: &str) -> Result<Loaded<A>, LoadError> {
        self.repository::<A>().load(key).await
    }

    /// Reads the log from a query's start to the present end.
    pub fn read(&self, query: ReadQuery) -> ReadLog {
        ReadLog::new(self.core.kernel.events().clone(), query)
    }

    /// Reads the present events, and then new events as they come.
    pub fn subscribe(&self, scope: Scope, from: SubscribeFrom) -> Subscription {
        Subscription::new(&self.core.kernel, scope, from)
    }

    /// Shuts down in dependency order. First the [`consumers`](Self::consumers) stop after their
    /// current batches, because their handlers may need everything else. Then the workers of the
    /// [`supervisor`](Self::supervisor) stop, the last added first, each within its grace. Then the
    /// entities finish the commands that they accepted, and the transactions and decisions under
    /// way end, for at most 30 seconds. Then the store closes. The shutdown does not count as a
    /// failed attempt of any event. To learn which workers did not stop, call
    /// [`Supervisor::shutdown`] before.
    ///
    /// # Errors
    /// An error of the store.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.consumers().close().await;
        self.running.shutdown(SHUTDOWN_MAX).await;
        self.core.kernel.events().close().await
    }
}
