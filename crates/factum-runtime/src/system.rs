//! The shell around the cells: tasks that do what a cell says next.

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
        Answer, Answers, Appending, Blame, Freshness, Input, Letter, Next, Queued, Rules, Step,
        Tail, Tending, Verdict,
    },
    directory::Directory,
    drive::{Drive, Driving, Home},
    entity::{self, Entity, Resident},
    error::EntityError,
    message::Message,
    option::{BURST_MAX, EntityOptions, OtherWriters},
    order,
    stats::Counters,
};

/// The longest that an idle entity outstays its time, as a part of that time.
const SWEEPS_PER_IDLE: u32 = 4;

/// All that the entities of a kind share.
pub(crate) struct System<A: Aggregate> {
    pub(crate) repository: Repository<A>,
    pub(crate) options: EntityOptions,
    pub(crate) rules: Rules,
    pub(crate) directory: Directory<A>,
    pub(crate) counters: Counters,
    pub(crate) started: Monotonic,
    home: Home,
    /// Entities at work.
    active: AtomicUsize,
    /// Told when the last one ended.
    rested: Notify,
    is_closed: AtomicBool,
    is_sweeping: AtomicBool,
}

/// What became of a message that was to be delivered.
pub(crate) enum Delivery<'s, A: Aggregate> {
    /// The entity is at work, and perhaps it is the caller's to get on with it.
    Accepted(Driving<'s>),
    /// No room; a future that ends when there may be.
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

    /// Gives a message to its entity. One that was idle is the caller's to drive.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        stream: &StreamId,
        message: Box<Message<A>>,
        now: Monotonic,
    ) -> Delivery<'_, A> {
        self.home.found();
        let mut shard = self.directory.shard(stream);
        // Under the lock, so that a shutdown which has seen the shard knows of all that began.
        if self.is_closed.load(Ordering::Acquire) {
            return Delivery::Refused(EntityError::Closed(stream.clone()));
        }
        let slot = shard.slot(stream, now);
        match slot.cell.queue(message, &self.rules) {
            Queued::Begin => self.active.fetch_add(1, Ordering::AcqRel),
            Queued::Joined => {
                self.counters.queued(slot.cell.queued());
                // Who drives it may not come back to it, and now somebody else waits.
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
        // From here on the work answers for the cell, also if it is never polled.
        let running = Running { system: self.clone(), stream: stream.clone(), now, is_over: false };
        let driving = Driving::new(drive, Box::pin(running.run(step)), &self.home);
        self.sweep_from_now_on();
        Delivery::Accepted(driving)
    }

    fn step(&self, stream: &StreamId, input: Input<Entity<A>>, now: Monotonic) -> Step<Entity<A>> {
        let mut shard = self.directory.shard(stream);
        let slot = shard.find(stream).expect("a running cell stays in the directory");
        let step = slot.cell.on(input, &self.rules, now);
        slot.tell_of_room(self.rules.mailbox_max);
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

    /// Stops accepting. Entities at work go on until their queues are empty.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        // Whoever saw it open has begun when its shard has been locked once.
        for mut shard in self.directory.shards() {
            let drives = shard.iter_mut().filter_map(|(_, slot)| slot.drive.take());
            let drives: Vec<_> = drives.collect();
            drop(shard);
            drives.iter().for_each(|drive| drive.give_to_a_task(&self.home));
        }
    }

    /// Waits until no entity is at work.
    pub(crate) async fn until_rested(&self) {
        loop {
            let rested = self.rested.notified();
            if self.active() == 0 {
                return;
            }
            rested.await;
        }
    }

    /// Answers everything that waits with `Closed`. How many messages, and who is at work.
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

    /// Waits for a future until the deadline; `None`: it passed.
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

    /// One task for all idle entities, as long as there are any.
    fn sweep_from_now_on(self: &Arc<Self>) {
        let Some(idle) = self.options.idle else { return };
        if self.is_sweeping.load(Ordering::Relaxed) || self.is_sweeping.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.home.spawn(Box::pin(Sweeper(Arc::downgrade(self)).run(idle, self.clock().clone())));
    }

    /// Passivates what was idle for so long. Whether nothing is left to sweep.
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
        // An entity may have come between; it saw the sweeper still at work.
        !is_left() || self.is_sweeping.swap(true, Ordering::AcqRel)
    }
}

/// The sweeper's task. When its runtime ends before it, the next message starts another.
struct Sweeper<A: Aggregate>(Weak<System<A>>);

impl<A: Aggregate> Sweeper<A> {
    async fn run(mut self, idle: Duration, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep((idle / SWEEPS_PER_IDLE).max(Duration::from_millis(1))).await;
            let Some(system) = self.0.upgrade() else { return };
            if system.sweep(idle) {
                // Told already, and perhaps there is another.
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

/// The work of an entity that has messages. However it ends, the cell knows.
struct Running<A: Aggregate> {
    system: Arc<System<A>>,
    stream: StreamId,
    /// When it was last waited for something.
    now: Monotonic,
    is_over: bool,
}

impl<A: Aggregate> Running<A> {
    async fn run(mut self, mut step: Step<Entity<A>>) {
        let mut attempts = Attempts::new(self.system.repository.retry());
        let mut appended = None;
        loop {
            if !step.answers.is_empty() {
                self.answer(step.answers, appended.take().as_ref());
                // Attempts are those of a burst, and this one is over.
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
                Next::Decide { state, mut letters } => {
                    if letters.iter().any(|letter| letter.message.once().is_some()) {
                        let repository = &self.system.repository;
                        let look =
                            order::look(repository, &self.stream, &mut letters, &mut attempts);
                        Box::pin(look).await;
                        self.now = self.system.now();
                    }
                    self.decide(state, letters)
                }
                // What is rare is kept out of every future.
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
                if let Ok((_, Tail::Folded)) = caught_up {
                    Counters::add(&system.counters.stale, 1);
                }
                Input::CaughtUp(caught_up)
            }
            Next::Tend(mut state) => match entity::tend(repository, stream, &mut state).await {
                Ok(()) => Input::Tended(state),
                Err(failed) => Input::Loaded(Err(failed)),
            },
            _ => unreachable!("done by the caller"),
        }
    }

    fn decide(
        &self,
        state: Box<Resident<A>>,
        letters: VecDeque<Letter<Entity<A>>>,
    ) -> Input<Entity<A>> {
        let decided = entity::decide(&self.system.repository, &self.stream, state, letters);
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

impl<A: Aggregate> Drop for Running<A> {
    fn drop(&mut self) {
        let mut lost = Vec::new();
        if !self.is_over {
            let system = &self.system;
            let now = system.now();
            let mut shard = system.directory.shard(&self.stream);
            if let Some(slot) = shard.find(&self.stream) {
                lost = slot.cell.abandon();
                slot.drive = None;
                slot.tell_of_room(system.rules.mailbox_max);
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
