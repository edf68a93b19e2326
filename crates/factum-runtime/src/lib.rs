//! Entities, which are running aggregates, and a supervisor for other long-running work.
//!
//! An entity is an aggregate in memory, addressed by its key. Its first message activates it, it is
//! passivated when idle, and it is started again when it fails. [`Entities`] holds all entities of
//! one kind. An idle entity is an entry in a map, without a task and without a channel.
//!
//! | to | look at |
//! |---|---|
//! | send commands, see states | [`Entities`], [`Outcome`], [`AskError`] |
//! | choose limits | [`EntityOptions`], [`OtherWriters`], [`Restart`] |
//! | have a command take effect once | [`Entities::ask_once`] |
//! | send commands through layers | [`Commands`], [`CommandRouter`], [`DispatchError`] |
//! | trace and count commands | [`TracingLayer`], [`MetricsLayer`] |
//! | refuse commands, recognise repeats | [`AdmissionLayer`], [`IdempotencyLayer`] |
//! | write a layer | [`CommandRequest`], [`CommandStep`], [`CommandResponse`], [`CommandError`] |
//! | see how entities are doing | [`EntityStats`], [`EntityInfo`], [`QuarantinedEntity`] |
//! | shut down | [`Entities::shutdown`], [`Shutdown`] |
//! | keep other work running | [`Supervisor`], [`Worker`], [`WorkerHealth`] |

mod cell;

mod bus;
mod command;
mod directory;
mod drive;
mod entities;
mod entity;
mod error;
mod message;
mod option;
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
pub use stats::{EntityInfo, EntityStats, EntityStatus, QuarantinedEntity, Shutdown};
pub use supervisor::{
    RestartPolicy, RestartStrategy, Supervisor, SupervisorError, WORKER_GRACE, WORKER_RESTART,
    WORKERS_MAX, Worker, WorkerContext, WorkerError, WorkerHealth, WorkerState, WorkersStopped,
};
