//! One transaction on a connection of the pool. Every statement has a limit, and only the target
//! can commit.

use std::{
    fmt,
    future::Future,
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use factum_consumer::TargetError;
use factum_kernel::{Clock, SystemClock};
use sqlx::{
    AssertSqlSafe, PgConnection, PgPool, Postgres, SqlSafeStr, pool::PoolConnection,
    postgres::PgTransactionManager,
};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;

use super::{fault, statement};

/// The longest that a statement waits for a lock of another transaction.
const LOCK_MAX: Duration = Duration::from_secs(10);
/// The time that the client waits for an answer after the server's limit.
const SLACK: Duration = Duration::from_secs(2);
/// The longest wait for a connection that is given back to the pool.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);

/// The error code of a write after the batch's transaction has ended: the session is read-only
/// then.
pub(crate) const READ_ONLY_CODE: &str = "25006";
/// The error code of closing the cursor after the batch's transaction has ended.
const NO_CURSOR_CODE: &str = "34000";
/// The error code of `BEGIN READ WRITE` on a standby.
const STANDBY_CODE: &str = "0A000";

/// The limits on the statements of a transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The limit of each wait for a lock.
    pub(crate) lock: Duration,
    /// The limit of each statement, and of each pause between two statements.
    pub(crate) statement: Duration,
}

impl Limits {
    /// The limits of a batch whose events may take `event_max` each. A wait for a lock ends before
    /// the event's time is over, so that it does not count as the event's failure. An event is
    /// given up after once or twice its time; a statement that the server still runs then has no
    /// owner any more.
    pub(crate) fn of(event_max: Duration) -> Self {
        let statement = event_max.saturating_mul(2).saturating_add(Duration::from_secs(1));
        Self { lock: (event_max / 2).min(LOCK_MAX), statement }
    }

    /// The time after which no answer of the server is expected any more.
    pub(crate) fn answer(self) -> Duration {
        self.statement.saturating_add(SLACK)
    }
}

/// The batch that a projection into PostgreSQL writes to: a connection in a transaction. Use it as
/// a connection of sqlx: `.execute(&mut **tx)`. Only the projection ends the transaction.
///
/// A handler's `COMMIT` fails and discards the writes. After that, and after a `ROLLBACK`, the
/// connection is read-only. Handlers may use savepoints, by statements or by `tx.begin()` of
/// `sqlx::Connection`.
pub struct PostgresTx {
    /// The connection; `None` after the end.
    connection: Option<PoolConnection<Postgres>>,
    /// True if the connection is known to be in the transaction.
    is_begun: bool,
    limits: Limits,
}

impl PostgresTx {
    /// Begins with these statements.
    pub(crate) async fn begin(
        pool: &PgPool,
        statements: String,
        limits: Limits,
    ) -> Result<Self, TargetError> {
        // The pool limits this wait itself.
        let connection = Some(pool.acquire().await.map_err(fault::before_commit)?);
        // If this is interrupted, the connection is not used again.
        let mut tx = Self { connection, is_begun: false, limits };
        let statements = AssertSqlSafe(statements).into_sql_str();
        let begin = async {
            PgTransactionManager::begin(&mut tx, Some(statements)).await.map_err(at_begin)
        };
        within(limits, begin).await?;
        tx.is_begun = true;
        Ok(tx)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Commits, if no handler has ended the transaction.
    pub(crate) async fn commit(mut self, limits: Limits) -> Result<(), TargetError> {
        answered(limits, sqlx::raw_sql(statement::MAY_END).execute(&mut *self)).await?;
        let committed = tokio::select! {
            biased;
            committed = PgTransactionManager::commit(&mut self) => committed,
            // The batch may be stored.
            error = silence(limits.answer()) => Err(error),
        };
        committed.map_err(fault::at_commit)?;
        if let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) {
            runtime.spawn(give_back(connection));
        }
        Ok(())
    }
}

impl Deref for PostgresTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is not over")
    }
}

impl DerefMut for PostgresTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is not over")
    }
}

impl Drop for PostgresTx {
    /// Rolls back. A connection that does not answer is closed: the pool would wait for its answer
    /// without a limit, and lose its place.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let runtime = Handle::try_current().ok().filter(|_| self.is_begun);
        let Some(runtime) = runtime else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            let rollback = async {
                sqlx::raw_sql(statement::ROLLBACK).execute(&mut *connection).await?;
                // sqlx counts open transactions, so it has to learn that this one is over.
                PgTransactionManager::rollback(&mut connection).await
            };
            let is_back = tokio::select! {
                biased;
                rolled_back = rollback => rolled_back.is_ok(),
                _ = silence(GIVE_BACK_MAX) => false,
            };
            match is_back {
                true => give_back(connection).await,
                false => drop(connection.detach()),
            }
        });
    }
}

/// Gives a connection back to its pool, which first asks the server whether it is alive and waits
/// for the answer without a limit. If no answer comes, the connection is closed and its place is
/// free.
async fn give_back(mut connection: PoolConnection<Postgres>) {
    tokio::select! {
        biased;
        () = connection.return_to_pool() => {}
        _ = silence(GIVE_BACK_MAX) => {}
    }
}

impl fmt::Debug for PostgresTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTx").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The error of a begin. A standby can't write, but it may be the primary soon, or the address may
/// lead to another server.
fn at_begin(error: sqlx::Error) -> TargetError {
    match has_code(&error, STANDBY_CODE) {
        true => TargetError::Unavailable(Arc::new(error)),
        false => fault::before_commit(error),
    }
}

/// The error of a statement before the commit, perhaps because a handler has ended the transaction.
/// Nothing is stored.
pub(crate) fn before_commit(error: sqlx::Error) -> TargetError {
    if is_ended(&error) { fault::refused(statement::ENDED) } else { fault::before_commit(error) }
}

/// The same error, if an event of the batch may be the cause.
pub(crate) fn of_batch(error: sqlx::Error) -> TargetError {
    if is_ended(&error) { fault::refused(statement::ENDED) } else { fault::of_batch(error) }
}

/// Returns true if the error shows that the transaction had ended before.
fn is_ended(error: &sqlx::Error) -> bool {
    has_code(error, READ_ONLY_CODE) || has_code(error, NO_CURSOR_CODE)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    let found = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    found.is_some_and(|found| found == code)
}

/// Waits for statements before the commit, and gives up if the server does not answer.
pub(crate) async fn answered<T>(
    limits: Limits,
    statements: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, TargetError> {
    within(limits, async { statements.await.map_err(before_commit) }).await
}

/// Does the same for a part of a transaction that maps its errors itself.
pub(crate) async fn within<T>(
    limits: Limits,
    part: impl Future<Output = Result<T, TargetError>>,
) -> Result<T, TargetError> {
    tokio::select! {
        biased;
        answer = part => answer,
        error = silence(limits.answer()) => Err(fault::before_commit(error)),
    }
}

/// Waits for the limit and returns an error. It uses the system's clock, because the server does
/// not run on simulated time.
async fn silence(limit: Duration) -> sqlx::Error {
    SystemClock.sleep(limit).await;
    let text = format!("the database has not answered: waited={limit:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_before_the_event_and_a_statement_after_it() {
        for event_max in [0, 1, 300, 30_000, 3_600_000].map(Duration::from_millis) {
            let limits = Limits::of(event_max);
            assert!(limits.lock <= event_max / 2 && limits.lock <= LOCK_MAX, "{limits:?}");
            assert!(limits.statement > event_max * 2, "{limits:?}");
            assert!(limits.answer() > limits.statement, "{limits:?}");
        }
        assert_eq!(Limits::of(Duration::MAX).answer(), Duration::MAX);
    }
}
