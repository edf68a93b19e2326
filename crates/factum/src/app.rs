//! The application: a store, and everything that is done with it.

use std::{sync::Arc, time::Duration};

use factum_backend::Registry;
#[cfg(feature = "journal")]
use factum_journal::JournalKind;
use factum_kernel::{
    Aggregate, Event, Kernel, LoadError, Loaded, ReadLog, ReadQuery, Repository, RetryPolicy,
    Scope, StoreError, SubscribeFrom, Subscription,
};
use factum_memory::MemoryKind;
#[cfg(feature = "postgres")]
use factum_postgres::PostgresKind;
use factum_projection::{Consumers, EventBus};
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

/// How long closing an application waits for its entities.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// An open store, and everything that is done with it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    core: Arc<Core>,
    running: Arc<Running>,
}

/// What an application is made of, but for what runs.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) kernel: Kernel,
    pub(crate) retry: RetryPolicy,
    pub(crate) catalog: Catalog,
    /// What takes commands by their names.
    pub(crate) names: Names,
    /// With all layers.
    pub(crate) commands: Commands<CommandService>,
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

    pub(crate) fn new(core: Core, running: Arc<Running>) -> Self {
        Self { core: Arc::new(core), running }
    }

    /// What it runs on: the lower level. What is written with it passes no layer.
    pub fn kernel(&self) -> &Kernel {
        &self.core.kernel
    }

    /// The aggregates of one kind: to load them, also as they were, and to see how they fare.
    /// Commands are sent by [`command`](Self::command).
    ///
    /// # Panics
    /// If another aggregate of this application has their category, or another enum a stored name
    /// of their events: a mistake in the program. [`AppBuilder::aggregate`] finds it when the
    /// application opens.
    pub fn aggregate<A: Aggregate>(&self) -> Aggregates<A> {
        Aggregates::new(self.entities())
    }

    /// The running aggregates of one kind: the same for whoever asks.
    pub(crate) fn entities<A: Aggregate>(&self) -> Entities<A> {
        self.running.entities(|| {
            if let Err(clash) = self.core.catalog.add::<A>() {
                panic!("{clash}");
            }
            Repository::new(self.core.kernel.clone()).with_retry(self.core.retry)
        })
    }

    /// What they load from, with snapshots where the kind keeps them.
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
    /// let done = app.command::<Account>("ada", open).await?;
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

    /// What it is doing: its entities of all kinds, its workers, and its consumers.
    /// [`AppBuilder::with_stats_every`] publishes it to other processes.
    pub fn stats(&self) -> AppStats {
        self.running.stats(&**self.core.kernel.clock())
    }

    /// The state of the aggregate with this key.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load<A: Aggregate>(&self, key: &str) -> Result<Loaded<A>, LoadError> {
        self.repository::<A>().load(key).await
    }

    /// Reads to the end of what is there.
    pub fn read(&self, query: ReadQuery) -> ReadLog {
        ReadLog::new(self.core.kernel.events().clone(), query)
    }

    /// Reads what is there, and then what comes.
    pub fn subscribe(&self, scope: Scope, from: SubscribeFrom) -> Subscription {
        Subscription::new(&self.core.kernel, scope, from)
    }

    /// Shuts down in the order of dependence. First the [`consumers`](Self::consumers) stop after
    /// their current batches, because their handlers may need all the rest. Then the workers of the
    /// [`supervisor`](Self::supervisor) stop, the last first, each within its grace. Then what
    /// the entities accepted finishes, for 30 seconds at most. Then the store
    /// closes. No event's attempt is counted because of it.
    /// [`Supervisor::shutdown`], called before, says which workers did not stop.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.consumers().close().await;
        self.running.shutdown(SHUTDOWN_MAX).await;
        self.core.kernel.events().close().await
    }
}
