//! The state machine of the workers: inputs go in, effects come out. It knows no task, no lock and
//! no clock.

use std::{mem, sync::Arc, time::Duration};

use factum_kernel::{Clock, Monotonic, Timestamp};

use super::{
    state::{WorkerHealth, WorkerState},
    worker::{RestartPolicy, RestartStrategy},
};
use crate::cell::{Blame, Health, Restart};

/// The id of a worker in its supervisor, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkerId(pub(super) u64);

/// The number of a run or a timer of a worker. The machine ignores the end of an older run and the
/// ring of an older timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticket(u64);

/// The time of an input: the time to show, and the monotonic reading for durations.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moment {
    pub(super) at: Timestamp,
    pub(super) reading: Monotonic,
}

impl Moment {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self { at: clock.now(), reading: clock.monotonic() }
    }
}

/// The settings of a worker.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) name: Arc<str>,
    pub(super) policy: RestartPolicy,
    pub(super) strategy: RestartStrategy,
    pub(super) restart: Restart,
    /// `None`: its future is never dropped.
    pub(super) grace: Option<Duration>,
}

/// An input of the machine.
#[derive(Debug)]
pub(super) enum Input {
    Add(WorkerId, Rules),
    Remove(WorkerId),
    Restart(WorkerId),
    Close,
    Ended(WorkerId, Ticket, End),
    Rang(WorkerId, Ticket),
    /// The timer ended without a ring, because its runtime ended or because it was silenced.
    Unrung(WorkerId, Ticket),
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Failed(Arc<str>, Blame),
    /// The task was dropped, by the supervisor or with its runtime.
    Dropped,
}

/// An effect for the supervisor to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Start(WorkerId, Ticket),
    AskToStop(WorkerId),
    Drop(WorkerId),
    /// Ring after about this long: the supervisor subtracts a random part of at most half.
    Pause(WorkerId, Ticket, Duration),
    /// Ring after this long.
    Grace(WorkerId, Ticket, Duration),
    /// Cancel the timer.
    Silence(WorkerId),
    Forget(WorkerId),
    /// The worker's state has changed.
    Tell(WorkerId, WorkerHealth),
}

/// All workers, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Machine {
    slots: Vec<Slot>,
    is_closing: bool,
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Slot {
    id: WorkerId,
    rules: Rules,
    wish: Wish,
    phase: Phase,
    since: Moment,
    health: Health,
    /// The newest ticket: that of the run while the worker runs, that of the timer while one is
    /// set.
    ticket: Ticket,
    run: Ticket,
    starts: u64,
    cause: Option<Arc<str>>,
    /// True if the worker did not stop in time.
    is_dropped: bool,
    /// True if nothing has changed since its health was told.
    is_told: bool,
}

/// The state that a worker should reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    /// Stop, then run: a worker that it needs is restarted.
    RunAgain,
    Stop,
    /// Stop, and be removed.
    Leave,
}

/// The present state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It starts as soon as the workers that it needs allow it.
    Waiting,
    Running,
    BackingOff(Duration),
    Stopping,
    /// Its future will be dropped, and may still be polled until then.
    Dropping,
    Stopped,
    GivenUp,
}

impl Machine {
    /// Takes an input. Returns the effects to perform, in order.
    pub(super) fn on(&mut self, input: Input, now: Moment) -> Vec<Effect> {
        match input {
            Input::Add(id, rules) => self.slots.push(Slot::new(id, rules, now)),
            Input::Remove(id) => self.remove(id),
            Input::Restart(id) => self.restart(id, now),
            Input::Close => self.close(),
            Input::Ended(id, run, end) => self.ended(id, run, end, now),
            Input::Rang(id, ticket) => self.rang(id, ticket, now),
            Input::Unrung(id, ticket) => self.unrung(id, ticket, now),
        }
        self.settle(now);
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_told) {
            slot.is_told = true;
            self.effects.push(Effect::Tell(slot.id, slot.report()));
        }
        mem::take(&mut self.effects)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// True if the machine is closed and no worker's end is waited for.
    fn is_stopped(&self) -> bool {
        self.is_closing && !self.slots.iter().any(Slot::is_waited_for)
    }

    /// The names of the workers that the shutdown dropped; `None` while the shutdown goes on.
    pub(super) fn stopped(&self) -> Option<Vec<Arc<str>>> {
        let dropped = self.slots.iter().filter(|slot| slot.is_dropped);
        self.is_stopped().then(|| dropped.map(|slot| slot.rules.name.clone()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn id(&self, name: &str) -> Option<WorkerId> {
        self.slots.iter().find(|slot| *slot.rules.name == *name).map(|slot| slot.id)
    }

    /// True if nothing waits for the end of this worker; `None` if it was removed.
    pub(super) fn has_stopped(&self, id: WorkerId) -> Option<bool> {
        self.slots.iter().find(|slot| slot.id == id).map(|slot| !slot.is_waited_for())
    }

    pub(super) fn health(&self) -> Vec<WorkerHealth> {
        self.slots.iter().map(Slot::report).collect()
    }

    fn index(&self, id: WorkerId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == id)
    }

    fn remove(&mut self, id: WorkerId) {
        if let Some(index) = self.index(id) {
            self.slots[index].wish = Wish::Leave;
        }
    }

    fn close(&mut self) {
        if mem::replace(&mut self.is_closing, true) {
            return;
        }
        for slot in &mut self.slots {
            // A worker that was dropped earlier and is gone does not count for this shutdown.
            slot.is_dropped = slot.phase == Phase::Dropping;
            if slot.wish != Wish::Leave {
                slot.wish = Wish::Stop;
            }
        }
    }

    /// Restarts a worker because a person asked for it. Its deaths so far don't count any more.
    fn restart(&mut self, id: WorkerId, now: Moment) {
        let Some(index) = self.index(id) else { return };
        let slot = &mut self.slots[index];
        if matches!(slot.wish, Wish::Stop | Wish::Leave) {
            return;
        }
        slot.health = Health::default();
        // A worker that is being restarted already only gets its failure count reset.
        if slot.wish == Wish::RunAgain {
            return;
        }
        if slot.phase == Phase::Running {
            slot.wish = Wish::RunAgain;
            self.rest_again(index);
        } else {
            slot.enter(Phase::Waiting, now);
            self.effects.push(Effect::Silence(id));
        }
    }

    fn ended(&mut self, id: WorkerId, run: Ticket, end: End, now: Moment) {
        let Some(index) = self.index(id) else { return };
        let slot = &mut self.slots[index];
        if slot.run != run || !slot.is_alive() {
            return;
        }
        if let End::Failed(cause, _) = &end {
            slot.cause = Some(cause.clone());
        }
        if slot.phase != Phase::Running || self.is_closing {
            // The worker was asked to stop, or would have been.
            slot.enter(Phase::Waiting, now);
            self.effects.push(Effect::Silence(id));
            return;
        }
        match (slot.rules.policy, end) {
            (_, End::Dropped) => slot.lose_runtime(now),
            (RestartPolicy::Never, _) | (RestartPolicy::Transient, End::Done) => {
                slot.enter(Phase::Stopped, now);
            }
            (RestartPolicy::Permanent, End::Done) => {
                slot.cause = Some("it ended without an error, but should always run".into());
                self.died(index, Blame::Entity, now);
            }
            (_, End::Failed(_, blame)) => self.died(index, blame, now),
        }
    }

    fn died(&mut self, index: usize, blame: Blame, now: Moment) {
        let slot = &mut self.slots[index];
        let restart = slot.rules.restart;
        if now.reading.saturating_since(slot.since.reading) >= restart.window {
            slot.health.recovered();
        }
        slot.health.stumbled(blame, &restart, now.reading);
        if slot.health.is_dead(&restart) {
            slot.enter(Phase::GivenUp, now);
        } else if let Some(pause) = slot.health.pause(&restart, now.reading) {
            slot.enter(Phase::BackingOff(pause), now);
            self.effects.push(Effect::Pause(slot.id, slot.ticket, pause));
        } else {
            slot.enter(Phase::Waiting, now);
        }
        self.rest_again(index);
    }

    /// Marks the workers that need this one, so that they stop and start again after it.
    fn rest_again(&mut self, index: usize) {
        let strategy = self.slots[index].rules.strategy.clone();
        for slot in self.slots[index + 1..].iter_mut().filter(|slot| slot.is_with(&strategy)) {
            if slot.phase == Phase::Running && slot.wish == Wish::Run {
                slot.wish = Wish::RunAgain;
            }
        }
    }

    fn rang(&mut self, id: WorkerId, ticket: Ticket, now: Moment) {
        let Some(index) = self.index(id) else { return };
        let slot = &mut self.slots[index];
        if slot.ticket != ticket {
            return;
        }
        match slot.phase {
            Phase::BackingOff(_) => slot.enter(Phase::Waiting, now),
            Phase::Stopping => {
                slot.enter(Phase::Dropping, now);
                slot.is_dropped = true;
                self.effects.push(Effect::Drop(id));
            }
            _ => {}
        }
    }

    fn unrung(&mut self, id: WorkerId, ticket: Ticket, now: Moment) {
        let Some(index) = self.index(id) else { return };
        let slot = &mut self.slots[index];
        match slot.phase {
            Phase::BackingOff(_) if slot.ticket == ticket => slot.lose_runtime(now),
            // The grace can't be measured without the timer, so it counts as over.
            _ => self.rang(id, ticket, now),
        }
    }

    /// Moves each worker towards its wish, as far as the other workers allow it.
    fn settle(&mut self, now: Moment) {
        for index in (0..self.slots.len()).rev() {
            if self.slots[index].wish != Wish::Run && self.may_stop(index) {
                let slot = &mut self.slots[index];
                slot.enter(Phase::Stopping, now);
                self.effects.push(Effect::AskToStop(slot.id));
                let grace = slot.rules.grace;
                self.effects.extend(grace.map(|it| Effect::Grace(slot.id, slot.ticket, it)));
            }
        }
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_alive()) {
            match (slot.wish, slot.phase) {
                (Wish::RunAgain, _) => slot.wish = Wish::Run,
                (Wish::Stop, Phase::Waiting | Phase::BackingOff(_)) => {
                    slot.enter(Phase::Stopped, now);
                    self.effects.push(Effect::Silence(slot.id));
                }
                (Wish::Leave, _) => {
                    slot.enter(Phase::Stopped, now);
                    self.effects.push(Effect::Tell(slot.id, slot.report()));
                    self.effects.push(Effect::Forget(slot.id));
                }
                _ => {}
            }
        }
        self.slots.retain(|slot| slot.is_alive() || slot.wish != Wish::Leave);
        for index in 0..self.slots.len() {
            if self.may_start(index) {
                let slot = &mut self.slots[index];
                slot.enter(Phase::Running, now);
                (slot.run, slot.is_dropped) = (slot.ticket, false);
                slot.starts += 1;
                self.effects.push(Effect::Start(slot.id, slot.run));
            }
        }
    }

    /// True if a running worker may stop: the workers that were added later, need it, and must stop
    /// too have stopped.
    fn may_stop(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let goes_before = |later: &Slot| match slot.wish {
            _ if self.is_closing => later.is_waited_for(),
            Wish::RunAgain => {
                later.is_alive() && later.wish != Wish::Run && later.is_with(&slot.rules.strategy)
            }
            _ => false,
        };
        slot.phase == Phase::Running && !self.slots[index + 1..].iter().any(goes_before)
    }

    /// True if a waiting worker may start: the workers that it needs are running or have finished
    /// their work, and the workers that need it have stopped.
    fn may_start(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        if self.is_closing || slot.phase != Phase::Waiting || slot.wish != Wish::Run {
            return false;
        }
        let earlier = &self.slots[..index];
        let later = &self.slots[index + 1..];
        let with = |other: &&Slot| other.is_with(&slot.rules.strategy) && other.wish != Wish::Leave;
        earlier
            .iter()
            .filter(with)
            .all(|it| it.wish == Wish::Run && matches!(it.phase, Phase::Running | Phase::Stopped))
            && later.iter().filter(with).all(|it| !it.is_alive() || it.wish == Wish::Run)
    }
}

impl Slot {
    fn new(id: WorkerId, rules: Rules, now: Moment) -> Self {
        Self {
            id,
            rules,
            wish: Wish::Run,
            phase: Phase::Waiting,
            since: now,
            health: Health::default(),
            ticket: Ticket::default(),
            run: Ticket::default(),
            starts: 0,
            cause: None,
            is_dropped: false,
            is_told: false,
        }
    }

    fn enter(&mut self, phase: Phase, now: Moment) {
        (self.phase, self.since) = (phase, now);
        self.ticket.0 += 1;
        self.is_told = false;
    }

    fn lose_runtime(&mut self, now: Moment) {
        self.cause = Some("the worker's runtime has ended, restart it on another".into());
        self.enter(Phase::Stopped, now);
    }

    /// True if its future exists.
    fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Stopping | Phase::Dropping)
    }

    /// True if its future exists and may still stop by itself.
    fn is_waited_for(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Stopping)
    }

    fn is_with(&self, strategy: &RestartStrategy) -> bool {
        *strategy != RestartStrategy::OneForOne && self.rules.strategy == *strategy
    }

    fn report(&self) -> WorkerHealth {
        let state = match self.phase {
            Phase::Waiting => WorkerState::Waiting,
            Phase::Running => WorkerState::Running,
            Phase::BackingOff(pause) => WorkerState::BackingOff(pause),
            Phase::Stopping | Phase::Dropping => WorkerState::Stopping,
            Phase::Stopped => WorkerState::Stopped,
            Phase::GivenUp => WorkerState::GivenUp,
        };
        WorkerHealth {
            name: self.rules.name.clone(),
            state,
            since: self.since.at,
            restarts: self.starts.saturating_sub(1),
            failures: self.health.in_a_row(),
            cause: self.cause.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
