//! The suite that every store passes, on the oldest and the newest server there is.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use factum_core::{Clock, Monotonic, Timestamp};
use factum_postgres::PostgresStore;
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
}

#[async_trait]
impl Subject for PostgresSubject {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        let clock = ClockWithSchema { clock: setup.clock.clone(), _schema: self.schema.clone() };
        let mut options = self.schema.options().with_clock(Arc::new(clock));
        options.connections_max = 4;
        options.commit_delay = setup.commit_delay.clone();
        Ok(Stores::both(Arc::new(PostgresStore::open(options).await?)))
    }
}

/// Keeps the schema as long as the store: some cases let go of the subject before it.
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
