//! The shell around the cells: it performs the steps that a cell asks for.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use factum_kernel::{
    Aggregate, Appended, Attempts, Clock, Monotonic, Repository, StreamId, Writers,
};
use tokio::sync::Notify;

use crate::{
    cell::{
        Answer, Answers, Appending, Blame, CatchUp, Envelope, Freshness, Input, Next, Queued,
        Rules, Step, Tending, Verdict,
    },
    command,
    directory::Directory,
    drive::{Drive, Driving, Home},
    entity::{self, Entity, Resident},
    error::EntityError,
    message::Message,
    option::{BURST_MAX, EntityOptions, OtherWriters},
    stats::Counters,
};

/// The number of sweeps within the idle time. An entity is passivated at most one sweep interval
/// late.
const SWEEPS_PER_IDLE: u32 = 4;

/// The state that all entities of a kind share.
pub(crate) struct System<A: Aggregate> {
    pub(crate) repository: Repository<A>,
    pub(crate) options: EntityOptions,
    pub(crate) rules: Rules,
    pub(crate) directory: Directory<A>,
    pub(crate) counters: Counters,
    pub(crate) started: Monotonic,
    home: Home,
    /// The number of active entities.
    active: AtomicUsize,
    /// Notified when the last active entity became idle.
    rested: Notify,
    is_closed: AtomicBool,
    is_sweeping: AtomicBool,
}

/// The result of delivering a message.
pub(crate) enum Delivery<'s, A: Aggregate> {
    /// The message is queued. The caller may have to drive the entity's work.
    Accepted(Driving<'s>),
    /// The mailbox is full. The future ends when there may be room.
    Full(Box<Message<A>>, tokio::sync::futures::OwnedNotified),
    Refused(EntityError),
}

impl<A: Aggregate> System<A> {
    pub(crate) fn new(repository: Repository<A>, options: EntityOptions) -> Self {
        let store = repository.kernel().events();
        let is_owned = options.other_writers == OtherWriters::None
            && store.guarantees().writers == Writers::ThisProcess;
        let rules = Rules {
            mailbox_max: options.mailbox_max.max(1),
            burst_max: BURST_MAX,
            freshness: if is_owned { Freshness::Owned } else { Freshness::Checked },
            tending: match repository.snapshot_stats() {
                Some(_) => Tending::Snapshots,
                None => Tending::Nothing,
            },
            restart: options.restart,
        };
        Self {
            started: repository.kernel().clock().monotonic(),
            directory: Directory::new(options.weight_max),
            repository,
            options,
            rules,
            counters: Counters::default(),
            home: Home::default(),
            active: AtomicUsize::new(0),
            rested: Notify::new(),
            is_closed: AtomicBool::new(false),
            is_sweeping: AtomicBool::new(false),
        }
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        self.repository.kernel().clock()
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.clock().monotonic()
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Gives a message to its entity. If the entity was idle, the caller drives its work.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        stream: &StreamId,
        message: Box<Message<A>>,
        now: Monotonic,
    ) -> Delivery<'_, A> {
        self.home.found();
        let mut shard = self.directory.shard(stream);
        // Checked under the lock, so that a shutdown that has visited the shard knows all begun
        // work.
        if self.is_closed.load(Ordering::Acquire) {
            return Delivery::Refused(EntityError::Closed(stream.clone()));
        }
        let slot = shard.slot(stream, now);
        match slot.cell.queue(message, &self.rules) {
            Queued::Begin => self.active.fetch_add(1, Ordering::AcqRel),
            Queued::Joined => {
                self.counters.queued(slot.cell.queued());
                // The caller that drives the work may stop polling it, and now another message
                // waits for it.
                let drive = slot.drive.take();
                drop(shard);
                drive.inspect(|drive| drive.give_to_a_task(&self.home));
                return Delivery::Accepted(Driving::nothing(&self.home));
            }
            Queued::Full(message) => {
                return Delivery::Full(message, slot.room().notified_owned());
            }
            Queued::Quarantined(_, failure) => return Delivery::Refused(failure),
        };
        let step = slot.cell.on(Input::Begin, &self.rules, now);
        let drive = slot.drive.insert(Drive::new()).clone();
        drop(shard);
        // From here on the work is responsible for the cell, even if it is never polled.
        let work = EntityWork { system: self.clone(), stream: stream.clone(), now, is_over: false };
        let driving = Driving::new(drive, Box::pin(work.run(step)), &self.home);
        self.sweep_from_now_on();
        Delivery::Accepted(driving)
    }

    fn step(&self, stream: &StreamId, input: Input<Entity<A>>, now: Monotonic) -> Step<Entity<A>> {
        let mut shard = self.directory.shard(stream);
        let slot = shard.find(stream).expect("a running cell stays in the directory");
        let step = slot.cell.on(input, &self.rules, now);
        slot.notify_room(self.rules.mailbox_max);
        let gone = match step.next {
            Next::Rest => {
                slot.drive = None;
                Some(shard.rested(stream, &self.rules, now))
            }
            _ => None,
        };
        drop(shard);
        drop(gone);
        step
    }

    /// Stops accepting messages. Active entities continue until their queues are empty.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        // A delivery that saw the system open has begun its work once its shard's lock was taken
        // here.
        for mut shard in self.directory.shards() {
            let drives = shard.iter_mut().filter_map(|(_, slot)| slot.drive.take());
            let drives: Vec<_> = drives.collect();
            drop(shard);
            drives.iter().for_each(|drive| drive.give_to_a_task(&self.home));
        }
    }

    /// Waits until no entity is active.
    pub(crate) async fn until_rested(&self) {
        loop {
            let rested = self.rested.notified();
            if self.active() == 0 {
                return;
            }
            rested.await;
        }
    }

    /// Answers all waiting messages with `Closed`. Returns their number, and the active entities.
    pub(crate) fn drain(&self) -> (usize, Vec<StreamId>) {
        let mut refused = 0;
        let mut unfinished = Vec::new();
        for mut shard in self.directory.shards() {
            let mut messages = Vec::new();
            for (stream, slot) in shard.iter_mut().filter(|(_, slot)| slot.cell.is_running()) {
                unfinished.push(stream.clone());
                messages.extend(slot.cell.drain().into_iter().map(|it| (stream.clone(), it)));
            }
            drop(shard);
            refused += messages.len();
            for (stream, message) in messages {
                message.answer(Answer::Failed(EntityError::Closed(stream)), None);
            }
        }
        (refused, unfinished)
    }

    /// Waits for a future until the deadline; `None` if the deadline passed.
    pub(crate) async fn within<T>(
        &self,
        deadline: Option<Duration>,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(deadline) = deadline else { return Some(future.await) };
        tokio::select! {
            biased;
            done = future => Some(done),
            () = self.clock().sleep(deadline) => None,
        }
    }

    /// Starts the task that passivates idle entities, unless it is running. It ends when no entity
    /// is left.
    fn sweep_from_now_on(self: &Arc<Self>) {
        let Some(idle) = self.options.idle else { return };
        if self.is_sweeping.load(Ordering::Relaxed) || self.is_sweeping.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.home.spawn(Box::pin(Sweeper(Arc::downgrade(self)).run(idle, self.clock().clone())));
    }

    /// Passivates the entities that were idle for this long. Returns true if no entity is left.
    fn sweep(&self, idle: Duration) -> bool {
        let now = self.now();
        for mut shard in self.directory.shards() {
            let gone = shard.sweep(idle, &self.rules, now);
            drop(shard);
            drop(gone);
        }
        let is_left = || self.directory.shards().any(|shard| !shard.is_empty());
        if is_left() {
            return false;
        }
        self.is_sweeping.store(false, Ordering::Release);
        // An entity may have been added in between, while the sweeper still counted as running.
        !is_left() || self.is_sweeping.swap(true, Ordering::AcqRel)
    }
}

/// The sweeper's task. If its runtime ends before the task, the next message starts another.
struct Sweeper<A: Aggregate>(Weak<System<A>>);

impl<A: Aggregate> Sweeper<A> {
    async fn run(mut self, idle: Duration, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep((idle / SWEEPS_PER_IDLE).max(Duration::from_millis(1))).await;
            let Some(system) = self.0.upgrade() else { return };
            if system.sweep(idle) {
                // The flag is cleared already, and another sweeper may be running.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

impl<A: Aggregate> Drop for Sweeper<A> {
    fn drop(&mut self) {
        if let Some(system) = self.0.upgrade() {
            system.is_sweeping.store(false, Ordering::Release);
        }
    }
}

/// The work of an active entity. However it ends, the cell is notified.
struct EntityWork<A: Aggregate> {
    system: Arc<System<A>>,
    stream: StreamId,
    /// The time at which the last step ended.
    now: Monotonic,
    is_over: bool,
}

impl<A: Aggregate> EntityWork<A> {
    async fn run(mut self, mut step: Step<Entity<A>>) {
        let mut attempts = Attempts::new(self.system.repository.retry());
        let mut appended = None;
        loop {
            if !step.answers.is_empty() {
                self.answer(step.answers, appended.take().as_ref());
                // Attempts are counted per burst, and this burst is over.
                attempts = Attempts::new(self.system.repository.retry());
            }
            let input = match step.next {
                Next::Rest => break,
                Next::Append(state) => {
                    let repository = &self.system.repository;
                    let (outcome, stored) = entity::append(repository, state, &mut attempts).await;
                    if let Appending::Overtaken = outcome {
                        Counters::add(&self.system.counters.conflicts, 1);
                    }
                    appended = stored;
                    self.now = self.system.now();
                    Input::Appended(outcome)
                }
                Next::Decide { state, mut envelopes } => {
                    if envelopes.iter().any(|envelope| envelope.message.once().is_some()) {
                        let repository = &self.system.repository;
                        let look =
                            command::look(repository, &self.stream, &mut envelopes, &mut attempts);
                        Box::pin(look).await;
                        self.now = self.system.now();
                    }
                    self.decide(state, envelopes)
                }
                // Rare steps are boxed, so that they don't enlarge every future.
                other => {
                    let input = Box::pin(self.perform(other, &mut attempts)).await;
                    self.now = self.system.now();
                    input
                }
            };
            step = self.system.step(&self.stream, input, self.now);
        }
        self.is_over = true;
    }

    async fn perform(&self, next: Next<Entity<A>>, attempts: &mut Attempts) -> Input<Entity<A>> {
        let system = &*self.system;
        let stream = &self.stream;
        let repository = &system.repository;
        match next {
            Next::Pause(pause) => {
                let kernel = repository.kernel();
                kernel.clock().sleep(pause / 2 + kernel.ids().jitter(pause / 2)).await;
                Input::Resumed
            }
            Next::Load => {
                Counters::add(&system.counters.loads, 1);
                let loaded = entity::load(repository, stream, attempts).await;
                self.count_death(loaded.as_ref().err());
                Input::Loaded(loaded)
            }
            Next::CatchUp(state) => {
                let caught_up = entity::catch_up(repository, stream, state, attempts).await;
                self.count_death(caught_up.as_ref().err());
                if let Ok((_, CatchUp::Folded)) = caught_up {
                    Counters::add(&system.counters.stale, 1);
                }
                Input::CaughtUp(caught_up)
            }
            Next::Tend(mut state) => match entity::tend(repository, stream, &mut state).await {
                Ok(()) => Input::Tended(state),
                Err(failed) => Input::Loaded(Err(failed)),
            },
            _ => unreachable!("the caller handles these steps"),
        }
    }

    fn decide(
        &self,
        state: Box<Resident<A>>,
        envelopes: VecDeque<Envelope<Entity<A>>>,
    ) -> Input<Entity<A>> {
        let decided = entity::decide(&self.system.repository, &self.stream, state, envelopes);
        if let Verdict::Panicked { blame: Blame::Entity, .. } = decided.verdict {
            Counters::add(&self.system.counters.deaths, 1);
        }
        Input::Decided(decided)
    }

    fn count_death(&self, failed: Option<&(EntityError, Blame)>) {
        let is_death = failed.is_some_and(|(_, blame)| *blame == Blame::Entity);
        Counters::add(&self.system.counters.deaths, is_death.into());
    }

    fn answer(&self, answers: Answers<Entity<A>>, appended: Option<&Appended>) {
        let mut commands = 0;
        let mut rejected = 0;
        let mut failed = 0;
        for (message, answer) in answers {
            match &answer {
                Answer::Failed(_) => failed += 1,
                _ if !message.is_command() => {}
                Answer::Decided if message.is_failed() => failed += 1,
                answer => {
                    commands += 1;
                    let is_refused = matches!(answer, Answer::Refused(_)) || message.is_rejected();
                    rejected += u64::from(is_refused);
                }
            }
            message.answer(answer, appended);
        }
        let counters = &self.system.counters;
        Counters::add(&counters.commands, commands);
        Counters::add(&counters.rejected, rejected);
        Counters::add(&counters.failed, failed);
    }
}

impl<A: Aggregate> Drop for EntityWork<A> {
    fn drop(&mut self) {
        let mut lost = Vec::new();
        if !self.is_over {
            let system = &self.system;
            let now = system.now();
            let mut shard = system.directory.shard(&self.stream);
            if let Some(slot) = shard.find(&self.stream) {
                lost = slot.cell.abandon();
                slot.drive = None;
                slot.notify_room(system.rules.mailbox_max);
            }
            let gone = shard.rested(&self.stream, &system.rules, now);
            drop(shard);
            drop(gone);
        }
        for message in lost {
            message.answer(Answer::Failed(EntityError::Lost(self.stream.clone())), None);
        }
        if self.system.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.system.rested.notify_waiters();
        }
    }
}
