//! `postgres://host/database`.

use async_trait::async_trait;
use factum_backend::{OpenContext, OpenStore, StoreUrl, Stores};
use factum_kernel::StoreError;

use crate::{options::PostgresOptions, store::PostgresStore};

/// `postgres://user@host:5432/database?schema=bank`, and `postgresql://` alike.
///
/// Beside those of PostgreSQL's own clients there are the options `schema` (which log of the
/// database; `factum`), `mode` (`write`; `read` reads, also of a standby) and `connections`
/// (the most of them that read and write documents, up to 262143; 8). What is special in the user
/// and the password is percent-encoded, as [`PostgresOptions::parse`] says.
#[derive(Debug, Clone, Copy)]
pub struct PostgresKind {
    scheme: &'static str,
}

impl PostgresKind {
    /// URLs that begin with `postgres:`.
    pub fn new() -> Self {
        Self { scheme: "postgres" }
    }

    /// URLs that begin with `postgresql:`.
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
            .with_clock(context.clock.clone())
            .with_ids(context.ids.clone());
        Ok(Stores::both(PostgresStore::open(options).await?))
    }
}
