//! The store: both traits over one folder.

use std::{
    fs::{self, File},
    io, mem,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::BytesMut;
use factum_backend::{Head, Writer};
use factum_core::{
    AppendBatch, AppendError, Appended, Document, DocumentStore, Durability, EventStore,
    Guarantees, KeyRange, Limits, PAGE_BYTES_DEFAULT, PAGE_EVENTS_DEFAULT, POLL_OWN, Page,
    Position, ReadQuery, Revision, ScanPage, ScanQuery, StoreError, StreamChange, StreamId,
    StreamInfo, WriteBatch, WriteError, Writers,
};
use tokio::{
    sync::{Mutex, watch},
    task,
};

use crate::{
    append::{Committer, Delay},
    change,
    disk::{Files, SystemFiles, UNFINISHED, without_waiting},
    documents::{DocumentKeeper, Documents},
    error,
    follower::{DocumentFollower, LogFollower},
    inbox::{self, Carry, Desk, INBOX, Order, Outcome, Sender, Unanswered},
    keeper::Keeper,
    lineage,
    lock::{self, LOCK, Lock},
    log::Log,
    options::{Access, JournalOptions, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    read,
    recovery::{self, Founded},
    tail::TailOptions,
    warm,
    watch::Watch,
};

/// The file by which a journal's folder is known. Written last, so that with it there is a log.
pub(crate) const MARKER: &str = "factum-journal";
pub(crate) const MARKER_TEXT: &str = "This folder is a journal of Factum, format 1.\n";
/// How often a look at the log is repeated, because what it found is erased meanwhile.
const LOOKS_MAX: usize = 16;
/// The folders inside.
pub(crate) const LOG: &str = "log";
pub(crate) const DOCUMENTS: &str = "documents";
/// So many runs of documents of one level become one of the next.
const DOCUMENT_FANOUT: usize = 8;
/// The largest batch that an option may allow: it becomes one frame.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// Both halves of a store, in one folder. Clones share it.
///
/// # Guarantees
/// Every law; durability is `PowerLoss`, and nobody else writes to the folder as long as it is
/// open. Others may read it ([`Access::ReadOnly`]).
#[derive(Debug, Clone)]
pub struct JournalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Arc<Log>,
    documents: Arc<Documents>,
    half: Half,
    head: Head,
    limits: Limits,
    /// What the opening set aside, for people.
    set_aside: Vec<String>,
    is_closed: AtomicBool,
    beside: Mutex<Beside>,
}

/// The thread that works beside an open store.
#[derive(Debug)]
enum Beside {
    /// Carries out the orders of other processes, where this one writes.
    Desk(Desk),
    /// Watches the head, where another one writes.
    Watch { _watch: Watch },
    /// The store is closed, or not yet open.
    Nothing,
}

/// What makes the journal go on.
#[derive(Debug)]
enum Half {
    Writer(Writer<Committer>),
    Follower(Follower),
}

/// Another process writes, or nobody does.
#[derive(Debug)]
struct Follower {
    log: LogFollower,
    documents: DocumentFollower,
    /// Where what is to be changed is sent; without one nothing may be.
    sender: Option<Sender>,
}

impl Follower {
    fn sender(&self) -> Result<&Sender, StoreError> {
        self.sender.as_ref().ok_or_else(|| {
            StoreError::invalid("the journal is opened for reading, open it without mode=read")
        })
    }
}

impl Inner {
    /// Reads on, where somebody else writes the log.
    fn refresh_log(&self) -> Result<(), StoreError> {
        if let Half::Follower(follower) = &self.half {
            follower.log.refresh()?;
            self.head.advance(Position::new(self.log.view().head));
        }
        Ok(())
    }

    /// Looks at the log as it is now; again where an event that was there is erased meanwhile, and
    /// its bytes are given back.
    fn look_at_log<T>(
        &self,
        look: impl Fn(&Log) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut attempts = 0;
        loop {
            self.refresh_log()?;
            match look(&self.log) {
                Err(error) if error::is_left_out(&error) && attempts < LOOKS_MAX => attempts += 1,
                found => return found,
            }
        }
    }

    fn refresh_documents(&self) -> Result<(), StoreError> {
        match &self.half {
            Half::Follower(follower) => follower.documents.refresh(),
            Half::Writer(_) => Ok(()),
        }
    }
}

impl JournalStore {
    /// Opens a journal, and makes it if it is not there.
    ///
    /// # Errors
    /// One sentence: what is wrong with which file, and what to do.
    pub async fn open(options: JournalOptions) -> Result<Self, StoreError> {
        let opened = task::spawn_blocking(move || Self::open_blocking(options));
        opened.await.map_err(|e| StoreError::internal("the opening was cut off").with_source(e))?
    }

    fn open_blocking(options: JournalOptions) -> Result<Self, StoreError> {
        check_options(&options)?;
        let folder = resolve(&options.path)?;
        if options.access == Access::ReadOnly {
            return Self::open_follower(&folder, options.limits, None);
        }
        check_folder(&folder)?;
        make_folders(&folder)?;
        let lock = match Lock::take(&folder) {
            Err(error) if options.access == Access::Join && lock::is_taken(&error) => {
                let sender = Sender::new(inbox::Folder::of(&folder), options.ids);
                return Self::open_follower(&folder, options.limits, Some(sender));
            }
            lock => lock?,
        };
        let top: Arc<dyn Files> = Arc::new(SystemFiles::new(&folder));
        let founded = founded(&*top)?;
        let JournalOptions { clock, ids, limits, segment_bytes, document_segment_bytes, .. } =
            options;
        let tail = TailOptions { ids, clock: clock.clone(), segment_bytes };
        let files =
            |name: &str| -> Arc<dyn Files> { Arc::new(SystemFiles::new(&folder.join(name))) };
        let renewed = lineage::renewed(&*top)?;
        let opened = recovery::open(files(LOG), founded, &tail)?;
        opened.log.update(|view| view.lineage = renewed.unwrap_or(view.lineage));
        let tail = TailOptions { segment_bytes: document_segment_bytes, ..tail };
        let (documents, torn) =
            recovery::open_documents(files(DOCUMENTS), founded, &tail, DOCUMENT_FANOUT)?;
        if founded == Founded::Never {
            let put = top.put(MARKER, MARKER_TEXT.as_bytes());
            put.map_err(|e| error::disk("making a journal", MARKER, e))?;
        }
        let set_aside = opened.findings.set_aside.into_iter().chain(torn.set_aside).collect();
        let head = Head::new(Position::new(opened.log.view().head));
        let keeper = Keeper::start(opened.log.clone(), opened.tail.spare.clone())?;
        let documents = Arc::new(documents);
        let committer = Committer {
            log: opened.log.clone(),
            tail: opened.tail,
            keeper,
            clock,
            commit_delay: Delay(options.commit_delay),
            buffer: BytesMut::new(),
            document_keeper: Some(DocumentKeeper::start(documents.clone())?),
            documents: documents.clone(),
            lock: Some(lock),
        };
        let writer = Writer::spawn("factum-journal", committer, head.clone(), limits)?;
        let (log, half, is_closed) = (opened.log, Half::Writer(writer), AtomicBool::new(false));
        let beside = Mutex::new(Beside::Nothing);
        let inner = Inner { log, documents, half, head, limits, set_aside, is_closed, beside };
        let inner = Arc::new(inner);
        let desk = Desk::open(inbox::Folder::of(&folder), Carrier(Arc::downgrade(&inner)))?;
        *inner.beside.try_lock().expect("nobody else knows of it") = Beside::Desk(desk);
        Ok(Self { inner })
    }

    fn open_follower(
        folder: &Path,
        limits: Limits,
        sender: Option<Sender>,
    ) -> Result<Self, StoreError> {
        if !folder.join(MARKER).is_file() {
            let shown = folder.display();
            let message = format!("there is no journal to read, check the path: path={shown}");
            return Err(StoreError::invalid(message));
        }
        let top = Arc::new(SystemFiles::new(folder));
        let log_follower = LogFollower::open(top, Arc::new(SystemFiles::new(&folder.join(LOG))))?;
        let files = Arc::new(SystemFiles::new(&folder.join(DOCUMENTS)));
        let document_follower = DocumentFollower::open(files)?;
        let (log, documents) = (log_follower.log.clone(), document_follower.documents.clone());
        let head = Head::new(Position::new(log.view().head));
        let follower = Follower { log: log_follower, documents: document_follower, sender };
        let (half, beside) = (Half::Follower(follower), Mutex::new(Beside::Nothing));
        let (set_aside, is_closed) = (Vec::new(), AtomicBool::new(false));
        let inner = Inner { log, documents, half, head, limits, set_aside, is_closed, beside };
        let inner = Arc::new(inner);
        let followed = Arc::downgrade(&inner);
        // An error is one that reads meet as well, and they report it.
        let watch =
            Watch::start(move || followed.upgrade()?.refresh_log().or(Ok::<_, ()>(())).ok())?;
        *inner.beside.try_lock().expect("nobody else knows of it") =
            Beside::Watch { _watch: watch };
        Ok(Self { inner })
    }

    /// The files in which the opening kept what a crash left half written, if it did.
    pub fn set_aside(&self) -> &[String] {
        &self.inner.set_aside
    }

    /// Tells those who wait for the head of what an order has stored.
    async fn show_news(&self) {
        // What can't be read now is found by the next read.
        let _ = self.blocking(Inner::refresh_log).await;
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.inner.is_closed.load(Ordering::Acquire) {
            true => Err(StoreError::closed()),
            false => Ok(()),
        }
    }

    /// Looks something up: at once, if it is in memory, ours or the system's; otherwise where
    /// waiting does no harm.
    async fn look<T: Send + 'static>(
        &self,
        look: impl Fn(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        // Who follows a writer may have much to read before it can answer.
        if matches!(self.inner.half, Half::Writer(_))
            && let Some(found) = without_waiting(|| look(&self.inner))
        {
            return found;
        }
        self.blocking(look).await
    }

    /// Runs what may wait for the disk where waiting does no harm.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        let inner = self.inner.clone();
        let done = task::spawn_blocking(move || work(&inner));
        done.await.map_err(|e| StoreError::internal("a read was cut off").with_source(e))?
    }
}

fn check_options(options: &JournalOptions) -> Result<(), StoreError> {
    let JournalOptions { segment_bytes, limits, .. } = options;
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(segment_bytes) {
        return Err(StoreError::invalid(format!(
            "a segment has from 4 KiB to 1 GiB: segment_bytes={segment_bytes}"
        )));
    }
    if limits.batch_bytes_max > BATCH_BYTES_MAX {
        return Err(StoreError::invalid(format!(
            "a batch of a journal has at most {BATCH_BYTES_MAX} bytes: batch_bytes_max={}",
            limits.batch_bytes_max
        )));
    }
    Ok(())
}

/// The path as it will be named in errors, whatever folder the program moves to.
fn resolve(path: &Path) -> Result<std::path::PathBuf, StoreError> {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        let message = "a journal lives in a folder, name one such as journal:./data";
        return Err(StoreError::invalid(message));
    }
    if path.is_file() {
        let message = format!("the path is a file, a journal needs a folder: path={shown}");
        return Err(StoreError::invalid(message));
    }
    std::path::absolute(path)
        .map_err(|e| StoreError::invalid(format!("no such path: path={shown}")).with_source(e))
}

/// Refuses a folder that is somebody else's. What a journal has before its marker may be there.
fn check_folder(folder: &Path) -> Result<(), StoreError> {
    let Ok(names) = SystemFiles::new(folder).list() else { return Ok(()) };
    let is_ours = |name: &String| {
        [LOG, DOCUMENTS, LOCK, INBOX].contains(&name.as_str()) || name.ends_with(UNFINISHED)
    };
    if names.iter().any(|name| name == MARKER) || names.iter().all(is_ours) {
        return Ok(());
    }
    Err(StoreError::invalid(format!(
        "the folder holds other files and no journal, choose an empty one: path={}",
        folder.display()
    )))
}

/// Makes the folders, durably: a file is not safe in a folder whose own entry is not.
fn make_folders(folder: &Path) -> Result<(), StoreError> {
    let is_new = !folder.join(DOCUMENTS).is_dir();
    let make = || -> io::Result<()> {
        for name in [LOG, DOCUMENTS] {
            fs::create_dir_all(folder.join(name))?;
        }
        for above in folder.ancestors().filter(|_| is_new) {
            match File::open(above).and_then(|above| above.sync_all()) {
                // Not every folder may be read, nor every system sync one.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) => {}
                synced => synced?,
            }
        }
        Ok(())
    };
    make().map_err(|e| {
        let message = format!("the folder can't be made: path={}", folder.display());
        StoreError::unavailable(message).with_source(e)
    })
}

fn founded(top: &dyn Files) -> Result<Founded, StoreError> {
    let names = recovery::list(top)?;
    let is_there = names.iter().any(|name| name == MARKER);
    Ok(if is_there { Founded::Before } else { Founded::Never })
}

fn append_error(unanswered: Unanswered) -> AppendError {
    match unanswered {
        Unanswered::NotTaken(error) => error.into(),
        Unanswered::Unknown(error) => AppendError::Indeterminate(error),
    }
}

fn write_error(unanswered: Unanswered) -> WriteError {
    match unanswered {
        Unanswered::NotTaken(error) => error.into(),
        Unanswered::Unknown(error) => WriteError::Indeterminate(error),
    }
}

/// Carries out the orders of others, as long as the store is there.
#[derive(Debug)]
struct Carrier(Weak<Inner>);

#[async_trait]
impl Carry for Carrier {
    async fn carry_out(&self, order: Order) -> Option<Outcome> {
        let store = JournalStore { inner: self.0.upgrade()? };
        Some(match order {
            Order::Append(batch) => Outcome::of(&store.append(batch).await),
            Order::Change(stream, change) => Outcome::of(&store.change(&stream, change).await),
            Order::Write(batch) => Outcome::of(&store.write(batch).await),
            Order::Clear(range) => Outcome::of(&store.clear(range).await),
        })
    }
}

#[async_trait]
impl EventStore for JournalStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let writer = match &self.inner.half {
            Half::Writer(writer) => writer,
            Half::Follower(follower) => {
                self.check_open()?;
                self.inner.limits.check_append(&batch)?;
                let answer = follower.sender()?.send(&Order::Append(batch)).await;
                self.show_news().await;
                return answer.map_err(append_error)?;
            }
        };
        // The writer's thread is not to wait for the disk's reads: what it will ask is brought into
        // memory by whoever asks for it. An error comes again there, and is told.
        if warm::needs_disk(&self.inner.log, &batch) {
            let asked = batch.clone();
            let _ = self.blocking(move |inner| warm::warm(&inner.log, &asked)).await;
        }
        writer.append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        query.check()?;
        let is_small =
            query.events_max <= PAGE_EVENTS_DEFAULT && query.bytes_max <= PAGE_BYTES_DEFAULT;
        let look = move |inner: &Inner| inner.look_at_log(|log| read::page(log, &query));
        // A large page would only be given up.
        if is_small { self.look(look).await } else { self.blocking(look).await }
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        let stream = stream.clone();
        self.look(move |inner| inner.look_at_log(|log| change::info(log, &stream))).await
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, AppendError> {
        let stream = stream.clone();
        match &self.inner.half {
            Half::Writer(writer) => {
                writer.run(move |committer| committer.change(&stream, change)).await?
            }
            Half::Follower(follower) => {
                self.check_open()?;
                let answer = follower.sender()?.send(&Order::Change(stream, change)).await;
                self.show_news().await;
                answer.map_err(append_error)?
            }
        }
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head.subscribe()
    }

    fn guarantees(&self) -> Guarantees {
        let writers = match &self.inner.half {
            Half::Writer(_) => Writers::ThisProcess,
            Half::Follower(..) => Writers::ManyProcesses,
        };
        let guarantees = Guarantees::new(Durability::PowerLoss, writers).with_poll(POLL_OWN);
        guarantees.with_limits(self.inner.limits)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.is_closed.store(true, Ordering::Release);
        // First those who wait for an answer.
        let beside = mem::replace(&mut *self.inner.beside.lock().await, Beside::Nothing);
        if let Beside::Desk(mut desk) = beside {
            desk.close().await;
        }
        match &self.inner.half {
            Half::Writer(writer) => writer.close().await,
            Half::Follower(Follower { sender: Some(sender), .. }) => sender.close().await,
            Half::Follower(_) => {}
        }
        Ok(())
    }
}

#[async_trait]
impl DocumentStore for JournalStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        let key = key.to_vec();
        self.look(move |inner| {
            inner.refresh_documents()?;
            inner.documents.get(&key)
        })
        .await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        query.check()?;
        self.look(move |inner| {
            inner.refresh_documents()?;
            inner.documents.scan(&query)
        })
        .await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.inner.limits.check_write(&batch)?;
        self.check_open()?;
        if let Half::Follower(follower) = &self.inner.half {
            let answer = follower.sender()?.send(&Order::Write(batch)).await;
            return answer.map_err(write_error)?;
        }
        self.inner.documents.clone().write(batch).await
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        if let Half::Follower(follower) = &self.inner.half {
            self.check_open()?;
            let answer = follower.sender()?.send(&Order::Clear(range)).await;
            return answer.map_err(Unanswered::into_store_error)?;
        }
        let mut rest = Some(range);
        while let Some(range) = rest {
            // Each step on its own, so that others get their turn between two.
            let step = self.blocking(move |inner| inner.documents.removal(range)).await?;
            let batch;
            (batch, rest) = step;
            match self.write(batch).await {
                Ok(_) => {}
                Err(WriteError::Store(error) | WriteError::Indeterminate(error)) => {
                    return Err(error);
                }
                Err(other) => {
                    let error = StoreError::internal("a clearing had a conflict");
                    return Err(error.with_source(other));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn what_was_left_out_meanwhile_is_looked_for_again_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
        let looks = Cell::new(0);
        let look = |fails: usize| {
            looks.set(0);
            store.inner.look_at_log(|_| {
                looks.set(looks.get() + 1);
                if looks.get() <= fails { Err(error::left_out(1)) } else { Ok(()) }
            })
        };
        assert!(look(2).is_ok());
        assert_eq!(looks.get(), 3);
        assert!(error::is_left_out(&look(usize::MAX).unwrap_err()));
        assert_eq!(looks.get(), LOOKS_MAX + 1);
        store.close().await.unwrap();
    }
}
