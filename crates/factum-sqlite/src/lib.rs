//! The SQLite store of Factum: the log and the documents in one file, durable on power loss, open
//! to other processes.
//!
//! `events.db`, `events.db-wal` and `events.db-shm` are one store. Copy all of them, or the one
//! file that is left after [`close`](factum_kernel::EventStore::close). Removing the `-wal` file
//! loses acknowledged events.
//!
//! ```
//! use factum_kernel::{EventStore, ReadQuery};
//! use factum_sqlite::{SqliteOptions, SqliteStore};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = SqliteStore::open(SqliteOptions::new(folder.path().join("events.db"))).await?;
//! assert!(store.read(ReadQuery::log()).await?.events.is_empty());
//! store.close().await?;
//! # Ok::<(), factum_kernel::StoreError>(()) }).unwrap();
//! ```

mod checksum;
mod error;
mod number;
mod sql;

mod options;
mod schema;

mod file;
mod place;

mod recent;

mod names;
mod stream;

mod cache;
mod transaction;

mod posting;
mod sequence;

mod append;
mod change;
mod facts;

mod pool;
mod read;
mod start;
mod watch;

mod documents;
mod wal;

mod kind;
mod store;

pub use kind::SqliteKind;
pub use options::{Access, BUSY_TIMEOUT_DEFAULT, READERS_MAX_DEFAULT, SqliteOptions};
pub use schema::{APPLICATION_ID, SCHEMA_VERSION};
pub use store::SqliteStore;
