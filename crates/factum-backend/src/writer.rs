//! The writer loop: one thread per log, and group commit. Its only timer bounds a gathering.
//!
//! While one group commits, the next gathers in the queue. The thread takes the waiting appends,
//! and waits for those that are known to come (see `relay.rs`). It lets the store plan and commit
//! the group, wakes readers, answers all members, and begins again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Limits, Position, StoreError, WriteError,
};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, oneshot, watch};

use crate::{
    group::{Group, Load},
    head::Head,
    precheck::Prechecked,
    queue::{Entrance, Exit, Taken, queue},
    relay::{Answer, Relay, Reply},
};

/// The most appends that wait in the queue. Further callers wait for room.
pub const QUEUE_BATCHES_MAX: usize = 4_096;
/// The most bytes of events that wait in the queue. Further callers wait for room.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The number of times that a group waits for more members, if its store wants that.
pub const GATHERINGS_MAX: usize = 8;

/// The delay between planning and storing a group. Tests use it to widen the gap in which a wrong
/// store would lose events.
pub type CommitDelay = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Waits as long as a test asks for. A store calls it on the writer's thread, between planning and
/// storing.
#[expect(clippy::disallowed_methods, reason = "a test asked for it, on the writer's own thread")]
pub fn delay_commit(delay: Option<&CommitDelay>) {
    if let Some(delay) = delay {
        thread::sleep(delay());
    }
}

/// A group that was stored.
#[derive(Debug)]
pub struct Committed {
    /// One outcome per batch, in order.
    pub outcomes: Vec<Result<Appended, AppendError>>,
    /// The last position after the group.
    pub head: Position,
}

/// The error of a group that was not stored, or is not known to be. All its members get it.
#[derive(Debug, Clone)]
pub enum CommitError {
    /// Nothing was stored.
    NotStored(StoreError),
    /// The group may or may not be stored.
    Unknown(StoreError),
}

impl From<StoreError> for CommitError {
    fn from(error: StoreError) -> Self {
        Self::NotStored(error)
    }
}

impl From<CommitError> for AppendError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotStored(error) => Self::Store(error),
            CommitError::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

impl From<CommitError> for ChangeError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotStored(error) => Self::Store(error),
            CommitError::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

impl From<CommitError> for WriteError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::NotStored(error) => Self::Store(error),
            CommitError::Unknown(error) => Self::Indeterminate(error),
        }
    }
}

/// The writing half of a store. It lives on the writer's thread and may block there.
pub trait Commit: Send + 'static {
    /// Plans a group with [`plan_group`](crate::plan_group) and stores it before it returns, as
    /// durably as the store claims.
    ///
    /// # Errors
    /// The error must tell truthfully whether anything was stored.
    fn commit(&mut self, batches: &[AppendBatch]) -> Result<Committed, CommitError>;

    /// The idle time of the thread before [`rest`](Self::rest) is called, once until there is work
    /// again. Never by default.
    fn rest_after(&self) -> Duration {
        Duration::MAX
    }

    /// Releases resources that are held only for speed.
    fn rest(&mut self) {}

    /// The time for which a group that is smaller than the last one waits for the callers that were
    /// just answered. It waits again as long as each wait brings more members, at most
    /// [`GATHERINGS_MAX`] times. Zero by default. A wait pays off if a group costs a round trip and
    /// a sync whatever its size.
    fn gathering(&self) -> Duration {
        Duration::ZERO
    }
}

enum Job<C> {
    Append(Member),
    Run(Box<dyn FnOnce(&mut C) + Send>),
    Close,
}

/// The way to a writer thread. After its drop, the thread finishes what was accepted.
pub struct Writer<C> {
    jobs: Entrance<Job<C>>,
    /// The queue's room, in units.
    room: Arc<Semaphore>,
    head: Head,
    limits: Limits,
    is_closed: AtomicBool,
    /// Closed when the thread ends, which owns the other end.
    ended: watch::Receiver<()>,
}

impl<C> fmt::Debug for Writer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("head", &self.head.position()).finish_non_exhaustive()
    }
}

impl<C: Commit> Writer<C> {
    /// Starts a thread with this name. `head` gets the position of every commit.
    ///
    /// # Errors
    /// `Unavailable` if the system can't start another thread.
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
    /// If it is dropped while it waits for room in the queue, nothing happens. If it is dropped
    /// later, the append goes on without the caller.
    pub async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.append_prechecked(batch, None).await
    }

    /// Like [`append`](Self::append), for a batch with prechecked conditions, which are kept until
    /// the batch is planned.
    ///
    /// # Errors
    /// See [`AppendError`].
    ///
    /// # Cancel safety
    /// That of [`append`](Self::append).
    pub async fn append_prechecked(
        &self,
        batch: AppendBatch,
        prechecked: Option<Prechecked>,
    ) -> Result<Appended, AppendError> {
        self.limits.check_append(&batch)?;
        let load = Load::of(&batch);
        let units = units_of(load.bytes);
        let room = self.room(units).await?;
        let (to, answer) = oneshot::channel();
        let reply = Reply { to, units };
        let job = Job::Append(Member { batch, load, reply, prechecked });
        if !self.jobs.put(job) {
            return Err(self.ended().into());
        }
        // The group returns the room with its answers.
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

    /// Runs other work on the writer's thread, between two groups, and waits for it. `bytes`: the
    /// bytes that the work holds until then, which count in the queue like those of a batch. The
    /// outer error: the work was not run, or the writer died in it.
    ///
    /// # Errors
    /// `Closed`, or `Internal` if the thread died.
    ///
    /// # Cancel safety
    /// If it is dropped while it waits for room in the queue, nothing happens. If it is dropped
    /// later, the work is done without the caller.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut C) -> T + Send + 'static,
    ) -> Result<T, RunError> {
        let units = units_of(bytes);
        self.room(units).await.map_err(RunError::NotRun)?.forget();
        // Returned however the job ends, even if it is not run.
        let room = Room { room: self.room.clone(), units };
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |store| {
            let done = work(store);
            // The room first: a caller that hears the answer may rely on it.
            drop(room);
            // The caller may be gone; the work had to be done all the same.
            let _ = reply.send(done);
        }));
        if !self.jobs.put(job) {
            return Err(RunError::NotRun(self.ended()));
        }
        answer.await.map_err(|_| RunError::Unknown(writer_died()))
    }

    /// Lets the thread finish what was accepted, ends it, and drops the store's writing half. Every
    /// caller waits until that is done.
    pub async fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.room.close();
        // An error means that another caller has closed it; accepted work may still be under way.
        let _ = self.jobs.put(Job::Close);
        // Nothing is ever sent. An error means that the thread has ended, as intended.
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

/// The reason why work on the writer's thread has no result.
#[derive(Debug)]
pub enum RunError {
    /// The work was not run.
    NotRun(StoreError),
    /// The work may or may not have been run to its end.
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

impl From<RunError> for ChangeError {
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

/// The unit of the queue's room, in bytes. Every batch takes at least one, so that both the number
/// of batches and their bytes are bounded.
const ROOM_UNIT: usize = QUEUE_BYTES_MAX / QUEUE_BATCHES_MAX;

/// The room for this many bytes. A batch that is larger than the whole queue would wait forever, so
/// it takes all of it.
fn units_of(bytes: usize) -> u32 {
    bytes.div_ceil(ROOM_UNIT).clamp(1, QUEUE_BATCHES_MAX) as u32
}

/// Room in the queue, returned on drop.
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
    /// The number of members of the last group.
    answered: usize,
}

struct Member {
    batch: AppendBatch,
    load: Load,
    reply: Reply,
    prechecked: Option<Prechecked>,
}

impl Member {
    fn join(self, group: &mut Group<Self>) -> Result<(), Self> {
        let load = self.load;
        group.push(self, load)
    }
}

impl<C: Commit> Loop<C> {
    fn run(mut self) {
        // However the thread ends, no caller may wait for room that no group will return.
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
                // Jobs that were put in before stay in the queue and are still done.
                Job::Close => self.queue.close(),
            }
        }
        // Files are closed before any caller learns that the store is closed.
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
        // A job that did not fit comes first after the group.
        if let Some(job) = next {
            self.queue.put_back(job);
        }
        self.answered = group.count();
        self.commit_group(group.into_members());
    }

    /// Adds the waiting appends to the group. Returns the first job that does not belong to it.
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
        for Member { batch, reply, prechecked, .. } in members {
            batches.push(batch);
            replies.push(reply);
            kept.extend(prechecked);
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
            Err(error) => replies.iter().map(|_| Err(error.clone().into())).collect(),
        };
        drop(kept);
        let answers = batches.into_iter().zip(outcomes);
        let answers = answers.map(|(batch, outcome)| Answer { outcome, _batch: batch });
        self.relay.deliver(replies.into_iter().zip(answers).collect());
    }
}

/// Panics if an answer does not fit its batch, because the caller would act on it. The writer then
/// dies, and the outcome is unknown.
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
