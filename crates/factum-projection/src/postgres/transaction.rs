//! One transaction on a connection of the pool: with a limit for every statement, and such that
//! only its owner can commit it.

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
/// The time between the server's limit and the moment at which its answer is given up.
const SLACK: Duration = Duration::from_secs(2);
/// The longest that a connection is waited for on its way back to the pool.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);

/// What shows that the batch's transaction had ended before: the session is read-only after that,
pub(crate) const READ_ONLY_CODE: &str = "25006";
/// and the cursor is gone.
const NO_CURSOR_CODE: &str = "34000";
/// Of a `BEGIN READ WRITE` on a standby.
const STANDBY_CODE: &str = "0A000";

/// How long the statements of a transaction may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Each wait for a lock.
    pub(crate) lock: Duration,
    /// Each statement, and each pause between two of them.
    pub(crate) statement: Duration,
}

impl Limits {
    /// Those of a batch whose events may take so long each. A wait for a lock ends before the
    /// event's time is over, so that it is not the event's failure. An event is given up when
    /// once or twice its time is over; what the server still does then has no owner any more.
    pub(crate) fn of(event_max: Duration) -> Self {
        let statement = event_max.saturating_mul(2).saturating_add(Duration::from_secs(1));
        Self { lock: (event_max / 2).min(LOCK_MAX), statement }
    }

    /// The time after which the server won't answer any more.
    pub(crate) fn answer(self) -> Duration {
        self.statement.saturating_add(SLACK)
    }
}

/// What a projection into PostgreSQL writes to: a connection in a transaction, which is the
/// projection's to end. It is used as a connection of sqlx's: `.execute(&mut **tx)`.
///
/// A `COMMIT` of a handler's fails, and takes back what was written. After that, as after a
/// `ROLLBACK`, the connection is read-only. Savepoints are the handler's to use, by statements or by
/// `tx.begin()` of `sqlx::Connection`.
pub struct PostgresTx {
    /// None when it is over.
    connection: Option<PoolConnection<Postgres>>,
    /// Whether the connection is known to be in the transaction.
    is_begun: bool,
    limits: Limits,
}

impl PostgresTx {
    /// Begins by these statements.
    pub(crate) async fn begin(
        pool: &PgPool,
        statements: String,
        limits: Limits,
    ) -> Result<Self, TargetError> {
        // The pool has a limit of its own for this.
        let connection = Some(pool.acquire().await.map_err(fault::before_commit)?);
        // Cut off amid this, the connection is not used again.
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

    /// Commits, where the handlers have left the transaction as it was.
    pub(crate) async fn commit(mut self, limits: Limits) -> Result<(), TargetError> {
        answered(limits, sqlx::raw_sql(statement::MAY_END).execute(&mut *self)).await?;
        let committed = tokio::select! {
            biased;
            committed = PgTransactionManager::commit(&mut self) => committed,
            // Perhaps it is stored.
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
    /// Rolls back. A connection that does not answer is closed: left to the pool it would be
    /// waited for without a limit, and its place in the pool would be lost.
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (true, Ok(runtime)) = (self.is_begun, Handle::try_current()) else {
            drop(connection.detach());
            return;
        };
        runtime.spawn(async move {
            let rollback = async {
                sqlx::raw_sql(statement::ROLLBACK).execute(&mut *connection).await?;
                // sqlx counts its transactions, and this one is over.
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

/// Gives a connection back to its pool, which asks the server first whether it is there, and waits
/// for the answer without a limit. Where none comes, the connection is closed and its place free.
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

/// A standby can't begin to write. It may be the primary soon, or the address another server's.
fn at_begin(error: sqlx::Error) -> TargetError {
    match has_code(&error, STANDBY_CODE) {
        true => TargetError::Unavailable(Arc::new(error)),
        false => fault::before_commit(error),
    }
}

/// Nothing is stored; perhaps because a handler has ended the transaction.
pub(crate) fn before_commit(error: sqlx::Error) -> TargetError {
    if is_ended(&error) { fault::refused(statement::ENDED) } else { fault::before_commit(error) }
}

/// The same where an event of the batch may be at fault.
pub(crate) fn of_batch(error: sqlx::Error) -> TargetError {
    if is_ended(&error) { fault::refused(statement::ENDED) } else { fault::of_batch(error) }
}

/// Whether the error shows that the transaction had ended before.
fn is_ended(error: &sqlx::Error) -> bool {
    has_code(error, READ_ONLY_CODE) || has_code(error, NO_CURSOR_CODE)
}

fn has_code(error: &sqlx::Error, code: &str) -> bool {
    let found = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    found.is_some_and(|found| found == code)
}

/// What comes of statements before the commit, which are given up when the server does not answer.
pub(crate) async fn answered<T>(
    limits: Limits,
    statements: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, TargetError> {
    within(limits, async { statements.await.map_err(before_commit) }).await
}

/// The same of a part of a transaction that knows what its errors mean.
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

/// The server does not answer for so long; by its own time, not that of a simulation.
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
