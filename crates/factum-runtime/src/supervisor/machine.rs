//! What becomes of each worker, as a state machine: what happened goes in, what is to be done
//! comes out. It knows no task, no lock and no clock.

use std::{mem, sync::Arc, time::Duration};

use factum_kernel::{Clock, Monotonic, Timestamp};

use super::{
    state::{WorkerHealth, WorkerState},
    worker::{RestartPolicy, RestartStrategy},
};
use crate::cell::{Blame, Health, Restart};

/// A worker in its supervisor; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkerId(pub(super) u64);

/// Which run or which timer of a worker: an end or a ring of an older one means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ticket(u64);

/// When something happened: the time to show, and the reading to measure by.
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

/// What is chosen for a worker.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) name: Arc<str>,
    pub(super) policy: RestartPolicy,
    pub(super) strategy: RestartStrategy,
    pub(super) restart: Restart,
    pub(super) grace: Duration,
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    Add(WorkerId, Rules),
    Remove(WorkerId),
    Restart(WorkerId),
    Close,
    Ended(WorkerId, Ticket, End),
    Rang(WorkerId, Ticket),
    /// The timer ended without a ring: with the runtime, or because it was silenced.
    Unrung(WorkerId, Ticket),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Failed(Arc<str>, Blame),
    /// Its task was dropped: by us, or with the runtime.
    Dropped,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Start(WorkerId, Ticket),
    AskToStop(WorkerId),
    Drop(WorkerId),
    /// Ring after about so long: a random part of its half is left out.
    Pause(WorkerId, Ticket, Duration),
    /// Ring after so long.
    Grace(WorkerId, Ticket, Duration),
    /// Ring no more.
    Silence(WorkerId),
    Forget(WorkerId),
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
    /// The newest of its tickets: that of a run while it runs, that of a timer while one is set.
    ticket: Ticket,
    run: Ticket,
    starts: u64,
    cause: Option<Arc<str>>,
    /// It did not stop in time.
    is_dropped: bool,
}

/// What should become of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Run,
    /// Stop, then run: something it needs is started again.
    RunAgain,
    Stop,
    /// Stop, and be forgotten.
    Leave,
}

/// Where a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It starts as soon as it may.
    Waiting,
    Running,
    BackingOff(Duration),
    Stopping,
    /// Its future is to be dropped, and may still be polled.
    Dropping,
    Stopped,
    GivenUp,
}

impl Machine {
    /// Takes in what happened. What is to be done, in this order.
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
        mem::take(&mut self.effects)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether it is closed, and nobody has to be waited for.
    fn is_stopped(&self) -> bool {
        self.is_closing && !self.slots.iter().any(Slot::is_waited_for)
    }

    /// Whom the shutdown dropped; `None`: it is not over.
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

    /// Whether nobody has to wait for this worker; `None`: it is forgotten.
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
            // What was dropped before and is gone is nothing that this shutdown left.
            slot.is_dropped = slot.phase == Phase::Dropping;
            if slot.wish != Wish::Leave {
                slot.wish = Wish::Stop;
            }
        }
    }

    /// By order of a person: what it died of is forgiven.
    fn restart(&mut self, id: WorkerId, now: Moment) {
        let Some(index) = self.index(id) else { return };
        let slot = &mut self.slots[index];
        if matches!(slot.wish, Wish::Stop | Wish::Leave) {
            return;
        }
        slot.health = Health::default();
        // One that is about to be started again is forgiven all the same.
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
            // It was asked to, or would have been.
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
                slot.cause = Some("it ended, and should not".into());
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

    /// Those that need this one are to stop, and to run behind it.
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
            // Its grace can't be measured any more, so it is over.
            _ => self.rang(id, ticket, now),
        }
    }

    /// Brings about what is wished, as far as it may be.
    fn settle(&mut self, now: Moment) {
        for index in (0..self.slots.len()).rev() {
            if self.slots[index].wish != Wish::Run && self.may_stop(index) {
                let slot = &mut self.slots[index];
                slot.enter(Phase::Stopping, now);
                self.effects.push(Effect::AskToStop(slot.id));
                self.effects.push(Effect::Grace(slot.id, slot.ticket, slot.rules.grace));
            }
        }
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_alive()) {
            match (slot.wish, slot.phase) {
                (Wish::RunAgain, _) => slot.wish = Wish::Run,
                (Wish::Stop, Phase::Waiting | Phase::BackingOff(_)) => {
                    slot.enter(Phase::Stopped, now);
                    self.effects.push(Effect::Silence(slot.id));
                }
                (Wish::Leave, _) => self.effects.push(Effect::Forget(slot.id)),
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

    /// Whoever runs stops after those that were added later and need it, and have to stop as well.
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

    /// Whoever needs others starts when they run, or have done their work. It starts after those
    /// that need it have stopped.
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
        }
    }

    fn enter(&mut self, phase: Phase, now: Moment) {
        (self.phase, self.since) = (phase, now);
        self.ticket.0 += 1;
    }

    fn lose_runtime(&mut self, now: Moment) {
        self.cause = Some("the runtime it ran on has ended, restart it on another".into());
        self.enter(Phase::Stopped, now);
    }

    /// Whether its future is there.
    fn is_alive(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Stopping | Phase::Dropping)
    }

    /// Whether its future is there, and may stay a while longer.
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
            cause: self.cause.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
