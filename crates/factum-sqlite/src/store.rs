//! The store: both traits on one file.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use factum_backend::{Head, Precheck, Prechecked, Prechecks, Writer, blocking};
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Document, DocumentStore, Durability,
    EventStore, Guarantees, KeyRange, Limits, Lineage, POLL_OWN, Page, Position, ReadQuery,
    Revision, ScanPage, ScanQuery, StoreError, StreamChange, StreamId, StreamInfo, WriteBatch,
    WriteError, Writers,
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

/// The event store and document store in one SQLite file. Clones share it.
///
/// # Guarantees
/// Every law holds; durability is `PowerLoss`. Other processes may write to the same file: each
/// group is planned and stored under the database's own lock. Every read sees the appends of other
/// processes at once; [`head`](EventStore::head) shows them a tenth of a second later. No runtime
/// is needed: without one, the database is read on the caller's thread.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    // Before the writer, so that they are dropped first: the last connection to close must be one
    // that writes, because it brings the file in order.
    readers: Readers,
    watch: Arc<Mutex<Option<Watch>>>,
    writer: Option<Arc<Writer<Committer>>>,
    head: Head,
    limits: Limits,
    prechecks: Arc<Prechecks>,
}

impl SqliteStore {
    /// Opens a store. If there is none, makes it or fails, as the options say.
    ///
    /// # Errors
    /// The error names the file, what is wrong with it, and the remedy.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        blocking(move || Self::open_blocking(options)).await?
    }

    fn open_blocking(options: SqliteOptions) -> Result<Self, StoreError> {
        let path = file::resolve(&options)?;
        let SqliteOptions { access, limits, busy_timeout, readers_max, .. } = options;
        let snapshot = |connection: &Connection| {
            pool::in_snapshot(connection, Snapshot::read).map_err(|fault| fault.in_file(connection))
        };
        if access == Access::ReadOnly {
            let connection = file::open_reader(&path, busy_timeout)?.connection;
            let head = Head::new(snapshot(&connection)?.head);
            let readers = Readers::new(Place::of(&path)?, busy_timeout, readers_max);
            let watch = Watch::start(&path, busy_timeout, head.clone())?;
            let watch = Arc::new(Mutex::new(Some(watch)));
            let prechecks = Arc::default();
            return Ok(Self { readers, watch, writer: None, head, limits, prechecks });
        }
        let lineage = Lineage::new(options.ids.uuid(options.clock.now()));
        let connection = file::open_writer(&path, &options, lineage)?;
        let head = Head::new(snapshot(&connection)?.head);
        let place = Place::of(&path)?;
        let readers = Readers::new(place.clone(), busy_timeout, readers_max);
        let session = Session::new(connection, place, Wal::new(&path, busy_timeout));
        let SqliteOptions { clock, commit_delay, .. } = options;
        let prechecks = Arc::<Prechecks>::default();
        let committer = Committer { session, clock, commit_delay, prechecks: prechecks.clone() };
        let writer = Writer::spawn("factum-sqlite", committer, head.clone(), limits)?;
        let watch = Watch::start(&path, busy_timeout, head.clone())?;
        let watch = Arc::new(Mutex::new(Some(watch)));
        Ok(Self { readers, watch, writer: Some(Arc::new(writer)), head, limits, prechecks })
    }

    fn writer(&self) -> Result<&Writer<Committer>, StoreError> {
        self.writer.as_deref().ok_or_else(|| {
            StoreError::invalid("the store is opened for reading, open it without mode=read")
        })
    }

    /// Checks the conditions of a batch before it is queued, so that no other append waits for
    /// that.
    async fn precheck(&self, batch: &AppendBatch) -> Result<Option<Prechecked>, StoreError> {
        if !Prechecks::is_worth_it(batch, self.head.position()) {
            return Ok(None);
        }
        self.limits.check_append(batch)?;
        let mut precheck = Precheck::new(batch);
        while !precheck.is_done() {
            let asked = batch.clone();
            let before = precheck.clone();
            let step = move |connection: &Connection| facts::precheck(connection, &asked, before);
            // The error recurs on the writer's thread, and is returned from there.
            let Ok(after) = self.readers.read(step).await else { break };
            precheck = after;
        }
        Ok(Some(self.prechecks.keep(batch, precheck.through())))
    }

    async fn page(&self, query: ReadQuery) -> Result<Page, StoreError> {
        let page = self.readers.read(move |connection| read::page(connection, &query)).await?;
        // This may be the first news of another process's append.
        self.head.advance(page.head);
        Ok(page)
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let writer = self.writer()?;
        let prechecked = self.precheck(&batch).await?;
        writer.append_prechecked(batch, prechecked).await
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
    ) -> Result<StreamInfo, ChangeError> {
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
            // Each step is a call of its own, so that appends get their turn between two.
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
