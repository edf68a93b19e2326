//! The locks that a target takes when it opens, and when a build is cleared.

use std::{fmt::Debug, time::Duration};

use factum_consumer::{ConsumerName, Fence, Opened, Target, TargetError};
use factum_kernel::{Clock, SystemClock};
use factum_projection::PostgresTarget;
use sqlx::{PgConnection, PgPool};
use tokio::task::JoinHandle;

use super::{Model, url};
use crate::sql::ReadModel;

/// Waits until a task waits for a lock of a session, and returns the waiting session. A task that
/// ends earlier has not waited for the uncommitted changes of the session.
async fn waits<T: Debug>(task: &mut JoinHandle<T>, holder: i32) -> i32 {
    const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))";
    let looks = PgPool::connect(&url()).await.unwrap();
    loop {
        let waiting = sqlx::query_scalar::<_, i32>(WAITING).bind(holder);
        if let Some(waiting) = waiting.fetch_optional(&looks).await.unwrap() {
            return waiting;
        }
        assert!(!task.is_finished(), "it has not waited: {:?}", task.await);
        SystemClock.sleep(Duration::from_millis(5)).await;
    }
}

async fn pid(session: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(session).await.unwrap()
}

fn open(target: PostgresTarget, name: &ConsumerName) -> JoinHandle<Result<Opened, TargetError>> {
    let name = name.clone();
    tokio::spawn(async move { target.open(&name).await })
}

#[tokio::test]
async fn opening_waits_for_a_commit_that_is_under_way_and_reads_what_it_stored() {
    let model = Model::new().await;
    let name: ConsumerName = "counts@1".parse().unwrap();
    let Opened { fence, .. } = model.target().open(&name).await.unwrap();
    // Opening stops after it has inserted the consumer's row and before it reads the row.
    let stop = "CREATE TABLE held ();
        CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN LOCK TABLE held; RETURN NULL; END $$;
        CREATE TRIGGER stop AFTER INSERT ON factum_consumer EXECUTE FUNCTION stop()";
    model.run(stop.into()).await;
    let mut holder = model.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE held").execute(&mut *holder).await.unwrap();
    let mut opening = open(model.target(), &name);
    waits(&mut opening, pid(&mut holder).await).await;
    let mut predecessor = model.pool.begin().await.unwrap();
    let save = "UPDATE factum_consumer SET fence = fence + 1, progress = 'come further'
        WHERE consumer = 'counts@1'";
    sqlx::raw_sql(save).execute(&mut *predecessor).await.unwrap();
    holder.commit().await.unwrap();
    waits(&mut opening, pid(&mut predecessor).await).await;
    predecessor.commit().await.unwrap();
    let opened = opening.await.unwrap().unwrap();
    assert_eq!(opened.fence, Fence(fence.0 + 1));
    assert_eq!(opened.progress.as_deref(), Some(&b"come further"[..]));
}

#[tokio::test]
async fn a_build_that_is_cleared_while_it_opens_leaves_no_schema() {
    for opened in ["totals@2", "totals@2#1"] {
        let model = Model::new().await;
        let whole = "totals@2".parse().unwrap();
        let opened = opened.parse().unwrap();
        model.run(PostgresTarget::schema_sql(&model.schema.parse().unwrap())).await;
        model
            .run("CREATE TABLE held (); INSERT INTO factum_consumer VALUES ('totals@2', 0)".into())
            .await;
        let target = || {
            let target = PostgresTarget::of_build(model.pool.clone(), &whole);
            target.with_schema(model.schema.parse().unwrap()).with_setup("LOCK TABLE held")
        };
        let mut holder = model.pool.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE held").execute(&mut *holder).await.unwrap();
        let mut opening = open(target(), &opened);
        // The task has read that the build is not cleared, and has made the schema.
        let opens = waits(&mut opening, pid(&mut holder).await).await;
        let target = target();
        let name = whole.clone();
        let mut clearing = tokio::spawn(async move { target.clear(&name).await });
        waits(&mut clearing, opens).await;
        holder.commit().await.unwrap();
        opening.await.unwrap().unwrap();
        clearing.await.unwrap().unwrap();
        let left = "SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, $1 || '/')";
        let left = sqlx::query_scalar::<_, i64>(left).bind(&model.schema);
        assert_eq!(left.fetch_one(&model.pool).await.unwrap(), 0, "{opened}");
    }
}

#[tokio::test]
async fn the_tables_of_the_progress_are_made_by_one_session_at_a_time() {
    let model = Model::new().await;
    let name: ConsumerName = "counts@1".parse().unwrap();
    let mut maker = model.pool.begin().await.unwrap();
    // "factumrm" in ASCII.
    let lock = "SELECT pg_advisory_xact_lock(x'66616374756d726d'::bigint)";
    sqlx::raw_sql(lock).execute(&mut *maker).await.unwrap();
    let mut opening = open(model.target(), &name);
    waits(&mut opening, pid(&mut maker).await).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(PostgresTarget::schema_sql(&model.schema.parse().unwrap())))
        .execute(&mut *maker)
        .await
        .unwrap();
    maker.commit().await.unwrap();
    assert_eq!(opening.await.unwrap().unwrap().fence, Fence(0));
}
