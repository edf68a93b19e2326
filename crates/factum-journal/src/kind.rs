//! Store URLs such as `journal:./data`.

use std::path::Path;

use async_trait::async_trait;
use factum_backend::{OpenContext, OpenStore, StoreUrl, Stores};
use factum_kernel::StoreError;

use crate::{
    options::{Access, JournalOptions},
    place,
    store::JournalStore,
};

/// The kind of `journal:./data`. `?mode=read` opens it for reading only, beside the process that
/// writes. `?mode=join` also allows changes, which that process makes. `?mode=existing` opens it
/// for writing, and makes no journal.
#[derive(Debug, Clone, Copy, Default)]
pub struct JournalKind;

#[async_trait]
impl OpenStore for JournalKind {
    fn scheme(&self) -> &'static str {
        "journal"
    }

    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError> {
        url.allow_options(&["mode"])?;
        let others = [("read", Access::ReadOnly), ("join", Access::Join)];
        let options = JournalOptions::new(url.file_path()?)
            .with_access(url.mode(Access::ReadWrite, &others)?)
            .with_if_absent(url.if_absent(context.if_absent))
            .with_clock(context.clock.clone())
            .with_ids(context.ids.clone());
        Ok(Stores::both(JournalStore::open(options).await?))
    }

    fn recognise(&self, path: &Path) -> Option<StoreUrl> {
        place::is_journal(path).then(|| StoreUrl::of_path(self.scheme(), path))
    }

    fn place_in(&self, folder: &Path) -> Option<StoreUrl> {
        Some(StoreUrl::of_path(self.scheme(), folder))
    }
}
