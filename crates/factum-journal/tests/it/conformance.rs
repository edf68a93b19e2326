//! The suite that every store passes, run twice: with segments that hold a whole case, and with
//! segments so small that every case goes through many.

use std::sync::Arc;

use async_trait::async_trait;
use factum_journal::{Access, JournalOptions, JournalStore};
use factum_testing::conformance::{OpenError, Setup, Stores, Subject};
use tempfile::TempDir;

struct JournalSubject {
    folder: TempDir,
    segment_bytes: u32,
    document_segment_bytes: u32,
}

impl JournalSubject {
    fn new(segment_bytes: u32, document_segment_bytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, segment_bytes, document_segment_bytes }
    }

    fn options(&self, setup: &Setup) -> JournalOptions {
        let mut options = JournalOptions::new(self.folder.path())
            .with_clock(setup.clock.clone())
            .with_segment_bytes(self.segment_bytes)
            .with_document_segment_bytes(self.document_segment_bytes);
        options.commit_delay = setup.commit_delay.clone();
        options
    }
}

#[async_trait]
impl Subject for JournalSubject {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        Ok(Stores::both(Arc::new(JournalStore::open(self.options(setup)).await?)))
    }

    async fn open_to_read(&self, setup: &Setup) -> Result<Option<Stores>, OpenError> {
        let options = self.options(setup).with_access(Access::ReadOnly);
        Ok(Some(Stores::both(Arc::new(JournalStore::open(options).await?))))
    }
}

factum_testing::conformance!(suite: JournalSubject::new(64 << 20, 16 << 20));
factum_testing::conformance!(small_segments: JournalSubject::new(4 << 10, 1 << 10));
