//! The values of an index, and bytes that sort as they do.

use factum_kernel::Timestamp;
use sha2::{Digest, Sha256};

/// The most bytes of a value in an index, as it is stored.
pub const INDEX_VALUE_BYTES_MAX: usize = 256;
/// The bytes of a long text by which an index sorts it. A zero byte counts twice.
pub const INDEX_TEXT_BYTES_MAX: usize = 237;
/// The bytes of a long text by which an index sorts it within a composite value. A zero byte counts
/// twice.
pub const INDEX_PART_TEXT_BYTES_MAX: usize = 64;
/// The most parts of a composite value.
pub const INDEX_PARTS_MAX: usize = 3;

/// The bytes of the hash that follows the beginning of a long text.
const HASH_BYTES: usize = 16;
/// The kind of a text, before its bytes.
const TEXT: u8 = 4;
/// The kind of a composite value, before its parts.
pub(super) const COMPOSITE: u8 = 5;

/// A value by which an index finds documents. Values of one kind sort as they do in Rust, texts by
/// their bytes, composite values by their first part, then by the next. All values of one kind come
/// before all values of the next kind.
///
/// A text may have any length. Of a text that is longer than [`INDEX_TEXT_BYTES_MAX`], in a
/// composite value [`INDEX_PART_TEXT_BYTES_MAX`], the index keeps the beginning and a hash: it is
/// found by the whole text, and sorts by its beginning.
///
/// ```
/// use factum_projection::IndexValue;
///
/// assert_eq!(IndexValue::from(7_u64), IndexValue::Integer(7));
/// let city_and_year = IndexValue::from(("Graz", 2026));
/// assert!(city_and_year < IndexValue::from(("Graz", 2027)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum IndexValue {
    /// False before true.
    Bool(bool),
    /// An integer of up to 128 bits.
    Integer(i128),
    /// A moment.
    Time(Timestamp),
    /// A text.
    Text(String),
    /// Two or three values, none of which is composite; made from a tuple.
    Composite(Vec<IndexValue>),
}

/// The most bytes of a text that are kept, at the place of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The whole value.
    Whole,
    /// A part of a composite value.
    Part,
}

impl Place {
    /// The most bytes of a text that is kept as it is.
    fn text_max(self) -> usize {
        match self {
            // A kind and two bytes at the end.
            Self::Whole => INDEX_VALUE_BYTES_MAX - 3,
            Self::Part => INDEX_PART_TEXT_BYTES_MAX,
        }
    }

    /// The bytes of the beginning of a longer text.
    fn beginning_max(self) -> usize {
        match self {
            Self::Whole => INDEX_TEXT_BYTES_MAX,
            Self::Part => INDEX_PART_TEXT_BYTES_MAX,
        }
    }
}

impl IndexValue {
    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Bool(_) => 1,
            Self::Integer(_) => 2,
            Self::Time(_) => 3,
            Self::Text(_) => TEXT,
            Self::Composite(_) => COMPOSITE,
        }
    }

    /// True if the value can be stored.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Composite(parts) => {
                let is_composite = |part: &Self| matches!(part, Self::Composite(_));
                (2..=INDEX_PARTS_MAX).contains(&parts.len()) && !parts.iter().any(is_composite)
            }
            _ => true,
        }
    }

    /// Bytes that sort as the values do. The encoding of one value is never the beginning of
    /// another's.
    pub(super) fn encode(&self, place: Place) -> Vec<u8> {
        let mut out = vec![self.kind()];
        match self {
            Self::Bool(value) => out.push((*value).into()),
            // With the sign bit inverted, negative numbers come first.
            Self::Integer(value) => out.extend((*value ^ i128::MIN).to_be_bytes()),
            Self::Time(value) => out.extend(value.as_micros().to_be_bytes()),
            Self::Text(text) => encode_text(text, place, &mut out),
            Self::Composite(parts) => {
                parts.iter().for_each(|part| out.extend(part.encode(Place::Part)));
                // No kind is zero, so a value with fewer parts comes first.
                out.push(0);
            }
        }
        out
    }
}

/// The bytes with which every text begins that begins with this one.
pub(super) fn encode_beginning(text: &str, place: Place) -> Vec<u8> {
    let mut out = vec![TEXT];
    out.extend(escaped(text, place.beginning_max()));
    out
}

fn encode_text(text: &str, place: Place, out: &mut Vec<u8>) {
    // A zero byte counts twice, so only two more bytes show that a text is longer.
    let whole = escaped(text, place.text_max() + 2);
    if whole.len() <= place.text_max() {
        out.extend(whole);
        out.extend([0, 0]);
    } else {
        out.extend(escaped(text, place.beginning_max()));
        out.extend([0, 1]);
        out.extend(&Sha256::digest(text)[..HASH_BYTES]);
    }
}

/// The first bytes of a text, at most `max`. A zero byte is followed by 255: otherwise it ends the
/// text.
fn escaped(text: &str, max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len().min(max));
    for byte in text.bytes() {
        let bytes = if byte == 0 { &[0, 255][..] } else { std::slice::from_ref(&byte) };
        if out.len() + bytes.len() > max {
            break;
        }
        out.extend(bytes);
    }
    out
}

/// The bytes after an encoded value.
pub(super) fn after_value(bytes: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = bytes.split_first()?;
    match *kind {
        1 => rest.get(1..),
        2 => rest.get(16..),
        3 => rest.get(8..),
        COMPOSITE => {
            let mut rest = rest;
            while *rest.first()? != 0 {
                rest = after_value(rest)?;
            }
            rest.get(1..)
        }
        _ => {
            let mut at = 0;
            loop {
                match rest.get(at..at + 2)? {
                    [0, 0] => break rest.get(at + 2..),
                    [0, 1] => break rest.get(at + 2 + HASH_BYTES..),
                    [0, _] => at += 2,
                    _ => at += 1,
                }
            }
        }
    }
}

macro_rules! integers {
    ($($integer:ty),*) => { $(
        impl From<$integer> for IndexValue {
            fn from(value: $integer) -> Self {
                Self::Integer(value.into())
            }
        }
    )* };
}

integers!(u8, u16, u32, u64, i8, i16, i32, i64, i128);

impl From<bool> for IndexValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Timestamp> for IndexValue {
    fn from(value: Timestamp) -> Self {
        Self::Time(value)
    }
}

impl From<&str> for IndexValue {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for IndexValue {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl<A: Into<IndexValue>, B: Into<IndexValue>> From<(A, B)> for IndexValue {
    fn from((first, second): (A, B)) -> Self {
        Self::Composite(vec![first.into(), second.into()])
    }
}

impl<A, B, C> From<(A, B, C)> for IndexValue
where
    A: Into<IndexValue>,
    B: Into<IndexValue>,
    C: Into<IndexValue>,
{
    fn from((first, second, third): (A, B, C)) -> Self {
        Self::Composite(vec![first.into(), second.into(), third.into()])
    }
}
