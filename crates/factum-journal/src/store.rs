//! The store: both traits on one folder.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use factum_backend::{Head, Precheck, Prechecked, Writer, blocking};
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, Document, DocumentStore, Durability,
    EventStore, Guarantees, KeyRange, Limits, PAGE_BYTES_DEFAULT, PAGE_EVENTS_DEFAULT, POLL_OWN,
    Page, Position, ReadQuery, Revision, ScanPage, ScanQuery, StoreError, StreamChange, StreamId,
    StreamInfo, SystemClock, WriteBatch, WriteError, Writers,
};
use tokio::sync::{Mutex, watch};

use crate::{
    append::{Committer, Delay, RECORD_BYTES_EXTRA},
    change,
    disk::{Files, SystemFiles, without_waiting},
    documents::{DocumentKeeper, Documents},
    error,
    follower::{DocumentFollower, LogFollower},
    frame::FRAME_BYTES_MAX,
    inbox::{self, Carry, Order, Outcome, Receiver, Sender, Unanswered},
    keeper::Keeper,
    lineage,
    lock::{self, Leave, Lock},
    log::Log,
    options::{Access, JournalOptions, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    place::{
        DOCUMENTS, LOG, MARKER, MARKER_TEXT, check_folder, founded, inside, make_folders,
        open_folder, resolve,
    },
    prefetch, read,
    recovery::{self, Founded},
    tail::TailOptions,
    watch::Watch,
};

/// The longest wait of an opening that wants to join a process which is opening the journal itself.
const JOIN_MAX: Duration = Duration::from_secs(10);
const JOIN_PAUSE: Duration = Duration::from_millis(10);
/// The number of repetitions of a look at the log whose events are erased in the meantime.
const LOOKS_MAX: usize = 16;
/// This many runs of documents of one level are merged into one of the next level.
const DOCUMENT_FANOUT: usize = 8;
/// The largest value of the batch limit: a batch becomes one frame.
const BATCH_BYTES_MAX: usize = 32 << 20;

/// The journal as event store and document store, in one folder. Clones share it.
///
/// # Guarantees
/// Every law holds; durability is `PowerLoss`. No other process writes to the folder while it is
/// open; others may read it ([`Access::ReadOnly`]). No runtime is needed: without one, work that
/// may wait for the disk runs on the caller's thread.
#[derive(Debug, Clone)]
pub struct JournalStore {
    inner: Arc<Inner>,
    /// Present in a writer. Dropped with the last handle, while reads may still hold the rest for a
    /// moment.
    _leave: Option<Arc<Leave>>,
}

#[derive(Debug)]
struct Inner {
    log: Arc<Log>,
    documents: Arc<Documents>,
    half: Half,
    head: Head,
    limits: Limits,
    /// The files that the opening set aside, for people.
    set_aside: Vec<String>,
    is_closed: AtomicBool,
    beside: Mutex<Beside>,
}

/// The thread that works beside an open store.
#[derive(Debug)]
enum Beside {
    /// Carries out the orders of other processes, if this process writes.
    Receiver(Receiver),
    /// Watches the head, if another process writes.
    Watch { _watch: Watch },
    /// The store is closed, or not yet open.
    Nothing,
}

/// The way in which a journal was entered.
enum Entry {
    Alone(Lock),
    Joined(JournalStore),
}

/// The half that moves the journal's head.
#[derive(Debug)]
enum Half {
    Writer(Writer<Committer>),
    Follower(Box<Follower>),
}

/// The part of a store whose process does not write.
#[derive(Debug)]
struct Follower {
    log: LogFollower,
    documents: DocumentFollower,
    /// Sends changes to the writing process. Without a sender, the store is read-only.
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
    /// Reads what another process has appended since.
    fn refresh_log(&self) -> Result<(), StoreError> {
        if let Half::Follower(follower) = &self.half {
            follower.log.refresh()?;
            self.head.advance(Position::new(self.log.view().head));
        }
        Ok(())
    }

    /// Looks at the current log. Repeats the look if an event in it is erased, and its space
    /// reclaimed, in the meantime.
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
    /// Opens a journal. If there is none, makes it or fails, as the options say.
    ///
    /// # Errors
    /// The error names the file, what is wrong with it, and the remedy.
    pub async fn open(options: JournalOptions) -> Result<Self, StoreError> {
        blocking(move || Self::open_blocking(options)).await?
    }

    fn open_blocking(options: JournalOptions) -> Result<Self, StoreError> {
        check_options(&options)?;
        let folder = resolve(&options.path)?;
        if options.access == Access::ReadOnly {
            return Self::open_follower(&folder, options.limits, None);
        }
        check_folder(&folder, options.if_absent)?;
        make_folders(&folder)?;
        let top = open_folder(&folder)?;
        let inbox = inbox::Folder::of(&top);
        let log = inside(&top, LOG)?;
        let documents = inside(&top, DOCUMENTS)?;
        let lock = match Self::lock_or_join(&top, &folder, &options)? {
            Entry::Alone(lock) => lock,
            Entry::Joined(store) => return Ok(store),
        };
        let leave = lock.leave().map(Arc::new);
        let top: Arc<dyn Files> = Arc::new(top);
        let founded = founded(&*top)?;
        let JournalOptions { clock, ids, limits, segment_bytes, document_segment_bytes, .. } =
            options;
        let tail = TailOptions { ids, clock: clock.clone(), segment_bytes };
        let renewed = lineage::renewed(&*top)?;
        let opened = recovery::open(log, founded, &tail)?;
        opened.log.update(|view| view.lineage = renewed.unwrap_or(view.lineage));
        let tail = TailOptions { segment_bytes: document_segment_bytes, ..tail };
        let (documents, torn) =
            recovery::open_documents(documents, founded, &tail, DOCUMENT_FANOUT)?;
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
        let log = opened.log;
        let half = Half::Writer(writer);
        let is_closed = AtomicBool::new(false);
        let beside = Mutex::new(Beside::Nothing);
        let inner = Inner { log, documents, half, head, limits, set_aside, is_closed, beside };
        let inner = Arc::new(inner);
        let held = Arc::downgrade(&inner);
        let hold = move || Some(Self { inner: held.upgrade()?, _leave: None });
        let receiver = Receiver::open(inbox, hold)?;
        *inner.beside.try_lock().expect("no other thread knows of it") = Beside::Receiver(receiver);
        Ok(Self { inner, _leave: leave })
    }

    /// Takes the lock of a folder, or joins the process that holds it, if the options say so. Waits
    /// for a process that is just opening or making the journal.
    fn lock_or_join(
        top: &SystemFiles,
        folder: &Path,
        options: &JournalOptions,
    ) -> Result<Entry, StoreError> {
        let (_never, pause) = mpsc::channel::<()>();
        let start = SystemClock.monotonic();
        loop {
            match Lock::take(top) {
                Err(error) if options.access == Access::Join && lock::is_taken(&error) => {}
                lock => return lock.map(Entry::Alone),
            }
            let sender = Sender::new(inbox::Folder::of(top), options.ids.clone());
            let joined = Self::open_follower(folder, options.limits, Some(sender));
            if joined.is_ok() || SystemClock.monotonic().saturating_since(start) > JOIN_MAX {
                return joined.map(Entry::Joined);
            }
            let _ = pause.recv_timeout(JOIN_PAUSE);
        }
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
        let top = open_folder(folder)?;
        let log = inside(&top, LOG)?;
        let documents = inside(&top, DOCUMENTS)?;
        let top: Arc<dyn Files> = Arc::new(top);
        let log_follower = LogFollower::open(top.clone(), log)?;
        let document_follower = DocumentFollower::open(top, documents)?;
        let log = log_follower.log.clone();
        let documents = document_follower.documents.clone();
        let head = Head::new(Position::new(log.view().head));
        let follower = Follower { log: log_follower, documents: document_follower, sender };
        let half = Half::Follower(Box::new(follower));
        let beside = Mutex::new(Beside::Nothing);
        let set_aside = Vec::new();
        let is_closed = AtomicBool::new(false);
        let inner = Inner { log, documents, half, head, limits, set_aside, is_closed, beside };
        let inner = Arc::new(inner);
        let followed = Arc::downgrade(&inner);
        // Reads meet the same error, and report it.
        let watch =
            Watch::start(move || followed.upgrade()?.refresh_log().or(Ok::<_, ()>(())).ok())?;
        *inner.beside.try_lock().expect("no other thread knows of it") =
            Beside::Watch { _watch: watch };
        Ok(Self { inner, _leave: None })
    }

    /// The files in which the opening kept what a crash left half written.
    pub fn set_aside(&self) -> &[String] {
        &self.inner.set_aside
    }

    /// Wakes the callers that wait for the head, after an order has stored something.
    async fn show_news(&self) {
        // If this fails, the next read finds the news.
        let _ = self.blocking(Inner::refresh_log).await;
    }

    fn check_open(&self) -> Result<(), StoreError> {
        match self.inner.is_closed.load(Ordering::Acquire) {
            true => Err(StoreError::closed()),
            false => Ok(()),
        }
    }

    /// Looks something up: at once if it is in memory, the store's or the system's; otherwise on a
    /// thread that may wait.
    async fn look<T: Send + 'static>(
        &self,
        look: impl Fn(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        // A follower may have much to read before it can answer.
        if matches!(self.inner.half, Half::Writer(_))
            && let Some(found) = without_waiting(|| look(&self.inner))
        {
            return found;
        }
        self.blocking(look).await
    }

    /// Checks the conditions of a batch before it is queued, so that no other append waits for
    /// that.
    async fn precheck(&self, batch: &AppendBatch) -> Result<Option<Prechecked>, StoreError> {
        if !prefetch::is_worth_prechecking(&self.inner.log, batch) {
            return Ok(None);
        }
        self.inner.limits.check_append(batch)?;
        let mut precheck = Precheck::new(batch);
        while !precheck.is_done() {
            let asked = batch.clone();
            let before = precheck.clone();
            let step = move |inner: &Inner| prefetch::precheck(&inner.log, &asked, before.clone());
            // The error recurs on the writer's thread, and is returned from there.
            let Ok(after) = self.look(step).await else { break };
            precheck = after;
        }
        Ok(Some(self.inner.log.prechecks.keep(batch, precheck.through())))
    }

    /// Runs work that may wait for the disk, on a thread that may wait.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        let inner = self.inner.clone();
        blocking(move || work(&inner)).await?
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
    let records = limits.batch_events_max.saturating_mul(RECORD_BYTES_EXTRA);
    if limits.batch_bytes_max.saturating_add(records) > FRAME_BYTES_MAX as usize {
        return Err(StoreError::invalid(format!(
            "batches of these limits do not fit into a frame of a journal, lower one of them; each \
             event takes {RECORD_BYTES_EXTRA} bytes more: batch_bytes_max={} batch_events_max={} \
             frame_bytes_max={FRAME_BYTES_MAX}",
            limits.batch_bytes_max, limits.batch_events_max
        )));
    }
    Ok(())
}

#[async_trait]
impl Carry for JournalStore {
    async fn carry_out(&self, order: Order) -> Outcome {
        match order {
            Order::Append(batch) => Outcome::of(&self.append(batch).await),
            Order::Change(stream, change) => Outcome::of(&self.change(&stream, change).await),
            Order::Write(batch) => Outcome::of(&self.write(batch).await),
            Order::Clear(range) => Outcome::of(&self.clear(range).await),
        }
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
                return answer?;
            }
        };
        // The writer's thread must not wait for reads of the disk, so the caller brings what it
        // will ask for into memory. An error recurs there, and is returned from there.
        if prefetch::needs_disk(&self.inner.log, &batch) {
            let asked = batch.clone();
            let _ = self.blocking(move |inner| prefetch::prefetch(&inner.log, &asked)).await;
        }
        let prechecked = self.precheck(&batch).await?;
        writer.append_prechecked(batch, prechecked).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        query.check()?;
        let is_small =
            query.events_max <= PAGE_EVENTS_DEFAULT && query.bytes_max <= PAGE_BYTES_DEFAULT;
        let look = move |inner: &Inner| inner.look_at_log(|log| read::page(log, &query));
        // A large page would be given up anyway.
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
    ) -> Result<StreamInfo, ChangeError> {
        let stream = stream.clone();
        match &self.inner.half {
            Half::Writer(writer) => {
                writer.run(0, move |committer| committer.change(&stream, change)).await?
            }
            Half::Follower(follower) => {
                self.check_open()?;
                let answer = follower.sender()?.send(&Order::Change(stream, change)).await;
                self.show_news().await;
                answer?
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
        guarantees.with_orders().with_limits(self.inner.limits)
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.is_closed.store(true, Ordering::Release);
        self.inner.head.wake();
        // The orders first, because their senders wait for an answer.
        let mut beside = self.inner.beside.lock().await;
        if let Beside::Receiver(receiver) = &mut *beside {
            receiver.close().await;
        }
        *beside = Beside::Nothing;
        drop(beside);
        match &self.inner.half {
            Half::Writer(writer) => writer.close().await,
            Half::Follower(follower) => {
                if let Some(sender) = &follower.sender {
                    sender.close().await;
                }
            }
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
            return answer?;
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
            // Each step is a call of its own, so that others get their turn between two.
            let max = self.inner.limits.write_documents_max;
            let step = self.blocking(move |inner| inner.documents.removal(range, max)).await?;
            let batch;
            (batch, rest) = step;
            self.check_open()?;
            // The limits of callers don't apply: documents that were stored under other limits must
            // go too.
            match self.inner.documents.clone().write(batch).await {
                Ok(_) => {}
                Err(WriteError::Store(error) | WriteError::Indeterminate(error)) => {
                    return Err(error);
                }
                Err(other) => {
                    let error = StoreError::internal("a clear had a conflict");
                    return Err(error.with_source(other));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
