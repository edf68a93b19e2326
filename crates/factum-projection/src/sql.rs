//! The parts that read models in PostgreSQL and in SQLite share.

use std::error::Error;

#[cfg(feature = "postgres")]
use crate::postgres;
#[cfg(feature = "sqlite")]
use crate::sqlite;

/// The error of a process that opens a build after it was cleared.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) const CLEARED: &str = "the build was cleared, and its name is not used again; if the \
                                  log is a new one, keep its read models elsewhere";

/// Returns true if this error, one in a chain of sources, is an outage of a SQL database: an error
/// of sqlx (feature `postgres`) or rusqlite (feature `sqlite`) that a later attempt may not meet.
///
/// Projections use this function already. Handlers of other consumers need it if they use one of
/// these drivers: pass it to [`Consumers::with_outages`](factum_consumer::Consumers::with_outages).
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
