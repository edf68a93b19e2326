//! A journal in a folder of its own, and appends to it.

use std::path::{Path, PathBuf};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, AppendError, Appended, EventStore, ExpectedVersion, NewEvent, Tag,
};
use factum_testing::batch;
pub(crate) use factum_testing::{
    batch::{new_id, stream},
    check_log, pages,
};

/// Small enough that a test goes through many segments.
pub(crate) const SEGMENT_BYTES: u32 = 16 << 10;

pub(crate) async fn open(path: &Path) -> JournalStore {
    let options = JournalOptions::new(path).with_segment_bytes(SEGMENT_BYTES);
    JournalStore::open(options).await.unwrap()
}

pub(crate) fn event(payload: &str) -> NewEvent {
    batch::event(payload).with_tag(Tag::new("branch", 7).unwrap())
}

/// Appends an event.
pub(crate) async fn append_one(store: &JournalStore) -> Result<Appended, AppendError> {
    let batch = AppendBatch::new().write(stream("one"), ExpectedVersion::Any, [event("{}")]);
    store.append(batch).await
}

/// Appends this many events, one batch each, to ten streams in turn.
pub(crate) async fn grow(store: &JournalStore, count: usize) {
    for n in 0..count {
        let stream = stream(&format!("s{}", n % 10));
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event("{\"n\":1}")]);
        store.append(batch).await.unwrap();
    }
}

/// The files of the log with this suffix, in the order of positions.
pub(crate) fn files(path: &Path, suffix: &str) -> Vec<PathBuf> {
    files_in(path, "log", suffix)
}

/// The files of a folder of the journal with this suffix, in the order of their names.
pub(crate) fn files_in(path: &Path, folder: &str, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|it| it.to_string_lossy().ends_with(suffix)).collect();
    found.sort();
    found
}
