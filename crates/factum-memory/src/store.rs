//! The store: both traits on one log.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use factum_backend::{
    Head, IfAbsent, OpenContext, OpenStore, Precheck, Prechecked, Prechecks, StoreUrl, Stores,
    Writer,
};
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, Document, DocumentStore, Durability,
    EventStore, Guarantees, KeyRange, Limits, Lineage, Page, Position, ReadQuery, Revision,
    ScanPage, ScanQuery, StoreError, StreamChange, StreamId, StreamInfo, WriteBatch, WriteError,
    Writers,
};
use tokio::sync::watch;

use crate::{append, append::Committer, change, documents, log::Log, options::MemoryOptions, read};

/// The event store and document store in memory. Clones share their content.
///
/// # Guarantees
/// Every law holds; durability is `Volatile`: with the last clone everything is gone.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    log: Arc<RwLock<Log>>,
    writer: Arc<Writer<Committer>>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    prechecks: Arc<Prechecks>,
}

impl MemoryStore {
    /// An empty store with the default options.
    ///
    /// # Panics
    /// If the system can't start another thread.
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::new())
    }

    /// An empty store with these options.
    ///
    /// # Panics
    /// If the system can't start another thread.
    pub fn with_options(options: MemoryOptions) -> Self {
        let MemoryOptions { clock, ids, limits, commit_delay } = options;
        let lineage = Lineage::new(ids.uuid(clock.now()));
        let log = Arc::new(RwLock::new(Log::new(lineage)));
        let prechecks = Arc::<Prechecks>::default();
        let committer = Committer {
            log: log.clone(),
            clock: clock.clone(),
            commit_delay,
            prechecks: prechecks.clone(),
        };
        let writer = Writer::spawn("factum-memory", committer, Head::new(Position::ZERO), limits);
        let writer = Arc::new(writer.expect("the system has a thread for the writer"));
        Self { log, writer, clock, limits, prechecks }
    }

    /// Checks the conditions of a batch before it is queued, so that no other append waits for
    /// that.
    async fn precheck(&self, batch: &AppendBatch) -> Result<Option<Prechecked>, StoreError> {
        if !Prechecks::is_worth_it(batch, self.writer.head().position()) {
            return Ok(None);
        }
        self.limits.check_append(batch)?;
        let mut precheck = Precheck::new(batch);
        while !precheck.is_done() {
            append::precheck(&*self.readable()?, batch, &mut precheck);
            // Other tasks need this thread, and the log.
            tokio::task::yield_now().await;
        }
        Ok(Some(self.prechecks.keep(batch, precheck.through())))
    }

    fn readable(&self) -> Result<RwLockReadGuard<'_, Log>, StoreError> {
        let log = self.log.read().expect("no holder of the lock panics");
        if log.is_closed { Err(StoreError::closed()) } else { Ok(log) }
    }

    fn writable(&self) -> Result<RwLockWriteGuard<'_, Log>, StoreError> {
        let log = self.log.write().expect("no holder of the lock panics");
        if log.is_closed { Err(StoreError::closed()) } else { Ok(log) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let prechecked = self.precheck(&batch).await?;
        self.writer.append_prechecked(batch, prechecked).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        read::page(&*self.readable()?, &query)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        Ok(self.readable()?.info(stream))
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        let stream = stream.clone();
        let now = self.clock.now();
        // On the writer's thread, because a plan must not be stored over a change it hasn't seen.
        let done = self.writer.run(0, move |committer| {
            let mut log = committer.log.write().expect("no holder of the lock panics");
            change::apply(&mut log, &stream, change, now)
        });
        done.await?
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.writer.head().subscribe()
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees::new(Durability::Volatile, Writers::ThisProcess).with_limits(self.limits)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.writer.close().await;
        self.log.write().expect("no holder of the lock panics").is_closed = true;
        self.writer.head().wake();
        Ok(())
    }
}

#[async_trait]
impl DocumentStore for MemoryStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        Ok(self.readable()?.documents.get(key).cloned())
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        Ok(documents::scan(&*self.readable()?, &query))
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.limits.check_write(&batch)?;
        documents::write(&mut *self.writable()?, &batch)
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        documents::clear(&mut *self.writable()?, &range);
        Ok(())
    }
}

/// The kind of `memory:`, a new, empty store at each opening.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryKind;

#[async_trait]
impl OpenStore for MemoryKind {
    fn scheme(&self) -> &'static str {
        "memory"
    }

    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError> {
        if url.if_absent(context.if_absent) == IfAbsent::Refuse {
            return Err(StoreError::invalid(
                "a store in memory never exists before it is opened, name a store on a disk or a \
                 server",
            ));
        }
        url.allow_options(&[])?;
        if !url.path().is_empty() {
            let message = format!("a memory store has no path, say memory: alone: url={url}");
            return Err(StoreError::invalid(message));
        }
        let options = MemoryOptions::new().with_clock(context.clock.clone());
        Ok(Stores::both(MemoryStore::with_options(options.with_ids(context.ids.clone()))))
    }
}

#[cfg(test)]
mod tests;
