//! A Bloom filter (Bloom 1970): shows with one look at memory that a term is certainly absent.

/// Bits per term. With seven looks, about one absent term in 120 passes as possibly present.
const BITS: usize = 10;
const LOOKS: u64 = 7;

/// A filter over terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bloom(Vec<u8>);

impl Bloom {
    /// Makes the filter of the terms with these hashes.
    pub(crate) fn new(hashes: &[u64]) -> Self {
        let mut bits = vec![0; (hashes.len() * BITS).div_ceil(8).max(8)];
        let count = bits.len() as u64 * 8;
        for hash in hashes {
            for bit in looks(*hash, count) {
                bits[bit / 8] |= 1 << (bit % 8);
            }
        }
        Self(bits)
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether the term may be present; false is certain.
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        let count = self.0.len() as u64 * 8;
        count > 0 && looks(hash, count).all(|bit| self.0[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

fn looks(hash: u64, count: u64) -> impl Iterator<Item = usize> {
    let step = (hash >> 32) | 1;
    (0..LOOKS).map(move |look| (hash.wrapping_add(look.wrapping_mul(step)) % count) as usize)
}

/// The hash of a term, which never changes because it is stored: FNV-1a, then a mix (SplitMix64) so
/// that all bits count.
pub(crate) fn hash(term: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut z = term.iter().fold(0xcbf2_9ce4_8422_2325, step);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_always_found_and_what_is_not_rarely() {
        let term = |n: u32| hash(format!("saccount-{n}").as_bytes());
        let bloom = Bloom::new(&(0..10_000).map(term).collect::<Vec<_>>());
        assert!((0..10_000).all(|n| bloom.may_hold(term(n))));
        let wrong = (10_000..20_000).filter(|n| bloom.may_hold(term(*n))).count();
        assert!(wrong < 200, "{wrong} of 10,000");
    }
}
