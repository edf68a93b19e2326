//! The assignment of a consumer's partitions to the processes that run it. Pure; `membership.rs`
//! reads and writes the store and informs the workers.
//!
//! Leases are for liveness: they spread the work, and let another process take over. They don't
//! exclude other processes. Each save of a consumer names the fence that it expects, so that no
//! event takes effect twice.

mod assignment;
mod bell;
pub(crate) mod host;
mod membership;
mod share;
mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use factum_kernel::{Position, Revision};
use serde::{Deserialize, Serialize};

use crate::name::ConsumerName;
use share::shares;

pub(crate) use assignment::{Assignment, AssignmentState};
pub use bell::{Bell, ring};
pub(crate) use membership::Membership;
pub use stored::said_position;

/// A member has expired after this many heartbeats missed in a row.
pub(crate) const MISSED_HEARTBEATS_MAX: u32 = 5;

/// The id of a process that runs consumers. Each [`Consumers`](crate::Consumers) value has an id of
/// its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct MemberId(pub(crate) u64, pub(crate) u64);

/// A partition of a consumer: the consumer's name without the partition, and the partition's
/// number.
pub(crate) type PartitionId = (ConsumerName, usize);

/// The consumers that a member runs, with the position of each partition that is assigned to it.
pub(crate) type Runs = BTreeMap<String, BTreeMap<usize, u64>>;

/// The members and leases as one scan of the store found them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) members: BTreeMap<MemberId, SeenMember>,
    pub(crate) leases: BTreeMap<PartitionId, (Revision, MemberId)>,
    /// It changes when a process has stored something that members look for.
    pub(crate) bell: Revision,
}

/// A member as the scan found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SeenMember {
    pub(crate) revision: Revision,
    pub(crate) runs: Runs,
    /// True if its process is known to have ended.
    pub(crate) has_exited: bool,
}

/// A step that follows from a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseStep {
    /// Remove an expired member's document, if it has this revision, and its leases.
    Expire(MemberId, Option<Revision>, Vec<(PartitionId, Revision)>),
    /// Acquire a partition that has no owner.
    Acquire(PartitionId),
    /// This member owns a partition: the answer to its write was lost.
    Own(PartitionId),
    /// Release a partition after the current event: another member gets it.
    Revoke(PartitionId),
    /// This member has lost a partition: another member removed its lease, because this process had
    /// missed too many heartbeats.
    Lost(PartitionId),
    /// Release a partition that this member owns and that no worker here works on: the answer to a
    /// write was lost.
    Release(PartitionId, Revision),
}

/// This member's hold on one partition, with the revision of the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    /// The partition is not held.
    Waiting,
    Held(Revision),
    /// The worker was asked to release it; held until the worker has.
    Revoked(Revision),
    /// The worker here has ended for good.
    Ended,
}

/// The knowledge of one member: the heartbeats of the others, and the partitions that it holds.
#[derive(Debug)]
pub(crate) struct Leases {
    me: MemberId,
    /// The last seen revision of each member, and the number of heartbeats that it has missed
    /// since.
    heartbeats: HashMap<MemberId, (Option<Revision>, u32)>,
    groups: BTreeMap<ConsumerName, Vec<Holding>>,
}

impl Leases {
    pub(crate) fn new(me: MemberId) -> Self {
        Self { me, heartbeats: HashMap::new(), groups: BTreeMap::new() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// Adds a consumer that this member runs.
    pub(crate) fn join(&mut self, group: ConsumerName, partitions: usize) {
        self.groups.entry(group).or_insert_with(|| vec![Holding::Waiting; partitions]);
    }

    /// Ends the work on a partition here for good. Returns the revision of the lease to release, if
    /// it is held. After its last partition the member runs the consumer no more.
    pub(crate) fn quit(&mut self, part: &PartitionId) -> Option<Revision> {
        let held = self.release(part);
        let holdings = self.groups.get_mut(&part.0)?;
        holdings[part.1] = Holding::Ended;
        if holdings.iter().all(|holding| *holding == Holding::Ended) {
            self.groups.remove(&part.0);
        }
        held
    }

    /// The held partitions by consumer, including consumers without any.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&ConsumerName, Vec<usize>)> {
        self.groups.iter().map(|(group, holdings)| {
            let is_held = |at: &usize| revision(holdings[*at]).is_some();
            (group, (0..holdings.len()).filter(is_held).collect())
        })
    }

    /// Records an acquired partition. False: this member does not run the consumer any more.
    pub(crate) fn acquired(&mut self, (group, at): &PartitionId, revision: Revision) -> bool {
        let holding = self.groups.get_mut(group).and_then(|holdings| holdings.get_mut(*at));
        let holding = holding.filter(|holding| **holding != Holding::Ended);
        let Some(holding) = holding else { return false };
        assert_eq!(*holding, Holding::Waiting, "a held partition is not acquired: {group} {at}");
        *holding = Holding::Held(revision);
        true
    }

    /// Gives a partition up for now. Returns the revision of the lease to release, if it is held.
    pub(crate) fn release(&mut self, (group, at): &PartitionId) -> Option<Revision> {
        let holding = self.groups.get_mut(group)?.get_mut(*at)?;
        let held = revision(*holding);
        if held.is_some() {
            *holding = Holding::Waiting;
        }
        held
    }

    /// Decides the next steps from a scan. Missed heartbeats are counted by scans at a regular
    /// pace, not by a clock. So a process that was stopped for a while does not treat the other
    /// members as expired.
    pub(crate) fn rebalance(&mut self, seen: &Seen, is_regular: bool) -> Vec<LeaseStep> {
        let expired = self.expired(seen, is_regular);
        let mut steps: Vec<_> = expired.iter().map(|member| expire(seen, *member)).collect();
        let me = self.me;
        steps.extend(self.orphaned(seen));
        for (group, holdings) in &mut self.groups {
            let owner = |at| {
                let lease = seen.leases.get(&(group.clone(), at));
                lease.map(|(revision, owner)| (*revision, *owner))
            };
            // In the order of their ids: every member computes the same shares.
            let runs = |(id, present): (&MemberId, &SeenMember)| {
                let is_there = present.runs.contains_key(group.as_str()) && !expired.contains(id);
                is_there.then_some(*id)
            };
            let members: BTreeSet<_> = seen.members.iter().filter_map(runs).chain([me]).collect();
            let owners = (0..holdings.len()).map(|at| owner(at).map(|(_, owner)| owner));
            let owners: Vec<_> = owners.map(|it| it.filter(|it| !expired.contains(it))).collect();
            let wanted = shares(&owners, &members);
            for (at, holding) in holdings.iter_mut().enumerate() {
                let part = || (group.clone(), at);
                match *holding {
                    Holding::Waiting => match owner(at) {
                        None if wanted[at] == Some(me) => steps.push(LeaseStep::Acquire(part())),
                        // The answer to its write was lost.
                        Some((revision, owner)) if owner == me => {
                            *holding = Holding::Held(revision);
                            steps.push(LeaseStep::Own(part()));
                        }
                        _ => {}
                    },
                    Holding::Held(revision) | Holding::Revoked(revision)
                        if owner(at) != Some((revision, me)) =>
                    {
                        *holding = Holding::Waiting;
                        steps.push(LeaseStep::Lost(part()));
                    }
                    Holding::Held(revision) if wanted[at] != Some(me) => {
                        *holding = Holding::Revoked(revision);
                        steps.push(LeaseStep::Revoke(part()));
                    }
                    Holding::Held(_) | Holding::Revoked(_) | Holding::Ended => {}
                }
            }
        }
        steps
    }

    /// The leases of this member that no worker here holds.
    fn orphaned<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = LeaseStep> + 'a {
        let is_mine = |(_, (_, owner)): &(&PartitionId, &(Revision, MemberId))| *owner == self.me;
        let leases = seen.leases.iter().filter(is_mine);
        leases.filter_map(|(part, (revision, _))| {
            let holding = self.groups.get(&part.0).and_then(|holdings| holdings.get(part.1));
            let is_orphaned = holding.is_none_or(|holding| *holding == Holding::Ended);
            is_orphaned.then(|| LeaseStep::Release(part.clone(), *revision))
        })
    }

    /// The expired members: those whose process has ended or that have missed too many heartbeats.
    /// An owner without a member document counts as a silent member.
    fn expired(&mut self, seen: &Seen, is_regular: bool) -> BTreeSet<MemberId> {
        let mut known: BTreeMap<_, _> =
            seen.leases.values().map(|(_, owner)| (*owner, None)).collect();
        known.extend(seen.members.iter().map(|(id, present)| (*id, Some(present.revision))));
        known.remove(&self.me);
        self.heartbeats.retain(|id, _| known.contains_key(id));
        for (id, revision) in known {
            match self.heartbeats.get_mut(&id) {
                Some((before, missed)) if *before == revision => {
                    *missed += u32::from(is_regular);
                }
                _ => drop(self.heartbeats.insert(id, (revision, 0))),
            }
        }
        let has_exited =
            |id: &MemberId| seen.members.get(id).is_some_and(|present| present.has_exited);
        let has_expired = |(id, (_, missed)): &(&MemberId, &(Option<Revision>, u32))| {
            *missed >= MISSED_HEARTBEATS_MAX || has_exited(id)
        };
        self.heartbeats.iter().filter(has_expired).map(|(id, _)| *id).collect()
    }
}

fn revision(holding: Holding) -> Option<Revision> {
    match holding {
        Holding::Waiting | Holding::Ended => None,
        Holding::Held(revision) | Holding::Revoked(revision) => Some(revision),
    }
}

fn expire(seen: &Seen, member: MemberId) -> LeaseStep {
    let revision = seen.members.get(&member).map(|present| present.revision);
    let is_its = |(_, (_, owner)): &(&PartitionId, &(Revision, MemberId))| *owner == member;
    let leases = seen.leases.iter().filter(is_its);
    let leases = leases.map(|(part, (revision, _))| (part.clone(), *revision)).collect();
    LeaseStep::Expire(member, revision, leases)
}

impl Seen {
    /// The position of a partition, from the last heartbeat of its owner.
    pub(crate) fn position(&self, (group, at): &PartitionId) -> Option<Position> {
        let (_, owner) = self.leases.get(&(group.clone(), *at))?;
        let runs = &self.members.get(owner)?.runs;
        runs.get(group.as_str())?.get(at).copied().map(Position::new)
    }
}

#[cfg(test)]
mod tests;
