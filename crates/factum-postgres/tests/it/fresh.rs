//! A store in a schema of its own, and appends to it.

use factum_postgres::PostgresStore;
pub(crate) use factum_testing::{
    batch::{category, event, one, stream, tagged},
    check_log, pages, positions,
};

use crate::server::Schema;

/// A store in a schema of its own, which is removed with it.
pub(crate) struct Fresh {
    pub(crate) store: PostgresStore,
    pub(crate) schema: Schema,
}

impl Fresh {
    pub(crate) async fn open() -> Self {
        let schema = Schema::new();
        Self { store: PostgresStore::open(schema.options()).await.unwrap(), schema }
    }

    /// Another handle on the same log.
    pub(crate) async fn another(&self) -> PostgresStore {
        PostgresStore::open(self.schema.options()).await.unwrap()
    }

    /// Runs statements in the schema over another program's connection.
    pub(crate) async fn run(&self, statements: &str) {
        let raw = self.schema.raw().await;
        let path = format!("SET search_path = {}", self.schema.name);
        raw.batch_execute(&format!("{path}; {statements}")).await.unwrap();
    }
}
