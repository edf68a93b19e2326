//! Factum on SQLite with its defaults: its own group commit, one transaction per group, WAL with
//! `synchronous = FULL`, durable on power loss.

use std::path::Path;

use factum_kernel::EventStore;
use factum_sqlite::{SqliteOptions, SqliteStore};

use crate::{
    load::Record,
    peer::{Peer, factum},
};

#[derive(Debug)]
pub(crate) struct Sqlite {
    store: SqliteStore,
}

impl Peer for Sqlite {
    async fn open(folder: &Path, _events: usize) -> Self {
        let options = SqliteOptions::new(folder.join("events.db"));
        Self { store: SqliteStore::open(options).await.expect("a fresh store") }
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
