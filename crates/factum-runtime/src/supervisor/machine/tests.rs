//! The machine against a simulation of runs and timers, in every order of events that proptest
//! finds.

use std::collections::{BTreeMap, BTreeSet};

use factum_kernel::Monotonic;
use proptest::{collection::vec, prelude::*};

use super::{
    Blame, Duration, Effect, End, Input, Machine, Moment, Restart, RestartPolicy, Rules, Ticket,
    WorkerId, WorkerState,
};

/// An operation on the worker with this number, counted among the workers added so far.
#[derive(Debug, Clone)]
enum Op {
    Add(RestartPolicy, Option<bool>),
    Remove(usize),
    Restart(usize),
    End(usize, End),
    Ring(usize),
    /// An old run ends, and an old timer rings.
    Echo(usize),
    Wait(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let policy = prop_oneof![
        3 => Just(RestartPolicy::Permanent), 2 => Just(RestartPolicy::Transient),
        1 => Just(RestartPolicy::Never)
    ];
    let end = prop_oneof![2 => Just(End::Done), 4 => Just(failure())];
    let op = prop_oneof![
        4 => (policy, any::<Option<bool>>()).prop_map(|(policy, group)| Op::Add(policy, group)),
        1 => any::<usize>().prop_map(Op::Remove), 2 => any::<usize>().prop_map(Op::Restart),
        10 => (any::<usize>(), end).prop_map(|(at, end)| Op::End(at, end)),
        10 => any::<usize>().prop_map(Op::Ring), 1 => any::<usize>().prop_map(Op::Echo),
        2 => (0..400_u64).prop_map(Op::Wait)
    ];
    vec(op, 0..80)
}

fn failure() -> End {
    End::Failed("it fails".into(), Blame::Entity)
}

const GRACE: Duration = Duration::from_millis(70);

fn restart() -> Restart {
    let min = Duration::from_millis(10);
    let max = Duration::from_millis(50);
    Restart::new().with_pauses(min, max).with_deaths_max(3, Duration::from_millis(500))
}

/// One worker, as the simulation sees it.
#[derive(Debug, Clone, Default)]
struct Seen {
    policy: RestartPolicy,
    group: Option<bool>,
    run: Option<Ticket>,
    timer: Option<Ticket>,
    is_asked: bool,
    /// True if its grace is over.
    is_dropped: bool,
    deaths: Vec<Monotonic>,
    is_given_up: bool,
    /// True if it ended in a way after which its policy doesn't restart it.
    is_over: bool,
    /// True if a person asked it to stop or to restart.
    is_ordered: bool,
    /// The last state that was told.
    told: Option<WorkerState>,
}

#[derive(Default)]
struct World {
    machine: Machine,
    now: Moment,
    workers: BTreeMap<WorkerId, Seen>,
    forgotten: BTreeSet<WorkerId>,
}

impl World {
    fn ids(&self) -> Vec<WorkerId> {
        self.workers.keys().copied().collect()
    }

    fn pick(&self, at: usize) -> Option<WorkerId> {
        let ids = self.ids();
        (!ids.is_empty()).then(|| ids[at % ids.len()])
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Add(policy, group) => {
                self.add(policy, group);
            }
            Op::Remove(at) => self.request(at, Input::Remove),
            Op::Restart(at) => self.request(at, Input::Restart),
            Op::End(at, end) => drop(self.pick(at).map(|id| self.end(id, end))),
            Op::Ring(at) => drop(self.pick(at).map(|id| self.ring(id))),
            Op::Echo(at) => {
                let Some(id) = self.pick(at) else { return };
                self.on(Input::Ended(id, Ticket(0), failure()));
                self.on(Input::Rang(id, Ticket(0)));
            }
            Op::Wait(ms) => self.wait(Duration::from_millis(ms)),
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now.reading = self.now.reading.saturating_add(time);
    }

    fn add(&mut self, policy: RestartPolicy, group: Option<bool>) -> WorkerId {
        let id = WorkerId((self.workers.len() + self.forgotten.len()) as u64);
        self.workers.insert(id, Seen { policy, group, ..Seen::default() });
        let strategy = match group {
            None => super::RestartStrategy::OneForOne,
            Some(which) => super::RestartStrategy::RestForOne(which.to_string().into()),
        };
        let name = id.0.to_string().into();
        let grace = Some(GRACE);
        self.on(Input::Add(id, Rules { name, policy, strategy, restart: restart(), grace }));
        id
    }

    fn request(&mut self, at: usize, request: impl Fn(WorkerId) -> Input) {
        let Some(id) = self.pick(at) else { return };
        let input = request(id);
        let seen = self.workers.get_mut(&id).expect("it was picked");
        if let Input::Restart(_) = &input {
            (seen.is_given_up, seen.is_over) = (false, false);
            seen.deaths.clear();
        }
        seen.is_ordered = true;
        self.on(input);
    }

    fn end(&mut self, id: WorkerId, end: End) {
        let seen = self.workers.get_mut(&id).expect("it was picked");
        let Some(run) = seen.run.take() else { return };
        let is_meant = seen.policy == RestartPolicy::Never
            || seen.policy == RestartPolicy::Transient && end == End::Done;
        if !seen.is_asked && !is_meant {
            let window = restart().window;
            let now = self.now.reading;
            seen.deaths.retain(|at| now.saturating_since(*at) < window);
            seen.deaths.push(now);
            // If a person asked for the stop or restart, the end of that run doesn't count as a
            // death.
            seen.is_given_up = seen.deaths.len() >= 3;
        }
        seen.is_over = !seen.is_asked && is_meant;
        self.on(Input::Ended(id, run, end));
    }

    fn ring(&mut self, id: WorkerId) {
        let seen = self.workers.get_mut(&id).expect("it was picked");
        if let Some(ticket) = seen.timer.take() {
            self.on(Input::Rang(id, ticket));
        }
    }

    fn on(&mut self, input: Input) {
        let effects = self.machine.on(input, self.now);
        effects.into_iter().for_each(|effect| self.perform(effect));
        let states: Vec<_> = self.machine.health().into_iter().map(|it| it.state).collect();
        let told: Vec<_> = self.workers.values().filter_map(|it| it.told).collect();
        assert_eq!(told, states, "every change of a state is reported");
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Start(id, run) => self.start(id, run),
            Effect::AskToStop(id) => self.ask_to_stop(id),
            Effect::Drop(id) => {
                let seen = self.of(id);
                assert!(seen.is_asked && seen.timer.is_none(), "only after its grace");
                seen.is_dropped = true;
            }
            Effect::Pause(id, ticket, pause) => {
                assert!(pause <= restart().pause_max);
                self.of(id).timer = Some(ticket);
            }
            Effect::Grace(id, ticket, grace) => {
                assert_eq!(grace, GRACE);
                self.of(id).timer = Some(ticket);
            }
            Effect::Silence(id) => self.of(id).timer = None,
            Effect::Tell(id, health) => self.of(id).told = Some(health.state),
            Effect::Forget(id) => {
                let seen = self.workers.remove(&id).expect("forgotten once");
                assert!(seen.run.is_none() && seen.is_ordered);
                assert_eq!(seen.told, Some(WorkerState::Stopped));
                self.forgotten.insert(id);
            }
        }
    }

    fn start(&mut self, id: WorkerId, run: Ticket) {
        assert!(!self.machine.is_closing(), "nothing starts after close");
        let group = self.workers[&id].group;
        if group.is_some() {
            for (_, it) in self.workers.range(..id).filter(|(_, it)| it.group == group) {
                assert!(
                    it.run.is_some() || it.is_over || it.is_ordered,
                    "the workers that it needs are running"
                );
                assert!(!it.is_given_up);
            }
        }
        let seen = self.of(id);
        assert!(seen.run.is_none(), "one run at a time");
        assert!(!seen.is_given_up && !seen.is_over, "it is not to be started: {seen:?}");
        (seen.run, seen.timer) = (Some(run), None);
        (seen.is_asked, seen.is_dropped, seen.is_ordered) = (false, false, false);
    }

    fn ask_to_stop(&mut self, id: WorkerId) {
        let group = self.workers[&id].group;
        let is_closing = self.machine.is_closing();
        for (_, it) in self.workers.range(WorkerId(id.0 + 1)..).filter(|_| is_closing) {
            assert!(it.run.is_none() || it.is_dropped, "the workers added after it have stopped");
        }
        let seen = self.of(id);
        assert!(seen.run.is_some() && !seen.is_asked, "it runs, and is asked once");
        assert!(group.is_some() || seen.is_ordered || is_closing, "siblings never notice");
        seen.is_asked = true;
    }

    fn of(&mut self, id: WorkerId) -> &mut Seen {
        self.workers.get_mut(&id).expect("a removed worker gets no effect")
    }

    /// All timers ring, and all workers that are asked to stop do so.
    fn calm_down(&mut self) {
        for _ in 0..1_000 {
            let before = self.machine.health();
            for id in self.ids() {
                match self.workers.get(&id) {
                    Some(it) if it.is_asked && it.run.is_some() => self.end(id, End::Done),
                    Some(it) if it.run.is_none() => self.ring(id),
                    _ => {}
                }
            }
            if self.machine.health() == before {
                return;
            }
        }
        panic!("the machine does not come to rest");
    }

    fn check_rest(&self) {
        let mut held_up = BTreeSet::new();
        for (id, it) in &self.workers {
            let health = self.machine.health();
            let health = health.iter().find(|at| *at.name == *id.0.to_string()).expect("listed");
            let is_held_up = it.group.is_some() && held_up.contains(&it.group);
            let expected = match () {
                () if it.is_given_up => WorkerState::GivenUp,
                () if it.is_over => WorkerState::Stopped,
                () if is_held_up => WorkerState::Waiting,
                () => WorkerState::Running,
            };
            assert_eq!(health.state, expected, "{id:?} {it:?}");
            assert_eq!(it.run.is_some(), expected == WorkerState::Running);
            if it.is_given_up {
                held_up.insert(it.group);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn workers_run_as_their_policies_say_one_run_at_a_time_and_stop_in_order(
        ops in ops(),
        stubborn in any::<u64>(),
    ) {
        let mut world = World::default();
        ops.into_iter().for_each(|op| world.play(op));
        world.calm_down();
        world.check_rest();
        world.on(Input::Close);
        // Some workers stop when they are asked; others are dropped when their grace is over.
        for round in 0.. {
            let Some(id) = world.ids().into_iter().rev().find(|id| {
                let it = &world.workers[id];
                it.run.is_some() && !it.is_dropped
            }) else { break };
            prop_assert!(round < 200 && !world.machine.is_stopped());
            match stubborn >> (id.0 % 64) & 1 == 0 {
                true => world.end(id, failure()),
                false => world.ring(id),
            }
        }
        prop_assert!(world.machine.is_stopped());
        let dropped = world.workers.values().filter(|it| it.run.is_some()).count();
        prop_assert_eq!(world.machine.stopped().map(|it| it.len()), Some(dropped));
    }
}

fn states(world: &World) -> Vec<WorkerState> {
    world.machine.health().iter().map(|it| it.state).collect()
}

#[test]
fn the_rest_of_a_group_stops_in_reverse_and_starts_in_order() {
    use WorkerState::{BackingOff, Running, Stopping, Waiting};
    let mut world = World::default();
    let group = Some(true);
    let pause = BackingOff(Duration::from_millis(10));
    let ids: Vec<_> = (0..4).map(|_| world.add(RestartPolicy::Permanent, group)).collect();
    let alone = world.add(RestartPolicy::Permanent, None);
    world.end(ids[1], failure());
    assert_eq!(states(&world), [Running, pause, Running, Stopping, Running]);
    world.ring(ids[1]);
    assert_eq!(states(&world)[1], Waiting, "until the rest has stopped");
    world.end(ids[3], End::Done);
    assert_eq!(states(&world)[2..4], [Stopping, Waiting]);
    world.end(ids[2], End::Done);
    assert_eq!(states(&world), [Running; 5]);
    assert!(world.workers[&alone].run.is_some() && !world.workers[&alone].is_asked);
    let restarts: Vec<_> = world.machine.health().iter().map(|it| it.restarts).collect();
    assert_eq!(restarts, [0, 1, 1, 1, 0]);
}

#[test]
fn pauses_double_up_to_the_given_one_and_many_deaths_give_up() {
    let mut world = World::default();
    let id = world.add(RestartPolicy::Permanent, None);
    for pause in [10, 20] {
        world.end(id, failure());
        assert_eq!(states(&world), [WorkerState::BackingOff(Duration::from_millis(pause))]);
        world.ring(id);
    }
    world.end(id, failure());
    assert_eq!(states(&world), [WorkerState::GivenUp]);
    assert_eq!(world.machine.health()[0].cause.as_deref(), Some("it fails"));
    world.request(0, Input::Restart);
    assert_eq!(states(&world), [WorkerState::Running]);
}

#[test]
fn deaths_that_lie_far_apart_never_give_up() {
    let mut world = World::default();
    let id = world.add(RestartPolicy::Permanent, None);
    for _ in 0..20 {
        world.wait(Duration::from_secs(1));
        world.end(id, failure());
        assert_eq!(states(&world), [WorkerState::BackingOff(Duration::from_millis(10))]);
        world.ring(id);
    }
}

#[test]
fn a_runtime_that_is_gone_starts_nothing() {
    let mut world = World::default();
    let id = world.add(RestartPolicy::Permanent, None);
    let run = world.workers[&id].run.expect("it runs");
    let effects = world.machine.on(Input::Ended(id, run, End::Dropped), world.now);
    assert!(matches!(&effects[..], [Effect::Tell(..)]), "{effects:?}");
    assert_eq!(states(&world), [WorkerState::Stopped]);
}
