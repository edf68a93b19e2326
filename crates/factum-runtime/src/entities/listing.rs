//! Listings of the entities in memory, each in some order and with a limit.

use std::{cmp::Reverse, collections::BinaryHeap};

use factum_kernel::{Aggregate, Monotonic, StreamId, StreamVersion, Timestamp};

use super::Entities;
use crate::{
    directory::Slot,
    stats::{EntityInfo, EntityStatus},
};

/// The most entities in a listing.
pub const LISTED_MAX: usize = 1_000;

impl<A: Aggregate> Entities<A> {
    /// The `count` most recently used entities, the last used first; at most [`LISTED_MAX`].
    pub fn recent(&self, count: usize) -> Vec<EntityInfo> {
        let count = count.min(LISTED_MAX);
        let mut found = Vec::new();
        let at = self.moments();
        for shard in self.system.directory.shards() {
            // A shard is in the order of last use.
            let of_shard = shard.iter().rev().take(count);
            found.extend(of_shard.map(|(stream, slot)| info(stream.clone(), slot, &at)));
        }
        found.sort_by(|a, b| (b.used_at, &a.stream).cmp(&(a.used_at, &b.stream)));
        found.truncate(count);
        found
    }

    /// The `count` heaviest idle entities, the heaviest first; at most [`LISTED_MAX`]. Visits all
    /// entities, one shard at a time under its lock.
    pub fn heaviest(&self, count: usize) -> Vec<EntityInfo> {
        let count = count.min(LISTED_MAX);
        let mut heaviest = BinaryHeap::new();
        for shard in self.system.directory.shards() {
            for (stream, slot) in shard.iter() {
                let Some(weight) = slot.cell.warm().map(|state| state.weight) else { continue };
                let is_room = heaviest.len() < count;
                if !is_room && heaviest.peek().is_none_or(|Reverse((least, _))| *least >= weight) {
                    continue;
                }
                heaviest.push(Reverse((weight, stream.clone())));
                if !is_room {
                    heaviest.pop();
                }
            }
        }
        let listed = heaviest.into_sorted_vec().into_iter();
        // The entity may have been removed in the meantime.
        listed.filter_map(|Reverse((_, stream))| self.find(&stream)).collect()
    }

    pub(super) fn find(&self, stream: &StreamId) -> Option<EntityInfo> {
        let at = self.moments();
        let mut shard = self.system.directory.shard(stream);
        shard.find(stream).map(|slot| info(stream.clone(), slot, &at))
    }

    /// Converts a monotonic reading to a time, by the clock's present time.
    fn moments(&self) -> impl Fn(Monotonic) -> Timestamp + use<A> {
        let clock = self.system.clock();
        let now = clock.now();
        let reading = clock.monotonic();
        move |then| now.saturating_sub(reading.saturating_since(then))
    }
}

fn info<A: Aggregate>(
    stream: StreamId,
    slot: &Slot<A>,
    at: &impl Fn(Monotonic) -> Timestamp,
) -> EntityInfo {
    let cell = &slot.cell;
    let warm = slot.cell.warm();
    let status = match () {
        () if cell.is_running() => EntityStatus::Active,
        () if cell.quarantine().is_some() => EntityStatus::Quarantined,
        () if warm.is_some() => EntityStatus::Idle,
        () => EntityStatus::Failed,
    };
    let snapshot: Option<StreamVersion> = warm.map(|state| state.draft.snapshot_version());
    EntityInfo {
        stream,
        status,
        used_at: at(slot.used),
        queued: cell.queued(),
        version: warm.map(|state| state.draft.version()),
        snapshot_version: snapshot,
        weight: warm.map(|state| state.weight),
    }
}
