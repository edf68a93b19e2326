//! The events of the benchmark, deposits, and the read models that are made from them, balances.

use std::collections::HashMap;

use factum_consumer::HandleError;
use factum_kernel::RecordedEvent;
use factum_macros::Event;
use factum_projection::{Documents, DocumentsTx, Projection};

/// The category of the deposits.
pub(super) const CATEGORY: &str = "bench_account";
/// Removes an account, in both dialects.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
const DELETE: &str = "DELETE FROM factum_bench WHERE account = $1";
/// Adds a deposit, in both dialects.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const UPSERT: &str = "INSERT INTO factum_bench (account, cents) VALUES ($1, $2)
    ON CONFLICT (account) DO UPDATE SET cents = factum_bench.cents + excluded.cents";
/// Makes the table, in both dialects.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS factum_bench (
    account varchar(100) PRIMARY KEY, cents bigint NOT NULL)";
/// Removes the table, in both dialects.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) const CLEAR: &str = "DROP TABLE IF EXISTS factum_bench";

/// The event that is appended.
#[derive(Debug, Event)]
#[event(crate = factum_kernel)]
pub(super) enum BenchEvent {
    /// Money was put on an account.
    Deposited {
        /// The amount in cents.
        cents: i64,
        /// Padding that gives the event a typical size.
        note: String,
    },
}

/// The balances in memory.
pub(super) type Balances = HashMap<String, i64>;

/// The projection into memory.
pub(super) fn to_memory(
    balances: &mut Balances,
    BenchEvent::Deposited { cents, note }: BenchEvent,
    recorded: &RecordedEvent,
) {
    std::hint::black_box(note);
    let account = recorded.stream().key();
    match balances.get_mut(account) {
        Some(balance) => *balance += cents,
        None => drop(balances.insert(account.into(), cents)),
    }
}

/// The projection into documents of the store.
#[derive(Debug)]
pub(super) struct ToDocuments;

impl Projection for ToDocuments {
    const NAME: &'static str = "bench-documents";
    const CATEGORIES: &[&str] = &[CATEGORY];
    type Event = BenchEvent;
    type Target = Documents;

    async fn project(
        &self,
        BenchEvent::Deposited { cents, .. }: BenchEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        tx.update(recorded.stream().key(), |balance: &mut i64| *balance += cents).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        documents.remove(deletion.stream().key());
        Ok(())
    }
}

/// The projection into a table in SQLite.
#[cfg(feature = "sqlite")]
#[derive(Debug)]
pub(super) struct ToSqlite;

#[cfg(feature = "sqlite")]
impl Projection for ToSqlite {
    const NAME: &'static str = "bench-sqlite";
    const CATEGORIES: &[&str] = &[CATEGORY];
    type Event = BenchEvent;
    type Target = factum_projection::SqliteTarget;

    async fn project(
        &self,
        BenchEvent::Deposited { cents, .. }: BenchEvent,
        recorded: &RecordedEvent,
        tx: &mut factum_projection::SqliteTx,
    ) -> Result<(), HandleError> {
        tx.prepare_cached(UPSERT)?.execute((recorded.stream().key(), cents))?;
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut factum_projection::SqliteTx,
    ) -> Result<(), HandleError> {
        tx.prepare_cached(DELETE)?.execute([deletion.stream().key()])?;
        Ok(())
    }
}

/// The projection into a table in PostgreSQL.
#[cfg(feature = "postgres")]
#[derive(Debug)]
pub(super) struct ToPostgres;

#[cfg(feature = "postgres")]
impl Projection for ToPostgres {
    const NAME: &'static str = "bench-postgres";
    const CATEGORIES: &[&str] = &[CATEGORY];
    type Event = BenchEvent;
    type Target = factum_projection::PostgresTarget;

    async fn project(
        &self,
        BenchEvent::Deposited { cents, .. }: BenchEvent,
        recorded: &RecordedEvent,
        tx: &mut factum_projection::PostgresTx,
    ) -> Result<(), HandleError> {
        let upsert = sqlx::query(UPSERT).bind(recorded.stream().key()).bind(cents);
        upsert.execute(&mut **tx).await?;
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut factum_projection::PostgresTx,
    ) -> Result<(), HandleError> {
        sqlx::query(DELETE).bind(deletion.stream().key()).execute(&mut **tx).await?;
        Ok(())
    }
}
