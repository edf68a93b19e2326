//! A role of a test's own.

use factum_postgres::PostgresOptions;

use crate::server::{Schema, with};

/// A role of a test's own and its schema; both are removed after the test.
pub(crate) struct Role(pub(crate) String, pub(crate) Schema);

impl Role {
    /// With these settings, in which `@` stands for the role.
    pub(crate) async fn new(settings: &str) -> Self {
        Self::at(Schema::new(), settings).await
    }

    /// A role of the database that the schema is in.
    pub(crate) async fn at(schema: Schema, settings: &str) -> Self {
        let role = format!("role_{}", schema.name);
        let server = schema.raw().await;
        server
            .batch_execute(&format!("CREATE ROLE {role} LOGIN; {settings}").replace('@', &role))
            .await
            .unwrap();
        Self(role, schema)
    }

    /// The URL of the schema's database, for this role.
    pub(crate) fn url(&self) -> String {
        let database = self.1.url.rsplit_once('/').unwrap().1;
        with(&self.1.url, &self.0, database)
    }

    pub(crate) fn options(&self) -> PostgresOptions {
        PostgresOptions::parse(&self.url()).unwrap().with_schema(&self.1.name).unwrap()
    }

    pub(crate) async fn drop(self) {
        let server = self.1.raw().await;
        let drop = format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}", role = self.0);
        server.batch_execute(&drop).await.unwrap();
    }
}
