//! The typed entry of the command bus.

use std::{collections::HashMap, fmt, future::poll_fn, sync::Arc};

use factum_kernel::{Aggregate, Clock, Command, CommandId, IdSource, Kernel, Metadata};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    error::{BoxError, CommandError, DispatchError},
    request::CommandRequest,
    response::CommandResponse,
    router::CommandRouter,
    step::CommandStep,
};
use crate::message::Outcome;

/// The command bus: one entry for the commands of all aggregates, with layers in front of it. Cheap
/// to clone, if its layers are.
///
/// This is the lower level. An application has one bus for everything that it sends;
/// `AppBuilder::layer` sets the bus's layers.
///
/// The bus takes typed commands and makes a [`CommandRequest`] of each: one concrete type that can
/// be cloned. The request passes through the layers to the [`CommandRouter`], which gives it to the
/// [`Entities`](crate::Entities) of its aggregate. The result is a [`CommandResponse`]. A rejection
/// is a response too; errors are for failures only. So [tower]'s layers for timeouts, limits and
/// load shedding fit, as does any layer for a `Service<CommandRequest, Response =
/// CommandResponse>`.
///
/// Factum's own layers are [`TracingLayer`](super::TracingLayer),
/// [`MetricsLayer`](super::MetricsLayer), [`AdmissionLayer`](super::AdmissionLayer) for validation
/// and authorization, and [`IdempotencyLayer`](super::IdempotencyLayer). The layers are part of the
/// bus's type. If you have to write the type, end with
/// `layer(tower::util::BoxCloneSyncService::layer())`, which makes it short.
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
/// A layer wraps a service in another service. This layer refuses commands at night:
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
/// # Order of layers
/// The first layer is the outermost. Put tracing and metrics first, so that they see the answers of
/// the other layers. Put the idempotency layer before the layers that need a command's id. Put
/// limits last, so that they delay only commands that will be executed. A rate limit can't be
/// cloned, and needs `buffer` before it.
///
/// # Cancelling
/// Dropping a dispatch, as tower's timeout does, does not undo the command. A command that has
/// reached its entity takes effect once, and no caller gets the answer. If the answer matters,
/// dispatch the command with an id by [`dispatch_once`](Commands::dispatch_once) and repeat it: the
/// answer is then the stored outcome.
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

/// A function that gives a command its stored name.
type Naming = fn(&mut CommandStep);

/// The result of a dispatched command.
type Dispatched<A> = Result<Outcome<A>, DispatchError<<A as Aggregate>::Rejection>>;

impl<S> Commands<S> {
    /// Makes a bus that sends commands to a service. New ids come from the kernel.
    pub fn new(service: S, kernel: &Kernel) -> Self {
        let clock = kernel.clock().clone();
        let ids = kernel.ids().clone();
        Self { service, clock, ids, names: Arc::default() }
    }

    /// Adds a layer, or a whole `tower::ServiceBuilder`, in front of the present service.
    pub fn layer<L: Layer<S>>(self, layer: L) -> Commands<L::Service> {
        let Self { service, clock, ids, names } = self;
        Commands { service: layer.layer(service), clock, ids, names }
    }

    /// Uses the stored names of an aggregate's commands in traces and metrics, such as
    /// `account.deposit`, instead of the name of the command's type. Then layers may give the
    /// commands [ids](CommandRequest::once).
    #[must_use]
    pub fn named<A: Aggregate<Command: Command>>(mut self) -> Self {
        Arc::make_mut(&mut self.names).insert(A::CATEGORY, CommandStep::label_for::<A>);
        self
    }

    /// The service with all its layers.
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
    /// If the future is dropped after the command reached its entity, the command takes effect
    /// nevertheless.
    pub async fn dispatch<A: Aggregate>(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> Dispatched<A> {
        self.dispatch_with::<A>(key, command, Metadata::default()).await
    }

    /// Like [`dispatch`](Self::dispatch), with metadata for the layers, the rule and the events. If
    /// the metadata has no causation id, the command's own id is set. If it has no correlation id,
    /// the command begins a new conversation.
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

    /// Like [`dispatch_with`](Self::dispatch_with), with an id by which repeats of the command are
    /// recognised: see [`ask_once`](crate::Entities::ask_once).
    ///
    /// # Errors
    /// See [`DispatchError`]. After any error the command may be sent again with the same id.
    pub async fn dispatch_once<A: Aggregate<Command: Command>>(
        &self,
        key: impl AsRef<str>,
        id: CommandId,
        command: A::Command,
        metadata: Metadata,
    ) -> Dispatched<A> {
        let request = CommandRequest::new::<A>(id, key.as_ref(), command).with_metadata(metadata);
        self.typed::<A>(request.named::<A>().once(id)).await
    }

    /// Makes an id for a command that was sent without one.
    pub fn id(&self) -> CommandId {
        CommandId::new(self.ids.uuid(self.clock.now()))
    }

    /// Sends a request unchanged, except that its commands get their stored names.
    ///
    /// # Errors
    /// The errors of the layers, and a boxed [`CommandError`].
    pub async fn send(&self, mut request: CommandRequest) -> Result<CommandResponse, BoxError> {
        for step in request.steps_mut() {
            if let Some(name) = self.names.get(step.category()) {
                name(step);
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
