//! Documents: the second of the kernel's two traits. Snapshots, checkpoints, leases and read
//! models are documents.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::{StoreError, WriteError},
    number::number,
    read::Direction,
};

number! {
    /// The revision of a document. Absent is 0; a revision is never reused, deleted or not.
    Revision
}

/// A value under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its key.
    pub key: Bytes,
    /// Which write it is from.
    pub revision: Revision,
    /// Its bytes.
    pub value: Bytes,
}

/// What must be so of a document for a write to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedRevision {
    /// Nothing is expected.
    Any,
    /// It is not there.
    Absent,
    /// It is at just this revision. `Exact(0)` is the same as `Absent`.
    Exact(Revision),
}

impl ExpectedRevision {
    /// Whether this is so of a document at a revision; `None`: it is not there. For stores.
    ///
    /// ```
    /// use factum_kernel::{ExpectedRevision, Revision};
    ///
    /// let (absent, zero) = (ExpectedRevision::Absent, ExpectedRevision::Exact(Revision::ZERO));
    /// assert!(absent.matches(None) && zero.matches(None));
    /// assert!(!absent.matches(Some(Revision::new(7))) && !zero.matches(Some(Revision::new(7))));
    /// ```
    pub fn matches(self, revision: Option<Revision>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => revision.is_none(),
            // An absent document is at revision zero, which no write gives.
            Self::Exact(expected) => revision.unwrap_or_default() == expected,
        }
    }
}

/// One document in a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentWrite {
    /// Its key.
    pub key: Bytes,
    /// What must be so of it.
    pub expected: ExpectedRevision,
    /// Its new bytes; `None` removes it.
    pub value: Option<Bytes>,
}

/// One unit of atomicity over documents. A key stands in it once.
///
/// ```
/// use factum_kernel::{ExpectedRevision, WriteBatch};
///
/// let batch = WriteBatch::new().put("lease/1", ExpectedRevision::Absent, "node-1").remove(
///     "lease/2",
///     ExpectedRevision::Any,
/// );
/// assert_eq!(batch.entries().len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct WriteBatch {
    entries: Vec<DocumentWrite>,
}

impl WriteBatch {
    /// An empty batch; writing it does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a document.
    pub fn put(
        mut self,
        key: impl Into<Bytes>,
        expected: ExpectedRevision,
        value: impl Into<Bytes>,
    ) -> Self {
        self.entries.push(DocumentWrite { key: key.into(), expected, value: Some(value.into()) });
        self
    }

    /// Removes a document; one that is not there is no error unless it was expected.
    pub fn remove(mut self, key: impl Into<Bytes>, expected: ExpectedRevision) -> Self {
        self.entries.push(DocumentWrite { key: key.into(), expected, value: None });
        self
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[DocumentWrite] {
        &self.entries
    }
}

/// Keys from one (inclusive) to another (exclusive), in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Bytes,
    /// The key behind the last; `None`: to the end.
    pub to: Option<Bytes>,
}

impl KeyRange {
    /// Keys from one up to, not including, another.
    pub fn new(from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self { from: from.into(), to: Some(to.into()) }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { from: Bytes::new(), to: None }
    }

    /// Every key that begins so.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from = prefix.into();
        // The first key behind the prefix: the last byte that can be raised, raised.
        let to = from.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut to = from[..=last].to_vec();
            to[last] += 1;
            Bytes::from(to)
        });
        Self { from, to }
    }

    /// Whether a key lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.from[..] && self.to.as_ref().is_none_or(|to| key < &to[..])
    }
}

/// A question for one page of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ScanQuery {
    /// Which keys.
    pub range: KeyRange,
    /// Ascending or descending.
    pub direction: Direction,
    /// The most documents on the page, at least 1.
    pub documents_max: usize,
    /// The most bytes of keys and values on the page; a document that is larger comes alone.
    pub bytes_max: usize,
}

impl ScanQuery {
    /// Ascending, at most 1,000 documents and 1 MiB.
    pub fn new(range: KeyRange) -> Self {
        Self { range, direction: Direction::Forward, documents_max: 1_000, bytes_max: 1 << 20 }
    }

    /// Descending.
    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    /// Sets the most documents of the page.
    pub fn with_documents_max(mut self, documents_max: usize) -> Self {
        self.documents_max = documents_max;
        self
    }

    /// Sets the most bytes of the page.
    pub fn with_bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }
}

/// A bounded answer to a scan: one snapshot, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanPage {
    /// The documents.
    pub documents: Vec<Document>,
    /// What is left to ask for; `None` at the end.
    pub rest: Option<KeyRange>,
}

impl ScanPage {
    /// The page with these documents, the first of what `query` asks for; `more` if the store
    /// knows that others lie behind them.
    pub fn new(query: &ScanQuery, documents: Vec<Document>, more: bool) -> Self {
        let rest = documents.last().filter(|_| more).map(|last| match query.direction {
            Direction::Forward => {
                // The first key behind this one is itself and a zero byte.
                let from: Bytes = [&last.key[..], &[0]].concat().into();
                KeyRange { from, to: query.range.to.clone() }
            }
            Direction::Backward => {
                KeyRange { from: query.range.from.clone(), to: Some(last.key.clone()) }
            }
        });
        Self { documents, rest }
    }
}

/// Values under keys, with revisions. Object-safe.
///
/// # Guarantees
/// A write is atomic, and durable when acknowledged; of concurrent writes that expect the same
/// revision one wins; a revision is never reused, deleted or not; after a write returned, reads
/// see it; a scan page is one snapshot in key order; an unknown outcome is said.
#[async_trait]
pub trait DocumentStore: fmt::Debug + Send + Sync + 'static {
    /// The document under a key.
    ///
    /// # Errors
    /// Those of the store.
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError>;

    /// One page of documents in key order.
    ///
    /// # Errors
    /// `Invalid` for a page without room.
    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError>;

    /// Writes all entries or none, and answers with the revision that all of them have then. A
    /// batch without entries writes nothing, and is answered with the last revision given.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError>;

    /// Removes every document of a range. Not atomic with anything; may be repeated.
    ///
    /// # Errors
    /// Those of the store; part of the range may be gone then.
    async fn clear(&self, range: KeyRange) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_even_at_the_last_byte() {
        assert_eq!(KeyRange::prefix("ab"), KeyRange::new("ab", "ac"));
        assert_eq!(KeyRange::prefix(&b"a\xff"[..]), KeyRange::new(&b"a\xff"[..], "b"));
        assert_eq!(KeyRange::prefix(&b"\xff"[..]).to, None);
        assert!(KeyRange::prefix("ab").contains(b"abc") && !KeyRange::prefix("ab").contains(b"b"));
    }
}
