//! The entities of an application: one set for each kind of aggregate.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_core::{Aggregate, Repository};
use factum_runtime::{CommandRouter, Entities, EntityOptions};

use crate::app::App;

/// The sets that were asked for, each made once.
#[derive(Default)]
pub(crate) struct Running {
    options: EntityOptions,
    routes: Vec<Route>,
    sets: Mutex<HashMap<TypeId, Set>>,
}

struct Set {
    /// An `Entities<A>`.
    entities: Box<dyn Any + Send + Sync>,
    shutdown: Box<dyn Fn(Duration) -> Ending + Send>,
}

/// Adds the entities of a kind to a router.
pub(crate) type Route = fn(&App, CommandRouter) -> CommandRouter;

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Running {
    pub(crate) fn new(options: EntityOptions, routes: Vec<Route>) -> Self {
        Self { options, routes, sets: Mutex::default() }
    }

    /// The way to every kind that was named when the application opened.
    pub(crate) fn router(&self, app: &App) -> CommandRouter {
        self.routes.iter().fold(CommandRouter::new(), |router, route| route(app, router))
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
            Set { entities: Box::new(entities), shutdown: Box::new(shutdown) }
        });
        set.entities.downcast_ref::<Entities<A>>().expect("it is kept under its type").clone()
    }

    /// Lets what was accepted finish, for so long.
    pub(crate) async fn shutdown(&self, wait: Duration) {
        let endings: Vec<_> = self.sets().values().map(|set| (set.shutdown)(wait)).collect();
        for ending in endings {
            ending.await;
        }
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
