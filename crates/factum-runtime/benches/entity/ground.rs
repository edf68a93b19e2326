//! The store that is measured: a journal of the benchmark's own, or an empty store.

use std::sync::Arc;

use factum_backend::{OpenContext, Registry, StoreUrl};
use factum_journal::JournalKind;
use factum_kernel::{Durability, Kernel, ReadQuery, SystemClock, SystemIds, TagKey};
use factum_memory::MemoryKind;
use factum_sqlite::SqliteKind;
use factum_testing::Arguments;
use tempfile::TempDir;

use super::Failure;

/// An open store, and the folder that is removed with it.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) kernel: Kernel,
    /// The kind of store.
    pub(super) store: String,
    _folder: Option<TempDir>,
}

impl Ground {
    /// Opens the store of `--store`, or else a new journal in `--disk`.
    pub(super) async fn open(place: &Place) -> Result<Self, Failure> {
        let registry = Registry::new().with(JournalKind).with(SqliteKind).with(MemoryKind);
        let (url, folder) = match &place.store {
            Some(store) => (registry.resolve(store)?, None),
            None => {
                let folder = TempDir::with_prefix_in("factum-bench-", &place.disk)?;
                (StoreUrl::of_path("journal", &folder.path().join("log")), Some(folder))
            }
        };
        let context = OpenContext::new(Arc::new(SystemClock), Arc::new(SystemIds));
        let stores = registry.open_url(&url, &context).await?;
        let kernel = Kernel::new(stores.events, stores.documents);
        let kernel = kernel.with_tag_key(TagKey::new([1; 32]));
        let page = kernel.events().read(ReadQuery::log().with_events_max(1)).await?;
        if page.head.value() > 0 {
            kernel.events().close().await?;
            return Err(format!("the log holds events, name an empty store: store={url}").into());
        }
        Ok(Self { kernel, store: url.scheme().to_owned(), _folder: folder })
    }

    /// The failures that an acknowledged append survives, as the store claims.
    pub(super) fn durability(&self) -> &'static str {
        match self.kernel.events().guarantees().durability {
            Durability::Volatile => "volatile",
            Durability::ProcessCrash => "process-crash",
            Durability::PowerLoss => "power-loss",
            Durability::Replicated => "replicated",
        }
    }
}

/// The place of the store.
#[derive(Debug)]
pub(super) struct Place {
    store: Option<String>,
    disk: std::path::PathBuf,
}

impl Place {
    /// Takes `--store` and `--disk`.
    pub(super) fn read(arguments: &mut Arguments) -> Self {
        let store = arguments.text("--store");
        let disk = arguments.text("--disk").map_or_else(std::env::temp_dir, Into::into);
        Self { store, disk }
    }
}
