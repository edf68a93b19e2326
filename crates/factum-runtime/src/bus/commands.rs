//! The typed door of the bus.

use std::{collections::HashMap, fmt, future::poll_fn, sync::Arc};

use factum_kernel::{Aggregate, Clock, Command, IdSource, Kernel, Metadata};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    error::{BoxError, CommandError, DispatchError},
    request::CommandRequest,
    response::CommandResponse,
    router::CommandRouter,
    step::CommandStep,
};
use crate::{message::Outcome, order::CommandId};

/// The command bus: one door for the commands of all aggregates, with layers before it. Cheap to
/// clone, if its layers are.
///
/// This is the lower level. An application has one bus, whose layers `AppBuilder::layer` sets, and
/// sends everything by it.
///
/// It takes typed commands and makes a [`CommandRequest`] of each: one concrete type that can be
/// cloned. That passes through layers to the [`CommandRouter`], which gives it to the
/// [`Entities`](crate::Entities) of its aggregate. A [`CommandResponse`] comes back, and that the
/// domain said no is one of the responses: the error is for failures only. So the layers of
/// [tower] fit that time out, limit, or shed load, as does any layer for a
/// `Service<CommandRequest, Response = CommandResponse>`.
///
/// Of ours are [`TracingLayer`](super::TracingLayer), [`MetricsLayer`](super::MetricsLayer),
/// [`AdmissionLayer`](super::AdmissionLayer) to validate and authorize, and
/// [`IdempotencyLayer`](super::IdempotencyLayer). The layers are part of the type; where it has to
/// be written down, `layer(tower::util::BoxCloneSyncService::layer())` at the end makes it short.
///
/// ```
/// # use factum_kernel::{Metadata, Repository};
/// # use factum_runtime::{
/// #     AdmissionLayer, CommandRouter, Commands, DispatchError, Entities, EntityOptions,
/// #     MetricsLayer, TracingLayer,
/// # };
/// # use factum_testing::bank::{Account, AccountCommand};
/// # use std::time::Duration;
/// use tower::ServiceBuilder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let repository = Repository::new(kernel.clone());
/// # let accounts = Entities::<Account>::new(repository, EntityOptions::new());
/// let commands = Commands::new(CommandRouter::new().with(accounts), &kernel);
/// let commands = commands.named::<Account>().layer(
///     ServiceBuilder::new()
///         .layer(TracingLayer::new())
///         .layer(MetricsLayer::new(kernel.clock().clone()))
///         .layer(AdmissionLayer::new(|request| match &request.metadata.user {
///             Some(_) => Ok(()),
///             None => Err("log in first".into()),
///         }))
///         .load_shed()
///         .concurrency_limit(1_024)
///         .timeout(Duration::from_secs(5)),
/// );
///
/// # let email = "ada@example.org".to_owned();
/// let open = AccountCommand::Open { owner: "Ada".into(), email };
/// let refused = commands.dispatch::<Account>("ada", open.clone()).await;
/// assert!(matches!(refused, Err(DispatchError::Refused(_))));
///
/// let ada = Metadata::new().with_user("ada");
/// let opened = commands.dispatch_with::<Account>("ada", open, ada).await?;
/// assert_eq!((opened.version.value(), opened.events.len()), (1, 1));
/// # Ok(()) }
/// ```
///
/// # Writing a layer
/// A layer wraps a service in another one. This one refuses commands at night:
///
/// ```
/// use std::task::{Context, Poll};
///
/// use factum_runtime::{CommandFuture, CommandRequest, CommandResponse};
/// use tower::{BoxError, Layer, Service};
///
/// #[derive(Clone)]
/// struct ClosedAtNight<S>(S);
///
/// impl<S> Service<CommandRequest> for ClosedAtNight<S>
/// where
///     S: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>>,
///     S::Future: Send + 'static,
/// {
///     type Response = CommandResponse;
///     type Error = BoxError;
///     type Future = CommandFuture<BoxError>;
///
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
///         self.0.poll_ready(cx).map_err(Into::into)
///     }
///
///     fn call(&mut self, request: CommandRequest) -> Self::Future {
///         if request.metadata.extra.get("hour").is_some_and(|hour| &**hour == "3") {
///             return Box::pin(async { Ok(CommandResponse::Refused("we are closed".into())) });
///         }
///         let response = self.0.call(request);
///         Box::pin(async { response.await.map_err(Into::into) })
///     }
/// }
///
/// let layer = tower::layer::layer_fn(ClosedAtNight);
/// # fn is_layer<S>(_: impl Layer<S>) {}
/// # is_layer::<factum_runtime::CommandRouter>(layer);
/// ```
///
/// # What goes before what
/// The first layer is the outermost. Tracing and metrics come first, to see what the others
/// answer; the idempotency layer before whatever needs a command's id; limits last, to hold up
/// only what will be executed. A rate limit can't be cloned, and needs `buffer` before it.
///
/// # Cancelling
/// Dropping a dispatch, which is what tower's timeout does, takes nothing back: a command that has
/// come to its entity takes effect once, and nobody is told. Where that matters, dispatch it with
/// an id by [`dispatch_once`](Commands::dispatch_once) and repeat it: the answer is what was
/// stored.
///
/// [tower]: https://docs.rs/tower
#[derive(Clone)]
pub struct Commands<S = CommandRouter> {
    service: S,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// By category.
    names: Arc<HashMap<&'static str, Naming>>,
}

/// The name of a command.
type Naming = fn(&CommandStep) -> Option<&'static str>;

/// Where a dispatched command's outcome goes.
type Dispatched<A> = Result<Outcome<A>, DispatchError<<A as Aggregate>::Rejection>>;

impl<S> Commands<S> {
    /// Sends commands to a service, with ids of this kernel.
    pub fn new(service: S, kernel: &Kernel) -> Self {
        let clock = kernel.clock().clone();
        let ids = kernel.ids().clone();
        Self { service, clock, ids, names: Arc::default() }
    }

    /// Puts a layer, or a whole `tower::ServiceBuilder`, in front of what is there.
    pub fn layer<L: Layer<S>>(self, layer: L) -> Commands<L::Service> {
        let Self { service, clock, ids, names } = self;
        Commands { service: layer.layer(service), clock, ids, names }
    }

    /// Calls the commands of an aggregate in traces and metrics by their stored names, such as
    /// `account.deposit`, instead of the one name of their type.
    #[must_use]
    pub fn named<A: Aggregate<Command: Command>>(mut self) -> Self {
        let naming: Naming = |step| step.command::<A>().map(Command::name);
        Arc::make_mut(&mut self.names).insert(A::CATEGORY, naming);
        self
    }

    /// The service, layers and all.
    pub fn service(&self) -> &S {
        &self.service
    }
}

impl<S> Commands<S>
where
    S: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>> + Clone,
{
    /// Sends a command to the aggregate with this key, and waits for the outcome.
    ///
    /// # Errors
    /// See [`DispatchError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Once it has come to its entity, the command takes effect without the caller.
    pub async fn dispatch<A: Aggregate>(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> Dispatched<A> {
        self.dispatch_with::<A>(key, command, Metadata::default()).await
    }

    /// [`dispatch`](Self::dispatch), with metadata for layers and the rule to see and the events
    /// to carry. Where it names no cause, that is the command, by an id of its own; where it names
    /// no conversation, the command begins one.
    ///
    /// # Errors
    /// See [`DispatchError`].
    pub async fn dispatch_with<A: Aggregate>(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
        metadata: Metadata,
    ) -> Dispatched<A> {
        let request =
            CommandRequest::new::<A>(self.id(), key.as_ref(), command).with_metadata(metadata);
        self.typed::<A>(request).await
    }

    /// [`dispatch_with`](Self::dispatch_with) an id by which the command is recognised if it is
    /// sent again: see [`ask_once`](crate::Entities::ask_once).
    ///
    /// # Errors
    /// See [`DispatchError`]. After any of them the command may be sent again with the same id.
    pub async fn dispatch_once<A: Aggregate>(
        &self,
        key: impl AsRef<str>,
        id: CommandId,
        command: A::Command,
        metadata: Metadata,
    ) -> Dispatched<A> {
        let request = CommandRequest::new::<A>(id, key.as_ref(), command).with_metadata(metadata);
        self.typed::<A>(request.once(id)).await
    }

    /// An id for a command that came without one.
    pub fn id(&self) -> CommandId {
        CommandId::new(self.ids.uuid(self.clock.now()))
    }

    /// Sends a request as it is, with its commands by their stored names.
    ///
    /// # Errors
    /// Those of the layers, and [`CommandError`] in a box.
    pub async fn send(&self, mut request: CommandRequest) -> Result<CommandResponse, BoxError> {
        for step in request.steps_mut() {
            let naming = self.names.get(step.category());
            if let Some(name) = naming.and_then(|name| name(step)) {
                step.set_name(name);
            }
        }
        let mut service = self.service.clone();
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
        service.call(request).await.map_err(Into::into)
    }

    async fn typed<A: Aggregate>(&self, request: CommandRequest) -> Dispatched<A> {
        let category = request.category();
        let command = request.name();
        match self.send(request).await {
            Ok(CommandResponse::Done(done)) => done
                .into_outcome()
                .ok_or_else(|| CommandError::WrongCommand { category, command }.into()),
            Ok(CommandResponse::Rejected(no)) => Err(match no.downcast() {
                Ok(rejection) => DispatchError::Rejected(*rejection),
                Err(other) => DispatchError::Refused(other),
            }),
            Ok(CommandResponse::Refused(no)) => Err(DispatchError::Refused(no)),
            Err(error) => Err(match error.downcast() {
                Ok(error) => DispatchError::Failed(*error),
                Err(other) => DispatchError::Layer(other),
            }),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Commands<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands").field("service", &self.service).finish_non_exhaustive()
    }
}
