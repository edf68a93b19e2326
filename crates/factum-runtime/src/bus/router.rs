//! The router, from a request to the entities of its aggregate.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use factum_kernel::{Aggregate, Tag, TransactionError};
use tower_service::Service;

use super::{
    error::CommandError,
    request::{CommandRequest, RequestKind, Work},
    response::{CommandDone, CommandResponse},
};
use crate::{
    command::{CommandId, EntityCommand, Once, ReplyFn, TRANSACTION_TAG},
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
/// # use factum_kernel::{Kernel, Repository, TagKey};
/// # use factum_runtime::{Entities, EntityOptions};
/// # use factum_testing::bank::{Account, AccountCommand};
/// use factum_runtime::{CommandId, CommandOutcome, CommandRequest, CommandRouter};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// # let accounts = Entities::<Account>::new(Repository::new(kernel), EntityOptions::new());
/// let router = CommandRouter::new().with(accounts);
/// let (id, deposit) = (CommandId::derived(b"17"), AccountCommand::Deposit { cents: 500 });
/// let request = CommandRequest::new::<Account>(id, "nobody", deposit);
/// assert_eq!(router.oneshot(request).await?.outcome(), CommandOutcome::Rejected);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct CommandRouter {
    /// Shared by all clones.
    routes: Arc<RwLock<Routes>>,
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
            return Box::pin(commit(request));
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

/// The tag by which repeats of a transaction or decision are recognised.
fn transaction_tag(id: CommandId) -> Tag {
    Tag::new(TRANSACTION_TAG, id).expect("a short name and a UUID make a tag")
}

/// Commits a transaction, or a decision.
async fn commit(request: CommandRequest) -> Result<CommandResponse, CommandError> {
    let Work::Together { kind, transaction, .. } = &request.work else {
        unreachable!("the caller passes only transactions and decisions")
    };
    let metadata = request.id().stamp(request.metadata.clone());
    let transaction = match request.is_once() {
        true => transaction.clone().once(transaction_tag(request.id())),
        false => transaction.clone(),
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

/// The command and its options for an entity; `None` if the request is no command of this
/// aggregate.
fn command_of<A: Aggregate>(request: &CommandRequest) -> Option<(&str, EntityCommand<A>)> {
    let Work::Command { step, expected, reply } = &request.work else { return None };
    let command = step.shared::<A>()?;
    let reply = match reply {
        Some(reply) => Some(reply.downcast_ref::<ReplyFn<A>>()?.clone()),
        None => None,
    };
    let once = request.is_once().then(|| Once::new(request.id()));
    let metadata = request.id().stamp(request.metadata.clone());
    Some((step.key(), EntityCommand { command, metadata, once, expected: *expected, reply }))
}

impl<A: Aggregate> Route for Entities<A> {
    fn execute(self: Arc<Self>, request: CommandRequest) -> CommandFuture {
        Box::pin(async move {
            let Some((key, command)) = command_of::<A>(&request) else {
                let category = request.category();
                let command = request.name();
                return Err(CommandError::WrongCommand { category, command });
            };
            match self.ask_with_options(key, command).await {
                Ok(outcome) => Ok(CommandResponse::Done(CommandDone::new(outcome))),
                Err(AskError::Rejected(no)) => Ok(CommandResponse::Rejected(Box::new(no))),
                Err(AskError::Failed(error)) => Err(error.into()),
            }
        })
    }
}
