//! Read models in tables of the user's own, in PostgreSQL.

mod build_schema;
pub(crate) mod fault;
mod name;
mod row;
mod statement;
mod transaction;

use std::{sync::Arc, time::Duration};

use factum_consumer::{ConsumerName, Fence, HandleError, Opened, Save, Target, TargetError};
use sqlx::{AssertSqlSafe, PgPool};

pub use self::name::{InvalidTargetSchema, TargetSchema};
use self::{
    build_schema::BuildSchema,
    row::ConsumerRows,
    statement::Statements,
    transaction::{Limits, answered, within},
};

use crate::sql::CLEARED;

pub use transaction::PostgresTx;

/// How long one of our own statements may take, about half of what the server is given.
const OWN_MAX: Duration = Duration::from_secs(10);
/// The same of statements that make or empty the read model's tables.
const SETUP_MAX: Duration = Duration::from_secs(300);

/// The schema that progress is kept in, unless chosen otherwise.
pub const POSTGRES_TARGET_SCHEMA_DEFAULT: &str = "public";

/// Read models in tables of one's own, in PostgreSQL: handlers write in a transaction, a
/// [`PostgresTx`], and the checkpoint is stored in the same one, so each event takes effect exactly
/// once. The database may be another than the events'.
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
/// - The target's own statements call nothing that another role has put into a schema of the
///   connection's `search_path`.
/// - A handler can't commit: its `COMMIT` fails, the connection is read-only after that and after
///   a `ROLLBACK`, and the event has failed. What it writes in a transaction that it declares
///   `READ WRITE` itself, after it has ended this one, is not covered.
/// - Waiting for locks is no failure. A statement waits for another transaction half of the time
///   that an event has by [`FailurePolicy`](factum_consumer::FailurePolicy), at most 10 seconds; then the
///   batch is tried again, as often as it takes.
/// - Every statement has a limit, on the server and in the client. The server ends a statement,
///   and a session that is idle in a batch, a second after twice the time that an event has: so
///   long the locks of a process live that lost power. A connection that does not answer is
///   closed, and keeps no place in the pool.
/// - Who takes a consumer over ends the sessions that are in a batch of it, where its role may.
///
/// Limits that the role has by its own settings (`lock_timeout`, `statement_timeout`,
/// `idle_in_transaction_session_timeout`) hold where they are lower. The statements of
/// [`with_setup`](Self::with_setup) and [`with_clear`](Self::with_clear) have ten minutes. A
/// connection is waited for as long as the pool's `acquire_timeout` says. The pool
/// connects to the server itself, or to a pooler that gives each connection a session.
///
/// A handler that never gives its thread back keeps its connection until the process ends; its
/// transaction ends with the limits.
///
/// ```
/// use factum_kernel::RecordedEvent;
/// use factum_consumer::HandleError;
/// use factum_projection::{PostgresTarget, PostgresTx, Projection};
/// use factum_testing::bank::AccountEvent;
/// use sqlx::PgPool;
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
///         tx: &mut PostgresTx,
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
    schema: TargetSchema,
    setup: Option<&'static str>,
    clear: Option<&'static str>,
    /// None: the tables are the user's to find.
    build: Option<Arc<BuildSchema>>,
}

impl PostgresTarget {
    /// Read models in the database of this pool. A projection uses one connection at a time.
    pub fn new(pool: PgPool) -> Self {
        let schema = TargetSchema::default();
        Self {
            pool,
            statements: Arc::new(Statements::new(&schema)),
            schema,
            setup: None,
            clear: None,
            build: None,
        }
    }

    /// One build of a read model, for [`Projections::maintain`](crate::Projections::maintain): its
    /// tables are in a schema of their own, so that the next build is made beside it.
    ///
    /// The schema has the build's name, `totals@2.1`, behind that of [`with_schema`] if there is
    /// one, `bank/totals@2.1`. The statements of handlers, and of [`with_setup`], find it before
    /// the schemas of the connection's `search_path`, so they name tables without a schema. It is
    /// made when the build begins and dropped with all that is in it when the build is cleared,
    /// which [`with_clear`] has no part in; an extension belongs into another one. The progress of
    /// all builds is in the two tables that they share.
    ///
    /// A schema that has the name already and was not made by the build is left alone: the build
    /// does not start. Nor is one dropped while anything outside of it would go with it, such as a
    /// view of another schema:
    /// [`ConsumerHealth::undropped`](factum_consumer::ConsumerHealth::undropped) says so.
    ///
    /// The role needs `CREATE` on the database.
    ///
    /// ```
    /// use factum_consumer::{ConsumerOptions, Consumers};
    /// use factum_projection::{Maintained, PostgresTarget, Projections};
    /// # use factum_kernel::RecordedEvent;
    /// # use factum_consumer::HandleError;
    /// # use factum_projection::{PostgresTx, Projection};
    /// # use factum_testing::bank::AccountEvent;
    /// # struct Totals;
    /// # impl Projection for Totals {
    /// #     const NAME: &'static str = "totals";
    /// #     type Event = AccountEvent;
    /// #     type Target = PostgresTarget;
    /// #     async fn project(
    /// #         &self,
    /// #         _: AccountEvent,
    /// #         _: &RecordedEvent,
    /// #         _: &mut PostgresTx,
    /// #     ) -> Result<(), HandleError> {
    /// #         Ok(())
    /// #     }
    /// # }
    /// use sqlx::{AssertSqlSafe, PgPool};
    ///
    /// const SETUP: &str =
    ///     "CREATE TABLE IF NOT EXISTS totals (account text PRIMARY KEY, cents bigint)";
    ///
    /// async fn maintain(
    ///     consumers: &Consumers,
    ///     pool: PgPool,
    /// ) -> Result<Maintained<PostgresTarget>, Box<dyn std::error::Error>> {
    ///     let targets = move |build: &_| {
    ///         PostgresTarget::of_build(pool.clone(), build).with_setup(SETUP)
    ///     };
    ///     Ok(consumers.maintain(Totals, targets, ConsumerOptions::new()).await?)
    /// }
    ///
    /// async fn cents(totals: &Maintained<PostgresTarget>, pool: &PgPool) -> sqlx::Result<i64> {
    ///     let sql = format!("SELECT sum(cents)::bigint FROM {}.totals", totals.schema().await);
    ///     sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = PgPool::connect_lazy("postgres://app@localhost/bank")?;
    /// let target = PostgresTarget::of_build(pool, &"totals@2".parse()?);
    /// assert_eq!(target.schema(), "\"totals@2\"");
    /// # Ok(()) }
    /// ```
    ///
    /// [`with_schema`]: Self::with_schema
    /// [`with_setup`]: Self::with_setup
    /// [`with_clear`]: Self::with_clear
    pub fn of_build(pool: PgPool, build: &ConsumerName) -> Self {
        Self::new(pool).in_build(BuildSchema::new(build, None))
    }

    fn in_build(mut self, build: BuildSchema) -> Self {
        self.build = Some(Arc::new(build));
        self
    }

    /// Sets the schema that progress is kept in; it is made if it is not there. Tables of one's
    /// own are where the handlers' statements say.
    pub fn with_schema(mut self, schema: TargetSchema) -> Self {
        self.statements = Arc::new(Statements::new(&schema));
        self.schema = schema;
        match &self.build {
            Some(build) => {
                let is_own = self.schema != TargetSchema::default();
                let build = build.within(is_own.then_some(&self.schema));
                self.in_build(build)
            }
            None => self,
        }
    }

    /// Sets statements that make the read model's tables. They run at every start, and after an
    /// error of the database, so they have to be repeatable: `CREATE TABLE IF NOT EXISTS`.
    pub fn with_setup(mut self, statements: &'static str) -> Self {
        self.setup = Some(statements);
        self
    }

    /// Sets statements that empty the read model's tables: [`Target::clear`] is refused without,
    /// but for a build's.
    pub fn with_clear(mut self, statements: &'static str) -> Self {
        self.clear = Some(statements);
        self
    }

    /// The statements that make the tables of the progress in a schema, for who may. Repeated,
    /// they do nothing.
    ///
    /// ```
    /// use factum_projection::{PostgresTarget, TargetSchema};
    ///
    /// let statements = PostgresTarget::schema_sql(&TargetSchema::new("models")?);
    /// assert!(statements.contains("CREATE TABLE IF NOT EXISTS \"models\".factum_consumer"));
    /// # Ok::<(), factum_projection::InvalidTargetSchema>(())
    /// ```
    pub fn schema_sql(schema: &TargetSchema) -> String {
        let schema = schema.quoted();
        statement::make_schema(&schema) + &statement::tables(&schema)
    }

    /// The schema of the build's tables, quoted, as it stands in a statement; of a target that is
    /// of no build, that of the progress.
    ///
    /// Which build serves changes. See [`Maintained::schema`](crate::Maintained::schema).
    pub fn schema(&self) -> String {
        match &self.build {
            Some(build) => build.quoted().to_owned(),
            None => self.schema.quoted(),
        }
    }

    async fn begin(&self, limits: Limits) -> Result<PostgresTx, TargetError> {
        self.begin_with(statement::begin(limits), limits).await
    }

    /// Begins a batch, which the next owner of the consumer may end.
    async fn begin_batch(
        &self,
        consumer: &ConsumerName,
        limits: Limits,
    ) -> Result<PostgresTx, TargetError> {
        let in_batch = statement::in_batch(self.key(consumer));
        self.begin_with(statement::begin(limits) + "; " + &in_batch, limits).await
    }

    async fn begin_with(
        &self,
        mut statements: String,
        limits: Limits,
    ) -> Result<PostgresTx, TargetError> {
        if let Some(build) = &self.build {
            statements = statements + "; " + &build.search();
        }
        PostgresTx::begin(&self.pool, statements, limits).await
    }

    /// By what sessions are found that are in a batch of a consumer.
    fn key(&self, consumer: &ConsumerName) -> u64 {
        statement::hash(&format!("factum: batch {} {consumer}", self.schema.quoted()))
    }

    /// Ends the sessions that are in a batch of this consumer. Where the role may not, they are
    /// waited for.
    async fn end_others(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        let limits = Limits::of(OWN_MAX);
        let key = self.key(consumer);
        let mut tx = self.begin(limits).await?;
        let end = sqlx::query(statement::END_OTHERS)
            .bind((key >> 32).cast_signed())
            .bind((key & u64::from(u32::MAX)).cast_signed());
        let _ = answered(limits, end.execute(&mut *tx)).await;
        Ok(())
    }

    /// Makes the tables of the progress, one process at a time: `IF NOT EXISTS` alone fails where
    /// two race. So do the statements that are to follow, if there are any.
    async fn make(&self, tx: &mut PostgresTx) -> Result<(), sqlx::Error> {
        let statements = &self.statements;
        let (is_schema_there, are_tables_there) = self.are_there(tx).await?;
        if are_tables_there && self.setup.is_none() && self.build.is_none() {
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
        Ok(())
    }

    /// Whether the schema and the tables of the progress are there.
    async fn are_there(&self, tx: &mut PostgresTx) -> Result<(bool, bool), sqlx::Error> {
        let there = AssertSqlSafe(self.statements.are_there.clone());
        sqlx::query_as::<_, (bool, bool)>(there).fetch_one(&mut **tx).await
    }

    /// Makes what is needed, and reads.
    async fn make_and_read(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let limits = Limits::of(OWN_MAX);
        let setup_limits = Limits::of(SETUP_MAX);
        self.end_others(consumer).await?;
        let mut tx = self.begin(setup_limits).await?;
        let found = answered(limits, self.enter(consumer, &mut tx)).await?;
        let Some(found) = found.filter(|found| !found.is_closed()) else {
            return Err(fault::refused(&format!("{CLEARED}: consumer={consumer}")));
        };
        if let Some(build) = &self.build {
            within(limits, build.make(&mut tx)).await?;
        }
        if let Some(setup) = self.setup {
            answered(setup_limits, sqlx::raw_sql(setup).execute(&mut *tx)).await?;
        }
        tx.commit(limits).await?;
        found.opened().map_err(fault::before_commit)
    }

    /// Enters a consumer if it is new. None: its build was cleared.
    async fn enter(
        &self,
        consumer: &ConsumerName,
        tx: &mut PostgresTx,
    ) -> Result<Option<ConsumerRows>, sqlx::Error> {
        self.make(tx).await?;
        let statements = &self.statements;
        let name = consumer.as_str();
        let enter = || AssertSqlSafe(statements.enter.clone());
        // Of a build that is cleared no partition begins any more, so that none has to be known.
        let whole = consumer.whole();
        if self.build.is_some() && whole != *consumer {
            sqlx::query(enter()).bind(whole.as_str()).execute(&mut **tx).await?;
            let is_closed = AssertSqlSafe(statements.is_closed.clone());
            let is_closed = sqlx::query_scalar::<_, bool>(is_closed).bind(whole.as_str());
            if is_closed.fetch_one(&mut **tx).await? {
                return Ok(None);
            }
        }
        sqlx::query(enter()).bind(name).execute(&mut **tx).await?;
        ConsumerRows::read(&statements.consumer, (&statements.letters, name), tx).await
    }

    async fn read(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let limits = Limits::of(OWN_MAX);
        let mut tx = self.begin(limits).await?;
        let read = async {
            let (_, are_tables_there) = self.are_there(&mut tx).await?;
            if !are_tables_there {
                return Ok(Opened::default());
            }
            let statements = &self.statements;
            let name = consumer.as_str();
            let letters = (&statements.letters, name);
            let found = ConsumerRows::read(&statements.consumer_now, letters, &mut tx).await?;
            found.map_or_else(|| Ok(Opened::default()), |found| found.opened())
        };
        answered(limits, read).await
    }

    fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.build.as_ref().map_or(Ok(()), |build| build.check(consumer))
    }

    /// Empties the tables by these statements, and forgets the progress.
    async fn empty(&self, consumer: &ConsumerName, clear: &'static str) -> Result<(), TargetError> {
        let whole = consumer.whole();
        let limits = Limits::of(SETUP_MAX);
        let mut tx = self.begin(limits).await?;
        let empty = async {
            sqlx::raw_sql(clear).execute(&mut *tx).await?;
            for statement in [&self.statements.forget, &self.statements.forget_letters] {
                let query = sqlx::query(AssertSqlSafe(statement.clone()));
                query.bind(whole.as_str()).execute(&mut *tx).await?;
            }
            Ok(())
        };
        answered(limits, empty).await?;
        tx.commit(limits).await
    }

    /// Closes a build for good, and drops its tables then: whoever is at work on it ends, because
    /// nothing of theirs is stored any more, and lets go of the tables.
    async fn drop_build(
        &self,
        build: &BuildSchema,
        consumer: &ConsumerName,
    ) -> Result<(), TargetError> {
        let whole = consumer.whole();
        let limits = Limits::of(OWN_MAX);
        let mut tx = self.begin(limits).await?;
        let close = async {
            // Its own row first, as those do who open a partition.
            self.enter(&whole, &mut tx).await?;
            for statement in [&self.statements.close, &self.statements.forget_letters] {
                let query = sqlx::query(AssertSqlSafe(statement.clone()));
                query.bind(whole.as_str()).execute(&mut *tx).await?;
            }
            Ok(())
        };
        answered(limits, close).await?;
        tx.commit(limits).await?;
        let mut tx = self.begin(Limits::of(SETUP_MAX)).await?;
        within(Limits::of(SETUP_MAX), build.drop(&mut tx)).await?;
        tx.commit(limits).await
    }

    /// Writes the save; `false`: the fence is another.
    async fn move_on(
        &self,
        consumer: &ConsumerName,
        tx: &mut PostgresTx,
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
    async fn not_moved(&self, tx: &mut PostgresTx) -> TargetError {
        let is_ours = sqlx::query_scalar::<_, bool>(statement::IS_OURS);
        match answered(tx.limits(), is_ours.fetch_one(&mut **tx)).await {
            Ok(true) => TargetError::Fenced,
            Ok(false) => fault::refused(statement::ENDED),
            Err(error) => error,
        }
    }
}

impl Target for PostgresTarget {
    type Tx = PostgresTx;

    const IS_PARALLEL: bool = true;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.check(consumer)?;
        self.make_and_read(consumer).await
    }

    async fn look(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.read(consumer).await
    }

    async fn begin(&self, consumer: &ConsumerName) -> Result<PostgresTx, TargetError> {
        self.begin_batch(consumer, Limits::of(OWN_MAX)).await
    }

    async fn begin_within(
        &self,
        consumer: &ConsumerName,
        event_max: Duration,
    ) -> Result<PostgresTx, TargetError> {
        self.begin_batch(consumer, Limits::of(event_max)).await
    }

    async fn commit(
        &self,
        consumer: &ConsumerName,
        mut tx: PostgresTx,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let limits = tx.limits();
        let fault = match save.events {
            0 => transaction::before_commit,
            _ => transaction::of_batch,
        };
        let moved = async { self.move_on(consumer, &mut tx, &save).await.map_err(fault) };
        if !within(limits, moved).await? {
            return Err(self.not_moved(&mut tx).await);
        }
        tx.commit(limits).await?;
        Ok(Fence(save.expected.0 + 1))
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.check(consumer)?;
        match (&self.build, self.clear) {
            (Some(build), _) => self.drop_build(build, consumer).await,
            (None, Some(clear)) => self.empty(consumer, clear).await,
            (None, None) => Err(fault::refused(
                "the tables of a read model are its user's, say how to empty them by with_clear",
            )),
        }
    }

    async fn explain(tx: &mut PostgresTx, error: &HandleError) -> Option<&'static str> {
        let code = fault::code_in(&**error)?;
        if code != transaction::READ_ONLY_CODE {
            return None;
        }
        // Another database of the handler's may have said so: a standby.
        let is_ours = sqlx::query_scalar::<_, bool>(statement::IS_OURS);
        let is_ours = answered(tx.limits(), is_ours.fetch_one(&mut **tx)).await;
        is_ours.is_ok_and(|is_ours| !is_ours).then_some(statement::ENDED)
    }
}
