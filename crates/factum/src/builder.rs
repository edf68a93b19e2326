//! The opening of an application, with everything that can be chosen.

use std::{sync::Arc, time::Duration};

use factum_backend::{OpenContext, OpenStore, Registry, Stores};
use factum_kernel::{
    Aggregate, Clock, ErrorKind, Event, IdSource, Kernel, RetryPolicy, StoreError, SystemClock,
    SystemIds, TagKey,
};
use factum_runtime::EntityOptions;

use crate::{
    app::App,
    catalog::{Catalog, Clash},
    running::{Route, Running},
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
#[derive(Debug)]
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
    routes: Vec<Route>,
    clash: Option<Clash>,
}

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
            routes: Vec::new(),
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

    /// Sets what [`App::entities`] are made with.
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
    /// or two aggregates of one category, are an error when it opens, and that its
    /// [`commands`](App::commands) are routed to it.
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        let added = self.catalog.add::<A>();
        self.routes.push(|app, router| router.with(app.entities::<A>()));
        self.clash = self.clash.or(added.err());
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
        let running = Arc::new(Running::new(&kernel, self.entities, self.routes));
        if let Some(every) = self.stats_every {
            // The first to be added is the last to stop: it tells of the others until then.
            let added = running.supervisor().add(publisher(&running, &kernel, every));
            added.expect("it is the only worker so far");
        }
        Ok(App::new(kernel, self.retry, self.catalog, running))
    }
}
