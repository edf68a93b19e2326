//! A chunk: ascending positions in few bytes, the value of an index entry.

use crate::number;

/// The most positions in a chunk.
pub(crate) const CHUNK_MAX: usize = 1_024;
/// The most places in a chunk. The number is small because finding a place decodes the whole chunk.
pub(crate) const PLACES_MAX: usize = 64;

/// Encodes ascending numbers: the first, then the distance of each from its predecessor.
pub(crate) fn encode(numbers: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(numbers.len() + 8);
    let mut last = 0;
    for number in numbers {
        number::put(&mut out, number - last);
        last = *number;
    }
    out
}

/// Decodes numbers that [`encode`] wrote; `None` for other bytes.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<u64>> {
    let mut numbers = Vec::with_capacity(bytes.len());
    let mut last = 0_u64;
    while !bytes.is_empty() {
        last = last.checked_add(number::take(&mut bytes)?)?;
        numbers.push(last);
    }
    Some(numbers)
}

/// The places of consecutive events of one segment: the value of a places entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// The first position of the segment.
    pub(crate) segment: u64,
    /// The offset where each event's record begins, then the offset where the last record ends.
    pub(crate) offsets: Vec<u64>,
}

impl Places {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.offsets.len() * 2 + 16);
        number::put(&mut out, self.segment);
        out.extend(encode(&self.offsets));
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let segment = number::take(&mut bytes)?;
        let offsets = decode(bytes)?;
        (offsets.len() >= 2).then_some(Self { segment, offsets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for numbers in [vec![], vec![0], vec![5, 6, 7], vec![1, 1 << 40, u64::MAX]] {
            assert_eq!(decode(&encode(&numbers)), Some(numbers));
        }
        assert_eq!(decode(&[0x80]), None);
        let places = Places { segment: 9, offsets: vec![512, 600, 777] };
        assert_eq!(Places::decode(&places.encode()), Some(places));
    }
}
