//! A service and its layers as one short type.

use std::{
    fmt,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{
    error::BoxError, request::CommandRequest, response::CommandResponse, router::CommandFuture,
};

/// A service for requests, with any layers. Cheap to clone, if its layers are.
///
/// ```
/// use factum_runtime::{AdmissionLayer, CommandLayer, CommandRouter, CommandService};
///
/// let closed = AdmissionLayer::new(|_| Err("we are closed".into()));
/// let service: CommandService = closed.around(CommandService::new(CommandRouter::new()));
/// # drop(service);
/// ```
pub struct CommandService(Box<dyn Serve>);

impl CommandService {
    /// Boxes a service.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        Self(Box::new(service))
    }
}

/// A layer for [`CommandService`]: any tower layer whose service can be cloned and shared. A whole
/// `tower::ServiceBuilder` is one.
pub trait CommandLayer {
    /// Wraps a service in the layer.
    fn around(self, service: CommandService) -> CommandService;
}

impl<L> CommandLayer for L
where
    L: Layer<CommandService>,
    L::Service: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<CommandRequest>>::Future: Send + 'static,
{
    fn around(self, service: CommandService) -> CommandService {
        CommandService::new(self.layer(service))
    }
}

trait Serve: Send + Sync {
    fn boxed_clone(&self) -> Box<dyn Serve>;

    fn ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>>;

    fn serve(&mut self, request: CommandRequest) -> CommandFuture<BoxError>;
}

impl<S> Serve for S
where
    S: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    fn boxed_clone(&self) -> Box<dyn Serve> {
        Box::new(self.clone())
    }

    fn ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.poll_ready(cx).map_err(Into::into)
    }

    fn serve(&mut self, request: CommandRequest) -> CommandFuture<BoxError> {
        let response = self.call(request);
        Box::pin(async { response.await.map_err(Into::into) })
    }
}

impl Clone for CommandService {
    fn clone(&self) -> Self {
        Self(self.0.boxed_clone())
    }
}

impl fmt::Debug for CommandService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandService").finish_non_exhaustive()
    }
}

impl Service<CommandRequest> for CommandService {
    type Response = CommandResponse;
    type Error = BoxError;
    type Future = CommandFuture<BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.ready(cx)
    }

    fn call(&mut self, request: CommandRequest) -> Self::Future {
        self.0.serve(request)
    }
}
