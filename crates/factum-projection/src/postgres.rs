//! Read models in the user's own tables, in PostgreSQL.

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

/// The limit of the target's own statements; the server's limit is about twice as long.
const OWN_MAX: Duration = Duration::from_secs(10);
/// The limit of statements that make or empty the read model's tables.
const SETUP_MAX: Duration = Duration::from_secs(300);

/// The default schema for the tables of the progress.
pub const POSTGRES_TARGET_SCHEMA_DEFAULT: &str = "public";

/// Read models in the user's own tables, in PostgreSQL. Handlers write in a transaction, a
/// [`PostgresTx`], and the checkpoint is stored in the same transaction, so each event takes effect
/// exactly once. The database need not be the one that contains the events.
///
/// The progress of all projections is in two tables, `factum_consumer` and `factum_dead_letter`,
/// which the first start makes. For a role that may not make tables, another role runs
/// [`schema_sql`](Self::schema_sql) and grants `USAGE` on the schema and `SELECT`, `INSERT`,
/// `UPDATE`, `DELETE` on both tables.
///
/// # Guarantees
/// - A batch is one transaction, read committed whatever the server's default is.
/// - The checkpoint moves only if no other process has moved it: `where fence = ..`.
/// - A connection that breaks before the commit, a deadlock, a serialization failure and a server
///   that shuts down count as no event's failure: the batch is tried again until it succeeds. A
///   broken constraint is the event's failure, also if it is found at the commit.
/// - The target's own statements call nothing that another role has put into a schema of the
///   connection's `search_path`.
/// - A handler can't commit. Its `COMMIT` fails, the connection is read-only after that and after a
///   `ROLLBACK`, and the event has failed. There is one exception: after ending the transaction, a
///   handler can begin a `READ WRITE` transaction of its own, and its writes there are stored.
/// - Waiting for locks is no failure. A statement waits for another transaction for half of the
///   time that [`FailurePolicy`](factum_consumer::FailurePolicy) gives an event, at most 10
///   seconds. Then the batch is tried again until it succeeds.
/// - Every statement has a limit, on the server and in the client. The server ends a statement, or
///   a session that is idle in a batch, a second after twice the time of an event. The locks of a
///   process that lost power last no longer than that. A connection that does not answer is closed
///   and frees its place in the pool.
/// - A process that takes over a consumer ends the sessions that are in a batch of the consumer, if
///   its role may.
///
/// Lower limits in the role's own settings (`lock_timeout`, `statement_timeout`,
/// `idle_in_transaction_session_timeout`) stay in effect. The statements of
/// [`with_setup`](Self::with_setup) and [`with_clear`](Self::with_clear) have ten minutes. The wait
/// for a connection is limited by the pool's `acquire_timeout`. The pool must connect to the server
/// itself, or to a pooler that gives each connection a session.
///
/// A handler that never yields its thread keeps its connection until the process ends; its
/// transaction ends with the limits.
///
/// ```
/// use factum_kernel::{Aggregate, RecordedEvent};
/// use factum_consumer::HandleError;
/// use factum_projection::{PostgresTarget, PostgresTx, Projection};
/// use factum_testing::bank::{Account, AccountEvent};
/// use sqlx::PgPool;
///
/// struct Totals;
///
/// impl Projection for Totals {
///     const NAME: &'static str = "totals";
///     const CATEGORIES: &[&str] = &[Account::CATEGORY];
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
///
///     async fn forget(
///         &self,
///         deletion: &RecordedEvent,
///         tx: &mut PostgresTx,
///     ) -> Result<(), HandleError> {
///         let sql = sqlx::query("DELETE FROM totals WHERE account = $1");
///         sql.bind(deletion.stream().key()).execute(&mut **tx).await?;
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
    /// The schema of the build. `None`: handlers find the tables without the target's help.
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

    /// One build of a read model, for [`Projections::maintain`](crate::Projections::maintain). Its
    /// tables are in a schema of their own, so that the next build is made beside it.
    ///
    /// The schema has the build's name, `totals@2.1`. With [`with_schema`], the name of that schema
    /// stands before it: `bank/totals@2.1`. The statements of handlers and of [`with_setup`] search
    /// the build's schema before the schemas of the connection's `search_path`, so they name tables
    /// without a schema.
    ///
    /// The schema is made when the build begins. When the build is cleared, it is dropped with
    /// everything in it; [`with_clear`] is not used. Install extensions in another schema. The
    /// progress of all builds is in the two tables that they share.
    ///
    /// If a schema with this name exists that was not made by the build, the schema is left alone
    /// and the build does not start. A schema is not dropped either while an object outside of it
    /// would be dropped with it, such as a view of another schema.
    /// [`ConsumerHealth::undropped`](factum_consumer::ConsumerHealth::undropped) names such
    /// objects.
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
    /// #     const CATEGORIES: &[&str] = &["account"];
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
    /// #
    /// #     async fn forget(
    /// #         &self,
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

    /// Sets the schema for the tables of the progress, which is made if it does not exist. It has
    /// no effect on the tables of the handlers' statements, except for the name of a build's
    /// schema.
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

    /// Sets the statements that make the read model's tables. They run at every start and after an
    /// error of the database, so they must be repeatable: `CREATE TABLE IF NOT EXISTS`.
    pub fn with_setup(mut self, statements: &'static str) -> Self {
        self.setup = Some(statements);
        self
    }

    /// Sets the statements that empty the read model's tables. Without them [`Target::clear`] is
    /// refused, except for a build.
    pub fn with_clear(mut self, statements: &'static str) -> Self {
        self.clear = Some(statements);
        self
    }

    /// The statements that make the tables of the progress in a schema, for a role that may run
    /// them. They can be repeated.
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

    /// The quoted schema of the build's tables, for use in a statement. Without a build, it is the
    /// schema of the progress.
    ///
    /// The serving build may change, and [`Maintained::schema`](crate::Maintained::schema) names
    /// the schema of the current one.
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

    /// The key of the advisory lock that marks sessions in a batch of a consumer.
    fn key(&self, consumer: &ConsumerName) -> u64 {
        statement::hash(&format!("factum: batch {} {consumer}", self.schema.quoted()))
    }

    /// Ends the sessions that are in a batch of this consumer. If the role may not end them, later
    /// statements wait for them.
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

    /// Makes the tables of the progress, and lets one process at a time do so: `IF NOT EXISTS`
    /// alone fails when two processes race. The lock also covers the setup statements that follow.
    async fn make(&self, tx: &mut PostgresTx) -> Result<(), sqlx::Error> {
        let statements = &self.statements;
        let (is_schema_there, are_tables_there) = self.are_there(tx).await?;
        if are_tables_there && self.setup.is_none() && self.build.is_none() {
            return Ok(());
        }
        sqlx::query(statement::LOCK).execute(&mut **tx).await?;
        // A role that may make tables in a schema may lack the right to make schemas.
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

    /// Returns whether the schema and whether the tables of the progress exist.
    async fn are_there(&self, tx: &mut PostgresTx) -> Result<(bool, bool), sqlx::Error> {
        let there = AssertSqlSafe(self.statements.are_there.clone());
        sqlx::query_as::<_, (bool, bool)>(there).fetch_one(&mut **tx).await
    }

    /// Makes the tables that are needed, and reads the stored progress.
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

    /// Inserts the row of a consumer if it is new, and reads it. `None`: its build was cleared.
    async fn enter(
        &self,
        consumer: &ConsumerName,
        tx: &mut PostgresTx,
    ) -> Result<Option<ConsumerRows>, sqlx::Error> {
        self.make(tx).await?;
        let statements = &self.statements;
        let name = consumer.as_str();
        let enter = || AssertSqlSafe(statements.enter.clone());
        // A row for the whole build tells whether it was cleared. No partition of a cleared build
        // begins any more.
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
        ConsumerRows::read(&statements.consumer, &statements.letters, name, tx).await
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
            let Statements { consumer_now, letters, .. } = &**statements;
            let found = ConsumerRows::read(consumer_now, letters, name, &mut tx).await?;
            found.map_or_else(|| Ok(Opened::default()), |found| found.opened())
        };
        answered(limits, read).await
    }

    fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.build.as_ref().map_or(Ok(()), |build| build.check(consumer))
    }

    /// Empties the tables with these statements, and resets the progress.
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

    /// Closes a build permanently, and then drops its tables. A process that still works on it can
    /// store nothing after the close, so it ends and releases its locks on the tables.
    async fn drop_build(
        &self,
        build: &BuildSchema,
        consumer: &ConsumerName,
    ) -> Result<(), TargetError> {
        let whole = consumer.whole();
        let limits = Limits::of(OWN_MAX);
        let mut tx = self.begin(limits).await?;
        let close = async {
            // The row of the whole build is locked first, as when a partition opens.
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

    /// Writes the progress and dead letters. Returns false if the fence is another.
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

    /// The reason why no row has the expected fence.
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
                "the statements that empty the tables of the read model are not known, set them \\
                 by with_clear",
            )),
        }
    }

    async fn explain(tx: &mut PostgresTx, error: &HandleError) -> Option<&'static str> {
        let code = fault::code_in(&**error)?;
        if code != transaction::READ_ONLY_CODE {
            return None;
        }
        // The error may come from another database that the handler uses, such as a standby.
        let is_ours = sqlx::query_scalar::<_, bool>(statement::IS_OURS);
        let is_ours = answered(tx.limits(), is_ours.fetch_one(&mut **tx)).await;
        is_ours.is_ok_and(|is_ours| !is_ours).then_some(statement::ENDED)
    }
}
