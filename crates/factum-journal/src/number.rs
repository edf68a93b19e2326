//! Numbers as bytes: little-endian with a fixed size, or LEB128 where most numbers are small.

use bytes::BufMut;

/// Appends a number in groups of seven bits, the lowest first (LEB128).
pub(crate) fn put(out: &mut impl BufMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// The number of bytes that [`put`] appends.
pub(crate) fn len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes a number off the front; `None` if the bytes don't encode one.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        *bytes = rest;
        return Some(u64::from(*first));
    }
    take_long(bytes)
}

fn take_long(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let low = u64::from(byte & 0x7f);
        // The tenth group holds only the highest bit.
        if index == 9 && low > 1 {
            return None;
        }
        number |= low << (7 * index);
        if *byte < 0x80 {
            *bytes = &bytes[index + 1..];
            return Some(number);
        }
    }
    None
}

/// Takes a number that counts bytes or items off the front.
pub(crate) fn take_len(bytes: &mut &[u8]) -> Option<usize> {
    take(bytes).and_then(|number| usize::try_from(number).ok())
}

/// Takes this many bytes off the front.
pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

/// The `u32` at an offset. The bytes must be there.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

/// The `u64` at an offset. The bytes must be there.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_takes_the_length_that_was_said() {
        for number in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out.len(), len(number), "{number}");
            out.push(7);
            let mut rest = &out[..];
            assert_eq!(take(&mut rest), Some(number));
            assert_eq!(rest, [7]);
        }
    }

    #[test]
    fn what_is_cut_or_too_large_is_no_number() {
        for bytes in [&[][..], &[0x80], &[0xff; 9], &[0xff; 11], &[0x80; 10]] {
            assert_eq!(take(&mut &bytes[..]), None, "{bytes:?}");
        }
    }
}
