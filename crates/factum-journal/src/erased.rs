//! The set of erased positions: a bit for each, in containers that exist only where a bit is set.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use factum_kernel::{ErasedRange, Position};

use crate::chunk;

/// Positions in a container.
const CONTAINER: u64 = 1 << 16;
const WORDS: usize = (CONTAINER / 64) as usize;

/// The erased positions of the whole log: at most one bit per event. A clone is cheap, and does not
/// see later changes of the original.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Erased {
    containers: BTreeMap<u64, Arc<[u64; WORDS]>>,
}

/// The number of the container that holds a position.
pub(crate) fn container_of(position: u64) -> u64 {
    position / CONTAINER
}

impl Erased {
    pub(crate) fn insert(&mut self, position: u64) {
        let bits = self.containers.entry(container_of(position));
        let bits = Arc::make_mut(bits.or_insert_with(|| Arc::new([0; WORDS])));
        bits[word_of(position)] |= 1 << (position % 64);
    }

    pub(crate) fn contains(&self, position: u64) -> bool {
        let bits = self.containers.get(&container_of(position));
        bits.is_some_and(|bits| bits[word_of(position)] & (1 << (position % 64)) != 0)
    }

    /// The number of erased positions between two, both inclusive.
    pub(crate) fn count(&self, first: u64, last: u64) -> u64 {
        if first > last {
            return 0;
        }
        let mut count = 0;
        for (container, bits) in self.containers.range(container_of(first)..=container_of(last)) {
            for (word, bits) in bits.iter().enumerate().filter(|(_, bits)| **bits != 0) {
                let base = container * CONTAINER + word as u64 * 64;
                if base > last || base + 63 < first {
                    continue;
                }
                let from = u64::MAX << first.saturating_sub(base);
                let to = u64::MAX >> (base + 63).saturating_sub(last);
                count += u64::from((bits & from & to).count_ones());
            }
        }
        count
    }

    /// The containers that hold an erased position.
    pub(crate) fn containers(&self) -> impl Iterator<Item = u64> {
        self.containers.keys().copied()
    }

    /// The erased positions between two, both inclusive, as ranges.
    pub(crate) fn ranges(&self, first: u64, last: u64) -> Vec<ErasedRange> {
        let mut ranges: Vec<ErasedRange> = Vec::new();
        if first > last {
            return ranges;
        }
        for (container, bits) in self.containers.range(container_of(first)..=container_of(last)) {
            for (word, bits) in bits.iter().enumerate().filter(|(_, bits)| **bits != 0) {
                let base = container * CONTAINER + word as u64 * 64;
                let set = (0..64).filter(|bit| bits & (1 << bit) != 0).map(|bit| base + bit);
                for position in set.filter(|position| (first..=last).contains(position)) {
                    push(&mut ranges, Position::new(position));
                }
            }
        }
        ranges
    }

    /// Encodes a container for the index: the beginnings and ends of its erased ranges,
    /// alternating.
    pub(crate) fn encode(&self, container: u64) -> Vec<u8> {
        let first = container * CONTAINER;
        let ranges = self.ranges(first, first + CONTAINER - 1);
        let ends = ranges.iter().flat_map(|range| [range.first, range.last.next()]);
        chunk::encode(&ends.map(|end| end.value() - first).collect::<Vec<_>>())
    }

    /// Adds the positions of an encoded container; `None` for other bytes.
    pub(crate) fn decode(&mut self, container: u64, bytes: &[u8]) -> Option<()> {
        let ends = chunk::decode(bytes)?;
        if ends.len() % 2 != 0 || ends.last().is_some_and(|end| *end > CONTAINER) {
            return None;
        }
        let first = container.checked_mul(CONTAINER)?;
        for range in ends.chunks_exact(2) {
            (range[0]..range[1]).for_each(|position| self.insert(first + position));
        }
        Some(())
    }
}

/// The positions of a container.
pub(crate) fn positions_of(container: u64) -> RangeInclusive<u64> {
    container * CONTAINER..=container * CONTAINER + (CONTAINER - 1)
}

/// Joins two index values of one container: a position is erased if either value has it. `None` for
/// other bytes.
pub(crate) fn union(container: u64, values: [&[u8]; 2]) -> Option<Vec<u8>> {
    let mut erased = Erased::default();
    values.into_iter().try_for_each(|value| erased.decode(container, value))?;
    Some(erased.encode(container))
}

fn word_of(position: u64) -> usize {
    ((position % CONTAINER) / 64) as usize
}

fn push(ranges: &mut Vec<ErasedRange>, position: Position) {
    match ranges.last_mut() {
        Some(range) if range.last.next() == position => range.last = position,
        _ => ranges.push(ErasedRange { first: position, last: position }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_over_words_and_containers_and_come_back() {
        let mut erased = Erased::default();
        let positions = [1, 2, 63, 64, 65, 65_535, 65_536, 65_537, 200_000];
        positions.iter().for_each(|position| erased.insert(*position));
        let ranges = |first, last| -> Vec<(u64, u64)> {
            let ranges = erased.ranges(first, last).into_iter();
            ranges.map(|range| (range.first.value(), range.last.value())).collect()
        };
        let all = [(1, 2), (63, 65), (65_535, 65_537), (200_000, 200_000)];
        assert_eq!(ranges(0, u64::MAX), all);
        assert_eq!(ranges(2, 64), [(2, 2), (63, 64)]);
        assert_eq!(ranges(3, 62), []);
        let ends = [0, 1, 2, 3, 62, 63, 64, 65, 66, 127, 128, 65_535, 65_536, 199_999, 200_000];
        for (first, last) in ends.iter().flat_map(|first| ends.map(|last| (*first, last))) {
            let lens = ranges(first, last).into_iter().map(|(first, last)| last + 1 - first);
            assert_eq!(erased.count(first, last), lens.sum::<u64>(), "{first} to {last}");
        }
        let mut again = Erased::default();
        for container in [0, 1, 3] {
            again.decode(container, &erased.encode(container)).unwrap();
        }
        assert_eq!(again, erased);
        assert!(positions.iter().all(|position| erased.contains(*position)));
        assert!(!erased.contains(66) && !erased.contains(1 << 40));
    }
}
