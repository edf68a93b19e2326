//! The cell: the state machine of one entity. It is pure: messages and outcomes go in; answers and
//! the next step come out. The caller of the machine loads, decides, appends and waits.
//!
//! A cell takes the queued messages as one *burst* and decides them one after another, each on the
//! state that the messages before it lead to. It stores the events of all of them in one append,
//! and answers them after it in the order in which they came. Messages that come while a burst is
//! under way wait for the next burst.

mod health;
mod step;

use std::collections::VecDeque;

use factum_kernel::Monotonic;

pub use health::Restart;
pub(crate) use health::{Blame, Health};
pub(crate) use step::{
    Answer, Answers, Appending, CatchUp, Decided, Effect, Envelope, Freshness, Input, Next, Parts,
    Queued, Rules, Step, Tending, Verdict,
};

enum Phase<P: Parts> {
    /// Idle, without a state in memory.
    Cold,
    /// Idle, with the state in memory.
    Warm(P::State),
    /// Active: a caller or a task drives the cell's work.
    Running,
    /// The entity takes no messages until it is released. Holds the cause.
    Quarantined(P::Failure),
}

/// The cell of one entity.
pub(crate) struct Cell<P: Parts> {
    phase: Phase<P>,
    queue: VecDeque<Envelope<P>>,
    /// The messages that were taken from the queue and are neither answered nor being decided.
    burst: VecDeque<Envelope<P>>,
    /// True if the state was read after all messages of the burst had been queued.
    is_fresh: bool,
    /// The number of messages that must be decided one by one.
    singly: usize,
    /// `None`: no recent failure.
    health: Option<Box<Health>>,
}

impl<P: Parts> Cell<P> {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Cold,
            queue: VecDeque::new(),
            burst: VecDeque::new(),
            is_fresh: false,
            singly: 0,
            health: None,
        }
    }

    /// Queues a message.
    pub(crate) fn queue(&mut self, message: P::Message, rules: &Rules) -> Queued<P> {
        if let Phase::Quarantined(cause) = &self.phase {
            let failure = P::quarantined(cause);
            return Queued::Quarantined(message, failure);
        }
        if self.queue.len() >= rules.mailbox_max {
            return Queued::Full(message);
        }
        self.queue.push_back(Envelope { message, settled: None });
        match self.phase {
            Phase::Running => Queued::Joined,
            _ => Queued::Begin,
        }
    }

    /// Takes an input, and returns the next step.
    pub(crate) fn on(&mut self, input: Input<P>, rules: &Rules, now: Monotonic) -> Step<P> {
        match input {
            Input::Begin => {
                let phase = std::mem::replace(&mut self.phase, Phase::Running);
                let state = if let Phase::Warm(state) = phase { Some(state) } else { None };
                self.go_on(state, rules, now, Vec::new())
            }
            Input::Tended(state) => self.go_on(Some(state), rules, now, Vec::new()),
            Input::Resumed => self.begin_burst(None, rules, Vec::new()),
            Input::Loaded(Ok(state)) => self.decide(state, Vec::new()),
            Input::Loaded(Err((failure, blame))) | Input::CaughtUp(Err((failure, blame))) => {
                self.fail(&failure, blame, rules, now)
            }
            Input::Decided(decided) => self.decided(decided, rules, now),
            Input::CaughtUp(Ok((state, CatchUp::Empty))) => self.answer(state, rules, now),
            Input::CaughtUp(Ok((state, CatchUp::Folded))) => {
                self.is_fresh = true;
                self.decide(state, Vec::new())
            }
            Input::Appended(appending) => self.appended(appending, rules, now),
        }
    }

    fn appended(&mut self, appending: Appending<P>, rules: &Rules, now: Monotonic) -> Step<P> {
        match appending {
            Appending::Stored(state) if rules.tending == Tending::Snapshots => {
                let answers = self.answers();
                Step { answers, next: Next::Tend(state) }
            }
            Appending::Stored(state) => self.answer(state, rules, now),
            Appending::Overtaken => self.load(Vec::new()),
            Appending::Refused(rejection) => {
                let last = self.burst.pop_back().expect("a burst holds what was appended");
                let mut answers = self.answers();
                answers.push((last.message, Answer::Refused(rejection)));
                // The state contains events that were not stored.
                self.go_on(None, rules, now, answers)
            }
            Appending::Invalid(_) if self.burst.len() > 1 => {
                self.singly = self.burst.len();
                self.put_back();
                self.begin_burst(None, rules, Vec::new())
            }
            Appending::Invalid(failure) => self.fail(&failure, Blame::Request, rules, now),
            Appending::Failed(failure, blame) => self.fail(&failure, blame, rules, now),
        }
    }

    fn decided(&mut self, decided: Decided<P>, rules: &Rules, now: Monotonic) -> Step<P> {
        let Decided { mut envelopes, verdict } = decided;
        match verdict {
            Verdict::Done { state, count, effect } => {
                assert!((1..=envelopes.len()).contains(&count), "a burst decides something");
                for envelope in envelopes.drain(count..).rev() {
                    self.queue.push_front(envelope);
                }
                self.burst = envelopes;
                let is_known = self.is_fresh || rules.freshness == Freshness::Owned;
                match effect {
                    Effect::Events => Step { answers: Vec::new(), next: Next::Append(state) },
                    Effect::Nothing if is_known => self.answer(state, rules, now),
                    Effect::Nothing => Step { answers: Vec::new(), next: Next::CatchUp(state) },
                }
            }
            Verdict::Panicked { at, failure, blame } => {
                // The messages before it are decided again on the state from the log. The message
                // itself is answered in its turn, so that answers keep their order.
                envelopes[at].settled = Some(failure.clone());
                self.burst = envelopes;
                self.put_back();
                self.stumble(&failure, blame, rules, now, Vec::new())
            }
        }
    }

    /// Answers the messages of the burst as they were decided.
    fn answer(&mut self, state: P::State, rules: &Rules, now: Monotonic) -> Step<P> {
        let answers = self.answers();
        self.go_on(Some(state), rules, now, answers)
    }

    fn answers(&mut self) -> Answers<P> {
        if let Some(health) = &mut self.health {
            health.recovered();
        }
        self.burst.drain(..).map(answer_of).collect()
    }

    /// Answers the messages of the burst with a failure.
    fn fail(
        &mut self,
        failure: &P::Failure,
        blame: Blame,
        rules: &Rules,
        now: Monotonic,
    ) -> Step<P> {
        let answers = self.burst.drain(..).map(|envelope| failed(envelope, failure)).collect();
        self.stumble(failure, blame, rules, now, answers)
    }

    /// Continues without the state, after a pause; or quarantines the entity, if it died too often.
    fn stumble(
        &mut self,
        failure: &P::Failure,
        blame: Blame,
        rules: &Rules,
        now: Monotonic,
        mut answers: Answers<P>,
    ) -> Step<P> {
        if blame == Blame::Request {
            return self.go_on(None, rules, now, answers);
        }
        let health = self.health.get_or_insert_default();
        health.stumbled(blame, &rules.restart, now);
        if !health.is_dead(&rules.restart) {
            return self.go_on(None, rules, now, answers);
        }
        self.phase = Phase::Quarantined(failure.clone());
        self.singly = 0;
        let quarantined = P::quarantined(failure);
        answers
            .extend(std::mem::take(&mut self.queue).into_iter().map(|it| failed(it, &quarantined)));
        Step { answers, next: Next::Rest }
    }

    fn go_on(
        &mut self,
        state: Option<P::State>,
        rules: &Rules,
        now: Monotonic,
        answers: Answers<P>,
    ) -> Step<P> {
        if self.queue.is_empty() {
            // An idle entity keeps no buffers.
            (self.queue, self.burst, self.singly) = (VecDeque::new(), VecDeque::new(), 0);
            self.phase = state.map_or(Phase::Cold, Phase::Warm);
            return Step { answers, next: Next::Rest };
        }
        let pause = self.health.as_ref().and_then(|health| health.pause(&rules.restart, now));
        match pause {
            Some(pause) if state.is_none() => Step { answers, next: Next::Pause(pause) },
            _ => self.begin_burst(state, rules, answers),
        }
    }

    fn begin_burst(
        &mut self,
        state: Option<P::State>,
        rules: &Rules,
        answers: Answers<P>,
    ) -> Step<P> {
        debug_assert!(self.burst.is_empty(), "one burst at a time");
        // The burst is taken before the state is read. A message that is queued during the read
        // must not be answered from it without a check.
        if self.singly > 0 {
            self.singly -= 1;
            self.burst.extend(self.queue.pop_front());
        } else if self.queue.len() <= rules.burst_max {
            std::mem::swap(&mut self.burst, &mut self.queue);
        } else {
            self.burst.extend(self.queue.drain(..rules.burst_max));
        }
        if self.burst.is_empty() {
            // The queue was drained while the entity paused.
            return self.go_on(state, rules, Monotonic::MAX, answers);
        }
        self.is_fresh = false;
        match state {
            Some(state) => self.decide(state, answers),
            None => self.load(answers),
        }
    }

    fn load(&mut self, answers: Answers<P>) -> Step<P> {
        self.is_fresh = true;
        Step { answers, next: Next::Load }
    }

    fn decide(&mut self, state: P::State, answers: Answers<P>) -> Step<P> {
        let envelopes = std::mem::take(&mut self.burst);
        Step { answers, next: Next::Decide { state, envelopes } }
    }

    fn put_back(&mut self) {
        for envelope in self.burst.drain(..).rev() {
            self.queue.push_front(envelope);
        }
    }

    /// Takes the state of an idle entity, if it is in memory.
    pub(crate) fn passivate(&mut self) -> Option<P::State> {
        match std::mem::replace(&mut self.phase, Phase::Cold) {
            Phase::Warm(state) => Some(state),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Takes the messages out of the queue. A burst under way continues to its end.
    pub(crate) fn drain(&mut self) -> Vec<P::Message> {
        std::mem::take(&mut self.queue).into_iter().map(|envelope| envelope.message).collect()
    }

    /// Resets the cell after its work panicked or was dropped. The state is lost with the work.
    /// Returns the messages that the cell still holds.
    pub(crate) fn abandon(&mut self) -> Vec<P::Message> {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Cold;
        }
        self.singly = 0;
        self.burst.append(&mut self.queue);
        std::mem::take(&mut self.burst).into_iter().map(|envelope| envelope.message).collect()
    }

    /// Ends a quarantine. Returns true if there was one.
    pub(crate) fn release(&mut self) -> bool {
        let was = self.quarantine().is_some();
        if was {
            (self.phase, self.health) = (Phase::Cold, None);
        }
        was
    }

    /// The cause of the quarantine, if the entity is quarantined.
    pub(crate) fn quarantine(&self) -> Option<&P::Failure> {
        if let Phase::Quarantined(cause) = &self.phase { Some(cause) } else { None }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// The state of an idle entity, if it is in memory.
    pub(crate) fn warm(&self) -> Option<&P::State> {
        if let Phase::Warm(state) = &self.phase { Some(state) } else { None }
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// True if the cell can be removed without losing information.
    pub(crate) fn is_blank(&self, restart: &Restart, now: Monotonic) -> bool {
        matches!(self.phase, Phase::Cold)
            && self.queue.is_empty()
            && self.health.as_ref().is_none_or(|health| health.is_past(restart, now))
    }
}

fn answer_of<P: Parts>(envelope: Envelope<P>) -> (P::Message, Answer<P>) {
    let answer = envelope.settled.map_or(Answer::Decided, Answer::Failed);
    (envelope.message, answer)
}

fn failed<P: Parts>(envelope: Envelope<P>, failure: &P::Failure) -> (P::Message, Answer<P>) {
    let failure = envelope.settled.unwrap_or_else(|| failure.clone());
    (envelope.message, Answer::Failed(failure))
}

#[cfg(test)]
mod tests;
