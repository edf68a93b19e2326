//! The router, from a request to the entities of its aggregate.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use factum_kernel::{Aggregate, Clock, StoreError, TransactionError};
use tokio::sync::watch;
use tower_service::Service;

use super::{
    error::CommandError,
    request::{CommandRequest, RequestKind, Work},
    response::{CommandDone, CommandResponse},
};
use crate::{
    command::{EntityCommand, ReplyFn, stamp},
    entities::Entities,
    error::AskError,
};

/// The future of a response.
pub type CommandFuture<E = CommandError> =
    Pin<Box<dyn Future<Output = Result<CommandResponse, E>> + Send>>;

/// Gives each command to the entities of its aggregate, and commits transactions and decisions.
/// Cheap to clone.
///
/// The router is always ready. The mailboxes and deadlines of the entities and the limits in front
/// of the router bound its load.
///
/// ```
/// # use factum_kernel::{CommandId, Kernel, Repository, TagKey};
/// # use factum_runtime::{Entities, EntityOptions};
/// # use factum_testing::bank::{Account, AccountCommand};
/// use factum_runtime::{CommandOutcome, CommandRequest, CommandRouter};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// # let accounts = Entities::<Account>::new(Repository::new(kernel), EntityOptions::new());
/// let router = CommandRouter::new().with(accounts);
/// let id = CommandId::derived("order-17", "deposit");
/// let deposit = AccountCommand::Deposit { cents: 500 };
/// let request = CommandRequest::new::<Account>(id, "nobody", deposit);
/// assert_eq!(router.oneshot(request).await?.outcome(), CommandOutcome::Rejected);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct CommandRouter {
    /// Shared by all clones.
    routes: Arc<RwLock<Routes>>,
    /// Shared by all clones.
    commits: Arc<Commits>,
}

/// By category.
type Routes = HashMap<&'static str, Arc<dyn Route>>;

impl CommandRouter {
    /// Makes a router without aggregates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes the commands of an aggregate to these entities.
    #[must_use]
    pub fn with<A: Aggregate>(self, entities: Entities<A>) -> Self {
        self.add(entities);
        self
    }

    /// Routes the commands of an aggregate to these entities, in all clones of this router.
    pub fn add<A: Aggregate>(&self, entities: Entities<A>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.insert(A::CATEGORY, Arc::new(entities));
    }

    /// Refuses transactions and decisions from now on, and waits at most this long for those under
    /// way. Commands are not affected: [`Entities::shutdown`] ends them.
    pub async fn shutdown(&self, clock: &dyn Clock, wait: Duration) {
        tokio::select! {
            biased;
            () = self.commits.end() => {}
            () = clock.sleep(wait) => {}
        }
    }

    fn route(&self, category: &str) -> Option<Arc<dyn Route>> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.get(category).cloned()
    }
}

impl fmt::Debug for CommandRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(routes.keys()).finish()
    }
}

impl Service<CommandRequest> for CommandRouter {
    type Response = CommandResponse;
    type Error = CommandError;
    type Future = CommandFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CommandError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: CommandRequest) -> CommandFuture {
        if let Work::Together { .. } = &request.work {
            return Box::pin(commit(request, self.commits.clone()));
        }
        match self.route(request.category()) {
            Some(route) => route.execute(request),
            None => {
                let unknown = CommandError::UnknownAggregate(request.category());
                Box::pin(async { Err(unknown) })
            }
        }
    }
}

/// The transactions and decisions under way.
#[derive(Debug, Default)]
struct Commits(watch::Sender<Counted>);

#[derive(Debug, Default)]
struct Counted {
    under_way: usize,
    is_closed: bool,
}

impl Commits {
    /// Counts one more, until the returned value is dropped; `None` after the end.
    fn begin(&self) -> Option<Commit<'_>> {
        let begun = self.0.send_if_modified(|counted| {
            counted.under_way += usize::from(!counted.is_closed);
            !counted.is_closed
        });
        begun.then(|| Commit(self))
    }

    /// Begins none from now on, and waits until none is under way.
    async fn end(&self) {
        self.0.send_modify(|counted| counted.is_closed = true);
        let ended = self.0.subscribe().wait_for(|counted| counted.under_way == 0).await.map(drop);
        ended.expect("the sender is borrowed");
    }
}

struct Commit<'c>(&'c Commits);

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|counted| counted.under_way -= 1);
    }
}

/// Commits a transaction, or a decision.
async fn commit(
    request: CommandRequest,
    commits: Arc<Commits>,
) -> Result<CommandResponse, CommandError> {
    let Work::Together { kind, transaction, .. } = &request.work else {
        unreachable!("the caller passes only transactions and decisions")
    };
    let Some(_under_way) = commits.begin() else {
        return Err(TransactionError::Store(StoreError::closed()).into());
    };
    let metadata = stamp(request.id(), request.metadata.clone());
    let transaction = match request.identity()? {
        Some(once) => transaction.clone().once(once),
        None => transaction.clone(),
    };
    match transaction.commit(&metadata).await {
        Ok(committed) => Ok(CommandResponse::Done(CommandDone::together(committed))),
        Err(TransactionError::Rejected(no)) => Ok(CommandResponse::Rejected(match kind {
            RequestKind::Transaction => Box::new(no),
            // The decision is the only step.
            _ => no.into_rejection(),
        })),
        Err(error) => Err(error.into()),
    }
}

trait Route: Send + Sync {
    fn execute(self: Arc<Self>, request: CommandRequest) -> CommandFuture;
}

/// The key, the command and its options for an entity; `None` if the request is no command of this
/// aggregate. The command has no id yet.
fn command_of<A: Aggregate>(request: &CommandRequest) -> Option<(&str, EntityCommand<A>)> {
    let Work::Command { step, expected, reply } = &request.work else { return None };
    let command = step.shared::<A>()?;
    let reply = match reply {
        Some(reply) => Some(reply.downcast_ref::<ReplyFn<A>>()?.clone()),
        None => None,
    };
    let metadata = stamp(request.id(), request.metadata.clone());
    let expected = *expected;
    Some((step.key(), EntityCommand { command, metadata, once: None, expected, reply }))
}

impl<A: Aggregate> Route for Entities<A> {
    fn execute(self: Arc<Self>, request: CommandRequest) -> CommandFuture {
        Box::pin(async move {
            let Some((key, command)) = command_of::<A>(&request) else {
                let category = request.category();
                let command = request.name();
                return Err(CommandError::WrongCommand { category, command });
            };
            let once = request.identity()?;
            match self.ask_with_options(key, EntityCommand { once, ..command }).await {
                Ok(outcome) => Ok(CommandResponse::Done(CommandDone::new(outcome))),
                Err(AskError::Rejected(no)) => Ok(CommandResponse::Rejected(Box::new(no))),
                Err(AskError::Failed(error)) => Err(error.into()),
            }
        })
    }
}
