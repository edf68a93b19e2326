//! The channel floor: the same clients as everywhere, through a bounded channel to a thread that
//! only writes and syncs into a zero-written file, and answers by oneshot. What clients, a
//! channel and waking cost is in it; whatever a store does beyond is not.

use std::path::Path;

use crate::{
    group::{Commit, Grouped},
    load::Record,
    peer::{Peer, floor::PlainFile},
};

#[derive(Debug)]
pub(crate) struct Channel {
    grouped: Grouped,
}

impl Commit for PlainFile {
    fn commit(&mut self, group: &[Vec<Record>]) {
        self.write(group);
    }
}

impl Peer for Channel {
    async fn open(folder: &Path, events: usize) -> Self {
        Self { grouped: Grouped::start(PlainFile::create(folder, events)) }
    }

    async fn append(&self, records: Vec<Record>) {
        self.grouped.append(records).await;
    }

    async fn scan(&self) -> usize {
        unreachable!("its reads are the floor's")
    }

    async fn read_stream(&self, _stream: usize) -> usize {
        unreachable!("its reads are the floor's")
    }

    async fn close(self) {
        self.grouped.close();
    }
}
