//! A store of a few vectors under a lock, for testing the suite: right by default, and broken in
//! one law by each [`Flaw`]. It shares no code with the real stores.

mod documents;
mod flaw;
mod log;
mod page;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, Document, Durability, EventStore,
    Guarantees, Limits, Lineage, Page, Position, ReadQuery, RecordedEvent, Scope, StoreError,
    StreamChange, StreamId, StreamInfo, Writers,
};
use factum_testing::conformance::{CommitDelay, OpenError, Setup, Stores, Subject};
use tokio::{
    runtime::Handle,
    sync::{RwLock, watch},
};

pub(crate) use flaw::Flaw;
use log::{Log, Slot};

/// The distance from the head beyond which a flawed toy looks before it has the lock.
const FAR: u64 = 1_000;

/// The number of documents that a flawed clear removes, and of events that a flawed change erases.
const STEP: usize = 1_000;

/// The number of times that an opening lets others go first.
const MEETING_YIELDS_MAX: usize = 10_000;

/// The data that would be on a disk, and the lock on it.
#[derive(Debug)]
struct Disk {
    log: Mutex<Log>,
    documents: Mutex<Documents>,
    writer: tokio::sync::Mutex<()>,
    head: watch::Sender<Position>,
    /// The openings that found no event in the log.
    openings_of_new: AtomicUsize,
}

impl Disk {
    /// Lets openings that happen at once meet: the first waits for a second one, and the others for
    /// the first event. An opening that is alone goes on after a while.
    async fn meet(&self) {
        let number = self.openings_of_new.fetch_add(1, Ordering::SeqCst);
        let has_met = || match number {
            0 => self.openings_of_new.load(Ordering::SeqCst) > 1,
            _ => !self.log.lock().unwrap().slots.is_empty(),
        };
        for _ in 0..MEETING_YIELDS_MAX {
            if has_met() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Documents {
    by_key: BTreeMap<Bytes, Document>,
    revision: u64,
}

/// One handle on a disk.
#[derive(Clone)]
pub(crate) struct Toy {
    disk: Arc<Disk>,
    clock: Arc<dyn Clock>,
    delay: Option<CommitDelay>,
    flaw: Flaw,
    claims: Guarantees,
    /// It takes no changes.
    is_reader: bool,
    /// True if it is closed. An append holds a read lock on it while it runs, so closing waits.
    closed: Arc<RwLock<bool>>,
}

impl fmt::Debug for Toy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toy").field("flaw", &self.flaw).finish_non_exhaustive()
    }
}

/// A disk with a toy on it.
pub(crate) struct ToySubject {
    disk: Arc<Disk>,
    flaw: Flaw,
    claims: Guarantees,
}

impl ToySubject {
    pub(crate) fn new(flaw: Flaw) -> Self {
        let limits = small_limits();
        let claims =
            Guarantees::new(Durability::PowerLoss, Writers::ManyProcesses).with_limits(limits);
        let disk = Disk {
            log: Mutex::new(Log::new(new_lineage())),
            documents: Mutex::default(),
            writer: tokio::sync::Mutex::default(),
            head: watch::Sender::new(Position::ZERO),
            openings_of_new: AtomicUsize::new(0),
        };
        Self { disk: Arc::new(disk), flaw, claims }
    }

    /// A toy that claims no guarantee beyond its process.
    pub(crate) fn volatile() -> Self {
        let claims = Guarantees::new(Durability::Volatile, Writers::ThisProcess);
        Self { claims, ..Self::new(Flaw::None) }
    }

    fn handle(&self, disk: Arc<Disk>, setup: &Setup) -> Toy {
        Toy {
            disk,
            clock: setup.clock.clone(),
            delay: setup.commit_delay.clone(),
            flaw: self.flaw,
            claims: self.claims,
            is_reader: false,
            closed: Arc::default(),
        }
    }
}

/// Small limits, so that the suite's cases on limits are fast.
fn small_limits() -> Limits {
    let mut limits = Limits::default();
    limits.event_bytes_max = 64 << 10;
    limits.batch_bytes_max = 256 << 10;
    limits.batch_events_max = 100;
    limits.batch_conditions_max = 20;
    limits.write_documents_max = 50;
    limits.document_bytes_max = 64 << 10;
    limits
}

fn new_lineage() -> Lineage {
    use factum_kernel::{IdSource, SystemClock, SystemIds};
    Lineage::new(SystemIds.uuid(SystemClock.now()))
}

#[async_trait]
impl Subject for ToySubject {
    async fn open(&self, setup: &Setup) -> Result<Stores, OpenError> {
        let is_new = self.disk.log.lock().unwrap().slots.is_empty();
        if self.flaw == Flaw::MakesTwice && is_new && setup.commit_delay.is_some() {
            self.disk.meet().await;
        }
        let mut log = self.disk.log.lock().unwrap();
        match self.flaw {
            Flaw::MakesTwice if is_new => *log = Log::new(new_lineage()),
            Flaw::ForgetsOnReopen => log.forget_last(),
            Flaw::ChangesLineage => log.lineage = new_lineage(),
            Flaw::ForgetsDocuments => *self.disk.documents.lock().unwrap() = Documents::default(),
            _ => {}
        }
        drop(log);
        let disk = match self.flaw {
            // A second handle with a log of its own has not shared anything.
            Flaw::SharesNothing => Self::new(self.flaw).disk,
            _ => self.disk.clone(),
        };
        Ok(Stores::both(Arc::new(self.handle(disk, setup))))
    }

    async fn open_to_read(&self, setup: &Setup) -> Result<Option<Stores>, OpenError> {
        let mut reader = self.handle(self.disk.clone(), setup);
        reader.is_reader = self.flaw != Flaw::ReaderWrites;
        Ok(Some(Stores::both(Arc::new(reader))))
    }
}

impl Toy {
    fn log(&self) -> Log {
        self.disk.log.lock().unwrap().clone()
    }

    /// Flawed: the events that a lagging index knows. It does know the new head.
    fn indexed(&self) -> Log {
        let mut log = self.log();
        let lag = Duration::from_millis(2);
        let fresh =
            |event: &RecordedEvent| self.clock.now() < event.recorded_at().saturating_add(lag);
        for slot in &mut log.slots {
            if let Slot::Event(event) = slot
                && self.delay.is_some()
                && fresh(event)
            {
                *slot = Slot::Hole;
            }
        }
        log
    }

    fn check_writes(&self) -> Result<(), StoreError> {
        match self.is_reader {
            true => Err(StoreError::invalid("the toy is opened for reading")),
            false => Ok(()),
        }
    }

    fn publish(&self, log: Log) {
        let head = log.head();
        *self.disk.log.lock().unwrap() = log;
        if self.flaw != Flaw::NeverWakes {
            self.disk.head.send_replace(head);
        }
    }

    async fn commit_delay(&self) {
        let delay = self.delay.as_ref().map_or(Duration::ZERO, |delay| delay());
        if !delay.is_zero() {
            self.clock.sleep(delay).await;
        }
    }

    async fn store(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        // Flawed: what holds now may not hold any more under the lock.
        let stale = self.log();
        if self.flaw == Flaw::AnswersFromBefore {
            let known = stale.known(&batch, self.clock.now(), self.flaw)?;
            if known.is_none() {
                stale.obstacle(&batch, self.flaw)?;
            }
            self.commit_delay().await;
        }
        let is_prechecked = self.flaw == Flaw::PrechecksOnly
            && batch.conditions().iter().any(|it| it.after.value() + FAR < stale.head().value());
        if is_prechecked {
            self.commit_delay().await;
        }
        let _writer = self.disk.writer.lock().await;
        let before = self.log();
        let mut log = before.clone();
        let outcome = match self.flaw {
            Flaw::AnswersFromBefore => Ok(log.store(&batch, self.clock.now(), self.flaw)),
            _ if is_prechecked || self.flaw == Flaw::ConditionsFromBefore => {
                log.append_if(&batch, &stale, self.clock.now(), self.flaw)
            }
            _ => log.append(&batch, self.clock.now(), self.flaw),
        };
        if self.flaw == Flaw::ShowsUncommitted {
            self.publish(log.clone());
            self.commit_delay().await;
            self.publish(before.clone());
        }
        if self.flaw == Flaw::ErasesLater && batch.deletions().next().is_some() {
            let mut shown = log.clone();
            shown.slots[..before.slots.len()].clone_from_slice(&before.slots);
            self.publish(shown);
        }
        self.commit_delay().await;
        let unlucky = self.delay.is_some() && log.head().value() % 5 == 4;
        if self.flaw == Flaw::LosesAcknowledged && unlucky {
            return outcome;
        }
        self.publish(log);
        match outcome {
            Ok(_) if self.flaw == Flaw::FailsAfterStoring && unlucky => {
                Err(StoreError::unavailable("the reply was lost").into())
            }
            outcome => outcome,
        }
    }

    /// Flawed: stores each stream on its own, so that a cancelled caller leaves the rest out.
    async fn store_piecewise(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let _writer = self.disk.writer.lock().await;
        let mut whole = self.log();
        let outcome = whole.append(&batch, self.clock.now(), self.flaw);
        if outcome.as_ref().is_ok_and(|appended| !appended.replayed) {
            for write in batch.writes() {
                let mut log = self.log();
                let one = AppendBatch::new().write(
                    write.stream.clone(),
                    write.expected,
                    write.events.clone(),
                );
                log.store(&one, self.clock.now(), self.flaw);
                self.publish(log);
                tokio::task::yield_now().await;
            }
        }
        outcome
    }
}

#[async_trait]
impl EventStore for Toy {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let accepted = self.closed.clone().read_owned().await;
        if *accepted {
            return Err(StoreError::closed().into());
        }
        self.check_writes()?;
        if self.flaw != Flaw::TakesAnything {
            self.claims.limits.check_append(&batch)?;
        }
        let accepted = match self.flaw {
            Flaw::HalvesCancelled => return self.store_piecewise(batch).await,
            Flaw::ClosesTooEarly => {
                drop(accepted);
                None
            }
            _ => Some(accepted),
        };
        let toy = self.clone();
        let storing = async move {
            let _accepted = accepted;
            toy.store(batch).await
        };
        if Handle::try_current().is_err() && self.flaw != Flaw::NeedsRuntime {
            return storing.await;
        }
        tokio::spawn(storing).await.expect("the toy does not panic")
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        query.check()?;
        if *self.closed.read().await {
            return Err(StoreError::closed());
        }
        let log = match (&query.scope, self.flaw) {
            (Scope::Category(_) | Scope::Query(_), Flaw::IndexLags) => self.indexed(),
            _ => self.log(),
        };
        let mut page = page::page(&log, &query, self.flaw);
        if let (Scope::Stream(stream), Flaw::BoundsAfterRows) = (&query.scope, self.flaw) {
            self.commit_delay().await;
            page.bounds = Some(self.log().bounds(stream));
        }
        if self.flaw == Flaw::HeadAfterRows {
            tokio::task::yield_now().await;
            let head = self.log().head();
            if page.scanned_through == page.head {
                page.scanned_through = head;
            }
            page.head = head;
        }
        Ok(page)
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        Ok(self.log().info(stream))
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        self.check_writes()?;
        let _writer = self.disk.writer.lock().await;
        let mut log = self.log();
        log.change(stream, change, self.clock.now(), self.flaw)?;
        let info = log.info(stream);
        self.publish(log);
        Ok(info)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.disk.head.subscribe()
    }

    fn guarantees(&self) -> Guarantees {
        self.claims
    }

    async fn close(&self) -> Result<(), StoreError> {
        *self.closed.write().await = true;
        if self.flaw != Flaw::ClosesUnheard {
            self.disk.head.send_modify(|_| {});
        }
        Ok(())
    }
}
