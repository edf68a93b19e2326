//! Factum: an event sourcing framework.
//!
//! State is a log of immutable events. Rules decide events out of commands; state is folded from
//! events; everything else is read from the log. This crate is the facade: what applications use,
//! under one name.
//!
//! | to | look at |
//! |---|---|
//! | write rules | [`Aggregate`], [`Decision`], [`Matching`] for guards |
//! | write rules over a query | [`DecisionModel`] |
//! | name and version events | [`derive(Event)`](macro@Event), [`OldEvent`] for upcasters |
//! | execute | [`App`], [`Repository`], [`Transaction`], [`ExecuteError`] |
//! | keep aggregates running | [`App::entities`], [`Entities`], [`EntityOptions`] |
//! | read what one has written | [`App::ask`], [`Ask`], [`Projections::wait_for`] |
//! | send commands through layers | [`App::commands`], [`Commands`], [`CommandId`] |
//! | keep other work running | [`App::supervisor`], [`Worker`], [`WorkerHealth`] |
//! | see what it is doing | [`App::stats`], [`AppBuilder::with_stats_every`] |
//! | maintain read models | [`App::project`], [`Projection`], [`Maintained`], [`ReadModel`] |
//! | handle events | [`App::consumers`], [`Consumer`] |
//! | hear of events as they come | [`App::events`], [`EventBus`] |
//! | load, also as it was | [`Repository::load_at`], [`At`], [`History`], [`SnapshotPolicy`] |
//! | let history go | [`Repository::summarise`], [`Repository::delete`], [`Retention`] |
//! | read and follow | [`ReadLog`], [`Subscription`], [`Checkpoint`] |
//! | test rules and stores | the crate `factum-testing` |
//! | write a store | [`EventStore`], [`DocumentStore`], the crate `factum-backend` |
//!
//! ```
//! use factum::App;
//! use factum_testing::bank::{Account, AccountCommand};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app = App::open("memory:").await?;
//! let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
//! app.execute::<Account>("ada", &open).await?;
//! app.execute::<Account>("ada", &AccountCommand::Deposit { cents: 500 }).await?;
//! assert_eq!(app.load::<Account>("ada").await?.state.balance_cents, 500);
//! # Ok(()) }
//! ```

mod app;
mod ask;
mod builder;
mod catalog;
mod project;
mod running;
mod secret;
mod stats;

pub use app::App;
pub use ask::{Ask, SEEN_WITHIN_DEFAULT, UnseenError};
pub use builder::{AppBuilder, OpenError};
pub use catalog::Clash;
pub use factum_backend::{OpenContext, OpenStore, Registry, StoreUrl, Stores};
pub use factum_consumer::{
    BATCH_BYTES_DEFAULT, BATCH_EVENTS_DEFAULT, BusError, CATCHING_UP_MAX, CONSUMER_LEASE,
    CONSUMER_NAME_BYTES_MAX, Consumer, ConsumerHandle, ConsumerHealth, ConsumerName,
    ConsumerOptions, ConsumerState, Consumers, DeadLetter, EventBus, FailurePolicy, Fence,
    HandleError, InvalidConsumerName, Opened, PARTITIONS_MAX, Partitions, Release, ReleaseError,
    RewindError, Save, StartError, StartFrom, StopReason, StoredConsumer, Target, TargetError,
    Then, Unknown, WaitError, describe_consumer_metrics, order_release, stored_consumers,
};
#[cfg(feature = "journal")]
pub use factum_journal::{
    Damage, JournalKind, JournalOptions, JournalRepair, JournalReport, JournalStore, Loss, Lost,
    renew_lineage as renew_journal_lineage, repair as repair_journal, verify as verify_journal,
    verify_watched as verify_journal_watched,
};
pub use factum_kernel::{
    Aggregate, AlongError, AppendBatch, AppendCondition, AppendError, Appended, At, Attempts,
    BodyLayout, CATEGORY_BYTES_MAX, Category, Cause, Cbor, Checkpoint, Clock, Codec, CodecError,
    Command, Committed, Committing, Content, Context, Decided, Decision, DecisionModel,
    DecodeError, DecodeReason, DeleteError, Direction, Diverged, DivergedReason, Document,
    DocumentStore, DocumentWrite, Draft, Drafted, DuplicateEventType, Durability,
    EVENT_NAME_BYTES_MAX, EncodeError, EncodedEvent, ErasedRange, ErrorKind, Event, EventHeader,
    EventId, EventName, EventParts, EventStore, EventType, ExecuteError, Executed,
    ExpectedRevision, ExpectedVersion, Guarantees, History, HistoryEntry, IdSource, InvalidBody,
    InvalidEventName, InvalidSnapshotPolicy, InvalidStreamId, InvalidTag, InvalidTimestamp, Json,
    KEY_BYTES_MAX, Kernel, KeyRange, Limits, Lineage, LoadError, Loaded, METADATA_TEXT_BYTES_MAX,
    Matching, Metadata, ModelDecision, ModelError, Monotonic, NewEvent, OldEvent,
    PAGE_BYTES_DEFAULT, PAGE_BYTES_MAX, PAGE_EVENTS_DEFAULT, PAGE_EVENTS_MAX, POLL_OWN,
    POLL_SHARED, Page, Position, QUERY_ITEMS_MAX, Query, QueryItem, RETRY_WINDOW, ReadError,
    ReadFrom, ReadLog, ReadQuery, RecordedEvent, Repository, Retention, RetryPolicy, Revision,
    ScanPage, ScanQuery, Scope, SnapshotPolicy, SnapshotStats, StepRejected, StoreError,
    StoreErrorKind, StreamBounds, StreamChange, StreamCheck, StreamId, StreamInfo, StreamRef,
    StreamVersion, StreamWrite, SubscribeFrom, Subscription, SystemClock, SystemIds, TAG_BYTES_MAX,
    TAGS_MAX, Tag, TagKey, TagWriter, Tags, Tail, Timestamp, Transaction, Upcast, Upcaster, Uuid,
    Value, Verdict, VersionConflict, WriteBatch, WriteError, Writers, category, decode_event,
    encode_event, encode_tags, execute_model, fold, sentence, upcast_event,
};
pub use factum_macros::{Command, Event};
pub use factum_memory::{MemoryKind, MemoryOptions, MemoryStore};
#[cfg(feature = "postgres")]
pub use factum_postgres::{
    Access as PostgresAccess, Applied as PostgresApplied, PostgresKind, PostgresOptions,
    PostgresStore, RoleName as PostgresRoleName, SCHEMA_DEFAULT as POSTGRES_SCHEMA_DEFAULT,
    SCHEMA_VERSION as POSTGRES_SCHEMA_VERSION, SchemaName as PostgresSchemaName,
    apply_schema as apply_postgres_schema, grants_sql as postgres_grants_sql,
    schema_sql as postgres_schema_sql,
};
pub use factum_projection::{
    Build, BuildError, Continuation, DOCUMENT_KEY_BYTES_MAX, DOCUMENTS_MAX, DOCUMENTS_MAX_DEFAULT,
    Documents, DocumentsTx, Fold, Folded, Freshness, INDEX_NAME_BYTES_MAX, INDEX_VALUE_BYTES_MAX,
    Index, IndexRange, IndexValue, InvalidDocumentKey, LiveError, LiveState, Maintained,
    MemoryGuard, MemoryModel, ModelChange, ModelChanges, ModelPage, ModelQuery, Projection,
    ProjectionFn, ProjectionHandle, Projections, QueryError, ReadModel, Rebuild, RebuildProgress,
    SNAPSHOT_EVENTS_DEFAULT, Stale,
};
#[cfg(feature = "projection-postgres")]
pub use factum_projection::{
    InvalidTargetSchema, POSTGRES_TARGET_SCHEMA_DEFAULT, PostgresTarget, PostgresTx, TargetSchema,
};
#[cfg(feature = "projection-sqlite")]
pub use factum_projection::{SqliteSynchronous, SqliteTarget, SqliteTx};
pub use factum_runtime::{
    Admission, AdmissionLayer, AskError, BURST_MAX, BoxError, COMMAND_TAG, CommandDone,
    CommandError, CommandFuture, CommandId, CommandOutcome, CommandRequest, CommandResponse,
    CommandRouter, Commands, DispatchError, ENTITY_BYTES, Entities, EntityError, EntityInfo,
    EntityOptions, EntityStats, EntityStatus, Idempotency, IdempotencyLayer, LISTED_MAX, Metrics,
    MetricsLayer, OtherWriters, Outcome, QuarantinedEntity, Restart, RestartPolicy,
    RestartStrategy, Shutdown, Supervisor, SupervisorError, Tracing, TracingLayer, WORKER_GRACE,
    WORKERS_MAX, Worker, WorkerContext, WorkerError, WorkerHealth, WorkerState, WorkersStopped,
};
#[cfg(feature = "sqlite")]
pub use factum_sqlite::{SqliteKind, SqliteOptions, SqliteStore};

pub use project::StartProjection;
pub use stats::{
    AppStats, ConsumerStats, KindStats, LISTED, PublishedConsumer, PublishedEntity, PublishedKind,
    PublishedStats, PublishedTotals, PublishedWorker, STATS_EVERY_MIN, published_stats,
};

/// What the derive macros write names by; not for people.
#[doc(hidden)]
pub use factum_kernel::__private;
