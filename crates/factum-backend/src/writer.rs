//! The writer loop: one thread per log, group commit, no timers but the bound of a gathering.
//!
//! While one group commits, the next gathers in the queue. The thread takes what is there (and
//! waits for those who are known to come, see `relay.rs`), lets the store plan and commit it, wakes
//! readers, answers everybody, and begins again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use factum_kernel::{AppendBatch, AppendError, Appended, Limits, Position, StoreError, WriteError};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, oneshot, watch};

use crate::{
    foreseen::Kept,
    group::{Group, Load},
    head::Head,
    queue::{Entrance, Exit, Taken, queue},
    relay::{Answer, Relay, Reply},
};

/// The most appends that wait in the queue; further callers wait for room.
pub const QUEUE_BATCHES_MAX: usize = 4_096;
/// The most bytes of events that wait in the queue; further callers wait for room.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// How often a group waits for more members, where its store wants that.
pub const GATHERINGS_MAX: usize = 8;

/// How long to wait between planning and storing a group: lets tests widen the gap in which
/// stores of other makes lose events.
pub type CommitDelay = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Waits as long as a test has asked for, on the writer's own thread; called by a store between
/// planning and storing.
#[expect(clippy::disallowed_methods, reason = "a test asked for it, on the writer's own thread")]
pub fn hold(delay: Option<&CommitDelay>) {
    if let Some(delay) = delay {
        thread::sleep(delay());
    }
}

/// A group that was stored.
#[derive(Debug)]
pub struct Committed {
    /// One outcome per batch, in order.
    pub outcomes: Vec<Result<Appended, AppendError>>,
    /// The last position now.
    pub head: Position,
}

/// A group that was not stored, or is not known to be. All its members are answered so.
#[derive(Debug)]
pub enum CommitError {
    /// Nothing was stored.
    NotStored(StoreError),
    /// It may or may not be stored.
    Unknown(StoreError),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self::NotStored(error)
    }
}

impl CommitError {
    fn answer(&self) -> AppendError {
        match self {
            Self::NotStored(error) => AppendError::Store(error.clone()),
            Self::Unknown(error) => AppendError::Indeterminate(error.clone()),
        }
    }
}

/// The writing half of a store. Lives on the writer's thread and may block there.
pub trait Commit: Send + 'static {
    /// Plans a group with [`plan_group`](crate::plan_group) and stores it, durably as the store
    /// claims, before it returns.
    ///
    /// # Errors
    /// Say truthfully whether anything was stored.
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError>;

    /// How long the thread has nothing to do before [`rest`](Self::rest) is called, once until
    /// there is something again. For ever by default.
    fn rest_after(&self) -> Duration {
        Duration::MAX
    }

    /// Lets go of what is held only to be fast.
    fn rest(&mut self) {}

    /// How long a group that is smaller than the one before waits for those who were answered with
    /// that one: as long as each wait brings more members, and [`GATHERINGS_MAX`] times at most.
    /// None by default; it pays where a group costs a round trip and a sync whatever its size.
    fn gathering(&self) -> Duration {
        Duration::ZERO
    }
}

enum Job<C> {
    Append(Member),
    Run(Box<dyn FnOnce(&mut C) + Send>),
    Close,
}

/// The way to a writer thread. Dropping it lets what was accepted finish.
pub struct Writer<C> {
    jobs: Entrance<Job<C>>,
    /// Of the queue, in units.
    room: Arc<Semaphore>,
    head: Head,
    limits: Limits,
    is_closed: AtomicBool,
    /// Its other end lives in the thread, and goes with it.
    ended: watch::Receiver<()>,
}

impl<C> fmt::Debug for Writer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("head", &self.head.position()).finish_non_exhaustive()
    }
}

impl<C: Commit> Writer<C> {
    /// Starts the thread. `name` names it, `head` is told of every commit.
    ///
    /// # Errors
    /// `Unavailable` where the system has no thread left.
    pub fn spawn(name: &str, store: C, head: Head, limits: Limits) -> Result<Self, StoreError> {
        let (jobs, queue) = queue();
        let (alive, ended) = watch::channel(());
        let room = Arc::new(Semaphore::new(QUEUE_BATCHES_MAX));
        let relay = Relay::start(room.clone(), jobs.gatherer());
        let room_ = room.clone();
        let head_ = head.clone();
        let answered = 0;
        let thread = Loop { store, relay, queue, room: room_, head: head_, alive, answered };
        thread::Builder::new().name(name.into()).spawn(move || thread.run()).map_err(|e| {
            StoreError::unavailable("no thread for the writer, try again").with_source(e)
        })?;
        Ok(Self { jobs, room, head, limits, is_closed: AtomicBool::new(false), ended })
    }

    /// Checks a batch against the limits, queues it, and waits for its outcome.
    ///
    /// # Errors
    /// See [`AppendError`].
    ///
    /// # Cancel safety
    /// Dropped while it waits for room in the queue, nothing happens; after that, the append goes
    /// on without the caller.
    pub async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.append_foreseen(batch, None).await
    }

    /// As [`append`](Self::append), and keeps what is known of the batch's conditions until they
    /// were looked at.
    ///
    /// # Errors
    /// See [`AppendError`].
    ///
    /// # Cancel safety
    /// As that of [`append`](Self::append).
    pub async fn append_foreseen(
        &self,
        batch: AppendBatch,
        foreseen: Option<Kept>,
    ) -> Result<Appended, AppendError> {
        self.limits.check_append(&batch)?;
        let load = Load::of(&batch);
        let units = units_of(load.bytes);
        let room = self.room(units).await?;
        let (to, answer) = oneshot::channel();
        let reply = Reply { to, units };
        let job = Job::Append(Member { batch, load, reply, foreseen });
        if !self.jobs.put(job) {
            return Err(self.ended().into());
        }
        // The group gives it back with its answers.
        room.forget();
        match answer.await {
            Ok(Answer { outcome, .. }) => outcome,
            Err(_) => Err(AppendError::Indeterminate(writer_died())),
        }
    }

    /// Waits for room in the queue, if need be.
    async fn room(&self, units: u32) -> Result<SemaphorePermit<'_>, StoreError> {
        match self.room.try_acquire_many(units) {
            Ok(room) => Ok(room),
            Err(TryAcquireError::Closed) => Err(self.ended()),
            Err(TryAcquireError::NoPermits) => {
                self.room.acquire_many(units).await.map_err(|_| self.ended())
            }
        }
    }

    /// Runs something else on the writer's thread, between two groups, and waits for it. `bytes`
    /// are those that the work holds until then; they count in the queue as those of a batch do.
    /// The outer error: it was not run, or the writer died in it.
    ///
    /// # Errors
    /// `Closed`, or `Internal` if the thread died.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room in the queue, nothing happens; after that, the work is done
    /// without the caller.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut C) -> T + Send + 'static,
    ) -> Result<T, RunError> {
        let units = units_of(bytes);
        self.room(units).await.map_err(RunError::NotRun)?.forget();
        // However the job ends, also unrun.
        let room = Room { room: self.room.clone(), units };
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |store| {
            let done = work(store);
            // Room first: who hears the answer may count on it.
            drop(room);
            // Who asked may be gone; the work was to be done all the same.
            let _ = reply.send(done);
        }));
        if !self.jobs.put(job) {
            return Err(RunError::NotRun(self.ended()));
        }
        answer.await.map_err(|_| RunError::Unknown(writer_died()))
    }

    /// Lets what was accepted finish, ends the thread, and drops the store's writing half. Every
    /// caller waits until that is done.
    pub async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.room.close();
        // An error says that somebody closed it before; what was accepted may still be under way.
        let _ = self.jobs.put(Job::Close);
        // Nothing is ever sent: an error says that the thread has ended, which is what was wanted.
        let _ = self.ended.clone().changed().await;
    }

    /// The last known position.
    pub fn head(&self) -> &Head {
        &self.head
    }

    fn ended(&self) -> StoreError {
        if self.is_closed.load(Ordering::Acquire) { StoreError::closed() } else { writer_died() }
    }
}

/// Why work on the writer's thread has no result.
#[derive(Debug)]
pub enum RunError {
    /// It was not run.
    NotRun(StoreError),
    /// It may or may not have been run to its end.
    Unknown(StoreError),
}

impl From<RunError> for AppendError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotRun(error) => Self::Store(error),
            RunError::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

impl From<RunError> for WriteError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::NotRun(error) => Self::Store(error),
            RunError::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

/// What the queue holds is counted in units of so many bytes, of which every batch takes one at
/// least: so both its batches and their bytes are bounded.
const ROOM_UNIT: usize = QUEUE_BYTES_MAX / QUEUE_BATCHES_MAX;

/// The room that so many bytes take. What is larger than the whole queue would wait for ever, and
/// takes all of it.
fn units_of(bytes: usize) -> u32 {
    bytes.div_ceil(ROOM_UNIT).clamp(1, QUEUE_BATCHES_MAX) as u32
}

/// Room in the queue, given back when it is dropped.
struct Room {
    room: Arc<Semaphore>,
    units: u32,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.room.add_permits(self.units as usize);
    }
}

fn writer_died() -> StoreError {
    StoreError::internal("the writer thread has died, its panic message tells why; open again")
}

struct Loop<C> {
    store: C,
    relay: Relay,
    queue: Exit<Job<C>>,
    room: Arc<Semaphore>,
    head: Head,
    alive: watch::Sender<()>,
    /// How many members the last group had.
    answered: usize,
}

struct Member {
    batch: AppendBatch,
    load: Load,
    reply: Reply,
    foreseen: Option<Kept>,
}

impl Member {
    fn join(self, group: &mut Group<Self>) -> Result<(), Self> {
        let load = self.load;
        group.push(self, load)
    }
}

impl<C: Commit> Loop<C> {
    fn run(mut self) {
        // However the thread ends, nobody is to wait for room that no group will give back.
        let _room = CloseOnDrop(self.room.clone());
        let mut limit = self.store.rest_after();
        loop {
            let job = match self.queue.take(limit) {
                Taken::Job(job) => job,
                Taken::Nothing => {
                    self.store.rest();
                    limit = Duration::MAX;
                    continue;
                }
                Taken::Closed => break,
            };
            limit = self.store.rest_after();
            match job {
                Job::Append(member) => self.commit(member),
                Job::Run(work) => work(&mut self.store),
                // What was put in before stays in the queue and is still done.
                Job::Close => self.queue.close(),
            }
        }
        // Files are let go before anyone hears that the store is closed.
        drop(self.store);
        drop(self.alive);
    }

    /// Commits a group that begins with this member.
    fn commit(&mut self, first: Member) {
        let mut group = Group::default();
        let mut next = first.join(&mut group).err().map(Job::Append);
        next = next.or_else(|| self.take_what_is_there(&mut group));
        let wait = self.store.gathering();
        for _ in 0..GATHERINGS_MAX {
            let before = group.count();
            if wait.is_zero() || next.is_some() || before >= self.answered {
                break;
            }
            pause(wait);
            next = self.take_what_is_there(&mut group);
            if group.count() == before {
                break;
            }
        }
        // What didn't fit comes first when the group is done.
        if let Some(job) = next {
            self.queue.put_back(job);
        }
        self.answered = group.count();
        self.commit_group(group.into_members());
    }

    /// The result: what does not belong to the group.
    fn take_what_is_there(&mut self, group: &mut Group<Member>) -> Option<Job<C>> {
        loop {
            match self.queue.try_take()? {
                Job::Append(member) => {
                    if let Err(member) = member.join(group) {
                        return Some(Job::Append(member));
                    }
                }
                other => return Some(other),
            }
        }
    }

    fn commit_group(&mut self, members: Vec<Member>) {
        let mut batches = Vec::with_capacity(members.len());
        let mut replies = Vec::with_capacity(members.len());
        // Held until the group is planned.
        let mut kept = Vec::new();
        for Member { batch, reply, foreseen, .. } in members {
            batches.push(batch);
            replies.push(reply);
            kept.extend(foreseen);
        }
        let outcomes = match self.store.commit(&batches) {
            Ok(committed) => {
                assert_eq!(committed.outcomes.len(), replies.len(), "one outcome per member");
                for (batch, outcome) in batches.iter().zip(&committed.outcomes) {
                    outcome.iter().for_each(|appended| assert_fits(batch, appended));
                }
                self.head.advance(committed.head);
                committed.outcomes
            }
            Err(error) => replies.iter().map(|_| Err(error.answer())).collect(),
        };
        drop(kept);
        let answers = batches.into_iter().zip(outcomes);
        let answers = answers.map(|(batch, outcome)| Answer { outcome, _batch: batch });
        self.relay.deliver(replies.into_iter().zip(answers).collect());
    }
}

/// A caller acts on its answer. One that is not of its batch is worse than none: the writer dies of
/// it, and the outcome is unknown.
fn assert_fits(batch: &AppendBatch, appended: &Appended) {
    let last = appended.first.plus(batch.event_count().saturating_sub(1) as u64);
    assert_eq!(appended.last, last, "an append is answered with a position for each event");
    let versions = appended.versions.len();
    let writes = batch.writes().len();
    assert_eq!(versions, writes, "an append is answered with a version for each write");
}

#[expect(clippy::disallowed_methods, reason = "the writer's own thread, some microseconds")]
fn pause(wait: Duration) {
    thread::sleep(wait);
}

struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
