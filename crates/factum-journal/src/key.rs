//! Keys of the index: sorted bytes, the first of which tells the kind of entry.
//!
//! A *term* is what events are found by: a stream, a category, a type or a tag. A number follows
//! the term in each key, so that all chunks of one term stand together and in order.

/// The offsets of a segment's events in its file, by position.
const PLACES: u8 = b'p';
/// The names of a segment's event types, by its first position.
const NAMES: u8 = b'n';
/// The erased positions, by container.
const ERASED: u8 = b'e';
/// The state of a stream (number 0), and the positions of its events by version.
const STREAM: u8 = b's';
const CATEGORY: u8 = b'c';
const TYPE: u8 = b't';
const TAG: u8 = b'g';

/// The bytes of the number that follows the term in a key.
const NUMBER_BYTES: usize = 8;

/// The property that events are found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term<'a> {
    Stream(&'a str),
    Category(&'a str),
    Type(&'a str),
    Tag(&'a str),
}

impl Term<'_> {
    pub(crate) fn key(self) -> TermKey {
        let (kind, text) = match self {
            Self::Stream(text) => (STREAM, text),
            Self::Category(text) => (CATEGORY, text),
            Self::Type(text) => (TYPE, text),
            Self::Tag(text) => (TAG, text),
        };
        let mut bytes = Vec::with_capacity(text.len() + 2);
        bytes.push(kind);
        bytes.extend_from_slice(text.as_bytes());
        // The texts hold no control character, so that no term is the beginning of another.
        bytes.push(0);
        TermKey(bytes)
    }
}

/// The bytes that the keys of a term's entries begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TermKey(Vec<u8>);

impl TermKey {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of this term's entry at a number.
    pub(crate) fn at(&self, number: u64) -> Vec<u8> {
        [&self.0[..], &number.to_be_bytes()].concat()
    }

    /// Returns whether a key belongs to this term.
    pub(crate) fn is_of(&self, key: &[u8]) -> bool {
        key.len() == self.0.len() + NUMBER_BYTES && key.starts_with(&self.0)
    }
}

pub(crate) fn places(first: u64) -> Vec<u8> {
    numbered(PLACES, first)
}

pub(crate) fn names(segment: u64) -> Vec<u8> {
    numbered(NAMES, segment)
}

pub(crate) fn erased(container: u64) -> Vec<u8> {
    numbered(ERASED, container)
}

fn numbered(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The term and the number of a key; `None` for an entry that belongs to no term.
pub(crate) fn split(key: &[u8]) -> Option<(&[u8], u64)> {
    if !matches!(key.first()?, &(STREAM | CATEGORY | TYPE | TAG)) {
        return None;
    }
    let (term, number) = key.split_at_checked(key.len().checked_sub(NUMBER_BYTES)?)?;
    Some((term, u64::from_be_bytes(number.try_into().ok()?)))
}

/// Returns whether chunks under this term are numbered by version, not by position.
pub(crate) fn is_stream(term: &[u8]) -> bool {
    term.first() == Some(&STREAM)
}

/// The number that follows the kind, for an entry that belongs to no term.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// The first position of the segment whose names stand under this key.
pub(crate) fn segment_of_names(key: &[u8]) -> Option<u64> {
    number_of(key).filter(|_| key[0] == NAMES)
}

/// Returns whether the key is that of a container of erased positions.
pub(crate) fn is_erased(key: &[u8]) -> bool {
    key.first() == Some(&ERASED)
}
