//! A database that can't be reached, or that a migration blocks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use factum_consumer::{Consumer, ConsumerState, HandleError};
use factum_kernel::{Clock, RecordedEvent, SystemClock};
use factum_projection::{PostgresTarget, PostgresTx, Projection, Projections};
use factum_testing::bank::AccountEvent;
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Counts, Model, SETUP, insert, url};
use crate::{
    bench::{Bench, Fails, LONG, options},
    instance::Instance,
    outage::uses_up_its_attempts,
    sql::ReadModel,
};

/// A user's own error.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

async fn send(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO sent DEFAULT VALUES").execute(pool).await.map(drop)
}

/// The log is in memory, so only the handler's error shows the outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_a_database_of_the_handlers_own_parks_nothing() {
    for is_hidden in [false, true] {
        let instance = Arc::new(Mutex::new(Instance::start(&[])));
        let server = instance.lock().unwrap().url();
        let wait = Duration::from_millis(200);
        let pool = PgPoolOptions::new().acquire_timeout(wait).connect(&server).await.unwrap();
        sqlx::raw_sql("CREATE TABLE sent ()").execute(&pool).await.unwrap();
        let bench = Bench::new();
        bench.open("ada").await;
        let position = bench.deposit("ada", 13).await;
        let client = pool.clone();
        let at_fault = instance.clone();
        let tries = AtomicU32::new(0);
        let mails = Consumer::new("mails", move |event: AccountEvent, _| {
            let is_due = matches!(event, AccountEvent::Deposited { .. });
            if is_due && tries.fetch_add(1, Ordering::SeqCst) == 0 {
                at_fault.lock().unwrap().kill();
            }
            let pool = client.clone();
            async move {
                match send(&pool).await.map_err(Unsent::from) {
                    Err(Unsent::Sql(error)) if !is_hidden => Err(HandleError::from(error)),
                    Err(error) => Err(error.into()),
                    Ok(()) => Ok(()),
                }
            }
        });
        let mut options = options();
        options.failure = options.failure.with_retries_max(0).with_timeout(LONG);
        let mails = bench.consumers.start(mails.with_options(options)).await.unwrap();
        uses_up_its_attempts(&mails).await;
        instance.lock().unwrap().restart();
        mails.wait_for(position, LONG).await.unwrap();
        assert_eq!(mails.dead_letters().await, [], "is_hidden={is_hidden}");
        let sent = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sent");
        assert!(sent.fetch_one(&pool).await.unwrap() >= 2, "is_hidden={is_hidden}");
    }
}

/// A target whose sessions have this setting.
async fn limited(model: &Model, setting: &str, value: &str) -> PostgresTarget {
    let options: PgConnectOptions = url().parse().unwrap();
    let options = options.options([("search_path", model.schema.as_str()), (setting, value)]);
    let pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    PostgresTarget::new(pool).with_schema(model.schema.parse().unwrap()).with_setup(SETUP)
}

/// The role's statements have a time limit, as they should; a migration locks a table for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_migration_of_a_table_stops_no_projection_and_parks_nothing() {
    for table in ["factum_consumer", "deposits"] {
        let model = Model::new().await;
        let bench = Bench::new();
        bench.open("ada").await;
        let target = limited(&model, "statement_timeout", "100ms").await;
        let projection = Counts { fails: Fails::default(), in_the_way: Arc::default() };
        let mut options = options();
        options.failure = options.failure.with_retries_max(0).with_timeout(LONG);
        let counts = bench.consumers.start_projection(projection, target, options).await.unwrap();
        counts.wait_for(bench.head(), LONG).await.unwrap();

        let mut migration = model.pool.begin().await.unwrap();
        let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *migration).await.unwrap();
        let position = bench.deposit("ada", 1).await;
        let is_held_up = |state: &ConsumerState| match state {
            ConsumerState::Retrying { position: None, attempts, .. } => *attempts >= 3,
            ConsumerState::Stopped(_) => true,
            _ => false,
        };
        counts.watch().wait_for(|it| is_held_up(&it.state)).await.unwrap();
        migration.rollback().await.unwrap();
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(counts.dead_letters().await, [], "{table}");
        assert_eq!(model.counted().await["ada"].cents, [1], "{table}");
    }
}

/// Waits in its transaction; at the first attempt until the server has ended the session.
struct Waits {
    other: PgPool,
    tries: AtomicU32,
}

impl Projection for Waits {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = PostgresTarget;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        let session = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()");
        let session = session.fetch_one(&mut **tx).await?;
        let is_there = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)";
        let is_first = self.tries.fetch_add(1, Ordering::SeqCst) == 0;
        loop {
            let is_there = sqlx::query_scalar::<_, bool>(is_there).bind(session);
            if !is_first || !is_there.fetch_one(&self.other).await? {
                break;
            }
        }
        insert(recorded, cents).execute(&mut **tx).await.map_err(Unsent::from)?;
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        let sql = sqlx::query("DELETE FROM deposits WHERE account = $1");
        sql.bind(deletion.stream().key()).execute(&mut **tx).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_server_ends_within_a_batch_is_no_events_fault() {
    let model = Model::new().await;
    let bench = Bench::new();
    bench.open("ada").await;
    let position = bench.deposit("ada", 1).await;
    let target = limited(&model, "idle_in_transaction_session_timeout", "200ms").await;
    let projection = Waits { other: model.pool.clone(), tries: AtomicU32::new(0) };
    let mut options = options();
    options.failure = options.failure.with_retries_max(0).with_timeout(LONG);
    let counts = bench.consumers.start_projection(projection, target, options).await.unwrap();
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!(counts.dead_letters().await, []);
    assert_eq!(model.counted().await["ada"].cents, [1]);
}

/// Pauses for a while without a statement.
struct Slow;

impl Projection for Slow {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = PostgresTarget;

    async fn project(
        &self,
        _: AccountEvent,
        _: &RecordedEvent,
        _: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        SystemClock.sleep(Duration::from_millis(200)).await;
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        let sql = sqlx::query("DELETE FROM deposits WHERE account = $1");
        sql.bind(deletion.stream().key()).execute(&mut **tx).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_takes_too_long_for_its_session_is_made_smaller() {
    let model = Model::new().await;
    let bench = Bench::new();
    bench.open("ada").await;
    for _ in 0..7 {
        bench.deposit("ada", 1).await;
    }
    // Eight events together pause for longer than that.
    let target = limited(&model, "idle_in_transaction_session_timeout", "1s").await;
    let mut options = options();
    options.failure = options.failure.with_retries_max(0).with_timeout(LONG);
    let counts = bench.consumers.start_projection(Slow, target, options).await.unwrap();
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(counts.dead_letters().await, []);
}

/// Writes to another database first, which is a standby for a while.
struct Twice {
    other: PgPool,
    tries: AtomicU32,
}

impl Projection for Twice {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = PostgresTarget;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        if self.tries.fetch_add(1, Ordering::SeqCst) < 3 {
            insert(recorded, cents).execute(&self.other).await.map_err(Unsent::from)?;
        }
        insert(recorded, cents).execute(&mut **tx).await?;
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        let sql = sqlx::query("DELETE FROM deposits WHERE account = $1");
        sql.bind(deletion.stream().key()).execute(&mut **tx).await?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_became_a_standby_is_not_taken_for_an_ended_transaction() {
    let model = Model::new().await;
    let bench = Bench::new();
    bench.open("ada").await;
    let position = bench.deposit("ada", 1).await;
    let options: PgConnectOptions = url().parse().unwrap();
    let standby = [("search_path", model.schema.as_str()), ("default_transaction_read_only", "on")];
    let other = PgPoolOptions::new().connect_with(options.options(standby)).await.unwrap();
    let projection = Twice { other, tries: AtomicU32::new(0) };
    let mut options = self::options();
    options.failure = options.failure.with_retries_max(0).with_timeout(LONG);
    let target = limited(&model, "statement_timeout", "0").await;
    let counts = bench.consumers.start_projection(projection, target, options).await.unwrap();
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!(counts.dead_letters().await, []);
    assert_eq!(model.counted().await["ada"].cents, [1]);
}
