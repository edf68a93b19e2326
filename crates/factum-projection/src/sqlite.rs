//! Read models in the user's own tables, in a SQLite file.

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

/// Read models in the user's own tables, in a SQLite file. Handlers write through rusqlite, and the
/// checkpoint is stored in the same transaction, so each event takes effect exactly once. The file
/// must not be the one that contains the events.
///
/// Each batch runs on a thread that may block while it waits for the disk. Handlers should not
/// await anything. The tables of the progress are `factum_consumer` and `factum_dead_letter`. Read
/// models in one file wait for each other's batches.
///
/// # Guarantees
/// - A batch is one transaction, begun `IMMEDIATE`, in a file with a write-ahead log: readers see
///   whole batches, never wait, and never delay a batch.
/// - The checkpoint moves only if no other process has moved it.
/// - A file that is locked for more than five seconds, a full disk and an error of the disk count
///   as no event's failure: the batch is tried again until it succeeds.
/// - A statement that still runs when its event's time is over is interrupted. A handler that never
///   returns keeps the file locked until the process ends.
///
/// ```
/// use factum_kernel::{Aggregate, RecordedEvent};
/// use factum_consumer::HandleError;
/// use factum_projection::{Projection, SqliteTarget, SqliteTx};
/// use factum_testing::bank::{Account, AccountEvent};
///
/// struct Totals;
///
/// impl Projection for Totals {
///     const NAME: &'static str = "totals";
///     const CATEGORIES: &[&str] = &[Account::CATEGORY];
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
///
///     async fn forget(
///         &self,
///         deletion: &RecordedEvent,
///         tx: &mut SqliteTx,
///     ) -> Result<(), HandleError> {
///         let sql = "DELETE FROM totals WHERE account = ?1";
///         tx.prepare_cached(sql)?.execute([deletion.stream().key()])?;
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
    /// The build whose file this is. `None`: a file that read models may share.
    build: Option<BuildFile>,
    /// The connection between two batches.
    idle: Arc<Mutex<Option<Connection>>>,
    /// Interrupts the running statement of the last batch.
    interrupt: Mutex<Option<Arc<InterruptHandle>>>,
}

/// The moment at which a batch is safe on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SqliteSynchronous {
    /// At the commit.
    #[default]
    Full,
    /// After the commit: a power cut may undo the last batches, and their checkpoints with them.
    /// They are projected again, so each event still takes effect once. But an event that
    /// [`wait_for`](factum_consumer::ConsumerHandle::wait_for) has waited for may be missing for a
    /// while.
    Normal,
}

impl SqliteTarget {
    /// Read models in this file. The first start makes it if it does not exist.
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

    /// The target of one build of a read model, which is one making of it from the log. For
    /// [`Projections::maintain`](crate::Projections::maintain). The build's tables are in a file of
    /// their own in `folder`. The file has the name of the build, such as `totals@2.1.db` for the
    /// first rebuild of version 2. So the next build is made while this one still serves.
    ///
    /// The file is made when the build begins. When the projection drops or clears the build, the
    /// file is removed; the statements of [`with_clear`](Self::with_clear) are not run. A reader
    /// with an open connection can still read the removed file, which keeps its space until the
    /// connection is closed. If a file with this name exists that was not made by the build, the
    /// file is left alone and the build does not start. Use the folder for one log only.
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

    /// The file that contains the tables.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the moment at which a batch is safe on the disk.
    pub fn with_synchronous(mut self, synchronous: SqliteSynchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets the statements that make the read model's tables. They run at every start and after an
    /// error of the file, so they must be repeatable: `CREATE TABLE IF NOT EXISTS`.
    pub fn with_setup(mut self, statements: &'static str) -> Self {
        self.setup = Some(statements);
        self
    }

    /// Sets the statements that empty the read model's tables. Without them [`Target::clear`] is
    /// refused, except for a build.
    pub fn with_clear(mut self, statements: &'static str) -> Self {
        self.clear = Some(statements);
        self
    }

    /// Opens a new connection to read the model while it is projected. Queries block their thread:
    /// in async code use `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// Errors of SQLite. The file must exist: the projection makes it when it starts.
    pub fn reader(&self) -> Result<Connection, rusqlite::Error> {
        file::open_reader(&self.path)
    }

    async fn begin_waiting(&self) -> Result<SqliteTx, TargetError> {
        let idle = self.idle.clone();
        let path = self.path.clone();
        let synchronous = self.synchronous;
        // The file of a build exists, or the build was cleared.
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
            // The idle connection may be in any state, so it is closed.
            drop(transaction::take(&idle));
            if let Some(build) = &build {
                build.prepare(&path)?;
            }
            let mut connection = file::open_writer(&path, synchronous, true)?;
            let build = build.as_ref();
            let opened = file::make(&mut connection, consumer.as_str(), setup, build)?;
            build.inspect(|build| build.mark_made());
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
        // If the file is not locked, the batch begins at once, on this thread.
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
                "the statements that empty the tables of the read model are not known, set them \\
                 by with_clear",
            ));
        };
        let tx = self.begin(consumer).await?;
        let whole = consumer.whole();
        on_a_thread(move || tx.clear(whole.as_str(), clear)).await
    }

    /// Runs the batch on a thread of the runtime that may block.
    fn spawn<T: Send + 'static>(
        &self,
        handling: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (caller, caller_left) = oneshot::channel();
        let guard = CallerGuard { interrupt: self.interrupt().clone(), _caller: caller };
        let runtime = Handle::current();
        let thread = spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = caller_left => None,
                    done = handling => Some(done),
                }
            })
        });
        tokio::spawn(async move {
            let ended = thread.await;
            guard.disarm();
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

/// A guard for the caller that waits for a batch. If it is dropped before the batch ends, it
/// interrupts the running statement and tells the thread to stop.
struct CallerGuard {
    interrupt: Option<Arc<InterruptHandle>>,
    _caller: oneshot::Sender<()>,
}

impl CallerGuard {
    fn disarm(mut self) {
        self.interrupt = None;
    }
}

impl Drop for CallerGuard {
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
