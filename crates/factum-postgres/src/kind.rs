//! Store URLs such as `postgres://host/database`.

use async_trait::async_trait;
use factum_backend::{OpenContext, OpenStore, StoreUrl, Stores};
use factum_kernel::StoreError;

use crate::{options::PostgresOptions, store::PostgresStore};

/// The kind of `postgres://user@host:5432/database?schema=bank`, and of `postgresql://`.
///
/// Besides the options of PostgreSQL's own clients there are three. `schema`: the log in the
/// database (default `factum`). `mode`: `write`, `existing`, which also writes and makes no log, or
/// `read`, which also works on a standby (default `write`). `connections`: the most connections
/// that read and write documents, up to 262143 (default 8). Special characters in the user and the
/// password are percent-encoded, as [`PostgresOptions::parse`] describes.
#[derive(Debug, Clone, Copy)]
pub struct PostgresKind {
    scheme: &'static str,
}

impl PostgresKind {
    /// The kind of URLs that begin with `postgres:`.
    pub fn new() -> Self {
        Self { scheme: "postgres" }
    }

    /// The kind of URLs that begin with `postgresql:`.
    pub fn spelt_out() -> Self {
        Self { scheme: "postgresql" }
    }
}

impl Default for PostgresKind {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl OpenStore for PostgresKind {
    fn scheme(&self) -> &'static str {
        self.scheme
    }

    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError> {
        let options = PostgresOptions::of_url(url)?
            .with_if_absent(url.if_absent(context.if_absent))
            .with_clock(context.clock.clone())
            .with_ids(context.ids.clone());
        Ok(Stores::both(PostgresStore::open(options).await?))
    }
}
