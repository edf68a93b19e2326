//! The opening of an application, with everything that can be chosen.

use std::{any::TypeId, fmt, sync::Arc, time::Duration};

use factum_backend::{OpenContext, OpenStore, Registry, Stores};
use factum_kernel::{
    Aggregate, Clock, Command, ErrorKind, Event, IdSource, Kernel, RetryPolicy, StoreError,
    SystemClock, SystemIds, TagKey,
};
use factum_runtime::{CommandLayer, CommandService, Commands, EntityOptions};

use crate::{
    aggregates::AggregateOptions,
    app::{App, Core},
    catalog::{Catalog, Clash},
    named::Names,
    running::{Kinds, Running},
    secret::Secrets,
    stats::publisher,
};

/// Why an application does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Two types of the application don't go together.
    #[error(transparent)]
    Clash(#[from] Clash),
}

impl OpenError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Clash(error) => error.kind(),
        }
    }
}

/// An application to be opened: [`App::builder`].
#[must_use]
pub struct AppBuilder {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    tag_key: Option<TagKey>,
    retry: RetryPolicy,
    entities: EntityOptions,
    stats_every: Option<Duration>,
    registry: Registry,
    catalog: Catalog,
    of_kinds: Kinds,
    names: Names,
    named: Vec<Name>,
    /// The outermost first.
    layers: Vec<Around>,
    clash: Option<Clash>,
}

/// Names the commands of an aggregate.
type Name = fn(Commands<CommandService>) -> Commands<CommandService>;

/// Puts a layer before a service.
type Around = Box<dyn FnOnce(CommandService) -> CommandService + Send + Sync>;

impl AppBuilder {
    pub(crate) fn new() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            ids: Arc::new(SystemIds),
            tag_key: None,
            retry: RetryPolicy::new(),
            entities: EntityOptions::new(),
            stats_every: None,
            registry: App::stores(),
            catalog: Catalog::default(),
            of_kinds: Kinds::new(),
            names: Names::default(),
            named: Vec::new(),
            layers: Vec::new(),
            clash: None,
        }
    }

    /// Sets the clock, of rules and of embedded stores.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of ids.
    pub fn with_ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Sets the secret behind hashed tags. Without one the store makes its own and keeps it among
    /// its documents: then whoever reads the store can test guesses. A store stays with the key
    /// that it was first opened with; another is refused.
    pub fn with_tag_key(mut self, key: TagKey) -> Self {
        self.tag_key = Some(key);
        self
    }

    /// Sets how often and how fast executions try again.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets what the entities of all kinds are made with; those of one kind by
    /// [`aggregate_with`](Self::aggregate_with).
    pub fn with_entities(mut self, options: EntityOptions) -> Self {
        self.entities = options;
        self
    }

    /// Publishes [`App::stats`] in the store as often as that, at most every
    /// [`STATS_EVERY_MIN`](crate::STATS_EVERY_MIN), for other processes and `factum stats` to see:
    /// as a document under `$factum/stats/`, removed when the application is closed. Each costs a
    /// durable write. Stores that can't be written publish nothing, as the health of the worker
    /// `factum.stats` says. The application has to be opened in a tokio runtime then.
    pub fn with_stats_every(mut self, every: Duration) -> Self {
        self.stats_every = Some(every);
        self
    }

    /// Adds a kind of store for URLs to name.
    pub fn with_store_kind(mut self, kind: impl OpenStore) -> Self {
        self.registry = self.registry.with(kind);
        self
    }

    /// Names an aggregate that the application uses, so that two event types of one stored name,
    /// or two aggregates of one category, are an error when it opens.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let added = self.catalog.add::<A>();
        self.clash = self.clash.or(added.err());
        self
    }

    /// Names an [`aggregate`](Self::aggregate), and how those of its kind are kept.
    ///
    /// ```
    /// use factum::{AggregateOptions, App, EntityOptions, SnapshotPolicy};
    /// use factum_testing::bank::Account;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let accounts = AggregateOptions::<Account>::new()
    ///     .with_snapshots(SnapshotPolicy::production())?
    ///     .with_entities(EntityOptions::new().with_mailbox_max(100));
    /// let app = App::builder().aggregate_with(accounts).open("memory:").await?;
    /// assert!(app.aggregate::<Account>().snapshot_stats().is_some());
    /// # Ok(()) }
    /// ```
    pub fn aggregate_with<A: Aggregate>(mut self, options: AggregateOptions<A>) -> Self {
        self.of_kinds.insert(TypeId::of::<A>(), Box::new(options));
        self.aggregate::<A>()
    }

    /// Names an [`aggregate`](Self::aggregate) whose commands derive [`Command`]: traces and
    /// metrics call them by their stored names, such as `account.deposit`, instead of the one name
    /// of their type, and [`App::command_json`] takes them.
    pub fn commands<A: Aggregate<Command: Command>>(mut self) -> Self {
        self.names.add::<A>();
        self.named.push(Commands::named::<A>);
        self.aggregate::<A>()
    }

    /// Puts a layer before everything that is sent: each command, transaction and decision of the
    /// application passes it, and nothing else leads there. A whole `tower::ServiceBuilder` is one
    /// layer too.
    ///
    /// The layer that is added first is the outermost: it sees a request first and its answer
    /// last. So tracing and metrics come first, to see what the others answer; then what says no;
    /// the [`IdempotencyLayer`](factum_runtime::IdempotencyLayer) before whatever needs a
    /// command's id; limits last, to hold up only what will be executed. A rate limit can't be
    /// cloned, and needs `buffer` before it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use factum::{
    ///     AdmissionLayer, App, Metadata, MetricsLayer, SendError, SystemClock, TracingLayer,
    /// };
    /// use factum_testing::bank::{Account, AccountCommand};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::builder()
    ///     .commands::<Account>()
    ///     .layer(TracingLayer::new())
    ///     .layer(MetricsLayer::new(Arc::new(SystemClock)))
    ///     .layer(AdmissionLayer::new(|request| match &request.metadata.user {
    ///         Some(_) => Ok(()),
    ///         None => Err("log in first".into()),
    ///     }))
    ///     .open("memory:")
    ///     .await?;
    ///
    /// # let email = "ada@example.org".to_owned();
    /// let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// let refused = app.command::<Account>("ada", open.clone()).await;
    /// assert!(matches!(refused, Err(SendError::Refused(_))));
    ///
    /// let ada = Metadata::new().with_user("ada");
    /// let opened = app.command::<Account>("ada", open).with_metadata(ada).await?;
    /// assert_eq!((opened.version.value(), opened.events.len()), (1, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// Dropping a command under way, which is what a timeout does, takes nothing back: once it has
    /// come to its entity, it takes effect. Where that matters, give it an
    /// [id](crate::SendCommand::once) and send it again. A layer that sends a clone of the request
    /// again has the same rule: without an id the command is decided twice.
    pub fn layer(mut self, layer: impl CommandLayer + Send + Sync + 'static) -> Self {
        self.layers.push(Box::new(move |service| layer.around(service)));
        self
    }

    /// Names an enum of events that the application uses; see [`aggregate`](Self::aggregate).
    pub fn events<E: Event>(mut self) -> Self {
        let added = self.catalog.add_events::<E>();
        self.clash = self.clash.or(added.err().map(Clash::from));
        self
    }

    /// Opens the store that a URL or a path names.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self, url_or_path: &str) -> Result<App, OpenError> {
        let context = OpenContext { clock: self.clock.clone(), ids: self.ids.clone() };
        let stores = self.registry.open(url_or_path, &context).await?;
        self.open_stores(stores).await
    }

    /// Opens on a store that is open already, one of the caller's own for instance.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_stores(self, stores: Stores) -> Result<App, OpenError> {
        if let Some(clash) = self.clash {
            return Err(clash.into());
        }
        let Stores { events, documents } = stores;
        let secrets = Secrets { documents: &*documents, ids: &*self.ids, clock: &*self.clock };
        let tag_key = secrets.tag_key(self.tag_key).await?;
        let mut kernel = Kernel::new(events, documents).with_clock(self.clock).with_ids(self.ids);
        if let Some(key) = tag_key {
            kernel = kernel.with_tag_key(key);
        }
        let running = Arc::new(Running::new(&kernel, self.entities, self.of_kinds));
        let router = CommandService::new(running.router().clone());
        let service = self.layers.into_iter().rev().fold(router, |service, around| around(service));
        let commands = Commands::new(service, &kernel);
        let commands = self.named.iter().fold(commands, |commands, name| name(commands));
        if let Some(every) = self.stats_every {
            // The first to be added is the last to stop: it tells of the others until then.
            let added = running.supervisor().add(publisher(&running, &kernel, every));
            added.expect("it is the only worker so far");
        }
        let Self { retry, catalog, names, .. } = self;
        let core = Core { kernel, retry, catalog, names, commands };
        Ok(App::new(core, running))
    }
}

impl fmt::Debug for AppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("AppBuilder");
        out.field("retry", &self.retry).field("entities", &self.entities);
        out.field("stores", &self.registry).field("layers", &self.layers.len());
        out.finish_non_exhaustive()
    }
}
