use tokio_postgres::{Client, NoTls};

use super::*;

/// An invented next version: one more table, and one that records how often it was made.
const NEXT: Steps = &[
    MIGRATIONS[0],
    MIGRATIONS[1],
    MIGRATIONS[2],
    MIGRATIONS[3],
    &["CREATE TABLE @schema@.another (); CREATE SEQUENCE @schema@.made; \
       SELECT nextval('@schema@.made');"],
];

struct Log {
    options: PostgresOptions,
    raw: Client,
}

impl Log {
    async fn new(name: &str) -> Self {
        let url = std::env::var("FACTUM_POSTGRES_URL").expect(
            "no PostgreSQL server to test on: run `cargo xtask test`, which starts one, or set \
             FACTUM_POSTGRES_URL",
        );
        let schema = format!("unit_{name}_{}", std::process::id());
        let options = PostgresOptions::parse(&url).unwrap().with_schema(&schema).unwrap();
        let (raw, connection) = options.config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        Self { options, raw }
    }

    async fn prepare(&self, steps: Steps) -> Result<Applied, StoreError> {
        prepare_of(self.options.clone(), steps).await
    }

    async fn run(&self, statements: &str) {
        let statements = statements.replace('@', self.options.schema.as_str());
        self.raw.batch_execute(&statements).await.unwrap();
    }

    async fn version(&self) -> i32 {
        let asked = format!("SELECT schema_version FROM {}.log", self.options.schema);
        self.raw.query_one(&asked, &[]).await.unwrap().get(0)
    }
}

async fn prepare_of(options: PostgresOptions, steps: Steps) -> Result<Applied, StoreError> {
    Ok(prepare_by(steps, &Dialer::new(&options)?, &options).await?.applied)
}

#[tokio::test]
async fn an_older_log_is_migrated_by_one_of_many_who_connect_at_once() {
    let log = Log::new("older").await;
    assert_eq!(log.prepare(&MIGRATIONS).await.unwrap(), Applied::Made);
    let lineage = format!("SELECT lineage::text FROM {}.log", log.options.schema);
    let before: String = log.raw.query_one(&lineage, &[]).await.unwrap().get(0);
    // Until the append under way has ended, nothing is touched.
    log.run(
        "BEGIN; SELECT pg_advisory_xact_lock((1178682196::bigint << 32) \
         | '@'::regnamespace::oid::bigint)",
    )
    .await;
    let all: Vec<_> = (0..4).map(|_| tokio::spawn(prepare_of(log.options.clone(), NEXT))).collect();
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
        AND objid = '@'::regnamespace::oid"
        .replace('@', log.options.schema.as_str());
    while log.raw.query_one(&waiting, &[]).await.unwrap().get::<_, i64>(0) < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.version().await, SCHEMA_VERSION);
    log.run("COMMIT").await;
    let mut applied = Vec::new();
    for one in all {
        applied.push(one.await.unwrap().unwrap());
    }
    assert_eq!(applied.iter().filter(|it| **it == Applied::Migrated).count(), 1, "{applied:?}");
    assert_eq!(applied.iter().filter(|it| **it == Applied::Present).count(), 3, "{applied:?}");
    assert_eq!(log.version().await, SCHEMA_VERSION + 1);
    let after: String = log.raw.query_one(&lineage, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
    log.run("DROP SCHEMA @ CASCADE").await;
}

#[tokio::test]
async fn a_newer_log_is_refused_and_an_older_one_is_not_read() {
    let log = Log::new("newer").await;
    assert_eq!(log.prepare(NEXT).await.unwrap(), Applied::Made);
    let error = log.prepare(&MIGRATIONS).await.unwrap_err().to_string();
    assert!(error.starts_with("the log was written by a newer program"), "{error}");
    let numbers = format!("schema={} known={SCHEMA_VERSION}", SCHEMA_VERSION + 1);
    assert!(error.contains(&numbers), "{error}");
    log.run("UPDATE @.log SET schema_version = schema_version - 1").await;
    let reader = log.options.clone().with_access(Access::ReadOnly);
    let error = prepare_of(reader, NEXT).await.unwrap_err().to_string();
    assert!(error.starts_with("there is no log of this version to read"), "{error}");
    log.run("DROP SCHEMA @ CASCADE").await;
}

#[tokio::test]
async fn a_migration_that_fails_leaves_the_log_as_it_was_and_says_who_may() {
    let log = Log::new("rights").await;
    assert_eq!(log.prepare(&MIGRATIONS).await.unwrap(), Applied::Made);
    log.run("CREATE ROLE @ LOGIN").await;
    let role = RoleName::new(log.options.schema.as_str()).unwrap();
    log.run(&grants_sql(&log.options.schema, &role)).await;
    let mut options = log.options.clone();
    options.config.user(role.as_str());
    // A role that may use the present version may still not migrate it.
    assert_eq!(prepare_of(options.clone(), &MIGRATIONS).await.unwrap(), Applied::Present);
    let error = prepare_of(options, NEXT).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert!(error.to_string().contains("factum schema apply"), "{error}");
    assert_eq!(log.version().await, SCHEMA_VERSION);
    assert_eq!(log.prepare(NEXT).await.unwrap(), Applied::Migrated);
    log.run("DROP OWNED BY @ CASCADE; DROP ROLE @; DROP SCHEMA @ CASCADE").await;
}
