use proptest::prelude::*;

use super::*;

fn group() -> ConsumerName {
    ConsumerName::new("mails").unwrap()
}

fn part(at: usize) -> PartitionId {
    (group(), at)
}

/// A store with leases, which members change.
#[derive(Debug, Default)]
struct Store {
    seen: Seen,
    revision: u64,
}

impl Store {
    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision::new(self.revision)
    }

    fn beat(&mut self, leases: &Leases) {
        let revision = self.next();
        let runs = leases.held().map(|(group, held)| {
            let held = held.into_iter().map(|at| (at, 0)).collect();
            (group.to_string(), held)
        });
        let present = SeenMember { revision, runs: runs.collect(), has_exited: false };
        self.seen.members.insert(leases.me, present);
    }

    fn release(&mut self, part: &PartitionId, held: Option<Revision>) {
        let is_so = self.seen.leases.get(part).is_some_and(|(it, _)| Some(*it) == held);
        if is_so {
            self.seen.leases.remove(part);
        }
    }

    /// A round of a member, whose workers release partitions at once.
    fn round(&mut self, leases: &mut Leases) {
        self.beat(leases);
        let looked = self.seen.clone();
        for step in leases.rebalance(&looked, true) {
            self.perform(leases, step);
        }
    }

    fn perform(&mut self, leases: &mut Leases, step: LeaseStep) {
        match step {
            LeaseStep::Expire(member, revision, parts) => {
                let now = self.seen.members.get(&member).map(|it| it.revision);
                let is_so = parts.iter().all(|(part, revision)| {
                    self.seen.leases.get(part).is_some_and(|(it, _)| it == revision)
                });
                if now == revision && is_so {
                    self.seen.members.remove(&member);
                    parts.iter().for_each(|(part, revision)| self.release(part, Some(*revision)));
                }
            }
            LeaseStep::Acquire(part) => {
                let revision = self.next();
                if !self.seen.leases.contains_key(&part) {
                    self.seen.leases.insert(part.clone(), (revision, leases.me));
                    assert!(leases.acquired(&part, revision));
                }
            }
            LeaseStep::Revoke(part) => {
                let held = leases.release(&part);
                self.release(&part, held);
            }
            LeaseStep::Release(part, revision) => self.release(&part, Some(revision)),
            LeaseStep::Own(_) | LeaseStep::Lost(_) => {}
        }
    }

    fn owners(&self, partitions: usize) -> Vec<Option<MemberId>> {
        (0..partitions).map(|at| self.seen.leases.get(&part(at)).map(|(_, owner)| *owner)).collect()
    }
}

fn member(id: u64, partitions: usize) -> Leases {
    let mut leases = Leases::new(MemberId(id, 0));
    leases.join(group(), partitions);
    leases
}

#[test]
fn the_first_member_acquires_all_and_releases_half_to_the_second() {
    let mut store = Store::default();
    let mut one = member(1, 4);
    let mut two = member(2, 4);
    store.round(&mut one);
    assert_eq!(store.owners(4), [Some(one.me); 4]);
    store.round(&mut two);
    assert_eq!(store.owners(4), [Some(one.me); 4], "not before it is released");
    store.round(&mut one);
    store.round(&mut two);
    let count = |of| store.owners(4).iter().filter(|owner| **owner == Some(of)).count();
    assert_eq!((count(one.me), count(two.me)), (2, 2));
}

#[test]
fn members_of_one_consumer_share_its_partitions_and_keep_their_shares() {
    let mut store = Store::default();
    let mut one = member(1, 4);
    let mut two = member(2, 4);
    let mut other = Leases::new(MemberId(0, 0));
    other.join(ConsumerName::new("bills").unwrap(), 1);
    for leases in [&other, &one, &two] {
        store.beat(leases);
    }
    let takes = one.rebalance(&store.seen.clone(), true);
    let takes = takes.iter().filter(|step| matches!(step, LeaseStep::Acquire(_))).count();
    assert_eq!(takes, 2, "half: a member that runs another consumer has no share");
    for _ in 0..2 {
        store.round(&mut two);
        store.round(&mut one);
    }
    let owners = store.owners(4);
    assert!(owners.iter().all(Option::is_some), "{owners:?}");
    store.round(&mut one);
    store.round(&mut two);
    assert_eq!(store.owners(4), owners);
}

#[test]
fn a_member_releases_a_lease_that_none_of_its_workers_holds() {
    let mut store = Store::default();
    let mut one = member(1, 1);
    let mut two = member(2, 1);
    store.round(&mut one);
    store.round(&mut one);
    assert_eq!(store.owners(1), [Some(one.me)], "it works on it");
    assert!(!one.is_idle());
    // Its worker has ended, and the write that releases the partition was lost.
    one.quit(&part(0));
    assert!(one.is_idle());
    store.round(&mut two);
    assert_eq!(store.owners(1), [Some(one.me)], "another member's lease stays");
    store.round(&mut one);
    assert_eq!(store.owners(1), [None]);
}

#[test]
fn a_member_expires_after_five_missed_heartbeats_and_only_regular_scans_count() {
    let mut store = Store::default();
    let mut one = member(1, 1);
    let mut two = member(2, 1);
    store.round(&mut one);
    for _ in 0..MISSED_HEARTBEATS_MAX {
        store.round(&mut two);
        let looked = store.seen.clone();
        for _ in 0..9 {
            assert_eq!(two.rebalance(&looked, false), []);
        }
    }
    assert_eq!(store.owners(1), [Some(one.me)]);
    store.round(&mut two);
    store.round(&mut two);
    assert_eq!(store.owners(1), [Some(two.me)]);
    store.beat(&one);
    let looked = store.seen.clone();
    assert_eq!(one.rebalance(&looked, true), [LeaseStep::Lost(part(0))], "it learns of the loss");
    store.round(&mut one);
    assert_eq!(store.owners(1), [Some(two.me)]);
}

#[test]
fn a_member_that_sends_a_heartbeat_in_time_keeps_its_leases() {
    let mut store = Store::default();
    let mut one = member(1, 1);
    let mut two = member(2, 1);
    store.round(&mut one);
    for _ in 0..MISSED_HEARTBEATS_MAX {
        store.round(&mut two);
    }
    store.beat(&two);
    let expired = two.rebalance(&store.seen.clone(), true);
    assert!(matches!(&expired[..], [LeaseStep::Expire(..)]), "{expired:?}");
    store.beat(&one);
    expired.into_iter().for_each(|step| store.perform(&mut two, step));
    assert_eq!(store.owners(1), [Some(one.me)]);
}

#[test]
fn a_member_whose_process_has_ended_expires_at_once() {
    let mut store = Store::default();
    let mut one = member(1, 1);
    let mut two = member(2, 1);
    store.round(&mut one);
    store.seen.members.get_mut(&one.me).unwrap().has_exited = true;
    store.round(&mut two);
    store.round(&mut two);
    assert_eq!(store.owners(1), [Some(two.me)]);
}

#[test]
fn a_lease_is_held_although_the_answer_to_its_write_was_lost() {
    let mut store = Store::default();
    let mut one = member(1, 1);
    store.beat(&one);
    let revision = store.next();
    store.seen.leases.insert(part(0), (revision, one.me));
    assert_eq!(one.rebalance(&store.seen.clone(), true), [LeaseStep::Own(part(0))]);
    assert_eq!(one.release(&part(0)), Some(revision));
}

#[test]
fn a_partition_that_was_quit_is_not_acquired_again() {
    let mut store = Store::default();
    let mut one = member(1, 2);
    store.round(&mut one);
    let held = one.quit(&part(0));
    store.release(&part(0), held);
    store.round(&mut one);
    assert_eq!(store.owners(2), [None, Some(one.me)]);
    let held = one.quit(&part(1));
    store.release(&part(1), held);
    assert!(one.is_idle());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Round(usize),
    Join(usize),
    Die(usize),
    Quit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_usize..4).prop_map(Step::Round),
        1 => (0_usize..4).prop_map(Step::Join),
        1 => (0_usize..4).prop_map(Step::Die),
        1 => (0_usize..4).prop_map(Step::Quit),
    ]
}

proptest! {
    /// After any steps, all partitions are assigned evenly to the members that live.
    #[test]
    fn all_partitions_are_assigned_to_living_members(
        steps in prop::collection::vec(step(), 0..200),
        partitions in 1_usize..9,
    ) {
        let mut store = Store::default();
        let mut lives: [Option<Leases>; 4] = Default::default();
        let mut born = 0;
        for step in steps {
            match step {
                Step::Round(at) => if let Some(leases) = &mut lives[at] {
                    store.round(leases);
                },
                Step::Join(at) => if lives[at].is_none() {
                    born += 1;
                    lives[at] = Some(member(born, partitions));
                },
                Step::Die(at) => lives[at] = None,
                Step::Quit(at) => if let Some(mut leases) = lives[at].take() {
                    for at in 0..partitions {
                        let held = leases.quit(&part(at));
                        store.release(&part(at), held);
                    }
                    store.seen.members.remove(&leases.me);
                },
            }
        }
        lives[0].get_or_insert_with(|| member(99, partitions));
        for _ in 0..3 * MISSED_HEARTBEATS_MAX {
            lives.iter_mut().flatten().for_each(|leases| store.round(leases));
        }
        let owners = store.owners(partitions);
        let counts: Vec<_> = lives.iter().flatten().map(|leases| {
            let count = owners.iter().filter(|owner| **owner == Some(leases.me)).count();
            let held: usize = leases.held().map(|(_, held)| held.len()).sum();
            (count, held)
        }).collect();
        prop_assert_eq!(counts.iter().map(|it| it.0).sum::<usize>(), partitions, "{:?}", owners);
        prop_assert!(counts.iter().all(|(stored, held)| stored == held));
        let min = counts.iter().min().unwrap().0;
        let max = counts.iter().max().unwrap().0;
        prop_assert!(max - min <= 1, "{:?}", counts);
    }
}
