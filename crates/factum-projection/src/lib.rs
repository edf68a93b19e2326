//! Reading that never misses: consumers, projections, read models.
//!
//! A *consumer* is a named loop: it reads the log in order, gives events to a handler, and keeps
//! how far it has come. A *projection* is a consumer that maintains a read model. Both deliver
//! every event; where the effect and the checkpoint share one write, each event takes effect
//! exactly once.
//!
//! | to | look at |
//! |---|---|
//! | run them | [`Consumers`], [`Projections`] |
//! | maintain a read model | [`Projection`], [`ProjectionFn`], [`Documents`] |
//! | keep one in memory | [`Fold`], [`MemoryModel`] |
//! | change it, rebuild it | [`Maintained`], [`Rebuild`] |
//! | query it | [`ReadModel`], [`ModelQuery`], [`Index`], [`ModelChanges`] |
//! | do without one | [`LiveState`] |
//! | do something for each event | [`Consumer`] |
//! | hear of events as they come | [`EventBus`] |
//! | say what happens when it fails | [`ConsumerOptions`], [`FailurePolicy`] |
//! | handle events in parallel | [`Partitions`] |
//! | see how they fare, wait for them | [`ConsumerHandle`], [`Projections::wait_for`] |
//! | look from outside, give orders | [`stored_consumers`], [`order_release`] |
//! | keep read models in SQL | `PostgresTarget`, `SqliteTarget`: features `postgres`, `sqlite` |
//! | keep read models elsewhere | [`Target`] |

mod arrival;
mod build;
mod document_key;
mod index;
mod live;
mod maintain;
mod memory;
mod model;
mod projection;
mod projections;
mod target;

pub use build::Build;
pub use document_key::{DOCUMENT_KEY_BYTES_MAX, InvalidDocumentKey};
pub use index::{INDEX_NAME_BYTES_MAX, INDEX_VALUE_BYTES_MAX, Index, IndexRange, IndexValue};
pub use live::{Folded, LiveError, LiveState};
pub use maintain::{BuildError, Maintained, ProjectionFn, Rebuild, RebuildProgress};
pub use memory::{Fold, MemoryGuard, MemoryModel, SNAPSHOT_EVENTS_DEFAULT};
pub use model::{
    Continuation, DOCUMENTS_MAX, DOCUMENTS_MAX_DEFAULT, Freshness, ModelChange, ModelChanges,
    ModelPage, ModelQuery, QueryError, ReadModel, Stale,
};
pub use projection::{Projection, ProjectionHandle};
pub use projections::Projections;
pub use target::{Documents, DocumentsTx, is_sql_outage};
#[cfg(feature = "postgres")]
pub use target::{
    InvalidTargetSchema, POSTGRES_TARGET_SCHEMA_DEFAULT, PostgresTarget, PostgresTx, TargetSchema,
};
#[cfg(feature = "sqlite")]
pub use target::{SqliteSynchronous, SqliteTarget, SqliteTx};
