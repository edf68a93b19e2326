//! The channel floor: the same clients as everywhere, with a bounded channel to a thread. The
//! thread only writes and syncs into a zero-written file, and answers by oneshot. This includes the
//! cost of clients, a channel and waking, and leaves out everything else that a store does.

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
