//! redb, a copy-on-write B-tree: one table of events by position, one of each stream's positions. A
//! group is one write transaction with `Durability::Immediate`, its default and the only durable
//! mode.
//!
//! Its default cache of 1 GiB holds everything. Its pages have checksums, which it compares when
//! it repairs a file, so events carry none.
//! Version numbers, checks for conflicts and the like are left out, to its advantage.

use std::{path::Path, sync::Arc};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    frame::{self, Checksum},
    group::{Commit, Grouped},
    load::{Record, stream_name},
    peer::Peer,
};

const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// Stream and position.
const STREAMS: TableDefinition<'_, (&str, u64), ()> = TableDefinition::new("streams");

#[derive(Debug)]
pub(crate) struct Redb {
    database: Arc<Database>,
    grouped: Grouped,
}

struct Writer {
    database: Arc<Database>,
    head: u64,
    buffer: Vec<u8>,
}

impl Writer {
    fn store(&mut self, group: &[Vec<Record>]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut events = transaction.open_table(EVENTS)?;
            let mut streams = transaction.open_table(STREAMS)?;
            for record in group.iter().flatten() {
                self.head += 1;
                self.buffer.clear();
                frame::encode(record, self.head, Checksum::LeftOut, &mut self.buffer);
                events.insert(self.head, &*self.buffer)?;
                streams.insert((&*stream_name(record.stream), self.head), ())?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Commit for Writer {
    fn commit(&mut self, group: &[Vec<Record>]) {
        self.store(group).expect("a commit");
    }
}

impl Redb {
    fn scan_all(&self) -> Result<usize, redb::Error> {
        let mut count = 0;
        for entry in self.database.begin_read()?.open_table(EVENTS)?.iter()? {
            let (_, value) = entry?;
            frame::decode(value.value(), Checksum::LeftOut).see();
            count += 1;
        }
        Ok(count)
    }

    fn scan_stream(&self, stream: usize) -> Result<usize, redb::Error> {
        let transaction = self.database.begin_read()?;
        let events = transaction.open_table(EVENTS)?;
        let streams = transaction.open_table(STREAMS)?;
        let name = stream_name(stream);
        let mut count = 0;
        for entry in streams.range((&*name, 0)..=(&*name, u64::MAX))? {
            let (_, position) = entry?.0.value();
            let value = events.get(position)?.expect("it is there");
            frame::decode(value.value(), Checksum::LeftOut).see();
            count += 1;
        }
        Ok(count)
    }
}

impl Peer for Redb {
    async fn open(folder: &Path, _events: usize) -> Self {
        let database = Database::create(folder.join("events.redb")).expect("a fresh database");
        let database = Arc::new(database);
        let writer = Writer { database: database.clone(), head: 0, buffer: Vec::new() };
        Self { database, grouped: Grouped::start(writer) }
    }

    async fn append(&self, records: Vec<Record>) {
        self.grouped.append(records).await;
    }

    async fn scan(&self) -> usize {
        self.scan_all().expect("a scan")
    }

    async fn read_stream(&self, stream: usize) -> usize {
        self.scan_stream(stream).expect("a read")
    }

    async fn close(self) {
        self.grouped.close();
    }
}
