//! The PostgreSQL store of Factum: the log and the documents in one schema of a database, 14 or
//! later, open to other processes.
//!
//! ```no_run
//! use factum_kernel::{EventStore, ReadQuery};
//! use factum_postgres::{PostgresOptions, PostgresStore};
//!
//! # async fn example() -> Result<(), factum_kernel::StoreError> {
//! let options = PostgresOptions::parse("postgres://ada@localhost/bank?schema=ledger")?;
//! let store = PostgresStore::open(options).await?;
//! assert!(store.read(ReadQuery::log()).await?.events.is_empty());
//! store.close().await?;
//! # Ok(()) }
//! ```
//!
//! # Rights
//! Opening makes the schema if the role has `CREATE` on the database, and migrates it if the role
//! owns it. Otherwise another role runs `factum schema apply` ([`apply_schema`]), or for a new log
//! the output of `factum schema print` ([`schema_sql`]). A role that works with the log needs the
//! rights of [`grants_sql`], no more.
//!
//! # How it works
//! Each append, change and page is one call of a function in the schema, as a statement of its own.
//! No transaction is open while data crosses the network, and a pooler may give every statement
//! another server process. Objects that other roles put into schemas of the session's `search_path`
//! are never called. Each writing transaction takes an advisory lock: its number is `0x46414354`
//! (`FACT`) in the upper 32 bits and the schema's oid in the lower. See
//! `docs/design/0011-postgresql.md`.

mod error;
mod number;

mod name;
mod options;
mod tls;

mod link;
mod seen;
mod statement;

mod pool;
mod session;

mod schema;

mod known;
mod round;

mod append;
mod change;

mod read;

mod documents;
mod watch;

mod kind;
mod store;
mod transaction;

pub use kind::PostgresKind;
pub use name::{RoleName, SchemaName};
pub use options::{
    Access, CONNECT_TIMEOUT_DEFAULT, CONNECTIONS_DEFAULT, CONNECTIONS_MAX, IDLE_TIMEOUT_DEFAULT,
    LOCK_TIMEOUT_DEFAULT, PostgresOptions, SCHEMA_DEFAULT, STATEMENT_TIMEOUT_DEFAULT, Tls,
};
pub use schema::{Applied, SCHEMA_VERSION, apply_schema, grants_sql, schema_sql};
pub use store::PostgresStore;
/// The driver, in the version whose transactions and configuration this crate takes.
pub use tokio_postgres;
