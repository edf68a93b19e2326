//! Validation and authorization: a look at a command before it comes to its entity.

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

/// Refuses commands that a rule of yours says no to, before they come to an entity.
///
/// The rule sees what is asked for and nothing else: what depends on the aggregate's state belongs
/// in [`decide`](Aggregate::decide). A no to one step of a transaction refuses the whole. A rule
/// that has to wait for something is a [layer of its own](super::Commands#writing-a-layer).
///
/// ```
/// use factum_runtime::AdmissionLayer;
/// use factum_testing::bank::{Account, AccountCommand};
///
/// // Validation: of the commands of one aggregate, by what is in them.
/// let validated = AdmissionLayer::of::<Account>(|_, command, _| match command {
///     AccountCommand::Open { email, .. } if !email.contains('@') => {
///         Err(format!("this is no e-mail address: email={email:?}").into())
///     }
///     _ => Ok(()),
/// });
///
/// // Authorization: by who asks, for all aggregates.
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
    /// Refuses the requests that the rule says no to, with its error.
    pub fn new(
        rule: impl Fn(&CommandRequest) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self { rule: Arc::new(rule) }
    }

    /// Refuses the requests of which the rule says no to a step, given the step and the metadata.
    pub fn steps(
        rule: impl Fn(&CommandStep, &Metadata) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self::new(move |request| {
            request.steps().iter().try_for_each(|step| rule(step, &request.metadata))
        })
    }

    /// Refuses the requests of which the rule says no to a command for this kind of aggregate,
    /// given key, command and metadata; lets those of others pass.
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

/// What [`AdmissionLayer`] makes of a service.
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
