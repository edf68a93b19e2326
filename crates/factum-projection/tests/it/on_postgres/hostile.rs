//! Hostile objects and names, which a target must not mistake for its own.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use factum_consumer::{ConsumerName, Save, Target};
use factum_kernel::StreamId;
use factum_projection::{PostgresTarget, TargetSchema};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};

use super::url;

const TWINS: &str = include_str!("../../../../factum-postgres/tests/it/twins.sql");

/// A database for one test, which is dropped at its end.
struct Database {
    server: PgPool,
    name: String,
}

impl Database {
    async fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = Self {
            server: PgPool::connect(&url()).await.unwrap(),
            name: format!("model_{}_{count}", std::process::id()),
        };
        database.run_beside("CREATE DATABASE @ TEMPLATE template0").await;
        database
    }

    /// Runs a statement in another database; `@` stands for the name of this one.
    async fn run_beside(&self, statement: &str) {
        let statement = AssertSqlSafe(statement.replace('@', &self.name));
        sqlx::raw_sql(statement).execute(&self.server).await.unwrap();
    }

    /// A pool whose connections begin with this statement.
    async fn pool(&self, begin: &'static str) -> PgPool {
        let pool = PgPoolOptions::new().after_connect(move |connection, _| {
            Box::pin(async move { sqlx::raw_sql(begin).execute(connection).await.map(drop) })
        });
        let url = url();
        let server = url.rsplit_once('/').unwrap().0;
        pool.connect(&format!("{server}/{}", self.name)).await.unwrap()
    }

    async fn drop(self) {
        self.run_beside("DROP DATABASE @ WITH (FORCE)").await;
    }
}

/// Calls each function of a target that a consumer calls.
async fn ask_everything(target: &PostgresTarget, name: &ConsumerName) {
    let stream: StreamId = "account-ada".parse().unwrap();
    let letter = Bytes::from_static(b"letter");
    let mut fence = target.open(name).await.unwrap().fence;
    for letter in [Some(letter.clone()), None, Some(letter)] {
        let tx = target.begin(name).await.unwrap();
        let progress = Bytes::from_static(b"progress");
        let letters = vec![(stream.clone(), letter)];
        let save = Save { expected: fence, progress, mark: None, letters, events: 1 };
        fence = target.commit(name, tx, save.clone()).await.unwrap();
        let tx = target.begin(name).await.unwrap();
        let fenced = target.commit(name, tx, save).await.unwrap_err().to_string();
        assert!(fenced.contains("another process"), "{fenced}");
    }
    let found = target.look(name).await.unwrap();
    assert_eq!((found.fence, found.letters.len()), (fence, 1));
    assert_eq!(found.progress.as_deref(), Some(&b"progress"[..]));
    target.clear(name).await.unwrap();
}

#[tokio::test]
async fn nothing_is_called_from_a_schema_that_the_path_puts_first() {
    let database = Database::new().await;
    let owner = database.pool("SELECT 1").await;
    sqlx::raw_sql(TWINS).execute(&owner).await.unwrap();
    let pool = database.pool("SET search_path = public, pg_catalog").await;
    let models = TargetSchema::new("models").unwrap();
    let plain = PostgresTarget::new(pool.clone())
        .with_schema(models.clone())
        .with_setup("CREATE TABLE IF NOT EXISTS public.totals (cents bigint)")
        .with_clear("TRUNCATE public.totals");
    ask_everything(&plain, &"totals".parse().unwrap()).await;
    for build in ["totals@2", "totals@3#1"] {
        let name: ConsumerName = build.parse().unwrap();
        let target = PostgresTarget::of_build(pool.clone(), &name).with_schema(models.clone());
        ask_everything(&target, &name).await;
    }
    // A view that depends on a build is found as well.
    let name: ConsumerName = "totals@4".parse().unwrap();
    let target = PostgresTarget::of_build(pool.clone(), &name).with_schema(models);
    let target = target.with_setup("CREATE TABLE IF NOT EXISTS totals (cents bigint)");
    target.open(&name).await.unwrap();
    let view =
        format!("CREATE VIEW public.leaning AS SELECT cents FROM {}.totals", target.schema());
    sqlx::raw_sql(AssertSqlSafe(view)).execute(&owner).await.unwrap();
    let refused = target.clear(&name).await.unwrap_err().to_string();
    assert!(refused.contains("leaning"), "{refused}");
    sqlx::raw_sql("DROP VIEW public.leaning").execute(&owner).await.unwrap();
    target.clear(&name).await.unwrap();
    pool.close().await;
    owner.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_schema_with_a_hostile_name_is_that_schema_and_nothing_else() {
    let database = Database::new().await;
    // With these settings a backslash in a text begins an escape.
    let pool = database.pool("SET standard_conforming_strings = off").await;
    sqlx::raw_sql("CREATE TABLE public.kept ()").execute(&pool).await.unwrap();
    for name in [
        "Upper Case",
        "a\"; DROP TABLE public.kept; --",
        "a'; DROP TABLE public.kept; --",
        "a\\'; DROP TABLE public.kept; --",
        "jürgen ☃",
        "$$;",
    ] {
        let schema = TargetSchema::new(name).unwrap();
        let consumer = "totals@2".parse().unwrap();
        let target = PostgresTarget::of_build(pool.clone(), &consumer).with_schema(schema);
        ask_everything(&target, &consumer).await;
        let made =
            sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_namespace WHERE nspname = $1");
        assert_eq!(made.bind(name).fetch_one(&pool).await.unwrap(), 1, "{name}");
    }
    sqlx::raw_sql("DROP TABLE public.kept").execute(&pool).await.unwrap();
    pool.close().await;
    database.drop().await;
}
