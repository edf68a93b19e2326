//! A store in a folder of its own, and appends to it.

use std::path::Path;

use factum_kernel::{
    AppendBatch, Category, Clock, Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent,
    StreamId, SystemClock, SystemIds, Tag,
};
use factum_sqlite::{SqliteOptions, SqliteStore};
pub(crate) use factum_testing::{check_log, pages, positions};
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

pub(crate) fn new_id() -> EventId {
    EventId::new(SystemIds.uuid(SystemClock.now()))
}

pub(crate) fn event(payload: &str) -> NewEvent {
    let name = EventName::from_static("account.opened");
    NewEvent::new(new_id(), name, Content::Json, payload.to_owned())
}

pub(crate) fn stream(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

pub(crate) fn one(key: &str) -> AppendBatch {
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event("{}")])
}

pub(crate) fn tagged(key: &str, tags: &[&str]) -> AppendBatch {
    let event =
        tags.iter().fold(event("{}"), |event, tag| event.with_tag(Tag::parse(tag).unwrap()));
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event])
}

pub(crate) fn category() -> Category {
    Category::new("account").unwrap()
}
