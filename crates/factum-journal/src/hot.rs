//! A guess at the streams that the active segment holds. It tells a caller without a lock whether
//! an append would read the disk.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
};

use hashbrown::DefaultHashBuilder;

/// The number of slots, one per stream. Where two streams share a slot, the last one written has
/// it.
const SLOTS: usize = 1 << 17;

/// The streams that the active segment holds, as far as it remembers. Takes one megabyte.
#[derive(Debug)]
pub(crate) struct Hot {
    hasher: DefaultHashBuilder,
    /// The number of the active segment, which wraps after 65,536 segments.
    segment: AtomicU16,
    slots: Box<[AtomicU64]>,
}

impl Hot {
    pub(crate) fn new() -> Self {
        // Counted from one, so that an empty slot matches no segment.
        let slots = std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect();
        Self { hasher: DefaultHashBuilder::default(), segment: AtomicU16::new(1), slots }
    }

    /// Begins a segment: no stream has an event in it yet.
    pub(crate) fn begin_segment(&self) {
        self.segment.fetch_add(1, Relaxed);
    }

    /// Remembers that the active segment holds a stream.
    pub(crate) fn add(&self, stream: &str) {
        let (slot, mark) = self.find(stream);
        slot.store(mark, Relaxed);
    }

    /// Returns whether the active segment holds a stream. False may be wrong; true is wrong once in
    /// 2^47 cases.
    pub(crate) fn has(&self, stream: &str) -> bool {
        let (slot, mark) = self.find(stream);
        slot.load(Relaxed) == mark
    }

    fn find(&self, stream: &str) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(stream);
        let mark = (hash & !0xffff) | u64::from(self.segment.load(Relaxed));
        (&self.slots[hash as usize % SLOTS], mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_remembered_until_the_next_segment() {
        let hot = Hot::new();
        assert!(!hot.has("a-1"));
        hot.add("a-1");
        assert!(hot.has("a-1") && !hot.has("a-2"));
        hot.begin_segment();
        assert!(!hot.has("a-1"));
    }
}
