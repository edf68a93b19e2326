//! The directory of entities: a map from stream to cell in shards. Each shard is in the order in
//! which its cells were last used.
//!
//! An idle entity is an entry here and nothing else: no task, no channel. Every change of a cell is
//! made under its shard's lock, so a message never reaches a cell that was removed.

use std::{
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use factum_kernel::{Aggregate, Monotonic, StreamId};
use hashlink::{DefaultHashBuilder, LinkedHashMap, linked_hash_map::RawEntryMut};
use tokio::sync::Notify;

use crate::{
    cell::{Cell, Rules},
    drive::Drive,
    entity::Entity,
    option::ENTITY_BYTES,
    stats::EntityStats,
};

/// The number of shards, each with its own lock.
const SHARDS: usize = 64;
/// The most entries that are visited to passivate entities for weight, for each burst that ended.
const LOOKS_MAX: usize = 64;

/// The cells of one kind of aggregate.
pub(crate) struct Directory<A: Aggregate> {
    shards: Box<[Mutex<Shard<A>>]>,
    hasher: DefaultHashBuilder,
}

/// A shard: a part of the cells, the least recently used first.
pub(crate) struct Shard<A: Aggregate> {
    slots: LinkedHashMap<StreamId, Slot<A>>,
    /// The weight of the resident entities, in bytes.
    weight: usize,
    resident: usize,
    passivated: u64,
    weight_max: usize,
}

/// A cell, with the directory's data about it.
pub(crate) struct Slot<A: Aggregate> {
    pub(crate) cell: Cell<Entity<A>>,
    pub(crate) used: Monotonic,
    /// The cell's work, if its caller may drive it.
    pub(crate) drive: Option<Arc<Drive>>,
    /// The weight that the shard counts for this cell; 0 if it holds no state.
    weight: usize,
    /// Notified when the mailbox has room again; present if a caller waits for room.
    room: Option<Arc<Notify>>,
}

impl<A: Aggregate> Slot<A> {
    /// The notification for callers that wait for room.
    pub(crate) fn room(&mut self) -> Arc<Notify> {
        self.room.get_or_insert_default().clone()
    }

    /// Notifies the callers that wait, if the mailbox has room.
    pub(crate) fn notify_room(&mut self, mailbox_max: usize) {
        if self.room.is_some() && self.cell.queued() < mailbox_max {
            self.room.take().inspect(|room| room.notify_waiters());
        }
    }
}

impl<A: Aggregate> Directory<A> {
    pub(crate) fn new(weight_max: usize) -> Self {
        let shard = || Shard {
            slots: LinkedHashMap::new(),
            weight: 0,
            resident: 0,
            passivated: 0,
            weight_max: weight_max / SHARDS,
        };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { shards, hasher: DefaultHashBuilder::default() }
    }

    /// The shard of a stream, locked.
    pub(crate) fn shard(&self, stream: &StreamId) -> MutexGuard<'_, Shard<A>> {
        // The map inside hashes with another seed, so that the keys of one shard don't collide.
        let at = self.hasher.hash_one(stream) as usize % SHARDS;
        lock(&self.shards[at])
    }

    /// Every shard in turn, locked.
    pub(crate) fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<A>>> {
        self.shards.iter().map(lock)
    }
}

// The only user code that runs under the lock is the drop of a state. The shard is consistent then,
// so a panic in it does no harm.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A: Aggregate> Shard<A> {
    /// The slot of a stream, created if missing. It becomes the most recently used.
    pub(crate) fn slot(&mut self, stream: &StreamId, now: Monotonic) -> &mut Slot<A> {
        let new = || Slot { cell: Cell::new(), used: now, drive: None, weight: 0, room: None };
        let slot = match self.slots.raw_entry_mut().from_key(stream) {
            RawEntryMut::Occupied(mut entry) => {
                entry.to_back();
                entry.into_mut()
            }
            RawEntryMut::Vacant(entry) => entry.insert(stream.clone(), new()).1,
        };
        slot.used = slot.used.max(now);
        slot
    }

    /// The slot of a stream, if it exists.
    pub(crate) fn find(&mut self, stream: &StreamId) -> Option<&mut Slot<A>> {
        self.slots.get_mut(stream)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&StreamId, &Slot<A>)> {
        self.slots.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&StreamId, &mut Slot<A>)> {
        self.slots.iter_mut()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds this shard to the statistics.
    pub(crate) fn fill(&self, stats: &mut EntityStats) {
        stats.resident += self.resident;
        stats.resident_bytes += self.weight;
        stats.passivated += self.passivated;
    }

    /// Counts an entity that has become idle, and passivates others to make room for it. Returns
    /// the passivated states, so that the caller drops them after releasing the lock.
    pub(crate) fn rested(
        &mut self,
        stream: &StreamId,
        rules: &Rules,
        now: Monotonic,
    ) -> Vec<impl Sized + use<A>> {
        let Some(slot) = self.slots.to_back(stream) else { return Vec::new() };
        slot.used = slot.used.max(now);
        let weight = slot.cell.warm().map_or(0, |state| ENTITY_BYTES + state.weight);
        let before = std::mem::replace(&mut slot.weight, weight);
        let is_blank = slot.cell.is_blank(&rules.restart, now);
        self.weigh(before, weight);
        if is_blank {
            self.slots.remove(stream);
        }
        let mut gone = Vec::new();
        for _ in 0..LOOKS_MAX {
            if self.weight <= self.weight_max {
                break;
            }
            match self.pop_front(rules, now) {
                Popped::Passivated(state) => gone.push(state),
                Popped::Removed => {}
                Popped::Kept => {}
                Popped::Nothing => break,
            }
        }
        gone
    }

    /// Passivates the entities that were not used for this long. Returns their states.
    pub(crate) fn sweep(
        &mut self,
        idle: Duration,
        rules: &Rules,
        now: Monotonic,
    ) -> Vec<impl Sized + use<A>> {
        let mut gone = Vec::new();
        for _ in 0..self.slots.len() {
            let Some((_, slot)) = self.slots.front() else { break };
            if now.saturating_since(slot.used) < idle {
                break;
            }
            if let Popped::Passivated(state) = self.pop_front(rules, now) {
                gone.push(state);
            }
        }
        gone
    }

    /// Takes the least recently used cell: passivates it if it is idle, removes it if it holds no
    /// information, and otherwise moves it to the end.
    fn pop_front(&mut self, rules: &Rules, now: Monotonic) -> Popped<A> {
        let Some((stream, mut slot)) = self.slots.pop_front() else { return Popped::Nothing };
        let state = slot.cell.passivate();
        if state.is_some() {
            self.weigh(slot.weight, 0);
            self.passivated += 1;
            slot.weight = 0;
        }
        let is_blank = slot.cell.is_blank(&rules.restart, now);
        if !is_blank {
            slot.used = now;
            self.slots.insert(stream, slot);
        }
        match state {
            Some(state) => Popped::Passivated(state),
            None if is_blank => Popped::Removed,
            None => Popped::Kept,
        }
    }

    fn weigh(&mut self, before: usize, after: usize) {
        self.weight = self.weight - before + after;
        self.resident = self.resident + usize::from(after > 0) - usize::from(before > 0);
    }
}

enum Popped<A: Aggregate> {
    Passivated(<Entity<A> as crate::cell::Parts>::State),
    Removed,
    Kept,
    Nothing,
}
