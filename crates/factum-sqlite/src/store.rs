//! The store: both traits over one file.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use factum_backend::{Foreseen, Head, Kept, Outlook, Writer, blocking};
use factum_kernel::{
    AppendBatch, AppendError, Appended, Document, DocumentStore, Durability, EventStore,
    Guarantees, KeyRange, Limits, Lineage, POLL_OWN, Page, Position, ReadQuery, Revision, ScanPage,
    ScanQuery, StoreError, StreamChange, StreamId, StreamInfo, WriteBatch, WriteError, Writers,
};
use rusqlite::Connection;
use tokio::sync::watch;

use crate::{
    append::Committer,
    cache::Snapshot,
    documents, facts, file,
    options::{Access, SqliteOptions},
    place::Place,
    pool::{self, Readers},
    read,
    transaction::Session,
    wal::Wal,
    watch::Watch,
};

/// Both halves of a store, in one SQLite file. Clones share it.
///
/// # Guarantees
/// Every law; durability is `PowerLoss`, and other processes may write to the same file: each
/// group is planned and stored under the database's own lock. What another process appends is
/// seen by every read at once, and by [`head`](EventStore::head) a tenth of a second later. No
/// runtime is needed: outside of one, the database is read on the caller's thread.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    // Before the writer, so that they are dropped first: the last connection to go must be one
    // that writes, because it brings the file in order.
    readers: Readers,
    watch: Arc<Mutex<Option<Watch>>>,
    writer: Option<Arc<Writer<Committer>>>,
    head: Head,
    limits: Limits,
    foreseen: Arc<Foreseen>,
}

impl SqliteStore {
    /// Opens a store, and makes it if it is not there.
    ///
    /// # Errors
    /// One sentence: what is wrong with which file, and what to do.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        blocking(move || Self::open_blocking(options)).await?
    }

    fn open_blocking(options: SqliteOptions) -> Result<Self, StoreError> {
        let SqliteOptions { access, clock, limits, busy_timeout, readers_max, .. } = options;
        let path = file::resolve(&options.path, access)?;
        let snapshot = |connection: &Connection| {
            pool::in_snapshot(connection, Snapshot::read).map_err(|fault| fault.in_file(connection))
        };
        if access == Access::ReadOnly {
            let connection = file::open_reader(&path, busy_timeout)?.connection;
            let head = Head::new(snapshot(&connection)?.head);
            let readers = Readers::new(Place::of(&path)?, busy_timeout, readers_max);
            let watch = Watch::start(&path, busy_timeout, head.clone())?;
            let watch = Arc::new(Mutex::new(Some(watch)));
            let foreseen = Arc::default();
            return Ok(Self { readers, watch, writer: None, head, limits, foreseen });
        }
        let lineage = Lineage::new(options.ids.uuid(clock.now()));
        let connection = file::open_writer(&path, busy_timeout, options.file_bytes_max, lineage)?;
        let head = Head::new(snapshot(&connection)?.head);
        let place = Place::of(&path)?;
        let readers = Readers::new(place.clone(), busy_timeout, readers_max);
        let session = Session::new(connection, place, Wal::new(&path, busy_timeout));
        let commit_delay = options.commit_delay;
        let foreseen = Arc::<Foreseen>::default();
        let committer = Committer { session, clock, commit_delay, foreseen: foreseen.clone() };
        let writer = Writer::spawn("factum-sqlite", committer, head.clone(), limits)?;
        let watch = Watch::start(&path, busy_timeout, head.clone())?;
        let watch = Arc::new(Mutex::new(Some(watch)));
        Ok(Self { readers, watch, writer: Some(Arc::new(writer)), head, limits, foreseen })
    }

    fn writer(&self) -> Result<&Writer<Committer>, StoreError> {
        self.writer.as_deref().ok_or_else(|| {
            StoreError::invalid("the store is opened for reading, open it without mode=read")
        })
    }

    /// Looks at the conditions of a batch before it is queued: nobody's append is to wait for that.
    async fn foresee(&self, batch: &AppendBatch) -> Result<Option<Kept>, StoreError> {
        if !Foreseen::is_worth_it(batch, self.head.position()) {
            return Ok(None);
        }
        self.limits.check_append(batch)?;
        let mut outlook = Outlook::new(batch);
        while !outlook.is_done() {
            let asked = batch.clone();
            let before = outlook.clone();
            let step = move |connection: &Connection| facts::foresee(connection, &asked, before);
            // An error comes again on the writer's thread, and is told there.
            let Ok(after) = self.readers.read(step).await else { break };
            outlook = after;
        }
        Ok(Some(self.foreseen.keep(batch, outlook.through())))
    }

    async fn page(&self, query: ReadQuery) -> Result<Page, StoreError> {
        let page = self.readers.read(move |connection| read::page(connection, &query)).await?;
        // This may be the first news of what another process has appended.
        self.head.advance(page.head);
        Ok(page)
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let writer = self.writer()?;
        let foreseen = self.foresee(&batch).await?;
        writer.append_foreseen(batch, foreseen).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        query.check()?;
        self.page(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        let stream = stream.clone();
        self.readers.read(move |connection| read::info(connection, &stream)).await
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, AppendError> {
        let stream = stream.clone();
        self.writer()?.run(0, move |committer| committer.change(&stream, change)).await?
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.head.subscribe()
    }

    fn guarantees(&self) -> Guarantees {
        let guarantees = Guarantees::new(Durability::PowerLoss, Writers::ManyProcesses);
        // A thread follows the head.
        guarantees.with_limits(self.limits).with_poll(POLL_OWN)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        self.head.wake();
        let watch = Arc::clone(&self.watch);
        let stop = move || drop(watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        blocking(stop).await?;
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
        Ok(())
    }
}

#[async_trait]
impl DocumentStore for SqliteStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        let key = Bytes::copy_from_slice(key);
        self.readers.read(move |connection| documents::get(connection, &key)).await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        self.readers.read(move |connection| documents::scan(connection, &query)).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        let writer = self.writer()?;
        self.limits.check_write(&batch)?;
        let bytes = documents::size_of(&batch);
        writer.run(bytes, move |committer| committer.write(&batch)).await?
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        let writer = self.writer()?;
        let mut left = Some(range);
        while let Some(range) = left {
            // Each step on its own, so that appends get their turn between two.
            let step = writer.run(0, move |committer| committer.clear_step(range)).await;
            left = step
                .map_err(WriteError::from)
                .and_then(|step| step)
                .map_err(documents::clear_error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
