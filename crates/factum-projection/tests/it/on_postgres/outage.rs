//! A database that is away, or that a migration holds up.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use factum_projection::{Consumer, ConsumerState, HandleError, PostgresTarget};
use factum_testing::bank::AccountEvent;
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

use super::{Counts, Model, SETUP, url};
use crate::{
    bench::{Bench, Fails, LONG, options},
    instance::Instance,
    outage::is_away_for_long,
    sql::ReadModel,
};

/// An error as a user would write it.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

async fn send(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO sent DEFAULT VALUES").execute(pool).await.map(drop)
}

/// The log is in memory: nothing but the handler's error tells of the outage.
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
        let (client, at_fault, tries) = (pool.clone(), instance.clone(), AtomicU32::new(0));
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
        let mails = bench.consumers.start(mails.with_options(options)).unwrap();
        is_away_for_long(&mails).await;
        instance.lock().unwrap().restart();
        mails.wait_for(position, LONG).await.unwrap();
        assert_eq!(mails.dead_letters().await, [], "is_hidden={is_hidden}");
        let sent = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sent");
        assert!(sent.fetch_one(&pool).await.unwrap() >= 2, "is_hidden={is_hidden}");
    }
}

/// The statements of the role have a time limit, as they should; a migration holds a table longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_migration_of_a_table_stops_no_projection_and_parks_nothing() {
    for table in ["factum_consumer", "deposits"] {
        let (model, bench) = (Model::new().await, Bench::new());
        bench.open("ada").await;
        let pool = PgPoolOptions::new().max_connections(4).connect_with(
            url()
                .parse::<sqlx::postgres::PgConnectOptions>()
                .unwrap()
                .options([("search_path", model.schema.as_str()), ("statement_timeout", "100ms")]),
        );
        let target = PostgresTarget::new(pool.await.unwrap());
        let target = target.with_schema(&model.schema).with_setup(SETUP);
        let projection = Counts { fails: Fails::default(), in_the_way: Arc::default() };
        let mut options = options();
        options.failure = options.failure.with_retries_max(0).with_timeout(LONG);
        let counts = bench.consumers.project(projection, target, options).unwrap();
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
