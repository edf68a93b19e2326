//! Read models in tables of the user's own, in a SQLite file.

mod build_file;
pub(crate) mod fault;
mod file;
mod transaction;

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_consumer::{ConsumerName, Fence, HandleError, Opened, Save, Target, TargetError};
use rusqlite::{Connection, InterruptHandle};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use self::{build_file::BuildFile, transaction::ENDED};

pub use transaction::SqliteTx;

/// Read models in tables of one's own, in a SQLite file: handlers write through rusqlite, and the
/// checkpoint is stored in the same transaction, so each event takes effect exactly once. The file
/// is another than the events'.
///
/// Handlers run on a thread where waiting for the disk holds up nobody else, a batch at a time.
/// They are synchronous between their awaits, of which they best have none. The tables of the
/// progress are `factum_consumer` and `factum_dead_letter`. Read models that share a file wait for
/// one another's batches.
///
/// # Guarantees
/// - A batch is one transaction, begun `IMMEDIATE`, in a file with a write-ahead log: readers see
///   whole batches, wait for nobody, and hold nobody up.
/// - The checkpoint moves only where nobody else has moved it.
/// - The file's being locked for more than five seconds, a full disk and an error of it are no
///   event's fault: the batch is tried again, as often as it takes.
/// - A statement that runs when its event's time is over is interrupted. A handler that never
///   returns keeps the file locked until the process ends.
///
/// ```
/// use factum_kernel::RecordedEvent;
/// use factum_consumer::HandleError;
/// use factum_projection::{Projection, SqliteTarget, SqliteTx};
/// use factum_testing::bank::AccountEvent;
///
/// struct Totals;
///
/// impl Projection for Totals {
///     const NAME: &'static str = "totals";
///     type Event = AccountEvent;
///     type Target = SqliteTarget;
///
///     async fn project(
///         &self,
///         event: AccountEvent,
///         recorded: &RecordedEvent,
///         tx: &mut SqliteTx,
///     ) -> Result<(), HandleError> {
///         let AccountEvent::Deposited { cents } = event else { return Ok(()) };
///         let sql = "INSERT INTO totals VALUES (?1, ?2)
///                    ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents";
///         let cents = i64::try_from(cents)?;
///         tx.prepare_cached(sql)?.execute((recorded.stream().key(), cents))?;
///         Ok(())
///     }
/// }
///
/// let target = SqliteTarget::new("./totals.db")
///     .with_setup("CREATE TABLE IF NOT EXISTS totals (account TEXT PRIMARY KEY, cents INTEGER)")
///     .with_clear("DELETE FROM totals");
/// # drop(target);
/// ```
#[must_use]
pub struct SqliteTarget {
    path: PathBuf,
    synchronous: SqliteSynchronous,
    setup: Option<&'static str>,
    clear: Option<&'static str>,
    /// None: the file is the user's to share.
    build: Option<BuildFile>,
    /// The connection between two batches.
    idle: Arc<Mutex<Option<Connection>>>,
    /// Ends the statement that the last batch is at.
    interrupt: Mutex<Option<Arc<InterruptHandle>>>,
}

/// When a batch is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SqliteSynchronous {
    /// When it is committed.
    #[default]
    Full,
    /// Later: a power cut may take the last batches back, and their checkpoints with them. They
    /// are projected again, so each event still takes effect once; but what
    /// [`wait_for`](factum_consumer::ConsumerHandle::wait_for) has waited for may be gone for a while.
    Normal,
}

impl SqliteTarget {
    /// Read models in this file, which is made at the first start if it is not there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            synchronous: SqliteSynchronous::Full,
            setup: None,
            clear: None,
            build: None,
            idle: Arc::default(),
            interrupt: Mutex::default(),
        }
    }

    /// One build of a read model, for [`Projections::maintain`](crate::Projections::maintain): its
    /// tables are in a file of their own in this folder, `totals@2.1.db`, so that the next build is
    /// made beside it.
    ///
    /// The file is made when the build begins and removed when it is cleared, which
    /// [`with_clear`](Self::with_clear) has no part in. A reader that has it open reads on, and
    /// keeps its space until it closes it. A file that has the name already and was not made by
    /// the build is left alone: the build does not start. The folder belongs to one log.
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum_consumer::{ConsumerOptions, Consumers, HandleError};
    /// use factum_projection::{ProjectionFn, Projections};
    /// use factum_projection::{SqliteTarget, SqliteTx};
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// const SETUP: &str = "CREATE TABLE IF NOT EXISTS owners (owner TEXT)";
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
    /// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
    /// # let folder = tempfile::tempdir()?;
    /// # let folder = folder.path().to_owned();
    /// let owners = ProjectionFn::new("owners", 1, |event, _, tx: &mut SqliteTx| {
    ///     if let AccountEvent::Opened { owner, .. } = event {
    ///         tx.execute("INSERT INTO owners VALUES (?1)", [owner])?;
    ///     }
    ///     Ok(())
    /// });
    /// let targets = move |build: &_| SqliteTarget::of_build(&folder, build).with_setup(SETUP);
    /// let owners =
    ///     Consumers::new(kernel).maintain_fn(owners, targets, ConsumerOptions::new()).await?;
    ///
    /// # let open =
    /// #     AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    /// # let position = accounts.execute("ada", &open).await?.position.expect("it is an event");
    /// owners.wait_for(position, Duration::from_secs(5)).await?;
    /// owners.rebuild().await?.done().await?;
    /// let reader = owners.reader().await?;
    /// let owner: String = reader.query_row("SELECT owner FROM owners", [], |row| row.get(0))?;
    /// assert_eq!(owner, "Ada");
    /// # Ok(()) }
    /// ```
    pub fn of_build(folder: impl AsRef<Path>, build: &ConsumerName) -> Self {
        let build = BuildFile::new(build);
        Self { build: Some(build.clone()), ..Self::new(build.path(folder.as_ref())) }
    }

    /// The file that the tables are in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets when a batch is on the disk.
    pub fn with_synchronous(mut self, synchronous: SqliteSynchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets statements that make the read model's tables. They run at every start, and after an
    /// error of the file, so they have to be repeatable: `CREATE TABLE IF NOT EXISTS`.
    pub fn with_setup(mut self, statements: &'static str) -> Self {
        self.setup = Some(statements);
        self
    }

    /// Sets statements that empty the read model's tables: [`Target::clear`] is refused without,
    /// but for a build's.
    pub fn with_clear(mut self, statements: &'static str) -> Self {
        self.clear = Some(statements);
        self
    }

    /// A new connection to read the model by, beside the projection. It blocks, so an async
    /// function uses it on a thread for that: `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// Those of SQLite. The file has to be there: it is made when the projection starts.
    pub fn reader(&self) -> Result<Connection, rusqlite::Error> {
        file::open_reader(&self.path)
    }

    async fn begin_waiting(&self) -> Result<SqliteTx, TargetError> {
        let idle = self.idle.clone();
        let path = self.path.clone();
        let synchronous = self.synchronous;
        // A build's is there, or it is cleared.
        let is_made = self.build.is_none();
        on_a_thread(move || {
            let connection = match transaction::take(&idle) {
                Some(connection) => connection,
                None => file::open_writer(&path, synchronous, is_made)?,
            };
            SqliteTx::begin(connection, &idle, file::BUSY_TIMEOUT).map_err(fault::before_commit)
        })
        .await
    }

    fn check(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.build.as_ref().map_or(Ok(()), |build| build.check(consumer))
    }

    fn interrupt(&self) -> MutexGuard<'_, Option<Arc<InterruptHandle>>> {
        self.interrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for SqliteTarget {
    type Tx = SqliteTx;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.check(consumer)?;
        let idle = self.idle.clone();
        let path = self.path.clone();
        let synchronous = self.synchronous;
        let consumer = consumer.clone();
        let setup = self.setup;
        let build = self.build.clone();
        on_a_thread(move || {
            // Whatever state it is in.
            drop(transaction::take(&idle));
            if let Some(build) = &build {
                build.prepare(&path)?;
            }
            let mut connection = file::open_writer(&path, synchronous, true)?;
            let build = build.as_ref();
            let opened = file::make(&mut connection, consumer.as_str(), (setup, build))?;
            build.inspect(|build| build.was_made());
            transaction::give(&idle, connection);
            Ok(opened)
        })
        .await
    }

    async fn look(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let path = self.path.clone();
        let consumer = consumer.clone();
        on_a_thread(move || file::look(&path, consumer.as_str())).await
    }

    async fn begin(&self, _: &ConsumerName) -> Result<SqliteTx, TargetError> {
        // Where nobody else has the lock it is had at once, and no thread need be changed.
        let at_once = transaction::take(&self.idle)
            .and_then(|connection| SqliteTx::begin(connection, &self.idle, Duration::ZERO).ok());
        let tx = match at_once {
            Some(tx) => tx,
            None => self.begin_waiting().await?,
        };
        *self.interrupt() = Some(Arc::new(tx.get_interrupt_handle()));
        Ok(tx)
    }

    async fn commit(
        &self,
        consumer: &ConsumerName,
        tx: SqliteTx,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let consumer = consumer.clone();
        on_a_thread(move || tx.commit(consumer.as_str(), &save)).await
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.check(consumer)?;
        if let Some(build) = self.build.clone() {
            let path = self.path.clone();
            let synchronous = self.synchronous;
            drop(transaction::take(&self.idle));
            return on_a_thread(move || build.remove(&path, synchronous)).await;
        }
        let Some(clear) = self.clear else {
            return Err(fault::refused(
                "the tables of a read model are its user's, say how to empty them by with_clear",
            ));
        };
        let tx = self.begin(consumer).await?;
        let whole = consumer.whole();
        on_a_thread(move || tx.clear(whole.as_str(), clear)).await
    }

    /// On a thread of the runtime's that may block.
    fn spawn<T: Send + 'static>(
        &self,
        handling: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (awaited, left) = oneshot::channel();
        let awaited = Awaited { interrupt: self.interrupt().clone(), _tells: awaited };
        let runtime = Handle::current();
        let thread = spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = left => None,
                    done = handling => Some(done),
                }
            })
        });
        tokio::spawn(async move {
            let ended = thread.await;
            awaited.disarm();
            match ended {
                Ok(Some(done)) => done,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime ends.
                Ok(None) | Err(_) => std::future::pending().await,
            }
        })
    }

    async fn explain(_: &mut SqliteTx, error: &HandleError) -> Option<&'static str> {
        fault::is_forbidden_commit(&**error).then_some(ENDED)
    }

    fn has_ended(tx: &SqliteTx) -> Option<&'static str> {
        tx.has_ended().then_some(ENDED)
    }
}

impl fmt::Debug for SqliteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTarget")
            .field("path", &self.path)
            .field("synchronous", &self.synchronous)
            .finish_non_exhaustive()
    }
}

/// Somebody waits for a batch; dropped otherwise than at its end, it ends the statement at hand
/// and tells the thread that nobody does.
struct Awaited {
    interrupt: Option<Arc<InterruptHandle>>,
    _tells: oneshot::Sender<()>,
}

impl Awaited {
    fn disarm(mut self) {
        self.interrupt = None;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt();
        }
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TargetError> + Send + 'static,
) -> Result<T, TargetError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(TargetError::Unknown(Arc::new(error))),
    }
}
