//! Validation and authorization of commands before they reach an entity.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use factum_kernel::{Aggregate, Metadata};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    error::BoxError, request::CommandRequest, response::CommandResponse, router::CommandFuture,
    step::CommandStep,
};

/// Refuses commands that break a rule of the application, before they reach an entity.
///
/// The rule sees only the request. A rule that depends on the aggregate's state belongs in
/// [`decide`](Aggregate::decide). If the rule refuses one step of a transaction, the whole
/// transaction is refused. A rule that has to wait for something is a [layer of its
/// own](super::Commands#writing-a-layer).
///
/// ```
/// use factum_runtime::AdmissionLayer;
/// use factum_testing::bank::{Account, AccountCommand};
///
/// // Validation: a rule about the content of one aggregate's commands.
/// let validated = AdmissionLayer::of::<Account>(|_, command, _| match command {
///     AccountCommand::Open { email, .. } if !email.contains('@') => {
///         Err(format!("this is no e-mail address: email={email:?}").into())
///     }
///     _ => Ok(()),
/// });
///
/// // Authorization: a rule about the user, for all aggregates.
/// let authorized = AdmissionLayer::steps(|step, metadata| match metadata.user.as_deref() {
///     Some(user) if user == step.key() => Ok(()),
///     _ => Err("this is not yours".into()),
/// });
/// # let layers = tower::ServiceBuilder::new().layer(authorized).layer(validated);
/// ```
#[derive(Clone)]
pub struct AdmissionLayer {
    rule: Arc<Rule>,
}

type Rule = dyn Fn(&CommandRequest) -> Result<(), BoxError> + Send + Sync;

impl AdmissionLayer {
    /// Refuses each request for which the rule returns an error.
    pub fn new(
        rule: impl Fn(&CommandRequest) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { rule: Arc::new(rule) }
    }

    /// Refuses each request with a step for which the rule returns an error. The rule gets the step
    /// and the metadata.
    pub fn steps(
        rule: impl Fn(&CommandStep, &Metadata) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |request| {
            request.steps().iter().try_for_each(|step| rule(step, &request.metadata))
        })
    }

    /// Refuses each request with a command of this kind of aggregate for which the rule returns an
    /// error. The rule gets the key, the command and the metadata. Steps of other aggregates pass.
    pub fn of<A: Aggregate>(
        rule: impl Fn(&str, &A::Command, &Metadata) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::steps(move |step, metadata| match step.command::<A>() {
            Some(command) => rule(step.key(), command, metadata),
            None => Ok(()),
        })
    }
}

impl fmt::Debug for AdmissionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmissionLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, service: S) -> Admission<S> {
        Admission { rule: self.rule.clone(), service }
    }
}

/// The service that [`AdmissionLayer`] makes.
#[derive(Clone)]
pub struct Admission<S> {
    rule: Arc<Rule>,
    service: S,
}

impl<S: fmt::Debug> fmt::Debug for Admission<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("service", &self.service).finish_non_exhaustive()
    }
}

impl<S> Service<CommandRequest> for Admission<S>
where
    S: Service<CommandRequest, Response = CommandResponse, Error: Into<BoxError>>,
    S::Future: Send + 'static,
{
    type Response = CommandResponse;
    type Error = BoxError;
    type Future = CommandFuture<BoxError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: CommandRequest) -> Self::Future {
        if let Err(no) = (self.rule)(&request) {
            return Box::pin(async { Ok(CommandResponse::Refused(no)) });
        }
        let response = self.service.call(request);
        Box::pin(async { response.await.map_err(Into::into) })
    }
}
