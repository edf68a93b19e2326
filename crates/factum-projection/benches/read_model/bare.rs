//! The upserts of a read model in SQL without a projection around them.

use std::time::Duration;

use super::{
    Failure,
    model::{CLEAR, TABLE, UPSERT},
    now, since,
};

/// An account and the cents of a deposit.
pub(super) type Deposit = (String, i64);

/// In SQLite, as durable as a `SqliteTarget`.
#[cfg(feature = "sqlite")]
pub(super) fn sqlite(
    path: &std::path::Path,
    deposits: &[Deposit],
    batch: usize,
) -> Result<Duration, Failure> {
    let mut connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch(CLEAR)?;
    connection.execute_batch(TABLE)?;
    let begun = now();
    for deposits in deposits.chunks(batch) {
        let tx = connection.transaction()?;
        for deposit in deposits {
            tx.prepare_cached(UPSERT)?.execute((&deposit.0, deposit.1))?;
        }
        tx.commit()?;
    }
    Ok(since(begun))
}

/// In PostgreSQL, with one connection, in a task as projections use.
#[cfg(feature = "postgres")]
pub(super) async fn postgres(
    pool: sqlx::PgPool,
    deposits: std::sync::Arc<[Deposit]>,
    batch: usize,
) -> Result<Duration, Failure> {
    let run = async move {
        sqlx::raw_sql(CLEAR).execute(&pool).await?;
        sqlx::raw_sql(TABLE).execute(&pool).await?;
        let begun = now();
        for deposits in deposits.chunks(batch) {
            let mut tx = pool.begin().await?;
            for (account, cents) in deposits {
                sqlx::query(UPSERT).bind(account).bind(cents).execute(&mut *tx).await?;
            }
            tx.commit().await?;
        }
        Ok(since(begun))
    };
    tokio::spawn(run).await?
}
