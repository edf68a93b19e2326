//! evento with its own call for writing: `append(id).original_version(n)`, which looks up the
//! stream's routing key and its version before it inserts. (Its stable series ends with 1.8; its
//! documentation describes the pre-releases of 2.0, of which this is the newest.)
//!
//! Its crate of migrations is left out, because it brings sqlx's SQLite into the build:
//! `evento.sql` holds the final table of the migrations.

use evento_core::{Aggregate, AggregateEvent};
use evento_sql::Postgres;
use sqlx_evento::{Executor, postgres::PgPoolOptions};

use crate::{
    load::stream_name,
    postgres::framework::{ACQUIRE_TIMEOUT, Event, Framework, POOL_CONNECTIONS},
};

const TABLE: &str = include_str!("evento.sql");

pub(crate) struct Evento {
    executor: Postgres,
}

#[derive(Default, bitcode::Encode)]
struct MoneyDeposited {
    note: String,
}

impl Aggregate for MoneyDeposited {
    fn aggregate_type() -> &'static str {
        "bank/Account"
    }
}

impl AggregateEvent for MoneyDeposited {
    fn event_name() -> &'static str {
        "MoneyDeposited"
    }
}

impl Framework for Evento {
    type Stream = (String, u16);

    async fn prepare(url: &str) {
        let pool = PgPoolOptions::new().max_connections(1).connect(url).await;
        let pool = pool.expect("the server takes a connection");
        pool.execute(TABLE).await.expect("a table");
    }

    async fn open(url: &str) -> Self {
        // Like `framework::pool`, with the sqlx that evento is built with.
        let options = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS)
            .min_connections(POOL_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false);
        let pool = options.connect(url).await.expect("the server takes connections");
        Self { executor: pool.into() }
    }

    fn stream(&self, stream: usize) -> Self::Stream {
        (stream_name(stream), 0)
    }

    async fn append(&self, (stream, version): &mut Self::Stream, event: Event) {
        evento_core::append(stream.as_str())
            .original_version(*version)
            .event(&MoneyDeposited { note: event.text })
            .commit(&self.executor)
            .await
            .expect("an append");
        *version += 1;
    }
}
