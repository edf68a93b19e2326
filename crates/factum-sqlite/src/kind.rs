//! Store URLs such as `sqlite:./events.db`.

use std::path::Path;

use async_trait::async_trait;
use factum_backend::{OpenContext, OpenStore, StoreUrl, Stores};
use factum_kernel::StoreError;

use crate::{
    file,
    options::{Access, SqliteOptions},
    store::SqliteStore,
};

/// The file of a store in a folder.
const FILE: &str = "events.db";

/// The kind of `sqlite:./events.db`. `?mode=read` opens it for reading only, beside the processes
/// that write. `?mode=existing` opens it for writing, and makes no file.
#[derive(Debug, Clone, Copy, Default)]
pub struct SqliteKind;

#[async_trait]
impl OpenStore for SqliteKind {
    fn scheme(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError> {
        url.allow_options(&["mode"])?;
        let options = SqliteOptions::new(url.file_path()?)
            .with_access(url.mode(Access::ReadWrite, &[("read", Access::ReadOnly)])?)
            .with_if_absent(url.if_absent(context.if_absent))
            .with_clock(context.clock.clone())
            .with_ids(context.ids.clone());
        Ok(Stores::both(SqliteStore::open(options).await?))
    }

    fn recognise(&self, path: &Path) -> Option<StoreUrl> {
        let found = match path.is_dir() {
            true => file::alone_in(path, FILE)?,
            false => file::is_database(path).then(|| path.to_owned())?,
        };
        Some(StoreUrl::of_path(self.scheme(), &found))
    }

    fn place_in(&self, folder: &Path) -> Option<StoreUrl> {
        Some(StoreUrl::of_path(self.scheme(), &folder.join(FILE)))
    }
}
