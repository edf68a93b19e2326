//! A store in a folder of its own, and appends to it.

use std::path::Path;

use factum_sqlite::{SqliteOptions, SqliteStore};
pub(crate) use factum_testing::{
    batch::{category, event, one, stream, tagged},
    check_log, pages, positions,
};
use tempfile::TempDir;

/// A store in a folder of its own, which is removed with it.
pub(crate) struct Fresh {
    pub(crate) store: SqliteStore,
    pub(crate) folder: TempDir,
}

impl Fresh {
    pub(crate) async fn open() -> Self {
        Self::with(|options| options).await
    }

    pub(crate) async fn with(set: impl FnOnce(SqliteOptions) -> SqliteOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = set(SqliteOptions::new(folder.path().join("events.db")));
        Self { store: SqliteStore::open(options).await.unwrap(), folder }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("events.db")
    }

    /// A connection of another program.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        raw(&self.path())
    }
}

pub(crate) fn raw(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

pub(crate) async fn reopen(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::new(path)).await.unwrap()
}
