//! Streams that the active segment holds: a guess for those who only want to know whether the
//! disk would be read, without a lock.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
};

use hashbrown::DefaultHashBuilder;

/// One for each of so many streams; of two that meet in a slot, the one written last.
const SLOTS: usize = 1 << 17;

/// Streams that the active segment holds, as far as it remembers. A megabyte.
#[derive(Debug)]
pub(crate) struct Hot {
    hasher: DefaultHashBuilder,
    /// Which segment is active, in a number that comes again after 65,536 of them.
    segment: AtomicU16,
    slots: Box<[AtomicU64]>,
}

impl Hot {
    pub(crate) fn new() -> Self {
        // Counted from one: an empty slot is of no segment.
        let slots = std::iter::repeat_with(AtomicU64::default).take(SLOTS).collect();
        Self { hasher: DefaultHashBuilder::default(), segment: AtomicU16::new(1), slots }
    }

    /// Begins a segment, of which no stream has anything yet.
    pub(crate) fn begin_segment(&self) {
        self.segment.fetch_add(1, Relaxed);
    }

    /// Remembers that the active segment holds a stream.
    pub(crate) fn add(&self, stream: &str) {
        let (slot, mark) = self.find(stream);
        slot.store(mark, Relaxed);
    }

    /// Whether the active segment surely holds a stream. Wrong in one of 2^47 cases.
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
