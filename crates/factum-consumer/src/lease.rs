//! Who works on which partition of a consumer, where several processes run it. Pure; what is
//! stored and told of it is in `membership.rs`.
//!
//! Leases are for liveness: they spread the work and let another process go on. That nothing is
//! done twice is the matter of the fence that each save of a consumer names.

mod bell;
mod machine;
mod membership;
mod seat;
mod share;
mod stored;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use factum_kernel::{Position, Revision};
use serde::{Deserialize, Serialize};

use crate::name::ConsumerName;
use share::shares;

pub use bell::{Bell, ring};
pub(crate) use membership::Membership;
pub(crate) use seat::{Seat, Standing};
pub use stored::said_position;

/// A member that was not heard of during so many looks is dead.
pub(crate) const SILENCE_MAX: u32 = 5;

/// A process that runs consumers, or rather one opening of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct MemberId(pub(crate) u64, pub(crate) u64);

/// A partition of a consumer: its name without the partition, and which one.
pub(crate) type Part = (ConsumerName, usize);

/// Of each consumer that a member runs: how far it has come in the partitions that it works on.
pub(crate) type Runs = BTreeMap<String, BTreeMap<usize, u64>>;

/// What is stored of leases, read in one go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) members: BTreeMap<MemberId, Present>,
    pub(crate) leases: BTreeMap<Part, (Revision, MemberId)>,
    /// Moves when something was stored that members look for.
    pub(crate) bell: Revision,
}

/// A member as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) revision: Revision,
    pub(crate) runs: Runs,
    /// Its process is known to have ended.
    pub(crate) is_gone: bool,
}

/// What is to be done after a look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Remove what a dead member has left: its own document, if that is at this revision, and its
    /// leases.
    Bury(MemberId, Option<Revision>, Vec<(Part, Revision)>),
    /// Take a partition that nobody has.
    Take(Part),
    /// It has a partition, by a write whose answer was lost.
    Have(Part),
    /// Let go of a partition that another member is to have.
    Leave(Part),
    /// It was taken away: this process was taken for dead.
    Lost(Part),
    /// It has a partition that it does not work on, by a write whose answer was lost.
    Release(Part, Revision),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holding {
    Waiting,
    Held(Revision),
    /// Told to let go; held until it says that it has.
    Leaving(Revision),
    /// Nobody here will work on it again.
    Gone,
}

/// What one member knows and has.
#[derive(Debug)]
pub(crate) struct Leases {
    me: MemberId,
    /// As each member was seen last, and during how many looks it has not moved.
    heard: HashMap<MemberId, (Option<Revision>, u32)>,
    groups: BTreeMap<ConsumerName, Vec<Holding>>,
}

impl Leases {
    pub(crate) fn new(me: MemberId) -> Self {
        Self { me, heard: HashMap::new(), groups: BTreeMap::new() }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.groups.is_empty()
    }

    /// From now on it runs this consumer too.
    pub(crate) fn join(&mut self, group: ConsumerName, partitions: usize) {
        self.groups.entry(group).or_insert_with(|| vec![Holding::Waiting; partitions]);
    }

    /// Nobody here works on the partition any more, or will; what is to be released of it. With
    /// its last partition it runs the consumer no more.
    pub(crate) fn quit(&mut self, part: &Part) -> Option<Revision> {
        let held = self.left(part);
        let holdings = self.groups.get_mut(&part.0)?;
        holdings[part.1] = Holding::Gone;
        if holdings.iter().all(|holding| *holding == Holding::Gone) {
            self.groups.remove(&part.0);
        }
        held
    }

    /// The partitions that it holds, by consumer; also those of which it holds none.
    pub(crate) fn held(&self) -> impl Iterator<Item = (&ConsumerName, Vec<usize>)> {
        self.groups.iter().map(|(group, holdings)| {
            let is_held = |at: &usize| revision(holdings[*at]).is_some();
            (group, (0..holdings.len()).filter(is_held).collect())
        })
    }

    /// It has taken a partition. False: it does not run the consumer any more.
    pub(crate) fn taken(&mut self, (group, at): &Part, revision: Revision) -> bool {
        let holding = self.groups.get_mut(group).and_then(|holdings| holdings.get_mut(*at));
        let holding = holding.filter(|holding| **holding != Holding::Gone);
        holding.map(|holding| *holding = Holding::Held(revision)).is_some()
    }

    /// It does not work on a partition now; what is to be released of it.
    pub(crate) fn left(&mut self, (group, at): &Part) -> Option<Revision> {
        let holding = self.groups.get_mut(group)?.get_mut(*at)?;
        let held = revision(*holding);
        if held.is_some() {
            *holding = Holding::Waiting;
        }
        held
    }

    /// Decides on what is stored. Silence is counted by looks at a regular pace only, and not by a
    /// clock: a process that stood still for a while takes nobody for dead because of that.
    pub(crate) fn look(&mut self, seen: &Seen, is_regular: bool) -> Vec<Effect> {
        let dead = self.listen(seen, is_regular);
        let mut effects: Vec<_> = dead.iter().map(|member| bury(seen, *member)).collect();
        let me = self.me;
        effects.extend(self.astray(seen));
        for (group, holdings) in &mut self.groups {
            let owner = |at| {
                let lease = seen.leases.get(&(group.clone(), at));
                lease.map(|(revision, owner)| (*revision, *owner))
            };
            // In the order of their names, as every member does it.
            let runs = |(id, present): (&MemberId, &Present)| {
                let is_there = present.runs.contains_key(group.as_str()) && !dead.contains(id);
                is_there.then_some(*id)
            };
            let members: BTreeSet<_> = seen.members.iter().filter_map(runs).chain([me]).collect();
            let owners = (0..holdings.len()).map(|at| owner(at).map(|(_, owner)| owner));
            let owners: Vec<_> = owners.map(|it| it.filter(|it| !dead.contains(it))).collect();
            let wanted = shares(&owners, &members);
            for (at, holding) in holdings.iter_mut().enumerate() {
                let part = || (group.clone(), at);
                match *holding {
                    Holding::Waiting => match owner(at) {
                        None if wanted[at] == Some(me) => effects.push(Effect::Take(part())),
                        // Of a write whose answer was lost.
                        Some((revision, owner)) if owner == me => {
                            *holding = Holding::Held(revision);
                            effects.push(Effect::Have(part()));
                        }
                        _ => {}
                    },
                    Holding::Held(revision) | Holding::Leaving(revision)
                        if owner(at) != Some((revision, me)) =>
                    {
                        *holding = Holding::Waiting;
                        effects.push(Effect::Lost(part()));
                    }
                    Holding::Held(revision) if wanted[at] != Some(me) => {
                        *holding = Holding::Leaving(revision);
                        effects.push(Effect::Leave(part()));
                    }
                    Holding::Held(_) | Holding::Leaving(_) | Holding::Gone => {}
                }
            }
        }
        effects
    }

    /// What is stored to be this member's, and nobody here will work on.
    fn astray<'a>(&'a self, seen: &'a Seen) -> impl Iterator<Item = Effect> + 'a {
        let is_mine = |(_, (_, owner)): &(&Part, &(Revision, MemberId))| *owner == self.me;
        let leases = seen.leases.iter().filter(is_mine);
        leases.filter_map(|(part, (revision, _))| {
            let holding = self.groups.get(&part.0).and_then(|holdings| holdings.get(part.1));
            let is_astray = holding.is_none_or(|holding| *holding == Holding::Gone);
            is_astray.then(|| Effect::Release(part.clone(), *revision))
        })
    }

    /// Who is dead: members that have not moved, and owners without a document for so long.
    fn listen(&mut self, seen: &Seen, is_regular: bool) -> BTreeSet<MemberId> {
        let mut there: BTreeMap<_, _> =
            seen.leases.values().map(|(_, owner)| (*owner, None)).collect();
        there.extend(seen.members.iter().map(|(id, present)| (*id, Some(present.revision))));
        there.remove(&self.me);
        self.heard.retain(|id, _| there.contains_key(id));
        for (id, revision) in there {
            match self.heard.get_mut(&id) {
                Some((before, silence)) if *before == revision => {
                    *silence += u32::from(is_regular);
                }
                _ => drop(self.heard.insert(id, (revision, 0))),
            }
        }
        let is_gone = |id: &MemberId| seen.members.get(id).is_some_and(|present| present.is_gone);
        let is_dead = |(id, (_, silence)): &(&MemberId, &(Option<Revision>, u32))| {
            *silence >= SILENCE_MAX || is_gone(id)
        };
        self.heard.iter().filter(is_dead).map(|(id, _)| *id).collect()
    }
}

fn revision(holding: Holding) -> Option<Revision> {
    match holding {
        Holding::Waiting | Holding::Gone => None,
        Holding::Held(revision) | Holding::Leaving(revision) => Some(revision),
    }
}

fn bury(seen: &Seen, member: MemberId) -> Effect {
    let revision = seen.members.get(&member).map(|present| present.revision);
    let is_its = |(_, (_, owner)): &(&Part, &(Revision, MemberId))| *owner == member;
    let leases = seen.leases.iter().filter(is_its);
    let leases = leases.map(|(part, (revision, _))| (part.clone(), *revision)).collect();
    Effect::Bury(member, revision, leases)
}

impl Seen {
    /// How far whoever works on a partition says it has come.
    pub(crate) fn position(&self, (group, at): &Part) -> Option<Position> {
        let (_, owner) = self.leases.get(&(group.clone(), *at))?;
        let runs = &self.members.get(owner)?.runs;
        runs.get(group.as_str())?.get(at).copied().map(Position::new)
    }
}

#[cfg(test)]
mod tests;
