//! A cache of blocks of runs, within a limit of bytes.

use std::{
    collections::VecDeque,
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
};

use hashbrown::{DefaultHashBuilder, HashMap};

/// The most bytes of the index that are kept in memory.
pub(crate) const CACHE_BYTES_MAX: usize = 64 << 20;
/// The number of parts, each with a lock of its own. With this many, readers rarely wait for each
/// other.
const PARTS: usize = 16;

/// The id of a block: the run that it belongs to, and its number in that run.
type BlockId = (u64, u32);

/// Blocks by their id. The block that was unused for longest is dropped first, roughly.
#[derive(Debug)]
pub(crate) struct Cache {
    parts: Vec<Mutex<Part>>,
    part_bytes_max: usize,
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Part {
    blocks: HashMap<BlockId, Slot>,
    order: VecDeque<BlockId>,
    bytes: usize,
}

#[derive(Debug)]
struct Slot {
    block: Arc<[u8]>,
    was_used: bool,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self::of(CACHE_BYTES_MAX)
    }

    /// Makes a cache of at most this many bytes.
    pub(crate) fn of(bytes_max: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        let hasher = DefaultHashBuilder::default();
        Self { parts, part_bytes_max: bytes_max / PARTS, hasher }
    }

    fn part(&self, id: BlockId) -> std::sync::MutexGuard<'_, Part> {
        let part = self.hasher.hash_one(id) as usize % PARTS;
        // A part is consistent between any two of its statements.
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn block(&self, id: BlockId) -> Option<Arc<[u8]>> {
        let mut part = self.part(id);
        let slot = part.blocks.get_mut(&id)?;
        slot.was_used = true;
        Some(slot.block.clone())
    }

    pub(crate) fn keep(&self, id: BlockId, block: Arc<[u8]>) {
        let len = block.len();
        // A block that is this large would drive out everything else.
        if len > self.part_bytes_max / 4 {
            return;
        }
        let mut part = self.part(id);
        if part.blocks.insert(id, Slot { block, was_used: false }).is_none() {
            part.bytes += len;
            part.order.push_back(id);
        }
        while part.bytes > self.part_bytes_max {
            part.drop_one();
        }
    }
}

impl Part {
    /// Drops one block. A block that was used since the last look gets a second chance.
    fn drop_one(&mut self) {
        let Some(id) = self.order.pop_front() else { return };
        match self.blocks.get_mut(&id) {
            Some(slot) if slot.was_used => {
                slot.was_used = false;
                self.order.push_back(id);
            }
            _ => {
                let dropped = self.blocks.remove(&id);
                self.bytes -= dropped.map_or(0, |slot| slot.block.len());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_kept_and_what_is_used_stays() {
        let cache = Cache::new();
        let block: Arc<[u8]> = vec![7; 64 << 10].into();
        for number in 0..4_000 {
            cache.keep((1, number), block.clone());
            cache.block((1, 0)).unwrap();
        }
        let bytes: usize = cache.parts.iter().map(|part| part.lock().unwrap().bytes).sum();
        assert!(bytes <= CACHE_BYTES_MAX && bytes > CACHE_BYTES_MAX / 2, "{bytes}");
    }
}
