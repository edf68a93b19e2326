//! Builds in schemas of PostgreSQL.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use factum_consumer::{ConsumerHealth, ConsumerName, ConsumerState, HandleError, Target};
use factum_kernel::RecordedEvent;
use factum_projection::{
    BuildError, Maintained, PostgresTarget, PostgresTx, Projection, Projections,
};
use factum_testing::{ChildTest, bank::AccountEvent};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

use super::url;
use crate::{
    bench::{Bench, LONG},
    ledger::{Gate, swift, until},
    sql::builds::{self, Tables, builds, options},
};

#[derive(Clone)]
struct Schemas(Arc<Base>);

/// The schema of the progress, with which the names of all build schemas begin.
struct Base {
    schema: String,
    pool: PgPool,
    is_ours: bool,
}

struct Totals<const VERSION: u32>(Gate);

impl<const VERSION: u32> Projection for Totals<VERSION> {
    const NAME: &'static str = "totals";
    const VERSION: u32 = VERSION;
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = PostgresTarget;

    fn declare(&self, target: PostgresTarget) -> PostgresTarget {
        target.with_setup(match VERSION {
            1 => "CREATE TABLE IF NOT EXISTS totals (account text PRIMARY KEY, cents bigint)",
            _ => {
                "CREATE TABLE IF NOT EXISTS totals
                     (account text PRIMARY KEY, count bigint, cents bigint);
                 CREATE INDEX IF NOT EXISTS totals_by_count ON totals (count)"
            }
        })
    }

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        self.0.pass().await;
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        let sql = match VERSION {
            1 => {
                "INSERT INTO totals VALUES ($1, $2)
                 ON CONFLICT (account) DO UPDATE SET cents = totals.cents + excluded.cents"
            }
            _ => {
                "INSERT INTO totals VALUES ($1, 1, $2) ON CONFLICT (account)
                 DO UPDATE SET count = totals.count + 1, cents = totals.cents + excluded.cents"
            }
        };
        let key = recorded.stream().key();
        sqlx::query(sql).bind(key).bind(cents.cast_signed()).execute(&mut **tx).await?;
        Ok(())
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        tx: &mut PostgresTx,
    ) -> Result<(), HandleError> {
        let sql = sqlx::query("DELETE FROM totals WHERE account = $1");
        sql.bind(deletion.stream().key()).execute(&mut **tx).await?;
        Ok(())
    }
}

impl Schemas {
    async fn of(schema: &str, is_ours: bool) -> Self {
        // Few connections, so that builds use the same one after each other.
        let pool = PgPoolOptions::new().max_connections(4).connect(&url()).await.unwrap();
        Self(Arc::new(Base { schema: schema.into(), pool, is_ours }))
    }

    async fn run(&self, statement: String) {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.0.pool).await.unwrap();
    }

    async fn count(&self, statement: String) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&self.0.pool).await.unwrap()
    }

    /// The schema of a build.
    fn schema(&self, build: &str) -> String {
        format!("\"{}/{build}\"", self.0.schema)
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let schema = self.schema.clone();
        // A separate thread, because the caller may be in a runtime.
        let gone = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let Ok(pool) = PgPool::connect(&url()).await else { return };
                let drop = format!(
                    "DO $$ DECLARE found name; BEGIN
                         SET LOCAL lock_timeout = '2s';
                         FOR found IN SELECT nspname FROM pg_namespace
                             WHERE nspname = '{schema}' OR starts_with(nspname, '{schema}/')
                         LOOP EXECUTE format('DROP SCHEMA %I CASCADE', found); END LOOP;
                     END $$"
                );
                let _ = sqlx::raw_sql(AssertSqlSafe(drop)).execute(&pool).await;
            });
        });
        let _ = gone.join();
    }
}

impl Tables for Schemas {
    type Target = PostgresTarget;

    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::of(&format!("builds_{}_{count}", std::process::id()), true).await
    }

    async fn at(address: &str) -> Self {
        Self::of(address, false).await
    }

    fn address(&self) -> String {
        self.0.schema.clone()
    }

    fn target(&self, build: &ConsumerName) -> PostgresTarget {
        PostgresTarget::of_build(self.0.pool.clone(), build)
            .with_schema(self.0.schema.parse().unwrap())
    }

    async fn try_keep<const VERSION: u32>(
        &self,
        bench: &Bench,
        gate: &Gate,
    ) -> Result<Maintained<PostgresTarget>, BuildError> {
        let projection = Totals::<VERSION>(gate.clone());
        let tables = self.clone();
        let targets = move |build: &ConsumerName| tables.target(build);
        bench.consumers.maintain(projection, targets, options()).await
    }

    async fn cents(&self, totals: &Maintained<PostgresTarget>) -> Result<u64, String> {
        let schema = totals.schema().await;
        let sum = format!("SELECT coalesce(sum(cents), 0)::bigint FROM {schema}.totals");
        let sum = sqlx::query_scalar::<_, i64>(AssertSqlSafe(sum)).fetch_one(&self.0.pool).await;
        sum.map(i64::cast_unsigned).map_err(|e| e.to_string())
    }

    async fn kept(&self) -> Vec<String> {
        let names = "SELECT substr(nspname, length($1) + 2) FROM pg_namespace
            WHERE starts_with(nspname, $1 || '/') ORDER BY nspname COLLATE \"C\"";
        sqlx::query_scalar(names).bind(&self.0.schema).fetch_all(&self.0.pool).await.unwrap()
    }
}

builds! { Schemas }

/// The process that rebuilds; its order names the log and the tables.
const CHILD: ChildTest = ChildTest::new("on_postgres::builds::child");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    if let Some(order) = CHILD.order() {
        builds::child::<Schemas>(&order).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_seen_of_processes_that_are_killed() {
    builds::nothing_is_lost_or_seen_of_processes_that_are_killed::<Schemas>(CHILD).await;
}

async fn is_refused(totals: &Maintained<PostgresTarget>, error: &str) {
    let mut health = totals.consumer().unwrap().watch();
    let stopped = health.wait_for(|it| matches!(it.state, ConsumerState::Stopped(_)));
    let state = tokio::time::timeout(LONG, stopped).await.unwrap().unwrap().state.clone();
    assert!(format!("{state:?}").contains(error), "{state:?}");
}

#[tokio::test]
async fn a_schema_that_the_build_does_not_own_is_left_alone() {
    let bench = Bench::new();
    let schemas = Schemas::new().await;
    let schema = schemas.schema("totals@1");
    schemas.run(format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.mine ()")).await;
    for mark in ["NULL", "'factum: build totals@1'"] {
        schemas.run(format!("COMMENT ON SCHEMA {schema} IS {mark}")).await;
        let again = bench.again();
        let totals = schemas.keep::<1>(&again, &Gate::open()).await;
        is_refused(&totals, "not its own").await;
        again.consumers.close().await;
    }
    let name = "totals@1".parse().unwrap();
    schemas.target(&name).clear(&name).await.unwrap();
    assert_eq!(schemas.kept().await, ["totals@1"]);
}

#[tokio::test]
async fn other_tables_are_found_after_those_of_the_build_and_never_written_instead() {
    let bench = Bench::new();
    let schemas = Schemas::new().await;
    let schema = schemas.0.schema.clone();
    schemas.run(format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.totals (n int)")).await;
    schemas.run(format!("CREATE TABLE {schema}.rates AS SELECT 3 AS factor")).await;
    let path = format!("SET search_path = {schema}");
    let pool = PgPoolOptions::new().after_connect(move |connection, _| {
        let path = AssertSqlSafe(path.clone());
        Box::pin(async move { sqlx::raw_sql(path).execute(connection).await.map(drop) })
    });
    let pool = pool.connect(&url()).await.unwrap();
    let base = Base { schema: schema.clone(), pool, is_ours: false };
    let schemas = Schemas(Arc::new(base));
    bench.open("ada").await;
    bench.deposit("ada", 5).await;
    let totals = schemas.keep::<1>(&bench, &Gate::open()).await;
    schemas.are_right(&bench, &totals, 5).await;
    assert_eq!(schemas.count(format!("SELECT count(*) FROM {schema}.totals")).await, 0);
    let target = totals.target().unwrap();
    let name = totals.serving_name();
    let mut tx = target.begin(&name).await.unwrap();
    let both = "SELECT (sum(cents) * min(factor))::bigint FROM totals, rates";
    let both = sqlx::query_scalar::<_, i64>(both).fetch_one(&mut *tx).await.unwrap();
    assert_eq!(both, 15);
    drop(tx);
    // The lock ends with the transaction.
    let path = "SELECT (current_setting('search_path') LIKE '%@%')::int::bigint";
    assert_eq!(schemas.count(path.into()).await, 0);
}

#[tokio::test]
async fn a_view_that_reads_a_build_keeps_it_until_it_reads_another() {
    let bench = Bench::new();
    let schemas = Schemas::new().await;
    let bench = Bench::on(bench.kernel.with_clock(Arc::new(swift())));
    bench.open("ada").await;
    bench.deposit("ada", 5).await;
    let totals = schemas.keep::<1>(&bench, &Gate::open()).await;
    schemas.are_right(&bench, &totals, 5).await;
    let view = format!("{}.report", schemas.0.schema);
    let mut before = totals.serving_name();
    let reads = |schema: String| format!("CREATE OR REPLACE VIEW {view} AS TABLE {schema}.totals");
    schemas.run(reads(totals.schema().await)).await;
    totals.reset().await.unwrap();
    schemas.are_right(&bench, &totals, 5).await;
    for _ in 0..2 {
        let told = schemas.target(&before).clear(&before).await.unwrap_err().to_string();
        assert!(told.contains(&format!("dependants=view {view}")), "{told}");
        let mut health = totals.consumer().unwrap().watch();
        let says = |it: &ConsumerHealth| it.undropped.as_ref().is_some_and(|it| it.contains(&view));
        tokio::time::timeout(LONG, health.wait_for(says)).await.unwrap().unwrap();
        assert_eq!(schemas.count(format!("SELECT sum(cents)::bigint FROM {view}")).await, 5);
        schemas.run(reads(totals.schema().await)).await;
        let name = format!("{before}");
        until(|| async { !schemas.kept().await.contains(&name) }).await;
        let is_well = |it: &ConsumerHealth| it.undropped.is_none();
        tokio::time::timeout(LONG, health.wait_for(is_well)).await.unwrap().unwrap();
        before = totals.serving_name();
        totals.reset().await.unwrap();
        schemas.are_right(&bench, &totals, 5).await;
    }
}

/// An object in the schema `$own` that depends on a build in the schema `$build`; a part of its
/// name in errors; the statement that drops it.
const DEPENDANTS: [[&str; 3]; 12] = [
    ["CREATE TABLE $own.heir () INHERITS ($build.things)", "heir", "DROP TABLE $own.heir"],
    [
        "CREATE TABLE $own.part PARTITION OF $build.parted FOR VALUES FROM (10) TO (20)",
        "part",
        "DROP TABLE $own.part",
    ],
    ["CREATE TABLE $own.kinds (kind $build.kind)", "kinds.kind", "DROP TABLE $own.kinds"],
    ["CREATE VIEW $own.calls AS SELECT $build.twice(2)", "view $own.calls", "DROP VIEW $own.calls"],
    ["CREATE VIEW $own.seen AS TABLE $build.shown", "view $own.seen", "DROP VIEW $own.seen"],
    [
        "CREATE MATERIALIZED VIEW $own.kept AS TABLE $build.things",
        "view $own.kept",
        "DROP MATERIALIZED VIEW $own.kept",
    ],
    [
        "CREATE TABLE $own.refs (id int REFERENCES $build.things)",
        "refs_id_fkey",
        "DROP TABLE $own.refs",
    ],
    [
        "CREATE TABLE $own.preset (id int DEFAULT $build.twice(1))",
        "preset.id",
        "DROP TABLE $own.preset",
    ],
    [
        "CREATE TABLE $own.sought (id int); CREATE INDEX by_two ON $own.sought ($build.twice(id))",
        "by_two",
        "DROP TABLE $own.sought",
    ],
    [
        "CREATE FUNCTION $own.of($build.things) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "function $own.of",
        "DROP FUNCTION $own.of",
    ],
    ["CREATE DOMAIN $own.narrow AS $build.kind", "narrow", "DROP DOMAIN $own.narrow"],
    ["CREATE CAST ($build.kind AS text) WITH INOUT", "cast", "DROP CAST ($build.kind AS text)"],
];

/// A build with one object of each kind that others can depend on.
const RICH: &str = "CREATE TABLE things (id int PRIMARY KEY, name text DEFAULT 'none');
    CREATE TABLE parted (id int) PARTITION BY RANGE (id);
    CREATE TYPE kind AS ENUM ('one', 'other');
    CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1';
    CREATE VIEW shown AS SELECT id, twice(id) FROM things;
    CREATE TABLE leaning (of int REFERENCES things, kind kind CHECK (kind <> 'other'));
    CREATE INDEX ON things (lower(name)); CREATE DOMAIN small AS int CHECK (VALUE < 10)";

#[tokio::test]
async fn a_build_is_not_dropped_while_an_object_outside_of_it_depends_on_it() {
    let schemas = Schemas::new().await;
    let own = schemas.0.schema.clone();
    let build = schemas.schema("rich@1");
    let name: ConsumerName = "rich@1".parse().unwrap();
    let target = schemas.target(&name).with_setup(RICH);
    target.open(&name).await.unwrap();
    let in_it = |text: &str| text.replace("$own", &own).replace("$build", &build);
    for [make, says, drop] in DEPENDANTS {
        schemas.run(in_it(make)).await;
        let told = target.clear(&name).await.unwrap_err().to_string();
        assert!(told.contains(&in_it(says)), "{make}: {told}");
        // The build exists completely.
        schemas.run(in_it(drop)).await;
    }
    assert_eq!(schemas.kept().await, ["rich@1"]);
    target.clear(&name).await.unwrap();
    assert_eq!(schemas.kept().await, <[&str; 0]>::default());
}

#[tokio::test]
async fn an_object_that_becomes_dependent_during_a_drop_is_not_dropped() {
    let schemas = Schemas::new().await;
    let own = schemas.0.schema.clone();
    let build = schemas.schema("rich@1");
    let name: ConsumerName = "rich@1".parse().unwrap();
    let target = schemas.target(&name).with_setup(RICH);
    target.open(&name).await.unwrap();
    let mut migration = schemas.0.pool.begin().await.unwrap();
    let view = format!("CREATE VIEW {own}.late AS TABLE {build}.shown");
    sqlx::raw_sql(AssertSqlSafe(view)).execute(&mut *migration).await.unwrap();
    let clearing = tokio::spawn({
        let target = target.clone();
        let name = name.clone();
        async move { target.clear(&name).await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = ANY (
        SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('$build'))";
    let waits = waits.replace("$build", &build);
    until(|| async { schemas.count(waits.clone()).await > 0 }).await;
    migration.commit().await.unwrap();
    let told = clearing.await.unwrap().unwrap_err().to_string();
    assert!(told.contains(&format!("view {own}.late")), "{told}");
    assert_eq!(schemas.count(format!("SELECT count(*) FROM {own}.late")).await, 0);
}

#[tokio::test]
async fn no_partition_of_a_cleared_build_begins_and_none_of_another_is_touched() {
    let schemas = Schemas::new().await;
    let name = "totals@1".parse().unwrap();
    let other = "totals@11".parse().unwrap();
    for name in [&name, &other] {
        schemas.target(name).open(name).await.unwrap();
    }
    let schema = &schemas.0.schema;
    for consumer in ["totals@1#0", "totals@1#12", "totals@11#0"] {
        schemas
            .run(format!(
                "INSERT INTO {schema}.factum_consumer VALUES ('{consumer}', 7, 'p', 'm');
                 INSERT INTO {schema}.factum_dead_letter VALUES ('{consumer}', 'a-b', 'l')"
            ))
            .await;
    }
    schemas.target(&name).clear(&name).await.unwrap();
    let told = "SELECT string_agg(consumer, ' ' ORDER BY consumer) FROM";
    let told = |rest: &str| format!("{told} {schema}.{rest}");
    let told = [
        told("factum_consumer WHERE fence = -1 AND progress IS NULL AND mark IS NULL"),
        told("factum_consumer WHERE fence >= 0"),
        told("factum_dead_letter"),
    ];
    let mut found = Vec::new();
    for told in told {
        let told = sqlx::query_scalar::<_, String>(AssertSqlSafe(told));
        found.push(told.fetch_one(&schemas.0.pool).await.unwrap());
    }
    assert_eq!(found, ["totals@1 totals@1#0 totals@1#12", "totals@11 totals@11#0", "totals@11#0"]);
    let new = "totals@1#9".parse().unwrap();
    let told = schemas.target(&new).open(&new).await.unwrap_err().to_string();
    assert!(told.contains("cleared"), "{told}");
    assert_eq!(schemas.kept().await, ["totals@11"]);
}
