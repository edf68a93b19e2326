//! A server that does not answer, and an earlier owner that holds locks and does not end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{
    ConsumerHealth, ConsumerOptions, ConsumerState, FailurePolicy, HandleError, Save, StopReason,
    Target,
};
use factum_kernel::RecordedEvent;
use factum_projection::{PostgresTarget, PostgresTx, Projection, Projections};
use factum_testing::bank::AccountEvent;
use sqlx::{
    AssertSqlSafe, Connection, PgPool, Postgres, pool::PoolConnection, postgres::PgPoolOptions,
};
use tokio::sync::Notify;

use super::{Model, proxy::Proxy};
use crate::{
    bench::{Bench, LONG},
    sql::ReadModel,
};

const SETUP: &str = "CREATE TABLE totals (
    account text PRIMARY KEY, cents bigint NOT NULL, events bigint NOT NULL
)";

/// A read model with one row for each account, which all events of the account lock.
#[derive(Default)]
struct Totals {
    /// The amount at which the handler cuts the network.
    cuts: Option<(u64, Arc<Proxy>)>,
    /// Notified after the cut, if the handler must not return.
    is_stuck: Option<Arc<Notify>>,
    has_cut: AtomicBool,
}

impl Projection for Totals {
    const NAME: &'static str = "totals";
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
        sqlx::query(
            "INSERT INTO totals VALUES ($1, $2, 1) ON CONFLICT (account)
             DO UPDATE SET cents = totals.cents + excluded.cents, events = totals.events + 1",
        )
        .bind(recorded.stream().key())
        .bind(cents.cast_signed())
        .execute(&mut **tx)
        .await?;
        let cut = self.cuts.as_ref().filter(|(at, _)| *at == cents);
        if let Some((_, proxy)) = cut.filter(|_| !self.has_cut.swap(true, Ordering::SeqCst)) {
            proxy.cut();
            if let Some(is_stuck) = &self.is_stuck {
                is_stuck.notify_one();
                std::future::pending::<()>().await;
            }
        }
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

fn options(timeout: Duration) -> ConsumerOptions {
    let pauses = (Duration::from_millis(1), Duration::from_millis(20));
    let failure = FailurePolicy::new().with_retries_max(0).with_pause(pauses.0, pauses.1);
    ConsumerOptions::new().with_failure(failure.with_timeout(timeout))
}

/// A pool of two connections to the model's schema through a network, with this role.
async fn pool(model: &Model, proxy: &Proxy, role: Option<&str>) -> PgPool {
    let path = format!("SET search_path = {}", model.schema);
    let (pool, server) = proxy.pool(role);
    let pool = pool.after_connect(move |connection, _| {
        let path = path.clone();
        Box::pin(
            async move { sqlx::raw_sql(AssertSqlSafe(path)).execute(connection).await.map(drop) },
        )
    });
    pool.connect_with(server).await.unwrap()
}

fn target(model: &Model, pool: &PgPool) -> PostgresTarget {
    PostgresTarget::new(pool.clone()).with_schema(model.schema.parse().unwrap())
}

/// A model with its tables.
async fn model() -> Model {
    let model = Model::new().await;
    model.run(PostgresTarget::schema_sql(&model.schema.parse().unwrap())).await;
    model.run(format!("SET search_path = {}; {SETUP}", model.schema)).await;
    model
}

/// The content of the model: cents and number of events of the only account.
async fn total(model: &Model) -> (i64, i64) {
    let totals = sqlx::query_as("SELECT cents, events FROM totals");
    totals.fetch_one(&model.pool).await.unwrap()
}

/// Waits until all connections of a pool can be acquired at once.
async fn acquires_all(pool: &PgPool) {
    drop(whole(pool).await);
}

/// Waits until all connections of a pool are idle. A connection on its way back would meet the next
/// cut, and nothing would limit its wait.
async fn becomes_idle(pool: &PgPool) {
    for mut connection in whole(pool).await {
        connection.return_to_pool().await;
    }
}

async fn whole(pool: &PgPool) -> Vec<PoolConnection<Postgres>> {
    let mut held = Vec::new();
    let all = async {
        while held.len() < pool.options().get_max_connections() as usize {
            held.extend(pool.acquire().await);
        }
    };
    tokio::time::timeout(LONG, all).await.expect("none is lost");
    held
}

#[tokio::test]
async fn a_commit_that_is_not_answered_shows_in_health_and_is_settled_on_another_connection() {
    let model = model().await;
    let bench = Bench::new();
    let proxy = Arc::new(Proxy::new().await);
    let pool = pool(&model, &proxy, None).await;
    bench.open("ada").await;
    let totals = Totals { cuts: Some((3, proxy.clone())), ..Totals::default() };
    let target = target(&model, &pool);
    let options = options(Duration::from_secs(1));
    let totals = bench.consumers.start_projection(totals, target, options).await.unwrap();
    for cents in 1..=2 {
        let position = bench.deposit("ada", cents).await;
        totals.wait_for(position, LONG).await.unwrap();
    }
    bench.deposit("ada", 3).await;
    let mut health = totals.watch();
    let is_committing = |it: &ConsumerHealth| it.committing_since.is_some();
    let seen = tokio::time::timeout(LONG, health.wait_for(is_committing));
    let since = seen.await.unwrap().unwrap().committing_since;
    assert!(totals.health().committing_since.is_none_or(|it| Some(it) == since));
    for cents in 4..=5 {
        bench.deposit("ada", cents).await;
    }
    totals.wait_for(bench.head(), 2 * LONG).await.unwrap();
    assert_eq!((totals.health().parked, totals.health().committing_since), (0, None));
    assert_eq!(total(&model).await, (15, 5));
    acquires_all(&pool).await;
}

#[tokio::test]
async fn a_consumer_whose_database_does_not_answer_can_be_stopped() {
    let model = model().await;
    let bench = Bench::new();
    let proxy = Arc::new(Proxy::new().await);
    let pool = pool(&model, &proxy, None).await;
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let totals = Totals { cuts: Some((2, proxy.clone())), ..Totals::default() };
    // Longer than the test waits, so that every limit of a statement is longer too.
    let options = options(10 * LONG);
    let totals =
        bench.consumers.start_projection(totals, target(&model, &pool), options).await.unwrap();
    totals.wait_for(bench.head(), LONG).await.unwrap();
    bench.deposit("ada", 2).await;
    let mut health = totals.watch();
    let is_committing = |it: &ConsumerHealth| it.committing_since.is_some();
    tokio::time::timeout(LONG, health.wait_for(is_committing)).await.unwrap().unwrap();
    tokio::time::timeout(2 * LONG, bench.consumers.close()).await.expect("it ends by itself");
    assert_eq!(totals.health().state, ConsumerState::Stopped(StopReason::Asked));
    assert_eq!(total(&model).await, (1, 1));
}

#[tokio::test]
async fn an_event_during_which_the_database_stopped_answering_has_not_failed() {
    let model = model().await;
    let bench = Bench::new();
    let proxy = Arc::new(Proxy::new().await);
    let pool = pool(&model, &proxy, None).await;
    bench.open("ada").await;
    let is_stuck = Arc::new(Notify::new());
    let cuts = Some((1, proxy.clone()));
    let totals = Totals { cuts, is_stuck: Some(is_stuck.clone()), ..Totals::default() };
    let target = target(&model, &pool);
    let options = options(Duration::from_secs(1));
    let totals = bench.consumers.start_projection(totals, target, options).await.unwrap();
    totals.wait_for(bench.head(), LONG).await.unwrap();
    bench.deposit("ada", 1).await;
    is_stuck.notified().await;
    proxy.cut_for_good();
    let mut health = totals.watch();
    let is_away =
        |it: &ConsumerHealth| matches!(it.state, ConsumerState::Retrying { position: None, .. });
    tokio::time::timeout(2 * LONG, health.wait_for(is_away)).await.unwrap().unwrap();
    proxy.carry_on();
    totals.wait_for(bench.head(), 2 * LONG).await.unwrap();
    assert_eq!((totals.health().parked, total(&model).await), (0, (1, 1)));
}

/// A program loses power while it holds the row of the account. Another program takes over. Each
/// has its own role.
async fn take_over(model: &Model, roles: [Option<&str>; 2]) {
    let bench = Bench::new();
    let proxy = Arc::new(Proxy::new().await);
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let one = bench.again();
    let other = bench.again();
    let is_stuck = Arc::new(Notify::new());
    let cuts = Some((1, proxy.clone()));
    let first = Totals { cuts, is_stuck: Some(is_stuck.clone()), ..Totals::default() };
    let first_pool = pool(model, &proxy, roles[0]).await;
    // The server ends its session a second after twice this time.
    let first_options = options(Duration::from_secs(if roles[0].is_some() { 2 } else { 300 }));
    one.consumers.start_projection(first, target(model, &first_pool), first_options).await.unwrap();
    tokio::time::timeout(LONG, is_stuck.notified()).await.expect("it handles the event");
    proxy.cut_for_good();

    let second_pool = pool(model, &Proxy::new().await, roles[1]).await;
    let target = target(model, &second_pool);
    let second_options = options(Duration::from_secs(2));
    let second =
        other.consumers.start_projection(Totals::default(), target, second_options).await.unwrap();
    second.wait_for(bench.head(), 2 * LONG).await.unwrap();
    let position = bench.deposit("ada", 2).await;
    second.wait_for(position, LONG).await.unwrap();
    assert_eq!((second.health().parked, total(model).await), (0, (3, 2)));
    acquires_all(&second_pool).await;
    other.consumers.close().await;
}

#[tokio::test]
async fn a_take_over_ends_the_session_of_a_predecessor_that_lost_power() {
    take_over(&model().await, [None, None]).await;
}

#[tokio::test]
async fn locks_of_a_session_that_may_not_be_ended_are_waited_for_and_fail_no_event() {
    let model = model().await;
    let schema = &model.schema;
    let roles = [format!("{schema}_one"), format!("{schema}_two")];
    for role in &roles {
        model
            .run(format!(
                "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
            ))
            .await;
    }
    take_over(&model, [Some(&roles[0]), Some(&roles[1])]).await;
    let ends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = ANY";
    let ended = sqlx::query(AssertSqlSafe(format!("{ends} ($1)"))).bind(&roles[..]);
    ended.execute(&model.pool).await.unwrap();
    for role in &roles {
        model.run(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    }
}

#[tokio::test]
async fn a_handler_may_use_savepoints_through_sqlx() {
    let model = model().await;
    let name = "totals@1".parse().unwrap();
    let target = target(&model, &model.pool);
    let opened = target.open(&name).await.unwrap();
    let mut tx = target.begin(&name).await.unwrap();
    for (account, is_kept) in [("ada", true), ("bob", false)] {
        let mut inner = tx.begin().await.unwrap();
        let row = sqlx::query("INSERT INTO totals VALUES ($1, 1, 1)").bind(account);
        row.execute(&mut *inner).await.unwrap();
        match is_kept {
            true => inner.commit().await.unwrap(),
            false => drop(inner),
        }
    }
    let expected = opened.fence;
    let progress = bytes::Bytes::from_static(b"progress");
    let save = Save { expected, progress, mark: None, letters: Vec::new(), events: 2 };
    target.commit(&name, tx, save).await.unwrap();
    assert_eq!(total(&model).await, (1, 1));
}

#[tokio::test]
async fn a_connection_returns_to_its_pool_unchanged() {
    let model = Model::new().await;
    let name = "totals@1".parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect(&super::url()).await.unwrap();
    let target = PostgresTarget::new(pool.clone()).with_schema(model.schema.parse().unwrap());
    target.open(&name).await.unwrap();
    for end in ["", "COMMIT", "ROLLBACK", "SELECT 1 / 0"] {
        let mut tx = target.begin_within(&name, Duration::from_secs(9)).await.unwrap();
        let _ = sqlx::raw_sql(end).execute(&mut *tx).await;
        drop(tx);
        let told = "SELECT concat_ws(' ', current_setting('default_transaction_read_only'),
            current_setting('lock_timeout'), current_setting('statement_timeout'),
            (SELECT count(*) FROM pg_cursors WHERE name <> ''), pg_current_xact_id_if_assigned())";
        let told = sqlx::query_scalar::<_, String>(told).fetch_one(&pool).await.unwrap();
        assert_eq!(told, "off 0 0 0", "after {end}");
    }
}

/// A pool of two connections. The network falls silent just before the next connection is given
/// back.
async fn pool_that_is_cut_on_the_way_back() -> (PgPool, Arc<AtomicBool>) {
    let proxy = Arc::new(Proxy::new().await);
    let cuts = Arc::new(AtomicBool::new(false));
    let (options, server) = proxy.pool(None);
    let cuts_now = cuts.clone();
    let options = options.after_release(move |_, _| {
        if cuts_now.swap(false, Ordering::SeqCst) {
            proxy.cut();
        }
        Box::pin(async { Ok(true) })
    });
    let pool = options.connect_with(server).await.unwrap();
    (pool, cuts)
}

#[tokio::test]
async fn a_connection_that_falls_silent_after_a_commit_keeps_no_place_in_its_pool() {
    let model = model().await;
    let name = "totals@1".parse().unwrap();
    let (pool, cuts) = pool_that_is_cut_on_the_way_back().await;
    let target = target(&model, &pool);
    let expected = target.open(&name).await.unwrap().fence;
    becomes_idle(&pool).await;
    let tx = target.begin(&name).await.unwrap();
    cuts.store(true, Ordering::SeqCst);
    let progress = bytes::Bytes::from_static(b"progress");
    let save = Save { expected, progress, mark: None, letters: Vec::new(), events: 1 };
    target.commit(&name, tx, save).await.unwrap();
    acquires_all(&pool).await;
    assert!(!cuts.load(Ordering::SeqCst), "the network was cut on the way back");
}

#[tokio::test]
async fn a_connection_that_falls_silent_after_a_rollback_keeps_no_place_in_its_pool() {
    let model = model().await;
    let name = "totals@1".parse().unwrap();
    let (pool, cuts) = pool_that_is_cut_on_the_way_back().await;
    let target = target(&model, &pool);
    target.open(&name).await.unwrap();
    becomes_idle(&pool).await;
    let tx = target.begin(&name).await.unwrap();
    cuts.store(true, Ordering::SeqCst);
    drop(tx);
    acquires_all(&pool).await;
    assert!(!cuts.load(Ordering::SeqCst), "the network was cut on the way back");
}
