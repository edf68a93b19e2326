//! fjall, an LSM tree: one keyspace of events by position, one of each stream's positions. A group
//! is one write batch with `PersistMode::SyncAll`, which its documentation recommends for data that
//! must be durable.
//!
//! The block cache holds everything, as its documentation advises if the data fit; otherwise the
//! defaults. It has checksums of its own, so events carry none. Version numbers, checks for
//! conflicts and the like are left out, to its advantage.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{
    frame::{self, Checksum},
    group::{Commit, Grouped},
    load::{Record, stream_name},
    peer::Peer,
};

const CACHE_BYTES: u64 = 1 << 30;

pub(crate) struct Fjall {
    tables: Tables,
    grouped: Grouped,
}

#[derive(Clone)]
struct Tables {
    database: Database,
    /// From the position, big-endian, to the event.
    events: Keyspace,
    /// The stream, 0, and the position, big-endian; without a value.
    streams: Keyspace,
}

struct Writer {
    tables: Tables,
    head: u64,
}

impl Commit for Writer {
    fn commit(&mut self, group: &[Vec<Record>]) {
        let Tables { database, events, streams } = &self.tables;
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for record in group.iter().flatten() {
            self.head += 1;
            let mut value = Vec::with_capacity(frame::FRAME_BYTES);
            frame::encode(record, self.head, Checksum::LeftOut, &mut value);
            let mut key = stream_prefix(record.stream);
            key.extend(self.head.to_be_bytes());
            batch.insert(events, self.head.to_be_bytes(), value);
            batch.insert(streams, key, []);
        }
        batch.commit().expect("a commit");
    }
}

impl Peer for Fjall {
    async fn open(folder: &Path, _events: usize) -> Self {
        let database = Database::builder(folder.join("fjall")).cache_size(CACHE_BYTES).open();
        let database = database.expect("a fresh database");
        let keyspace = |name: &str| {
            database.keyspace(name, KeyspaceCreateOptions::default).expect("a keyspace")
        };
        let events = keyspace("events");
        let streams = keyspace("streams");
        let tables = Tables { database, events, streams };
        let grouped = Grouped::start(Writer { tables: tables.clone(), head: 0 });
        Self { tables, grouped }
    }

    async fn append(&self, records: Vec<Record>) {
        self.grouped.append(records).await;
    }

    async fn scan(&self) -> usize {
        let mut count = 0;
        for entry in self.tables.events.iter() {
            let value = entry.value().expect("a read");
            frame::decode(&value, Checksum::LeftOut).see();
            count += 1;
        }
        count
    }

    async fn read_stream(&self, stream: usize) -> usize {
        let mut count = 0;
        for entry in self.tables.streams.prefix(stream_prefix(stream)) {
            let key = entry.key().expect("a read");
            let position = key.last_chunk::<8>().expect("a key ends in a position");
            let value = self.tables.events.get(position).expect("a read").expect("it is there");
            frame::decode(&value, Checksum::LeftOut).see();
            count += 1;
        }
        count
    }

    async fn close(self) {
        self.grouped.close();
    }
}

/// The beginning of a stream's keys. The zero separates `account-1` from `account-10`.
fn stream_prefix(stream: usize) -> Vec<u8> {
    let mut prefix = stream_name(stream).into_bytes();
    prefix.push(0);
    prefix
}
