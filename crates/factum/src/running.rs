//! What runs in an application: one set of entities for each kind of aggregate, and the workers.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use factum_consumer::Consumers;
use factum_kernel::{Aggregate, Clock, Kernel, Monotonic, Repository};
use factum_projection::is_sql_outage;
use factum_runtime::{CommandRouter, Entities, EntityOptions, Supervisor};

use crate::app::App;

use crate::stats::{AppStats, ConsumerStats, KindStats, total};

/// The sets that were asked for, each made once, and who supervises the workers.
pub(crate) struct Running {
    supervisor: Supervisor,
    consumers: Consumers,
    started: Monotonic,
    options: EntityOptions,
    routes: Vec<Route>,
    sets: Mutex<HashMap<TypeId, Set>>,
}

struct Set {
    /// An `Entities<A>`.
    entities: Box<dyn Any + Send + Sync>,
    shutdown: Box<dyn Fn(Duration) -> Ending + Send>,
    stats: Arc<dyn Fn() -> KindStats + Send + Sync>,
}

/// Adds the entities of a kind to a router.
pub(crate) type Route = fn(&App, CommandRouter) -> CommandRouter;

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Running {
    pub(crate) fn new(kernel: &Kernel, options: EntityOptions, routes: Vec<Route>) -> Self {
        let clock = kernel.clock().clone();
        let ids = kernel.ids().clone();
        let started = clock.monotonic();
        let supervisor = Supervisor::new(clock, ids);
        let consumers = Consumers::new(kernel.clone()).with_outages(is_sql_outage);
        Self { supervisor, consumers, started, options, routes, sets: Mutex::default() }
    }

    /// The way to every kind that was named when the application opened.
    pub(crate) fn router(&self, app: &App) -> CommandRouter {
        self.routes.iter().fold(CommandRouter::new(), |router, route| route(app, router))
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    pub(crate) fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// What all of it is doing.
    pub(crate) fn stats(&self, clock: &dyn Clock) -> AppStats {
        // Looked through without the lock, because there may be a million of them.
        let sets: Vec<_> = self.sets().values().map(|set| set.stats.clone()).collect();
        let mut kinds: Vec<_> = sets.iter().map(|stats| stats()).collect();
        kinds.sort_by_key(|kind| kind.category);
        let total = total(&kinds);
        let workers = self.supervisor.health();
        let consumers = self.consumers.list().iter().flat_map(ConsumerStats::of).collect();
        let at = clock.now();
        let uptime = clock.monotonic().saturating_since(self.started);
        AppStats { at, uptime, total, kinds, workers, consumers }
    }

    /// The entities of a kind; the first to ask brings the repository.
    pub(crate) fn entities<A: Aggregate>(
        &self,
        repository: impl FnOnce() -> Repository<A>,
    ) -> Entities<A> {
        let mut sets = self.sets();
        let set = sets.entry(TypeId::of::<A>()).or_insert_with(|| {
            let entities = Entities::new(repository(), self.options);
            let ending = entities.clone();
            let shutdown = move |wait| -> Ending {
                let ending = ending.clone();
                Box::pin(async move { drop(ending.shutdown(wait).await) })
            };
            let seen = entities.clone();
            let stats = Arc::new(move || KindStats::of(&seen));
            Set { entities: Box::new(entities), shutdown: Box::new(shutdown), stats }
        });
        set.entities.downcast_ref::<Entities<A>>().expect("it is kept under its type").clone()
    }

    /// Stops the workers; then lets what was accepted finish, for so long.
    pub(crate) async fn shutdown(&self, wait: Duration) {
        self.supervisor.shutdown().await;
        // Together: a kind whose turn came later would accept messages until then.
        let mut endings: Vec<_> = self.sets().values().map(|set| (set.shutdown)(wait)).collect();
        poll_fn(|cx| {
            endings.retain_mut(|ending| ending.as_mut().poll(cx).is_pending());
            if endings.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn sets(&self) -> MutexGuard<'_, HashMap<TypeId, Set>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("sets", &self.sets().len()).finish_non_exhaustive()
    }
}
