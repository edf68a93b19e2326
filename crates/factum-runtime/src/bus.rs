//! The command bus: the typed entry for commands, the requests that layers see, Factum's own
//! layers, and the router to the entities.

mod admission;
mod commands;
mod error;
mod idempotency;
mod metrics;
mod request;
mod response;
mod router;
mod service;
mod step;
mod tracing;
mod transaction;

pub use admission::{Admission, AdmissionLayer};
pub use commands::Commands;
pub use error::{BoxError, CommandError, DispatchError};
pub use idempotency::{Idempotency, IdempotencyLayer};
pub use metrics::{Metrics, MetricsLayer};
pub use request::{CommandRequest, RequestKind};
pub use response::{CommandDone, CommandOutcome, CommandResponse};
pub use router::{CommandFuture, CommandRouter};
pub use service::{CommandLayer, CommandService};
pub use step::CommandStep;
pub use tracing::{Tracing, TracingLayer};
pub use transaction::CommandTransaction;
