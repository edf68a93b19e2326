//! Where read models are kept: documents, SQLite, PostgreSQL.

mod changes;
mod documents;
mod indexes;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::error::Error;

pub(crate) use changes::{Changed, Changes};
pub(crate) use documents::prefix as documents_prefix;
pub use documents::{Documents, DocumentsTx};
pub(crate) use indexes::{Indexes, declared_indexes};
#[cfg(feature = "postgres")]
pub use postgres::{
    InvalidTargetSchema, POSTGRES_TARGET_SCHEMA_DEFAULT, PostgresTarget, PostgresTx, TargetSchema,
};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteSynchronous, SqliteTarget, SqliteTx};

/// What is said to whoever opens a build that is gone.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const CLEARED: &str = "the build was cleared, and its name is not used again; if the log is a new \
                       one, keep its read models elsewhere";

/// Whether a link in the chain of an error's sources tells that a SQL database was away, as sqlx
/// or rusqlite say it; each with its feature. Consumers whose handlers use one of them on their
/// own are taught it by
/// [`Consumers::with_outages`](factum_consumer::Consumers::with_outages); projections know it.
pub fn is_sql_outage(link: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "postgres")]
    if postgres::fault::is_outage(link) {
        return true;
    }
    #[cfg(feature = "sqlite")]
    if sqlite::fault::is_outage(link) {
        return true;
    }
    let _ = link;
    false
}
