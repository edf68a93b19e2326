//! Keys of the index: sorted bytes that begin with what kind of entry it is.
//!
//! A *term* is what events are found by. Its key is followed by a number, so that all chunks of
//! one term stand in order behind one another.

/// Where the events of a segment begin in its file, by position.
const PLACES: u8 = b'p';
/// The names of a segment's event types, by its first position.
const NAMES: u8 = b'n';
/// Which positions are erased, by container.
const ERASED: u8 = b'e';
/// How a stream is (number 0), and the positions of its events by version.
const STREAM: u8 = b's';
const CATEGORY: u8 = b'c';
const TYPE: u8 = b't';
const TAG: u8 = b'g';

/// The bytes of a key behind its term.
const NUMBER_BYTES: usize = 8;

/// What events are found by.
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
        // None of the texts holds a control character, so that no term is another's beginning.
        bytes.push(0);
        TermKey(bytes)
    }
}

/// What the keys of a term's entries begin with.
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

    /// Whether a key is one of this term's.
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

/// Whether chunks under this term are counted by version, not by position.
pub(crate) fn is_stream(term: &[u8]) -> bool {
    term.first() == Some(&STREAM)
}

/// The number behind the kind, for an entry that belongs to no term.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

/// The first position of the segment whose names stand under this key.
pub(crate) fn segment_of_names(key: &[u8]) -> Option<u64> {
    number_of(key).filter(|_| key[0] == NAMES)
}

/// Whether the key is one of an erased container's.
pub(crate) fn is_erased(key: &[u8]) -> bool {
    key.first() == Some(&ERASED)
}
