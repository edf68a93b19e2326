//! Metrics of commands: counts and durations.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use factum_kernel::{Clock, Monotonic};
use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    error::{BoxError, label_of},
    request::CommandRequest,
    response::CommandResponse,
    router::CommandFuture,
};

const COMMANDS: &str = "factum_commands_total";
const DURATION: &str = "factum_command_duration_seconds";
const ACTIVE: &str = "factum_commands_active";
const FAILURES: &str = "factum_command_failures_total";

/// Counts and times commands, for the facade `metrics` and any exporter.
///
/// | name | kind | unit | labels |
/// |---|---|---|---|
/// | `factum_commands_total` | counter | commands | `category`, `command`, `outcome` |
/// | `factum_command_duration_seconds` | histogram | seconds | `category`, `command`, `outcome` |
/// | `factum_commands_active` | gauge | commands | `category` |
/// | `factum_command_failures_total` | counter | failures | `category`, `error` |
///
/// A duration is measured from this layer to the answer. A command is active while it has no
/// answer.
///
/// | label | values |
/// |---|---|
/// | `category` | the categories of the aggregates |
/// | `command` | the names of the commands, see [`Commands::named`](super::Commands::named) |
/// | `outcome` | `stored`, `unchanged`, `replayed`, `rejected`, `refused`, `failed`, `dropped` |
/// | `error` | `busy`, `deadline`, `indeterminate`, ..., the words of the spans; else `_OTHER` |
///
/// `dropped` counts commands whose caller stopped waiting; they may still take effect. No label
/// holds a key or a text from a command, so the number of series is limited by the program's
/// categories, commands and outcomes.
///
/// For Prometheus, the recorder of `metrics-exporter-prometheus` renders the text that the
/// application serves:
///
/// ```
/// # use factum_kernel::{Kernel, Repository, TagKey};
/// # use factum_runtime::{CommandRouter, Commands, Entities, EntityOptions, MetricsLayer};
/// # use factum_testing::bank::{Account, AccountCommand};
/// use metrics_exporter_prometheus::PrometheusBuilder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = Kernel::new(store.clone(), store).with_tag_key(TagKey::new([1; 32]));
/// # let repository = Repository::new(kernel.clone());
/// # let accounts = Entities::<Account>::new(repository, EntityOptions::new());
/// # let commands = Commands::new(CommandRouter::new().with(accounts), &kernel);
/// # let email = "ada@example.org".to_owned();
/// let prometheus = PrometheusBuilder::new().install_recorder()?;
/// let commands = commands.named::<Account>().layer(MetricsLayer::new(kernel.clock().clone()));
/// let open = AccountCommand::Open { owner: "Ada".into(), email };
/// commands.dispatch::<Account>("ada", open).await?;
/// let labels = r#"category="account",command="account.open",outcome="stored""#;
/// assert!(prometheus.render().contains(&format!("factum_commands_total{{{labels}}} 1")));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct MetricsLayer {
    clock: Arc<dyn Clock>,
}

impl MetricsLayer {
    /// Makes a layer that measures by this clock, and describes the metrics to the recorder.
    /// Install the recorder before this call.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        describe_counter!(COMMANDS, Unit::Count, "commands by outcome");
        describe_histogram!(DURATION, Unit::Seconds, "time from dispatch to answer");
        describe_gauge!(ACTIVE, Unit::Count, "commands that have no answer yet");
        describe_counter!(FAILURES, Unit::Count, "commands that failed, by kind of error");
        Self { clock }
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, service: S) -> Metrics<S> {
        Metrics { clock: self.clock.clone(), service }
    }
}

/// The service that [`MetricsLayer`] makes.
#[derive(Debug, Clone)]
pub struct Metrics<S> {
    clock: Arc<dyn Clock>,
    service: S,
}

impl<S> Service<CommandRequest> for Metrics<S>
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
        let mut measured = Measured::begin(&request, self.clock.clone());
        let response = self.service.call(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into);
            measured.note(&response);
            response
        })
    }
}

/// A command under way. It is counted however it ends.
struct Measured {
    category: &'static str,
    command: &'static str,
    outcome: &'static str,
    clock: Arc<dyn Clock>,
    begun: Monotonic,
}

impl Measured {
    fn begin(request: &CommandRequest, clock: Arc<dyn Clock>) -> Self {
        let category = request.category();
        let command = request.name();
        gauge!(ACTIVE, "category" => category).increment(1);
        Self { category, command, outcome: "dropped", begun: clock.monotonic(), clock }
    }

    fn note(&mut self, response: &Result<CommandResponse, BoxError>) {
        self.outcome = match response {
            Ok(response) => response.outcome().as_str(),
            Err(error) => {
                let labels = [("category", self.category), ("error", label_of(error))];
                counter!(FAILURES, &labels).increment(1);
                "failed"
            }
        };
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        gauge!(ACTIVE, "category" => self.category).decrement(1);
        let command = ("command", self.command);
        let outcome = ("outcome", self.outcome);
        let labels = [("category", self.category), command, outcome];
        counter!(COMMANDS, &labels).increment(1);
        let taken = self.clock.monotonic().saturating_since(self.begun);
        histogram!(DURATION, &labels).record(taken);
    }
}
