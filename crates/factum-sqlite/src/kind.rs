//! `sqlite:./events.db`.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use async_trait::async_trait;
use factum_backend::{OpenContext, OpenStore, StoreUrl, Stores};
use factum_core::StoreError;

use crate::{
    options::{Access, SqliteOptions},
    store::SqliteStore,
};

/// What a SQLite file begins with: <https://www.sqlite.org/fileformat.html>.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The file of a store that is made in a folder.
const FILE: &str = "events.db";

/// `sqlite:./events.db`, and with `?mode=read` for reading only, beside whoever writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct SqliteKind;

#[async_trait]
impl OpenStore for SqliteKind {
    fn scheme(&self) -> &'static str {
        "sqlite"
    }

    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError> {
        url.allow_options(&["mode"])?;
        let access = match url.option("mode") {
            None | Some("write") => Access::ReadWrite,
            Some("read") => Access::ReadOnly,
            Some(other) => {
                return Err(StoreError::invalid(format!(
                    "a store is opened with mode=read or mode=write: mode={} url={url}",
                    url.shown_option(other)
                )));
            }
        };
        // `sqlite://events.db` is how others write it; the slashes name no host here.
        let path = url.path().strip_prefix("//").unwrap_or(url.path());
        let options = SqliteOptions::new(path)
            .with_access(access)
            .with_clock(context.clock.clone())
            .with_ids(context.ids.clone());
        let store = Arc::new(SqliteStore::open(options).await?);
        Ok(Stores { events: store.clone(), documents: store })
    }

    fn recognise(&self, path: &Path) -> Option<StoreUrl> {
        let inside = path.join(FILE);
        let file = if path.is_dir() { inside.as_path() } else { path };
        is_database(file).then(|| StoreUrl::of_path(self.scheme(), file))
    }

    fn place_in(&self, folder: &Path) -> Option<StoreUrl> {
        Some(StoreUrl::of_path(self.scheme(), &folder.join(FILE)))
    }
}

fn is_database(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *MAGIC
}
