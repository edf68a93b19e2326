//! Factum: an event sourcing framework.
//!
//! State is a log of immutable events. Rules decide events from commands, state is folded from
//! events, and everything else is read from the log. This crate is the facade: it has everything
//! that applications use.
//!
//! | to | look at |
//! |---|---|
//! | write rules | [`Aggregate`], [`Decision`], [`Matching`] for guards |
//! | write rules over a query | [`DecisionModel`] |
//! | name and version events | [`derive(Event)`](macro@Event), [`OldEvent`] for upcasters |
//! | send commands | [`App::command`], [`SendCommand`], [`SendError`], [`CommandId`] |
//! | send commands by name | [`App::command_json`], [`AppBuilder::commands`] |
//! | add layers | [`AppBuilder::layer`], [`AdmissionLayer`], [`CommandRequest`] |
//! | read your own writes | [`SendCommand::seen_by`], [`Projections::wait_for`] |
//! | load aggregates, see their health | [`App::aggregate`], [`Aggregates`], [`AggregateOptions`] |
//! | work on the lower level, without layers | [`Repository`], [`Transaction`], [`Entities`] |
//! | keep other work running | [`App::supervisor`], [`Worker`], [`WorkerHealth`] |
//! | see what the application is doing | [`App::stats`], [`AppBuilder::with_stats_every`] |
//! | maintain read models | [`App::project`], [`Projection`], [`Maintained`], [`ReadModel`] |
//! | handle events | [`App::consumers`], [`Consumer`] |
//! | get events as they come | [`App::events`], [`EventBus`] |
//! | load an earlier state | [`Aggregates::load_at`], [`At`], [`History`], [`SnapshotPolicy`] |
//! | delete history | [`Aggregates::summarise`], [`Aggregates::delete`], [`Retention`] |
//! | read and follow the log | [`ReadLog`], [`Subscription`], [`Checkpoint`] |
//! | test rules and stores | the crate `factum-testing` |
//! | write a store | [`EventStore`], [`DocumentStore`], the crate `factum-backend` |
//!
//! The names that most programs use are at the root. The rest is in modules, each name once:
//!
//! | module | names |
//! |---|---|
//! | [`event`] | events as values: names, ids, streams, tags, times, codecs, upcasters |
//! | [`aggregate`] | results and errors of commands, transactions and decision models |
//! | [`read`] | queries over the log, pages, where a subscription begins |
//! | [`store`] | the requests and answers of stores, clocks and ids, store URLs |
//! | [`consumer`] | names, health, failures and dead letters of consumers |
//! | [`projection`] | targets, builds, changes and queries of read models, live states |
//! | [`runtime`] | layers of the command bus, entities, the supervisor |
//! | [`stats`] | the numbers of a running application |
//! | [`memory`], `journal`, `sqlite`, `postgres` | one store each: options, and its own tools |
//!
//! ```
//! use factum::App;
//! use factum_testing::bank::{Account, AccountCommand};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::open("memory:").await?;
//! let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
//! app.command::<Account>("ada", open).await?;
//! app.command::<Account>("ada", AccountCommand::Deposit { cents: 500 }).await?;
//! assert_eq!(app.load::<Account>("ada").await?.state.balance_cents, 500);
//! # Ok(()) }
//! ```
//!
//! [`AdmissionLayer`]: runtime::AdmissionLayer
//! [`CommandRequest`]: runtime::CommandRequest
//! [`Entities`]: runtime::Entities
//! [`Repository`]: aggregate::Repository
//! [`SendCommand::seen_by`]: aggregate::SendCommand::seen_by
//! [`SendCommand`]: aggregate::SendCommand
//! [`Transaction`]: aggregate::Transaction

mod aggregates;
mod app;
mod builder;
mod catalog;
mod command;
mod decision;
mod named;
mod project;
mod running;
mod secret;
mod seen;
mod send;
pub mod stats;
mod transaction;

pub use aggregates::{AggregateOptions, Aggregates};
pub use app::App;
pub use builder::{AppBuilder, OpenError};
pub use factum_consumer::{Consumer, ConsumerOptions, Consumers, EventBus, HandleError};
pub use factum_kernel::{
    Aggregate, At, Checkpoint, Command, CommandId, Context, Decision, DecisionModel, DocumentStore,
    ErrorKind, Event, EventStore, ExpectedVersion, History, Matching, Metadata, ModelDecision,
    OldEvent, Position, ReadLog, ReadQuery, RecordedEvent, Retention, RetryPolicy, SnapshotPolicy,
    StoreError, Subscription, TagKey, Upcast, Verdict, category, sentence,
};
pub use factum_macros::{Command, Event};
pub use factum_projection::{
    Documents, DocumentsTx, Fold, Index, IndexRange, Maintained, ModelQuery, Projection,
    ProjectionFn, Projections, ReadModel,
};
pub use factum_runtime::{EntityOptions, Outcome, Worker, WorkerHealth};
pub use send::SendError;

/// The store in memory, for tests.
pub use factum_memory as memory;

/// The embedded log, `journal:./data`: its options, and what verifies and repairs one.
#[cfg(feature = "journal")]
pub use factum_journal as journal;
/// The store on PostgreSQL: its options, its schema and roles.
#[cfg(feature = "postgres")]
pub use factum_postgres as postgres;
/// The store on SQLite, and its options.
#[cfg(feature = "sqlite")]
pub use factum_sqlite as sqlite;

/// Events as values: names, ids, tags, streams, content and its codecs.
pub mod event {
    pub use factum_kernel::{
        BodyLayout, CATEGORY_BYTES_MAX, Category, Cause, Cbor, Codec, CodecError, Content,
        DecodeError, DecodeReason, DuplicateEventType, EVENT_NAME_BYTES_MAX, EncodeError,
        EncodedEvent, EventHeader, EventId, EventName, EventParts, EventType, InvalidBody,
        InvalidEventName, InvalidStreamId, InvalidTag, InvalidTimestamp, Json, KEY_BYTES_MAX,
        METADATA_TEXT_BYTES_MAX, NewEvent, OrDeleted, StreamId, StreamRef, StreamVersion,
        TAG_BYTES_MAX, TAGS_MAX, Tag, TagWriter, Tags, Timestamp, Upcaster, Uuid, Value,
        decode_event, encode_event, encode_tags, upcast_event,
    };
}

/// Commands on their way and what comes of them; and the lower level, which passes no layers.
pub mod aggregate {
    pub use factum_kernel::{
        AlongError, Attempts, COMMAND_TAG, Committed, Committing, DeleteError, Deleted, Draft,
        Drafted, ExecuteError, Executed, HistoryEntry, IdTaken, InvalidSnapshotPolicy, LoadError,
        Loaded, NamedCommand, Once, Repository, SnapshotStats, StepRejected, Tail, Transaction,
        TransactionError, fold,
    };

    pub use crate::{
        catalog::Clash,
        command::SendCommand,
        decision::{Decided, SendDecision},
        named::{NamedOutcome, NamedRejection, SendNamed, UnreadableCommand},
        seen::SEEN_WITHIN_DEFAULT,
        transaction::SendTransaction,
    };
}

/// Queries over the log, pages, and where a subscription begins.
pub mod read {
    pub use factum_kernel::{
        Direction, Diverged, DivergedReason, ErasedRange, Lineage, PAGE_BYTES_DEFAULT,
        PAGE_BYTES_MAX, PAGE_EVENTS_DEFAULT, PAGE_EVENTS_MAX, Page, QUERY_ITEMS_MAX, Query,
        QueryItem, ReadError, ReadFrom, Scope, StreamBounds, SubscribeFrom, SubscriptionPages,
    };
}

/// The two store traits' requests and answers, clocks and ids, and the registry of store kinds.
pub mod store {
    pub use factum_backend::{IfAbsent, OpenContext, OpenStore, Registry, StoreUrl, Stores};
    pub use factum_kernel::{
        AppendBatch, AppendCondition, AppendError, Appended, ChangeError, Clock, Document,
        DocumentWrite, Durability, ExpectedRevision, Guarantees, IdSource, Kernel, KeyRange,
        Limits, Monotonic, POLL_OWN, POLL_SHARED, RETRY_WINDOW, Revision, ScanPage, ScanQuery,
        StoreErrorKind, StreamChange, StreamCheck, StreamInfo, StreamWrite, SystemClock, SystemIds,
        VersionConflict, Versions, WriteBatch, WriteError, Writers,
    };
}

/// Consumers: their names, options, health, dead letters, and the targets that keep progress.
pub mod consumer {
    pub use factum_consumer::{
        BATCH_BYTES_DEFAULT, BATCH_EVENTS_DEFAULT, BusError, CATCHING_UP_MAX, CONSUMER_LEASE,
        CONSUMER_NAME_BYTES_MAX, ConsumerHandle, ConsumerHealth, ConsumerName, ConsumerState,
        DeadLetter, FailurePolicy, Fence, InvalidConsumerName, Opened, PARTITIONS_MAX, Partitions,
        Release, ReleaseError, RewindError, Save, StartError, StartFrom, StopCause, StopReason,
        StoredConsumer, StoredLag, Target, TargetError, TellsOutage, Then, Unknown, UnreadEvent,
        WaitError, describe_consumer_metrics, order_release, stored_consumers, stored_lag,
    };
}

/// Read models: builds, queries, changes, folds, live states, tables in SQL.
pub mod projection {
    pub use factum_projection::{
        Build, BuildError, Continuation, DOCUMENT_KEY_BYTES_MAX, DOCUMENTS_MAX,
        DOCUMENTS_MAX_DEFAULT, Folded, Freshness, INDEX_NAME_BYTES_MAX, INDEX_PART_TEXT_BYTES_MAX,
        INDEX_PARTS_MAX, INDEX_TEXT_BYTES_MAX, INDEX_VALUE_BYTES_MAX, IndexValue,
        InvalidDocumentKey, LiveError, LiveState, MemoryGuard, MemoryModel, ModelChange,
        ModelChanges, ModelPage, ProjectionHandle, QueryError, Rebuild, RebuildProgress,
        SNAPSHOT_EVENTS_DEFAULT, Stale, is_sql_outage,
    };
    #[cfg(feature = "projection-postgres")]
    pub use factum_projection::{
        InvalidTargetSchema, POSTGRES_TARGET_SCHEMA_DEFAULT, PostgresTarget, PostgresTx,
        TargetSchema,
    };
    #[cfg(feature = "projection-sqlite")]
    pub use factum_projection::{SqliteSynchronous, SqliteTarget, SqliteTx};

    pub use crate::project::StartProjection;
}

/// Entities, the command bus and its layers, and the supervisor.
pub mod runtime {
    pub use factum_runtime::{
        Admission, AdmissionLayer, AskError, BURST_MAX, BoxError, CommandDone, CommandError,
        CommandFuture, CommandLayer, CommandOutcome, CommandRequest, CommandResponse,
        CommandRouter, CommandService, CommandStep, CommandTransaction, Commands, DispatchError,
        ENTITY_BYTES, Entities, EntityError, EntityInfo, EntityStats, EntityStatus, Idempotency,
        IdempotencyLayer, LISTED_MAX, Metrics, MetricsLayer, OtherWriters, QuarantinedEntity,
        RequestKind, Restart, RestartPolicy, RestartStrategy, Shutdown, Supervisor,
        SupervisorError, Tracing, TracingLayer, WORKER_GRACE, WORKER_RESTART, WORKERS_MAX,
        WorkerContext, WorkerError, WorkerState, WorkersStopped,
    };
}

/// The names that the derive macros use in generated code. Not part of the public API.
#[doc(hidden)]
pub use factum_kernel::__private;
