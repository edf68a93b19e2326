//! Entities: aggregates that run; and a supervisor for whatever else runs for long.
//!
//! An entity is an aggregate in memory, addressed by its key: activated by its first message,
//! passivated when idle, started again when it fails. [`Entities`] are all those of one kind; an
//! idle one is an entry in a map, without a task and without a channel.
//!
//! | to | look at |
//! |---|---|
//! | send commands, see states | [`Entities`], [`Outcome`], [`AskError`] |
//! | choose limits | [`EntityOptions`], [`OtherWriters`], [`Restart`] |
//! | have a command take effect once | [`Entities::ask_once`], [`CommandId`] |
//! | send commands through layers | [`Commands`], [`CommandRouter`], [`DispatchError`] |
//! | trace and count them | [`TracingLayer`], [`MetricsLayer`] |
//! | refuse them, recognise them | [`AdmissionLayer`], [`IdempotencyLayer`] |
//! | write a layer | [`CommandRequest`], [`CommandStep`], [`CommandResponse`], [`CommandError`] |
//! | see how they fare | [`EntityStats`], [`EntityInfo`], [`QuarantinedEntity`] |
//! | end | [`Entities::shutdown`], [`Shutdown`] |
//! | keep other work running | [`Supervisor`], [`Worker`], [`WorkerHealth`] |

mod cell;

mod bus;
mod directory;
mod drive;
mod entities;
mod entity;
mod error;
mod message;
mod option;
mod order;
mod stats;
mod supervisor;
mod system;

pub use bus::{
    Admission, AdmissionLayer, BoxError, CommandDone, CommandError, CommandFuture, CommandLayer,
    CommandOutcome, CommandRequest, CommandResponse, CommandRouter, CommandService, CommandStep,
    CommandTransaction, Commands, DispatchError, Idempotency, IdempotencyLayer, Metrics,
    MetricsLayer, RequestKind, Tracing, TracingLayer,
};
pub use cell::Restart;
pub use entities::{Entities, LISTED_MAX};
pub use error::{AskError, EntityError};
pub use message::Outcome;
pub use option::{BURST_MAX, ENTITY_BYTES, EntityOptions, OtherWriters};
pub use order::{COMMAND_TAG, CommandId};
pub use stats::{EntityInfo, EntityStats, EntityStatus, QuarantinedEntity, Shutdown};
pub use supervisor::{
    RestartPolicy, RestartStrategy, Supervisor, SupervisorError, WORKER_GRACE, WORKERS_MAX, Worker,
    WorkerContext, WorkerError, WorkerHealth, WorkerState, WorkersStopped,
};
