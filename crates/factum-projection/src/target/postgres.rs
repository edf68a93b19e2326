//! Read models in tables of the user's own, in PostgreSQL.

mod fault;
mod statement;

use std::sync::Arc;

use bytes::Bytes;
use factum_core::StreamId;
use sqlx::{AssertSqlSafe, PgPool, PgTransaction, Row, postgres::PgRow};

use self::statement::{BEGIN, Statements};
use super::{Fence, Opened, Save, Target, TargetError};
use crate::{error::HandleError, name::ConsumerName};

/// The schema that progress is kept in, unless chosen otherwise.
pub const POSTGRES_TARGET_SCHEMA_DEFAULT: &str = "public";

/// Read models in tables of one's own, in PostgreSQL: handlers write in a transaction of sqlx's,
/// and the checkpoint is stored in the same one, so each event takes effect exactly once. The
/// database may be another than the events'.
///
/// The progress of all projections is in two tables, `factum_consumer` and `factum_dead_letter`,
/// which are made when the first one starts. A role that may not make tables needs them made for
/// it, by [`schema_sql`](Self::schema_sql), and then `USAGE` on the schema and `SELECT`, `INSERT`,
/// `UPDATE`, `DELETE` on both tables.
///
/// # Guarantees
/// - A batch is one transaction, read committed whatever the server's default is.
/// - The checkpoint moves only where nobody else has moved it: `where fence = ..`.
/// - A connection that breaks before the commit is asked for, a deadlock, a serialization failure
///   and a server that shuts down are nobody's fault: the batch is tried again, as often as it
///   takes. A broken constraint is the event's, also where it is found at the commit.
/// - A handler that ends the transaction by a statement of its own has failed; but what handlers
///   wrote behind that, until the batch's end, stays.
///
/// A handler that never gives its thread back keeps its transaction, and with it what it has
/// locked, until the process ends. A statement that runs when its event's time is over goes on in
/// the server; a `statement_timeout` of the role's, below that of the policy, ends it.
///
/// ```
/// use factum_core::RecordedEvent;
/// use factum_projection::{HandleError, PostgresTarget, Projection};
/// use factum_testing::bank::AccountEvent;
/// use sqlx::{PgPool, PgTransaction};
///
/// struct Totals;
///
/// impl Projection for Totals {
///     const NAME: &'static str = "totals";
///     type Event = AccountEvent;
///     type Target = PostgresTarget;
///
///     async fn project(
///         &self,
///         event: AccountEvent,
///         recorded: &RecordedEvent,
///         tx: &mut PgTransaction<'static>,
///     ) -> Result<(), HandleError> {
///         let AccountEvent::Deposited { cents } = event else { return Ok(()) };
///         sqlx::query(
///             "INSERT INTO totals VALUES ($1, $2)
///              ON CONFLICT (account) DO UPDATE SET cents = totals.cents + excluded.cents",
///         )
///         .bind(recorded.stream().key())
///         .bind(i64::try_from(cents)?)
///         .execute(&mut **tx)
///         .await?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = PgPool::connect_lazy("postgres://app@localhost/bank")?;
/// let target = PostgresTarget::new(pool)
///     .with_setup("CREATE TABLE IF NOT EXISTS totals (account text PRIMARY KEY, cents bigint)")
///     .with_clear("TRUNCATE totals");
/// # drop(target);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresTarget {
    pool: PgPool,
    statements: Arc<Statements>,
    setup: Option<&'static str>,
    clear: Option<&'static str>,
}

impl PostgresTarget {
    /// Read models in the database of this pool. A projection uses one connection at a time.
    pub fn new(pool: PgPool) -> Self {
        let statements = Arc::new(Statements::new(POSTGRES_TARGET_SCHEMA_DEFAULT));
        Self { pool, statements, setup: None, clear: None }
    }

    /// Sets the schema that progress is kept in; it is made if it is not there. Tables of one's
    /// own are where the handlers' statements say.
    pub fn with_schema(mut self, schema: &str) -> Self {
        self.statements = Arc::new(Statements::new(schema));
        self
    }

    /// Sets statements that make the read model's tables. They run at every start, and after an
    /// error of the database, so they have to be repeatable: `CREATE TABLE IF NOT EXISTS`.
    pub fn with_setup(mut self, statements: &'static str) -> Self {
        self.setup = Some(statements);
        self
    }

    /// Sets statements that empty the read model's tables: [`Target::clear`] is refused without.
    pub fn with_clear(mut self, statements: &'static str) -> Self {
        self.clear = Some(statements);
        self
    }

    /// The statements that make the tables of the progress in a schema, for who may. Repeated,
    /// they do nothing.
    ///
    /// ```
    /// let statements = factum_projection::PostgresTarget::schema_sql("models");
    /// assert!(statements.contains("CREATE TABLE IF NOT EXISTS \"models\".factum_consumer"));
    /// ```
    pub fn schema_sql(schema: &str) -> String {
        let schema = statement::quoted(schema);
        statement::make_schema(&schema) + &statement::tables(&schema)
    }

    /// Makes the tables, one process at a time: `IF NOT EXISTS` alone fails where two race.
    async fn make(&self, tx: &mut PgTransaction<'static>) -> Result<(), sqlx::Error> {
        let statements = &self.statements;
        let there = sqlx::query_as::<_, (bool, bool)>(AssertSqlSafe(statements.are_there.clone()));
        let (is_schema_there, are_tables_there) = there.fetch_one(&mut **tx).await?;
        if are_tables_there && self.setup.is_none() {
            return Ok(());
        }
        sqlx::query(statement::LOCK).execute(&mut **tx).await?;
        // One that may make tables in a schema need not be one that may make schemas.
        if !is_schema_there {
            let schema = AssertSqlSafe(statements.schema.clone());
            sqlx::raw_sql(schema).execute(&mut **tx).await?;
        }
        if !are_tables_there {
            let tables = AssertSqlSafe(statements.tables.clone());
            sqlx::raw_sql(tables).execute(&mut **tx).await?;
        }
        if let Some(setup) = self.setup {
            sqlx::raw_sql(setup).execute(&mut **tx).await?;
        }
        Ok(())
    }

    async fn look(&self, consumer: &ConsumerName) -> Result<Found, sqlx::Error> {
        let mut tx = self.pool.begin_with(BEGIN).await?;
        sqlx::query(statement::LOCK_TIMEOUT).execute(&mut *tx).await?;
        self.make(&mut tx).await?;
        let of = || consumer.as_str();
        let statements = &self.statements;
        sqlx::query(AssertSqlSafe(statements.enter.clone())).bind(of()).execute(&mut *tx).await?;
        // Locked, so that a commit of ours whose outcome is unknown has ended, one way or other.
        let consumer = sqlx::query(AssertSqlSafe(statements.consumer.clone()));
        let consumer = consumer.bind(of()).fetch_one(&mut *tx).await?;
        let letters = sqlx::query(AssertSqlSafe(statements.letters.clone()));
        let letters = letters.bind(of()).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(Found { consumer, letters })
    }

    /// Writes the save; `false`: the fence is another.
    async fn move_on(
        &self,
        consumer: &ConsumerName,
        tx: &mut PgTransaction<'static>,
        save: &Save,
    ) -> Result<bool, sqlx::Error> {
        let moved = sqlx::query(AssertSqlSafe(self.statements.save.clone()))
            .bind(consumer.as_str())
            .bind(save.expected.0.cast_signed())
            .bind(&save.progress[..])
            .bind(save.mark.as_deref())
            .execute(&mut **tx)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        for (stream, letter) in &save.letters {
            let stream = stream.to_string();
            let statement = match letter {
                Some(_) => &self.statements.put_letter,
                None => &self.statements.remove_letter,
            };
            let query = sqlx::query(AssertSqlSafe(statement.clone()));
            let query = query.bind(consumer.as_str()).bind(stream);
            let query = match letter {
                Some(letter) => query.bind(&letter[..]),
                None => query,
            };
            query.execute(&mut **tx).await?;
        }
        Ok(true)
    }

    /// Why a save found nothing to move.
    async fn not_moved(&self, tx: &mut PgTransaction<'static>) -> TargetError {
        match sqlx::query_scalar::<_, bool>(statement::IS_OURS).fetch_one(&mut **tx).await {
            Ok(true) => TargetError::Fenced,
            Ok(false) => fault::refused(
                "the handler has ended the transaction that it was given, leave that to the \
                 projection",
            ),
            Err(error) => fault::before_commit(error),
        }
    }
}

/// The rows of a consumer.
struct Found {
    consumer: PgRow,
    letters: Vec<PgRow>,
}

impl Found {
    fn opened(&self) -> Result<Opened, sqlx::Error> {
        let bytes = |at: usize| {
            let bytes = self.consumer.try_get::<Option<Vec<u8>>, _>(at);
            bytes.map(|bytes| bytes.map(Bytes::from))
        };
        let mut letters = Vec::with_capacity(self.letters.len());
        for row in &self.letters {
            let stream = row.try_get::<String, _>(0)?.parse::<StreamId>();
            let stream = stream.map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
            letters.push((stream, Bytes::from(row.try_get::<Vec<u8>, _>(1)?)));
        }
        let fence = Fence(self.consumer.try_get::<i64, _>(0)?.cast_unsigned());
        Ok(Opened { fence, progress: bytes(1)?, mark: bytes(2)?, letters })
    }
}

impl Target for PostgresTarget {
    type Tx = PgTransaction<'static>;

    const IS_PARALLEL: bool = true;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let found = self.look(consumer).await.map_err(fault::before_commit)?;
        found.opened().map_err(fault::before_commit)
    }

    async fn begin(&self, _: &ConsumerName) -> Result<PgTransaction<'static>, TargetError> {
        self.pool.begin_with(BEGIN).await.map_err(fault::before_commit)
    }

    async fn commit(
        &self,
        consumer: &ConsumerName,
        mut tx: PgTransaction<'static>,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let moved = self.move_on(consumer, &mut tx, &save).await.map_err(fault::before_commit)?;
        if !moved {
            return Err(self.not_moved(&mut tx).await);
        }
        tx.commit().await.map_err(fault::at_commit)?;
        Ok(Fence(save.expected.0 + 1))
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        let Some(clear) = self.clear else {
            return Err(fault::refused(
                "the tables of a read model are its user's, say how to empty them by with_clear",
            ));
        };
        let emptied = async {
            let mut tx = self.pool.begin_with(BEGIN).await?;
            sqlx::raw_sql(clear).execute(&mut *tx).await?;
            for statement in [&self.statements.forget, &self.statements.forget_letters] {
                let query = sqlx::query(AssertSqlSafe(statement.clone()));
                query.bind(consumer.as_str()).execute(&mut *tx).await?;
            }
            Ok(tx)
        };
        let tx = emptied.await.map_err(fault::before_commit)?;
        tx.commit().await.map_err(fault::at_commit)
    }

    fn is_to_blame(&self, error: &HandleError) -> bool {
        fault::in_chain(error).is_some_and(fault::passes)
    }
}
