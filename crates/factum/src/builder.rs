//! The builder of an application: its store, settings, aggregates and layers.

use std::{any::TypeId, fmt, sync::Arc, time::Duration};

use factum_backend::{IfAbsent, OpenContext, OpenStore, Registry, Stores};
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

/// The reason why an application does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Two types of the application have the same stored name or category.
    #[error(transparent)]
    Clash(#[from] Clash),
}

impl OpenError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::Clash(error) => error.kind(),
        }
    }
}

/// The settings of an application before it is opened: [`App::builder`].
#[must_use]
pub struct AppBuilder {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    tag_key: Option<TagKey>,
    retry: RetryPolicy,
    entities: EntityOptions,
    stats_every: Option<Duration>,
    registry: Registry,
    if_absent: IfAbsent,
    catalog: Catalog,
    options_by_kind: Kinds,
    names: Names,
    named: Vec<Name>,
    /// The layers, the outermost first.
    layers: Vec<Around>,
    clash: Option<Clash>,
}

/// A function that gives the commands of an aggregate their stored names.
type Name = fn(Commands<CommandService>) -> Commands<CommandService>;

/// A function that wraps a service in a layer.
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
            if_absent: IfAbsent::Make,
            catalog: Catalog::default(),
            options_by_kind: Kinds::new(),
            names: Names::default(),
            named: Vec::new(),
            layers: Vec::new(),
            clash: None,
        }
    }

    /// Sets the clock for rules and for embedded stores.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of ids.
    pub fn with_ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Sets the secret for hashed tags. Without it the store makes its own secret and keeps it
    /// among its documents; then every reader of the store can test guesses. A store stays with the
    /// key that it was first opened with, and refuses another.
    pub fn with_tag_key(mut self, key: TagKey) -> Self {
        self.tag_key = Some(key);
        self
    }

    /// Sets the number of attempts of an execution, and the pauses between them.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the options for the entities of all kinds. For one kind, use
    /// [`aggregate_with`](Self::aggregate_with).
    pub fn with_entities(mut self, options: EntityOptions) -> Self {
        self.entities = options;
        self
    }

    /// Publishes [`App::stats`] in the store at this interval, which is at least
    /// [`STATS_EVERY_MIN`](crate::stats::STATS_EVERY_MIN), for other processes and for `factum
    /// stats`. The stats are a document under `$factum/stats/`, which is removed when the
    /// application is closed. Each publication costs a durable write. A read-only store publishes
    /// nothing; the health of the worker `factum.stats` then shows the error. With this setting,
    /// the application must be opened in a tokio runtime.
    pub fn with_stats_every(mut self, every: Duration) -> Self {
        self.stats_every = Some(every);
        self
    }

    /// Opens only a store that exists. Without a store at its place, opening fails and makes
    /// nothing; so it does for `memory:`, which is always new. For one opening the URL's option
    /// `mode=existing` says the same.
    ///
    /// ```
    /// use factum::{App, ErrorKind};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let refused = App::builder().existing().open("./mistyped").await.unwrap_err();
    /// assert_eq!(refused.kind(), ErrorKind::Invalid);
    /// assert!(!std::path::Path::new("./mistyped").exists());
    /// # }
    /// ```
    pub fn existing(mut self) -> Self {
        self.if_absent = IfAbsent::Refuse;
        self
    }

    /// Adds a kind of store, with a URL scheme of its own.
    pub fn with_store_kind(mut self, kind: impl OpenStore) -> Self {
        self.registry = self.registry.with(kind);
        self
    }

    /// Registers an aggregate. If two event types have the same stored name, or two aggregates the
    /// same category, opening the application fails.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let added = self.catalog.add::<A>();
        self.clash = self.clash.or(added.err());
        self
    }

    /// Registers an [`aggregate`](Self::aggregate), with options for its kind.
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
        self.options_by_kind.insert(TypeId::of::<A>(), Box::new(options));
        self.aggregate::<A>()
    }

    /// Registers an [`aggregate`](Self::aggregate) whose commands derive [`Command`]. Traces and
    /// metrics then use the stored names of its commands, such as `account.deposit`, instead of the
    /// name of their type. [`App::command_json`] takes these commands.
    pub fn commands<A: Aggregate<Command: Command>>(mut self) -> Self {
        self.names.add::<A>();
        self.named.push(Commands::named::<A>);
        self.aggregate::<A>()
    }

    /// Adds a layer. Each command, transaction and decision that the application sends passes it,
    /// in whichever way it is sent. A whole `tower::ServiceBuilder` is one layer too.
    ///
    /// The layer that is added first is the outermost: it sees a request first and its answer last.
    /// So add tracing and metrics first, so that they see the answers of the other layers. Then add
    /// layers that refuse commands, and then the
    /// [`IdempotencyLayer`](factum_runtime::IdempotencyLayer) before the layers that need a
    /// command's id. Add limits last, so that they delay only commands that will be executed. A
    /// rate limit can't be cloned, and needs `buffer` before it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use factum::{
    ///     App, Metadata, SendError, runtime::{AdmissionLayer, MetricsLayer, TracingLayer},
    ///     store::SystemClock,
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
    /// Dropping a command under way, as a timeout does, does not undo it: after it has reached its
    /// entity, it takes effect. If you need the answer, give the command an
    /// [id](crate::aggregate::SendCommand::once) and send it again. The same holds for a layer that
    /// sends a clone of the request: without an id, the command is decided twice.
    pub fn layer(mut self, layer: impl CommandLayer + Send + Sync + 'static) -> Self {
        self.layers.push(Box::new(move |service| layer.around(service)));
        self
    }

    /// Registers an enum of events; see [`aggregate`](Self::aggregate).
    pub fn events<E: Event>(mut self) -> Self {
        let added = self.catalog.add_events::<E>();
        self.clash = self.clash.or(added.err());
        self
    }

    /// Opens the store at a URL or a path.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(self, url_or_path: &str) -> Result<App, OpenError> {
        let context = OpenContext::new(self.clock.clone(), self.ids.clone());
        let context = context.with_if_absent(self.if_absent);
        let stores = self.registry.open(url_or_path, &context).await?;
        self.open_stores(stores).await
    }

    /// Opens the application on an open store, for example one of your own.
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
        let running = Arc::new(Running::new(&kernel, self.entities, self.options_by_kind));
        let router = CommandService::new(running.router().clone());
        let service = self.layers.into_iter().rev().fold(router, |service, around| around(service));
        let commands = Commands::new(service, &kernel);
        let commands = self.named.iter().fold(commands, |commands, name| name(commands));
        if let Some(every) = self.stats_every {
            // The worker that is added first stops last, so it can report on the others until then.
            let added = running.supervisor().add(publisher(&running, &kernel, every));
            added.expect("the supervisor has no other worker yet");
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
