//! A span for each command.

use std::{
    fmt,
    task::{Context, Poll},
};

use factum_kernel::{Position, StreamVersion};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Span, field::Empty};

use super::{
    error::{BoxError, label_of},
    request::CommandRequest,
    response::CommandResponse,
    router::CommandFuture,
    step::CommandStep,
};

/// Makes a span `command` for each command, transaction and decision, at level `INFO`, for the
/// crate `tracing`.
///
/// The fields follow OpenTelemetry's conventions, as the crate `tracing-opentelemetry` reads them.
/// Fields that the conventions don't name begin with `factum`.
///
/// | field | value |
/// |---|---|
/// | `otel.name` | category and name: `account account.deposit` |
/// | `otel.kind` | `internal` |
/// | `otel.status_code` | `ERROR` after a failure; a rejection or refusal is not one |
/// | `error.type` | the kind of failure: `busy`, `deadline`, `indeterminate`, ...; else `_OTHER` |
/// | `factum.aggregate.category` | the category; `$transaction` or `$decision` |
/// | `factum.aggregate.key` | the keys; [`without_keys`](Self::without_keys) leaves them out |
/// | `factum.command.steps` | the names of its steps |
/// | `factum.command.name` | the name, see [`Commands::named`](super::Commands::named) |
/// | `factum.command.id` | the id |
/// | `factum.correlation.id` | the conversation |
/// | `factum.command.outcome` | a [`CommandOutcome`](super::CommandOutcome) or `failed` |
/// | `factum.stream.version` | the version after the command, if it was executed |
/// | `factum.log.position` | the position of its last event, if it has any |
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct TracingLayer {
    keys: Keys,
}

/// The treatment of keys in spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Shown,
    LeftOut,
}

impl TracingLayer {
    /// Makes spans with the keys of aggregates.
    pub const fn new() -> Self {
        Self { keys: Keys::Shown }
    }

    /// Leaves the keys out, for keys that are personal data.
    pub const fn without_keys(mut self) -> Self {
        self.keys = Keys::LeftOut;
        self
    }
}

impl Default for TracingLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for TracingLayer {
    type Service = Tracing<S>;

    fn layer(&self, service: S) -> Tracing<S> {
        Tracing { keys: self.keys, service }
    }
}

/// The service that [`TracingLayer`] makes.
#[derive(Debug, Clone)]
pub struct Tracing<S> {
    keys: Keys,
    service: S,
}

impl<S> Tracing<S> {
    fn span(&self, request: &CommandRequest) -> Span {
        let category = request.category();
        let name = request.name();
        tracing::info_span!(
            "command",
            otel.name = %format_args!("{category} {name}"),
            otel.kind = "internal",
            otel.status_code = Empty,
            "error.type" = Empty,
            factum.aggregate.category = category,
            factum.aggregate.key = (self.keys == Keys::Shown).then(|| keys_of(request)),
            factum.command.name = name,
            factum.command.steps = %Names(request.steps()),
            factum.command.id = %request.id(),
            factum.correlation.id = %request.correlation_id(),
            factum.command.outcome = Empty,
            factum.stream.version = Empty,
            factum.log.position = Empty,
        )
    }
}

/// The names of the steps, such as `account.send account.receive`.
struct Names<'a>(&'a [CommandStep]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{}", step.name())?;
        }
        Ok(())
    }
}

fn keys_of(request: &CommandRequest) -> String {
    request.steps().iter().map(CommandStep::key).collect::<Vec<_>>().join(" ")
}

impl<S> Service<CommandRequest> for Tracing<S>
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
        let span = self.span(&request);
        let response = span.in_scope(|| self.service.call(request));
        let recorded = span.clone();
        let traced = async move {
            let response = response.await.map_err(Into::into);
            record(&recorded, &response);
            response
        };
        Box::pin(traced.instrument(span))
    }
}

fn record(span: &Span, response: &Result<CommandResponse, BoxError>) {
    match response {
        Ok(response) => {
            span.record("factum.command.outcome", response.outcome().as_str());
            if let CommandResponse::Done(done) = response {
                span.record("factum.stream.version", done.version.map(StreamVersion::value));
                span.record("factum.log.position", done.position.map(Position::value));
            }
        }
        Err(error) => {
            span.record("factum.command.outcome", "failed");
            span.record("otel.status_code", "ERROR");
            span.record("error.type", label_of(error));
        }
    }
}
