//! The suite that every store passes, on the oldest and on the newest supported server.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_kernel::{Clock, Monotonic, Timestamp};
use factum_postgres::{Access, PostgresOptions, PostgresStore};
use factum_testing::conformance::{OpenError, Setup, Stores, Subject};

use crate::server::{Schema, url};

/// The schema of one case.
struct PostgresSubject {
    schema: Arc<Schema>,
}

impl PostgresSubject {
    fn on(variable: &str) -> Self {
        Self { schema: Arc::new(Schema::on(&url(variable))) }
    }

    fn options(&self, setup: &Setup) -> PostgresOptions {
        let clock = ClockWithSchema { clock: setup.clock.clone(), _schema: self.schema.clone() };
        let mut options = self.schema.options().with_clock(Arc::new(clock));
        options.connections_max = 4;
        options.commit_delay = setup.commit_delay.clone();
        options
    }
}

#[async_trait]
impl Subject for PostgresSubject {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        let stores = self.open_another(setup).await?;
        pause_early(&self.schema).await?;
        Ok(stores)
    }

    async fn open_another(&self, setup: &Setup) -> Result<Stores, OpenError> {
        Ok(Stores::both(Arc::new(PostgresStore::open(self.options(setup)).await?)))
    }

    async fn open_to_read(&self, setup: &Setup) -> Result<Option<Stores>, OpenError> {
        let options = self.options(setup).with_access(Access::ReadOnly);
        Ok(Some(Stores::both(Arc::new(PostgresStore::open(options).await?))))
    }
}

/// Makes pages of queries pause after 20 steps. The number is a constant of a function; with its
/// real value, a case would have to store a hundred thousand events.
async fn pause_early(schema: &Schema) -> Result<(), OpenError> {
    const MADE: &str = "SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p
        JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = $1 AND p.proname = 'item_positions'";
    let raw = schema.raw().await;
    let made: String = raw.query_one(MADE, &[&schema.name]).await?.get(0);
    let early = made.replace("v_left integer := 50000;", "v_left integer := 20;");
    assert!(early.contains("v_left integer := 20;"), "the function counts otherwise: {made}");
    raw.batch_execute(&early).await?;
    Ok(())
}

/// Keeps the schema as long as the store, because some cases drop the subject first.
#[derive(Debug)]
struct ClockWithSchema {
    clock: Arc<dyn Clock>,
    _schema: Arc<Schema>,
}

#[async_trait]
impl Clock for ClockWithSchema {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }
}

factum_testing::conformance!(suite: PostgresSubject::on("FACTUM_POSTGRES_URL"));
factum_testing::conformance!(suite_14: PostgresSubject::on("FACTUM_POSTGRES_14_URL"));
factum_testing::conformance!(suite_18: PostgresSubject::on("FACTUM_POSTGRES_18_URL"));
