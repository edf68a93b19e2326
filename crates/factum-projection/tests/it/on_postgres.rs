//! Read models in PostgreSQL, on a real server.

mod builds;
mod hostile;
mod locks;
mod outage;
mod proxy;
mod silent;

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use factum_consumer::{ConsumerState, HandleError, StopReason};
use factum_kernel::RecordedEvent;
use factum_projection::{PostgresTarget, PostgresTx, Projection, Projections};
use factum_testing::{ChildTest, bank::AccountEvent};
use sqlx::{
    AssertSqlSafe, PgPool, Postgres,
    postgres::{PgArguments, PgPoolOptions},
    query::Query,
};

use crate::{
    bench::{Bench, Count, Fails, LONG, options},
    sql::{self, Clear, ENDS, REFUSED, ReadModel, behaviours},
};

/// The process that projects; its order names the log and the read model.
const CHILD: ChildTest = ChildTest::new("on_postgres::child");

const SETUP: &str = "CREATE TABLE IF NOT EXISTS deposits (
    id bigint GENERATED ALWAYS AS IDENTITY,
    account text NOT NULL,
    cents bigint NOT NULL CHECK (cents <> 666)
);
CREATE TABLE IF NOT EXISTS once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";

/// A deposit of this many cents breaks a constraint that is checked at the commit.
const REFUSED_AT_COMMIT: u64 = 667;
/// At this many cents a statement fails, and the handler ignores the error.
const SWALLOWED: u64 = 668;
/// At this many cents a few serialization failures occur.
const IN_THE_WAY: u64 = 670;
/// At this many cents the connection is cut off at the first attempt.
const CUT_OFF: u64 = 671;

const AGAIN: &str = "INSERT INTO deposits (account, cents) VALUES ('ada', 1)";

/// The URL of a server. Without it a test fails, so that it does not look as if it had run.
fn url() -> String {
    env::var("FACTUM_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
             FACTUM_POSTGRES_URL=postgres://user@host:port/database"
        )
    })
}

/// The statement for a deposit.
fn insert(recorded: &RecordedEvent, cents: u64) -> Query<'static, Postgres, PgArguments> {
    sqlx::query("INSERT INTO deposits (account, cents) VALUES ($1, $2)")
        .bind(recorded.stream().key().to_owned())
        .bind(cents.cast_signed())
}

struct Model {
    schema: String,
    pool: PgPool,
    is_ours: bool,
}

struct Counts {
    fails: Fails,
    in_the_way: Arc<AtomicU32>,
}

impl Projection for Counts {
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
        insert(recorded, cents).execute(&mut **tx).await?;
        if let Some((statement, ignores)) = Model::statement(cents) {
            let said = sqlx::raw_sql(statement).execute(&mut **tx).await;
            if ignores {
                let _ = sqlx::raw_sql(AGAIN).execute(&mut **tx).await;
            } else {
                said?;
            }
        }
        let is_first = || self.in_the_way.fetch_add(1, Ordering::SeqCst) == 0;
        let more = match cents {
            ENDS => Some("ROLLBACK"),
            REFUSED_AT_COMMIT => Some("INSERT INTO once VALUES (1), (1)"),
            IN_THE_WAY if self.in_the_way.fetch_add(1, Ordering::SeqCst) < 5 => {
                Some("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
            }
            CUT_OFF if is_first() => Some("SELECT pg_terminate_backend(pg_backend_pid())"),
            _ => None,
        };
        if let Some(more) = more {
            sqlx::raw_sql(more).execute(&mut **tx).await?;
        }
        if cents == SWALLOWED {
            let _ = sqlx::query("SELECT 1 / 0").execute(&mut **tx).await;
        }
        self.fails.on(cents).await
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

impl Clear for PostgresTarget {
    fn clearing(self) -> Self {
        self.with_clear("TRUNCATE deposits")
    }
}

impl Model {
    async fn at(schema: &str, is_ours: bool) -> Self {
        let path = format!("SET search_path = {schema}");
        let pool = PgPoolOptions::new().max_connections(4).after_connect(move |connection, _| {
            let path = path.clone();
            Box::pin(async move {
                sqlx::raw_sql(AssertSqlSafe(path)).execute(connection).await.map(drop)
            })
        });
        let pool = pool.connect(&url()).await.unwrap();
        Self { schema: schema.into(), pool, is_ours }
    }

    async fn run(&self, statement: String) {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.pool).await.unwrap();
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let schema = self.schema.clone();
        let is_ours = self.is_ours;
        // A separate thread, because the caller may be in a runtime.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let Ok(pool) = PgPool::connect(&url()).await else { return };
                let drop =
                    format!("SET lock_timeout = '2s'; DROP SCHEMA IF EXISTS {schema} CASCADE");
                let _ = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await;
            });
        });
        if is_ours {
            let _ = gone.join();
        }
    }
}

impl ReadModel for Model {
    type Projection = Counts;

    const ENDINGS: &'static [&'static str] = &[
        "COMMIT",
        "END",
        "ROLLBACK",
        "ABORT",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        "COMMIT; BEGIN",
        "ROLLBACK; BEGIN",
        "ROLLBACK; INSERT INTO deposits (account, cents) VALUES ('ada', 1)",
        "END; INSERT INTO deposits (account, cents) VALUES ('ada', 1)",
        "PREPARE TRANSACTION 'a handler'",
        "DISCARD ALL",
        "SELECT 1 / 0",
    ];
    const HARMLESS: &'static [&'static str] = &[
        "SAVEPOINT one; DELETE FROM deposits; ROLLBACK TO one; RELEASE one",
        "CREATE TABLE made (n int); INSERT INTO made VALUES (1); DROP TABLE made",
        "CREATE TEMP TABLE passing (n int) ON COMMIT DROP",
        "SET LOCAL work_mem = '8MB'",
    ];

    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::at(&format!("model_{}_{count}", std::process::id()), true).await
    }

    fn projection(&self, fails: Fails) -> Counts {
        Counts { fails, in_the_way: Arc::default() }
    }

    fn target(&self) -> PostgresTarget {
        PostgresTarget::new(self.pool.clone())
            .with_schema(self.schema.parse().unwrap())
            .with_setup(SETUP)
    }

    async fn counted(&self) -> BTreeMap<String, Count> {
        let rows =
            sqlx::query_as::<_, (String, i64)>("SELECT account, cents FROM deposits ORDER BY id");
        let mut counts = BTreeMap::<String, Count>::new();
        for (account, cents) in rows.fetch_all(&self.pool).await.unwrap() {
            counts.entry(account).or_default().cents.push(cents.cast_unsigned());
        }
        counts
    }

    fn address(&self) -> String {
        self.schema.clone()
    }
}

behaviours! { Model }

/// The code of the process that is killed; not a test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(order) = CHILD.order() else { return };
    let (log, schema) = order.split_once(' ').unwrap();
    sql::child(Model::at(schema, false).await, log).await;
}

#[test]
fn nothing_is_lost_or_doubled_by_sigkill() {
    sql::nothing_is_lost_or_doubled_by_sigkill::<Model>(CHILD);
}

#[tokio::test]
async fn an_ignored_failure_and_a_late_constraint_are_their_events_fault() {
    for (cents, told) in [(SWALLOWED, "aborted"), (REFUSED_AT_COMMIT, "unique constraint")] {
        let model = Model::new().await;
        let bench = Bench::new();
        for key in ["ada", "bob"] {
            bench.open(key).await;
        }
        for cents in [1, cents, 2] {
            bench.deposit("ada", cents).await;
            bench.deposit("bob", 1).await;
        }
        let counts = model.start(&bench, &Fails::default()).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        let letters = counts.dead_letters().await;
        assert_eq!(letters.len(), 1);
        assert!(letters[0].error.contains(told), "{}", letters[0].error);
        let counted = model.counted().await;
        assert_eq!((&counted["ada"].cents[..], &counted["bob"].cents[..]), (&[1][..], &[1; 3][..]));
    }
}

#[tokio::test]
async fn a_failure_without_an_event_as_its_cause_is_retried_until_it_succeeds() {
    // An event that is itself the cause has only two retries.
    for cents in [IN_THE_WAY, CUT_OFF] {
        let model = Model::new().await;
        let bench = Bench::new();
        bench.open("ada").await;
        for cents in [1, cents, 2] {
            bench.deposit("ada", cents).await;
        }
        let counts = model.start(&bench, &Fails::default()).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!(counts.health().parked, 0);
        assert_eq!(model.counted().await["ada"].cents, [1, cents, 2]);
    }
}

#[tokio::test]
async fn connections_that_are_cut_off_lose_and_double_nothing() {
    let model = Model::new().await;
    let bench = Bench::new();
    let other = PgPool::connect(&url()).await.unwrap();
    bench.open("ada").await;
    let counts = model.start(&bench, &Fails::default()).await;
    for cents in 1..=100 {
        let position = bench.deposit("ada", cents).await;
        if cents % 9 == 0 {
            // The consumer may be in any state at this moment.
            let cut = format!(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l
                 JOIN pg_class c ON c.oid = l.relation
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = '{}'",
                model.schema
            );
            sqlx::raw_sql(AssertSqlSafe(cut)).execute(&other).await.unwrap();
        }
        if cents % 20 == 0 {
            counts.wait_for(position, LONG).await.unwrap();
        }
    }
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(counts.health().parked, 0);
    // The statement that counts may be cut off as well, so the count is read at the end.
    assert_eq!(model.counted().await["ada"].cents, Vec::from_iter(1..=100));
}

#[tokio::test]
async fn targets_that_start_at_once_make_the_tables_once() {
    let model = Model::new().await;
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let many: Vec<_> = (0..8).map(|_| bench.again()).collect();
    let mut started = Vec::new();
    for bench in &many {
        started.push(model.start(bench, &Fails::default()).await);
    }
    let mut come = 0;
    for counts in started {
        match counts.wait_for(bench.head(), LONG).await {
            Ok(()) => come += 1,
            Err(_) => assert_eq!(
                counts.health().state,
                ConsumerState::Stopped(StopReason::Fenced),
                "nothing else stops it"
            ),
        }
    }
    assert!(come > 0);
    assert_eq!(model.counted().await["ada"].cents, [1]);
}

#[tokio::test]
async fn a_role_without_the_right_to_make_tables_is_enough() {
    let model = Model::new().await;
    let bench = Bench::new();
    let schema = &model.schema;
    let role = format!("{}_app", model.schema);
    model.run(PostgresTarget::schema_sql(&schema.parse().unwrap())).await;
    model.run(SETUP.into()).await;
    model
        .run(format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
        ))
        .await;
    let path = format!("SET search_path = {schema}; SET ROLE {role}");
    let pool = PgPoolOptions::new().after_connect(move |connection, _| {
        let path = path.clone();
        Box::pin(
            async move { sqlx::raw_sql(AssertSqlSafe(path)).execute(connection).await.map(drop) },
        )
    });
    let target = PostgresTarget::new(pool.connect(&url()).await.unwrap())
        .with_schema(schema.parse().unwrap());
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    bench.deposit("ada", REFUSED).await;
    let projection = model.projection(Fails::default());
    let counts = bench.consumers.start_projection(projection, target, options()).await.unwrap();
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!((counts.health().parked, &model.counted().await["ada"].cents[..]), (1, &[1][..]));
    bench.consumers.close().await;
    model.run(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
