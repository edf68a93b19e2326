//! The running parts of an application: one set of entities per kind of aggregate, the workers, and
//! the consumers.

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

use crate::{
    aggregates::AggregateOptions,
    stats::{AppStats, ConsumerStats, KindStats, total},
};

/// The sets of entities, each made on first use, with the supervisor and the consumers.
pub(crate) struct Running {
    supervisor: Supervisor,
    consumers: Consumers,
    started: Monotonic,
    options: EntityOptions,
    /// The options of kinds that have their own.
    options_by_kind: Kinds,
    router: CommandRouter,
    clock: Arc<dyn Clock>,
    sets: Mutex<HashMap<TypeId, Set>>,
}

/// An `AggregateOptions<A>` per type `A` of aggregate.
pub(crate) type Kinds = HashMap<TypeId, Box<dyn Any + Send + Sync>>;

struct Set {
    /// An `Entities<A>`.
    entities: Box<dyn Any + Send + Sync>,
    shutdown: Box<dyn Fn(Duration) -> Ending + Send>,
    stats: Arc<dyn Fn() -> KindStats + Send + Sync>,
}

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Running {
    pub(crate) fn new(kernel: &Kernel, options: EntityOptions, options_by_kind: Kinds) -> Self {
        let clock = kernel.clock().clone();
        let ids = kernel.ids().clone();
        let started = clock.monotonic();
        let supervisor = Supervisor::new(clock.clone(), ids);
        let consumers = Consumers::new(kernel.clone()).with_outages(is_sql_outage);
        let router = CommandRouter::new();
        let sets = Mutex::default();
        Self { supervisor, consumers, started, options, options_by_kind, router, clock, sets }
    }

    /// The router to every kind whose entities were made.
    pub(crate) fn router(&self) -> &CommandRouter {
        &self.router
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    pub(crate) fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// The present stats of all parts.
    pub(crate) fn stats(&self, clock: &dyn Clock) -> AppStats {
        // The entities are visited without the lock, because there may be a million of them.
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

    /// The entities of a kind. The first call makes them, on the given repository.
    pub(crate) fn entities<A: Aggregate>(
        &self,
        repository: impl FnOnce() -> Repository<A>,
    ) -> Entities<A> {
        let mut sets = self.sets();
        let set = sets.entry(TypeId::of::<A>()).or_insert_with(|| {
            let options = self.options_by_kind.get(&TypeId::of::<A>());
            let options = options.and_then(|it| it.downcast_ref::<AggregateOptions<A>>());
            let entities = match options {
                Some(of_kind) => of_kind.entities(repository(), self.options),
                None => Entities::new(repository(), self.options),
            };
            self.router.add(entities.clone());
            let ending = entities.clone();
            let shutdown = move |wait| -> Ending {
                let ending = ending.clone();
                Box::pin(async move { drop(ending.shutdown(wait).await) })
            };
            let seen = entities.clone();
            let stats = Arc::new(move || KindStats::of(&seen));
            Set { entities: Box::new(entities), shutdown: Box::new(shutdown), stats }
        });
        set.entities
            .downcast_ref::<Entities<A>>()
            .expect("the map's key is the type of the aggregate")
            .clone()
    }

    /// Stops the workers; then waits this long for the entities to finish the accepted commands,
    /// and for the transactions and decisions under way.
    pub(crate) async fn shutdown(&self, wait: Duration) {
        self.supervisor.shutdown().await;
        // All kinds at the same time: otherwise the kinds later in the list would accept messages
        // longer.
        let mut endings: Vec<_> = self.sets().values().map(|set| (set.shutdown)(wait)).collect();
        endings.push(self.end_transactions(wait));
        poll_fn(|cx| {
            endings.retain_mut(|ending| ending.as_mut().poll(cx).is_pending());
            if endings.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn end_transactions(&self, wait: Duration) -> Ending {
        let router = self.router.clone();
        let clock = self.clock.clone();
        Box::pin(async move { router.shutdown(&*clock, wait).await })
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
