//! The store: both traits on one schema of a database.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use factum_backend::{Head, Writer};
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, Document, DocumentStore, Durability,
    EventStore, Guarantees, IdSource, KeyRange, Limits, Lineage, POLL_OWN, Page, Position,
    ReadQuery, Revision, ScanPage, ScanQuery, StoreError, StreamChange, StreamId, StreamInfo,
    WriteBatch, WriteError, Writers,
};
use tokio::{sync::watch, task};
use tokio_postgres::types::Type;

use crate::{
    append::{Committer, Delay},
    documents, error,
    link::{Dialer, check_runtime, get},
    options::{Access, PostgresOptions},
    pool::Pool,
    read, schema,
    session::Session,
    statement::Statements,
    watch::{LOOK_EVERY, Signals, Watch, Watched},
};

/// The event store and document store in one schema of a PostgreSQL database. Clones share it.
///
/// # Guarantees
/// Every law holds. Durability is `PowerLoss` if the server syncs (`fsync` and `full_page_writes`
/// on), else `ProcessCrash`. Other processes may write to the same log: an advisory lock of the
/// database serialises groups. Every read sees the appends of other processes at once.
/// [`head`](EventStore::head) shows them some milliseconds later, or within a second behind a
/// pooler without `LISTEN`.
///
/// A process has at most [`connections_max`](PostgresOptions::connections_max) connections and two
/// more: the writer's and the listener's. A connection that was not used for
/// [`idle_timeout`](PostgresOptions::idle_timeout) is closed, except for the listener's.
///
/// # Cancel safety
/// When the caller of a read stops waiting, its statement is cancelled. Appends, changes and writes
/// of documents go on without their callers.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(crate) pool: Pool,
    pub(crate) statements: Arc<Statements>,
    watch: Arc<Mutex<Option<Watch>>>,
    writer: Option<Arc<Writer<Committer>>>,
    head: Head,
    pub(crate) limits: Limits,
    durability: Durability,
    pub(crate) lock_ms: i32,
    /// The channel on which other processes are notified of appends.
    pub(crate) channel: String,
    pub(crate) clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl PostgresStore {
    /// Opens a log. If there is none, makes it and its schema or fails, as the options say.
    ///
    /// Needs a tokio runtime with I/O and time, and so do reads, documents and closing: without one
    /// they are `Invalid`. A connection for reading is driven by the runtime that first needed it.
    ///
    /// # Errors
    /// The error names the server, database or schema, what is wrong with it, and the remedy.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        let dialer = Dialer::new(&options)?;
        let found = schema::prepare(&dialer, &options).await?;
        let statements = Arc::new(Statements::new(&options.schema));
        let pool = Pool::new(dialer.clone(), options.connections_max);
        let head = Head::new(read::end(&pool, &statements).await?.head);
        let signals = Signals::default();
        let lock_ms = i32::try_from(options.lock_timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        let is_writer = options.access == Access::ReadWrite;
        let writer = if is_writer {
            let committer = Committer {
                session: Session::new(dialer.clone()),
                statements: Arc::clone(&statements),
                clock: Arc::clone(&options.clock),
                head: head.clone(),
                seen: None,
                signals: signals.clone(),
                lock_ms,
                idle_timeout: options.idle_timeout,
                commit_delay: Delay(options.commit_delay.clone()),
            };
            let writer = Writer::spawn("factum-postgres", committer, head.clone(), options.limits)?;
            Some(Arc::new(writer))
        } else {
            None
        };
        let channel = format!("factum_{}", options.schema);
        let watch = Watch::start(Watched {
            dialer,
            statements: Arc::clone(&statements),
            channel: channel.clone(),
            head: head.clone(),
            signals,
            pool: pool.clone(),
            idle_looks_max: looks(options.idle_timeout),
        })?;
        let is_durable = found.is_durable;
        Ok(Self {
            pool,
            statements,
            watch: Arc::new(Mutex::new(Some(watch))),
            writer,
            head,
            limits: options.limits,
            durability: if is_durable { Durability::PowerLoss } else { Durability::ProcessCrash },
            lock_ms,
            channel,
            clock: options.clock,
            ids: options.ids,
        })
    }

    /// Gives the log a new lineage, and returns it. Run it once after the database was restored
    /// from a backup, before any consumer reads it. Consumers with checkpoints of the old history
    /// then stop with `Diverged` instead of continuing in another one.
    ///
    /// # Errors
    /// Those of the store. After an unknown outcome it can be repeated.
    pub async fn renew_lineage(&self) -> Result<Lineage, StoreError> {
        self.writer()?;
        let lineage = Lineage::new(self.ids.uuid(self.clock.now()));
        let parameters = [(&self.lock_ms as _, Type::INT4), (&lineage.as_uuid() as _, Type::UUID)];
        let rows = self.pool.ask(&self.statements.renew_lineage, &parameters).await;
        let rows = rows.map_err(error::of_read)?;
        // The answer is the old lineage, and proves that there is a log.
        get::<uuid::Uuid>(rows.first().ok_or_else(documents::no_row)?, 0)?;
        Ok(lineage)
    }

    pub(crate) fn writer(&self) -> Result<&Writer<Committer>, StoreError> {
        if self.pool.is_closed() {
            return Err(StoreError::closed());
        }
        self.writer.as_deref().ok_or_else(|| {
            StoreError::invalid("the store is opened for reading, open it without mode=read")
        })
    }
}

/// The number of the listener's looks in this time, at least one.
fn looks(time: Duration) -> u32 {
    let looks = time.as_millis() / LOOK_EVERY.as_millis();
    u32::try_from(looks).unwrap_or(u32::MAX).max(1)
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.writer()?.append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        query.check()?;
        let known = self.head.position();
        let page = read::page(&self.pool, &self.statements, &query).await?;
        // This may be the first news of another process's append, or of another server.
        self.head.answered(known, page.head);
        Ok(page)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        read::info(&self.pool, &self.statements, stream).await
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
        let guarantees = Guarantees::new(self.durability, Writers::ManyProcesses);
        // The listener follows the head.
        guarantees.with_limits(self.limits).with_poll(POLL_OWN)
    }

    async fn close(&self) -> Result<(), StoreError> {
        check_runtime()?;
        self.pool.close().await;
        self.head.wake();
        if let Some(writer) = &self.writer {
            writer.close().await;
        }
        let watch = Arc::clone(&self.watch);
        let stop = move || drop(watch.lock().unwrap_or_else(PoisonError::into_inner).take());
        task::spawn_blocking(stop)
            .await
            .map_err(|e| StoreError::internal("the closing was cut off").with_source(e))
    }
}

#[async_trait]
impl DocumentStore for PostgresStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        documents::get_one(&self.pool, &self.statements, key).await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        documents::scan(&self.pool, &self.statements, &query).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.writer()?;
        self.limits.check_write(&batch)?;
        documents::write(&self.pool, &self.statements, &batch, self.lock_ms).await
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        self.writer()?;
        documents::clear(&self.pool, &self.statements, &range, self.lock_ms).await
    }
}
