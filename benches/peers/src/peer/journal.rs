//! The journal with its defaults: its own group commit, one write and one fdatasync per group,
//! durable on power loss.

use std::path::Path;

use factum_kernel::EventStore;
use factum_journal::{JournalOptions, JournalStore};

use crate::{
    load::Record,
    peer::{Peer, factum},
};

#[derive(Debug)]
pub(crate) struct Journal {
    store: JournalStore,
}

impl Peer for Journal {
    async fn open(folder: &Path, _events: usize) -> Self {
        let options = JournalOptions::new(folder.join("journal"));
        Self { store: JournalStore::open(options).await.expect("a fresh store") }
    }

    async fn append(&self, records: Vec<Record>) {
        factum::append(&self.store, records).await;
    }

    async fn scan(&self) -> usize {
        factum::scan(&self.store).await
    }

    async fn read_stream(&self, stream: usize) -> usize {
        factum::read_stream(&self.store, stream).await
    }

    async fn close(self) {
        self.store.close().await.expect("it closes");
    }
}
