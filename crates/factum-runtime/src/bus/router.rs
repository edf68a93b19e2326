//! From a request to the entities of its aggregate.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use factum_kernel::Aggregate;
use tower_service::Service;

use super::{
    error::CommandError,
    request::CommandRequest,
    response::{CommandDone, CommandResponse},
};
use crate::{
    entities::Entities,
    error::AskError,
    order::{Once, Order},
};

/// A response to come, or an error.
pub type CommandFuture<E = CommandError> =
    Pin<Box<dyn Future<Output = Result<CommandResponse, E>> + Send>>;

/// Gives each request to the entities of its aggregate. Cheap to clone.
///
/// It is always ready: what bounds it are the mailboxes and deadlines of the entities, and the
/// limits in front of it.
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
    routes: Arc<HashMap<&'static str, Arc<dyn Route>>>,
}

impl CommandRouter {
    /// A router that knows no aggregate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes the commands of an aggregate to these entities.
    #[must_use]
    pub fn with<A: Aggregate>(mut self, entities: Entities<A>) -> Self {
        Arc::make_mut(&mut self.routes).insert(A::CATEGORY, Arc::new(entities));
        self
    }
}

impl fmt::Debug for CommandRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
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
        match self.routes.get(request.category()) {
            Some(route) => route.clone().execute(request),
            None => {
                let unknown = CommandError::UnknownAggregate(request.category());
                Box::pin(async { Err(unknown) })
            }
        }
    }
}

trait Route: Send + Sync {
    fn execute(self: Arc<Self>, request: CommandRequest) -> CommandFuture;
}

impl<A: Aggregate> Route for Entities<A> {
    fn execute(self: Arc<Self>, request: CommandRequest) -> CommandFuture {
        Box::pin(async move {
            let Some(command) = request.shared::<A::Command>() else {
                let category = request.category();
                let command = request.name();
                return Err(CommandError::WrongCommand { category, command });
            };
            let once = request.is_once().then(|| Once::new(request.id()));
            let metadata = request.id().stamp(request.metadata.clone());
            match self.order(request.key(), Order { command, metadata, once }).await {
                Ok(outcome) => Ok(CommandResponse::Done(CommandDone::new(outcome))),
                Err(AskError::Rejected(no)) => Ok(CommandResponse::Rejected(Box::new(no))),
                Err(AskError::Failed(error)) => Err(error.into()),
            }
        })
    }
}
