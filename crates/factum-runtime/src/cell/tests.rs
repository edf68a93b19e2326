//! The cell against a log in memory, in every order of events that proptest finds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};

use super::*;

/// A message by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Appends itself.
    Append,
    /// A rejection, a no-op, a look.
    Nothing,
    /// Appends itself, alone.
    Guarded,
    /// Panics.
    Panic,
}

/// The ids that were folded, and how many of them are stored.
#[derive(Debug, Clone, Default)]
struct State {
    folded: Vec<Id>,
    stored: usize,
}

struct Toy;

impl Parts for Toy {
    type Message = Id;
    type State = State;
    type Failure = &'static str;
    type Rejection = ();

    fn quarantined(_: &Self::Failure) -> Self::Failure {
        "quarantined"
    }
}

/// An operation of the test.
#[derive(Debug, Clone, Copy)]
enum Op {
    Send(Kind),
    /// The present work of the cell ends in this way.
    End(End),
    /// Another process appends.
    Meddle,
    Passivate,
    Release,
    Drain,
    Abandon,
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Well,
    /// The store fails, nothing is stored.
    Failed,
    /// The store fails, but the append is stored.
    Unknown,
    /// The store can't accept the request, nothing is stored.
    Invalid,
    /// A panic in `evolve`.
    Panic,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    use End::*;
    let kind = prop_oneof![
        5 => Just(Kind::Append), 4 => Just(Kind::Nothing), 2 => Just(Kind::Guarded),
        1 => Just(Kind::Panic)
    ];
    let end = prop_oneof![
        8 => Just(Well), 1 => Just(Failed), 1 => Just(Unknown), 1 => Just(Invalid), 1 => Just(Panic)
    ];
    let op = prop_oneof![
        8 => kind.prop_map(Op::Send), 12 => end.prop_map(Op::End), 2 => Just(Op::Meddle),
        1 => Just(Op::Passivate), 1 => Just(Op::Release), 1 => Just(Op::Drain),
        1 => Just(Op::Abandon), 1 => (0..2_000_u64).prop_map(Op::Wait)
    ];
    vec(op, 0..120)
}

const OTHER: Id = Id(u32::MAX);

struct World {
    cell: Cell<Toy>,
    rules: Rules,
    now: Monotonic,
    /// The present work; `None`: the cell is idle.
    next: Option<Next<Toy>>,
    log: Vec<Id>,
    /// The length of the log when the present work began. A read may be as old as that.
    begun: usize,
    kinds: BTreeMap<Id, Kind>,
    /// The length of the log when each message was accepted.
    accepted: BTreeMap<Id, usize>,
    /// The state on which each message was last decided.
    seen: BTreeMap<Id, Vec<Id>>,
    answered: BTreeSet<Id>,
    /// The last message that was answered in its turn.
    last: Option<Id>,
    /// The messages whose append has an unknown outcome.
    unknown: BTreeSet<Id>,
}

impl World {
    fn new(freshness: Freshness) -> Self {
        let restart = Restart::new().with_deaths_max(3, Duration::from_millis(500));
        let mailbox_max = 6;
        let burst_max = 4;
        let tending = Tending::Nothing;
        Self {
            cell: Cell::new(),
            rules: Rules { mailbox_max, burst_max, freshness, tending, restart },
            now: Monotonic::START,
            next: None,
            log: Vec::new(),
            begun: 0,
            kinds: BTreeMap::new(),
            accepted: BTreeMap::new(),
            seen: BTreeMap::new(),
            answered: BTreeSet::new(),
            last: None,
            unknown: BTreeSet::new(),
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Send(kind) => self.send(kind),
            Op::End(end) => self.end(end),
            Op::Meddle if self.rules.freshness == Freshness::Checked => self.log.push(OTHER),
            Op::Meddle => {}
            Op::Passivate => {
                let had = self.cell.passivate().is_some();
                assert!(!had || self.next.is_none(), "only the idle are passivated");
            }
            Op::Release => {
                self.cell.release();
            }
            Op::Drain => {
                let drained = self.cell.drain();
                drained.into_iter().for_each(|id| self.answered_once(id));
            }
            Op::Abandon => self.abandon(),
            Op::Wait(ms) => self.now = self.now.saturating_add(Duration::from_millis(ms)),
        }
    }

    fn send(&mut self, kind: Kind) {
        let id = Id(self.kinds.len() as u32);
        self.kinds.insert(id, kind);
        self.accepted.insert(id, self.log.len());
        match self.cell.queue(id, &self.rules) {
            Queued::Begin => {
                assert!(self.next.is_none(), "one task at a time");
                let step = self.cell.on(Input::Begin, &self.rules, self.now);
                self.take(step);
            }
            Queued::Joined => assert!(self.next.is_some(), "the cell is being driven"),
            Queued::Full(_) | Queued::Quarantined(..) => {
                self.accepted.remove(&id);
            }
        }
    }

    fn end(&mut self, end: End) {
        let Some(next) = self.next.take() else { return };
        let input = match next {
            Next::Pause(pause) => {
                assert!(pause <= self.rules.restart.pause_max);
                self.now = self.now.saturating_add(pause);
                Input::Resumed
            }
            Next::Load => Input::Loaded(self.read(end).map(|()| self.load())),
            Next::Tend(state) => Input::Tended(state),
            Next::CatchUp(state) => Input::CaughtUp(self.read(end).map(|()| {
                assert_eq!(state.folded.len(), state.stored, "only a stored state is compared");
                let is_same = state.folded[..] == self.log[..self.begun];
                let caught_up = if is_same { CatchUp::Empty } else { CatchUp::Folded };
                (self.load(), caught_up)
            })),
            Next::Decide { state, envelopes } => Input::Decided(self.decide(state, envelopes)),
            Next::Append(state) => Input::Appended(self.append(state, end)),
            Next::Rest => unreachable!("a cell at rest has no work"),
        };
        let step = self.cell.on(input, &self.rules, self.now);
        self.take(step);
    }

    fn load(&self) -> State {
        State { folded: self.log[..self.begun].to_vec(), stored: self.begun }
    }

    fn read(&self, end: End) -> Result<(), (&'static str, Blame)> {
        match end {
            End::Well => Ok(()),
            End::Panic => Err(("panicked", Blame::Entity)),
            End::Invalid => Err(("invalid", Blame::Request)),
            End::Failed | End::Unknown => Err(("unavailable", Blame::Store)),
        }
    }

    fn decide(&mut self, mut state: State, envelopes: VecDeque<Envelope<Toy>>) -> Decided<Toy> {
        assert_eq!(state.folded.len(), state.stored, "a burst begins on what is stored");
        let mut count = 0;
        let mut is_guarded = false;
        for envelope in &envelopes {
            if envelope.settled.is_none() {
                let kind = self.kinds[&envelope.message];
                if is_guarded || kind == Kind::Guarded && count > 0 {
                    break;
                }
                self.seen.insert(envelope.message, state.folded.clone());
                match kind {
                    Kind::Nothing => {}
                    Kind::Append => state.folded.push(envelope.message),
                    Kind::Guarded => {
                        state.folded.push(envelope.message);
                        is_guarded = true;
                    }
                    Kind::Panic => {
                        let verdict = Verdict::Panicked {
                            at: count,
                            failure: "panicked",
                            blame: Blame::Entity,
                        };
                        return Decided { envelopes, verdict };
                    }
                }
            }
            count += 1;
        }
        let has_events = state.folded.len() > state.stored;
        let effect = if has_events { Effect::Events } else { Effect::Nothing };
        Decided { envelopes, verdict: Verdict::Done { state, count, effect } }
    }

    fn append(&mut self, mut state: State, end: End) -> Appending<Toy> {
        let new: Vec<_> = state.folded[state.stored..].to_vec();
        assert!(!new.is_empty(), "an append has events");
        let is_current = self.log[..] == state.folded[..state.stored];
        let is_guarded = new.iter().any(|id| self.kinds[id] == Kind::Guarded);
        match end {
            End::Invalid => return Appending::Invalid("invalid"),
            End::Failed => return Appending::Failed("unavailable", Blame::Store),
            End::Panic if is_guarded => return Appending::Refused(()),
            End::Unknown => self.unknown.extend(&new),
            _ => {}
        }
        if is_current {
            self.log.extend(new);
            state.stored = state.folded.len();
        }
        match (end, is_current) {
            (End::Unknown, _) => Appending::Failed("unknown", Blame::Store),
            (_, true) => Appending::Stored(state),
            (_, false) => Appending::Overtaken,
        }
    }

    fn take(&mut self, step: Step<Toy>) {
        for (id, answer) in step.answers {
            self.answered_once(id);
            assert!(self.last < Some(id), "answers keep the order of the messages");
            self.last = Some(id);
            match answer {
                Answer::Decided => self.check_decided(id),
                Answer::Refused(()) => assert!(!self.log.contains(&id), "refused, yet stored"),
                Answer::Failed(why) => {
                    let is_stored = self.log.contains(&id);
                    assert!(!is_stored || self.unknown.contains(&id), "{id:?} {why}, yet stored");
                }
            }
        }
        self.begun = self.log.len();
        self.next = Some(step.next).filter(|next| !matches!(next, Next::Rest));
        assert_eq!(self.next.is_some(), self.cell.is_running());
    }

    fn answered_once(&mut self, id: Id) {
        assert!(self.accepted.contains_key(&id), "only accepted messages are answered");
        assert!(self.answered.insert(id), "answered twice: {id:?}");
    }

    fn check_decided(&self, id: Id) {
        let kind = self.kinds[&id];
        let seen = &self.seen[&id];
        assert_ne!(kind, Kind::Panic);
        assert!(self.log.starts_with(seen), "{id:?} was decided on events that are not in the log");
        assert!(seen.len() >= self.accepted[&id], "{id:?} was answered from a stale state");
        if kind != Kind::Nothing {
            let at = self.log.iter().position(|it| *it == id);
            assert_eq!(at, Some(seen.len()), "{id:?} is stored where it was decided");
        }
    }

    /// The work is dropped in the middle.
    fn abandon(&mut self) {
        match self.next.take() {
            None => return,
            // Messages that are being decided are lost with the work. Dropping them notifies their
            // callers.
            Some(Next::Decide { envelopes, .. }) => {
                envelopes.into_iter().for_each(|it| self.answered_once(it.message));
            }
            Some(Next::Append(state)) => {
                let _ = self.append(state, End::Unknown);
            }
            Some(_) => {}
        }
        let lost = self.cell.abandon();
        lost.into_iter().for_each(|id| self.answered_once(id));
    }

    fn finish(mut self) {
        for _ in 0..10_000 {
            if self.next.is_none() {
                break;
            }
            self.end(End::Well);
        }
        assert!(self.next.is_none(), "the cell comes to rest");
        let accepted: BTreeSet<_> = self.accepted.keys().copied().collect();
        assert_eq!(self.answered, accepted, "each message is answered");
        let ours: Vec<_> = self.log.iter().filter(|id| **id != OTHER).collect();
        let distinct: BTreeSet<_> = ours.iter().collect();
        assert_eq!(ours.len(), distinct.len(), "nothing is stored twice");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn each_message_is_answered_once_in_order_from_what_is_durable_and_fresh(
        ops in ops(),
        is_owned in any::<bool>(),
    ) {
        let freshness = if is_owned { Freshness::Owned } else { Freshness::Checked };
        let mut world = World::new(freshness);
        ops.into_iter().for_each(|op| world.play(op));
        world.finish();
    }
}

#[test]
fn commands_that_wait_share_an_append() {
    let mut world = World::new(Freshness::Checked);
    (0..4).for_each(|_| world.send(Kind::Append));
    let mut appends = 0;
    while let Some(next) = &world.next {
        appends += usize::from(matches!(next, Next::Append(_)));
        world.end(End::Well);
    }
    // The first message was alone in its burst.
    assert_eq!((appends, world.log.len()), (2, 4));
}

#[test]
fn an_answer_that_appends_nothing_is_compared_with_the_log_once_for_the_burst() {
    let mut world = World::new(Freshness::Checked);
    world.send(Kind::Append);
    while world.next.is_some() {
        world.end(End::Well);
    }
    world.log.push(OTHER);
    world.send(Kind::Nothing);
    world.end(End::Well);
    assert!(matches!(world.next, Some(Next::CatchUp(_))));
    world.end(End::Well);
    assert!(matches!(world.next, Some(Next::Decide { .. })), "decided again");
    world.end(End::Well);
    assert!(world.next.is_none() && world.seen[&Id(1)].len() == 2, "and not compared again");
}

#[test]
fn one_that_keeps_dying_is_quarantined_until_it_is_released() {
    let mut world = World::new(Freshness::Checked);
    for _ in 0..3 {
        world.send(Kind::Panic);
        while world.next.is_some() {
            world.end(End::Well);
        }
    }
    assert_eq!(world.cell.quarantine(), Some(&"panicked"));
    assert!(matches!(world.cell.queue(OTHER, &world.rules), Queued::Quarantined(_, "quarantined")));
    assert!(world.cell.release() && !world.cell.release());
    world.send(Kind::Append);
    world.finish();
}

#[test]
fn a_store_that_is_down_quarantines_nobody_and_pauses_grow() {
    let mut world = World::new(Freshness::Checked);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        world.send(Kind::Append);
        while let Some(next) = &world.next {
            if let Next::Pause(pause) = next {
                pauses.push(pause.as_millis());
            }
            world.end(End::Failed);
        }
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160]);
    assert!(world.cell.quarantine().is_none());
    world.now = world.now.saturating_add(Duration::from_secs(60));
    assert!(world.cell.is_blank(&world.rules.restart, world.now), "and is forgotten");
}

#[test]
fn one_impossible_event_fails_its_own_command_only() {
    let mut world = World::new(Freshness::Checked);
    (0..4).for_each(|_| world.send(Kind::Append));
    for _ in 0..3 {
        world.end(End::Well);
    }
    world.end(End::Well);
    assert!(matches!(world.next, Some(Next::Append(_))), "three share an append");
    world.end(End::Invalid);
    // Load, decide, append: the first message alone is at fault.
    world.end(End::Well);
    world.end(End::Well);
    world.end(End::Invalid);
    while world.next.is_some() {
        world.end(End::Well);
    }
    assert_eq!(world.log, [Id(0), Id(2), Id(3)]);
    world.finish();
}
