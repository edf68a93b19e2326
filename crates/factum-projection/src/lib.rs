//! Read models: projections of the log that miss no event, and what readers ask them.
//!
//! A *projection* is a consumer that maintains a read model; consumers and their options come from
//! [`factum_consumer`]. Where the read model and the checkpoint are stored in one write, each event
//! takes effect exactly once.
//!
//! | to | look at |
//! |---|---|
//! | start projections, wait for them | [`Projections`] |
//! | maintain a read model | [`Projection`], [`ProjectionFn`], [`Documents`] |
//! | change it, rebuild it | [`Maintained`], [`Rebuild`] |
//! | query it | [`ReadModel`], [`ModelQuery`], [`Index`], [`ModelChanges`] |
//! | keep one in memory | [`Fold`], [`MemoryModel`] |
//! | do without one | [`LiveState`] |
//! | keep read models in SQL | `PostgresTarget`, `SqliteTarget`: features `postgres`, `sqlite` |
//! | keep read models elsewhere | [`Target`](factum_consumer::Target) |
//!
//! ```
//! use std::time::Duration;
//! use factum_consumer::Consumers;
//! use factum_projection::{Fold, Projections};
//! use factum_testing::bank::{Account, AccountCommand, AccountEvent};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
//! # let kernel = factum_kernel::Kernel::new(store.clone(), store);
//! # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
//! # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
//! let opened = Fold::new("opened", 1, |count: &mut u64, event, _| {
//!     *count += u64::from(matches!(event, AccountEvent::Opened { .. }));
//! });
//! let opened = Consumers::new(kernel).fold(opened).await?;
//!
//! let email = "ada@example.org".to_owned();
//! let open = AccountCommand::Open { owner: "Ada".into(), email };
//! let position = accounts.execute("ada", &open).await?.position.expect("it is an event");
//! opened.wait_for(position, Duration::from_secs(5)).await?;
//! assert_eq!(*opened.read().await?, 1);
//! # Ok(()) }
//! ```

mod projection;
mod projections;

mod document_key;
mod documents;
mod index;
#[cfg(feature = "postgres")]
mod postgres;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

mod arrival;
mod maintain;
mod model;
mod model_build;

mod live;
mod memory;

pub use document_key::{DOCUMENT_KEY_BYTES_MAX, InvalidDocumentKey};
pub use documents::{Documents, DocumentsTx};
pub use index::{
    INDEX_NAME_BYTES_MAX, INDEX_PART_TEXT_BYTES_MAX, INDEX_PARTS_MAX, INDEX_TEXT_BYTES_MAX,
    INDEX_VALUE_BYTES_MAX, Index, IndexRange, IndexValue,
};
pub use live::{Folded, LiveError, LiveState};
pub use maintain::{BuildError, Maintained, ProjectionFn, Rebuild, RebuildProgress};
pub use memory::{Fold, MemoryGuard, MemoryModel, SNAPSHOT_EVENTS_DEFAULT};
pub use model::{
    Continuation, DOCUMENTS_MAX, DOCUMENTS_MAX_DEFAULT, Freshness, ModelChange, ModelChanges,
    ModelPage, ModelQuery, QueryError, ReadModel, Stale,
};
pub use model_build::Build;
#[cfg(feature = "postgres")]
pub use postgres::{
    InvalidTargetSchema, POSTGRES_TARGET_SCHEMA_DEFAULT, PostgresTarget, PostgresTx, TargetSchema,
};
pub use projection::{Projection, ProjectionHandle};
pub use projections::Projections;
pub use sql::is_sql_outage;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteSynchronous, SqliteTarget, SqliteTx};
