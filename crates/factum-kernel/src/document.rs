//! Documents, the second of the kernel's two traits. Snapshots, checkpoints, leases and read models
//! are documents.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::{StoreError, WriteError},
    number::number,
    read::Direction,
};

number! {
    /// The revision of a document. An absent document has revision 0. A revision is never reused,
    /// not even after the document was removed.
    Revision
}

/// A value under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The key of the document.
    pub key: Bytes,
    /// The revision, which identifies the last write of the document.
    pub revision: Revision,
    /// The value of the document.
    pub value: Bytes,
}

/// The condition on a document's revision under which a write goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedRevision {
    /// No condition.
    Any,
    /// The document does not exist.
    Absent,
    /// The document is at exactly this revision. `Exact(0)` is the same as `Absent`.
    Exact(Revision),
}

impl ExpectedRevision {
    /// True if a document with this revision meets the expectation; `None` means that the document
    /// does not exist. For stores.
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
            // An absent document has revision zero, which no write gives.
            Self::Exact(expected) => revision.unwrap_or_default() == expected,
        }
    }
}

/// The write or removal of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentWrite {
    /// The key of the document.
    pub key: Bytes,
    /// The condition on the document's revision.
    pub expected: ExpectedRevision,
    /// The new value; `None` removes the document.
    pub value: Option<Bytes>,
}

/// A unit of atomicity over documents: all are written or none. Each key may appear once.
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
    /// An empty batch. Writing it changes nothing.
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

    /// Removes a document. It is no error if the document does not exist, unless a revision was
    /// expected.
    pub fn remove(mut self, key: impl Into<Bytes>, expected: ExpectedRevision) -> Self {
        self.entries.push(DocumentWrite { key: key.into(), expected, value: None });
        self
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[DocumentWrite] {
        &self.entries
    }
}

/// Keys from `from` (inclusive) to `to` (exclusive), in byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Bytes,
    /// The first key after the range; `None` if the range has no end.
    pub to: Option<Bytes>,
}

impl KeyRange {
    /// The keys from `from` up to, but without, `to`.
    pub fn new(from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self { from: from.into(), to: Some(to.into()) }
    }

    /// Every key.
    pub fn all() -> Self {
        Self { from: Bytes::new(), to: None }
    }

    /// Every key that begins with this prefix.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from = prefix.into();
        // The first key after the prefix: its last byte below 255 plus one, and nothing after that
        // byte.
        let to = from.iter().rposition(|byte| *byte < u8::MAX).map(|last| {
            let mut to = from[..=last].to_vec();
            to[last] += 1;
            Bytes::from(to)
        });
        Self { from, to }
    }

    /// True if the key is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.from[..] && self.to.as_ref().is_none_or(|to| key < &to[..])
    }
}

/// A query for one page of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct ScanQuery {
    /// The keys to read.
    pub range: KeyRange,
    /// The order of the keys: ascending or descending.
    pub direction: Direction,
    /// The most documents on the page, at least 1.
    pub documents_max: usize,
    /// The most bytes of keys and values on the page. A larger document comes alone.
    pub bytes_max: usize,
}

impl ScanQuery {
    /// A query for at most 1,000 documents and 1 MiB, in ascending order.
    pub fn new(range: KeyRange) -> Self {
        Self { range, direction: Direction::Forward, documents_max: 1_000, bytes_max: 1 << 20 }
    }

    /// Sets descending order.
    pub fn backward(mut self) -> Self {
        self.direction = Direction::Backward;
        self
    }

    /// Sets the most documents on the page.
    pub fn with_documents_max(mut self, documents_max: usize) -> Self {
        self.documents_max = documents_max;
        self
    }

    /// Sets the most bytes on the page.
    pub fn with_bytes_max(mut self, bytes_max: usize) -> Self {
        self.bytes_max = bytes_max;
        self
    }
}

/// A bounded answer to a scan: documents from one snapshot, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanPage {
    /// The documents.
    pub documents: Vec<Document>,
    /// The part of the range that is not read yet; `None` at the end.
    pub rest: Option<KeyRange>,
}

impl ScanPage {
    /// The page with these documents, the first that `query` asks for. `more` is true if the store
    /// found further documents after them, in the direction of the scan.
    pub fn new(query: &ScanQuery, documents: Vec<Document>, more: bool) -> Self {
        let rest = documents.last().filter(|_| more).map(|last| match query.direction {
            Direction::Forward => {
                // The first key after this one is this key and a zero byte.
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
/// - A write is atomic, and durable when it is acknowledged.
/// - Of concurrent writes that expect the same revision, one wins.
/// - A revision is never reused, not even after the document was removed.
/// - After a write returned, reads see it.
/// - A scan page is one snapshot in key order.
/// - An unknown outcome is reported, as [`WriteError::Indeterminate`].
#[async_trait]
pub trait DocumentStore: fmt::Debug + Send + Sync + 'static {
    /// Returns the document under a key.
    ///
    /// # Errors
    /// Those of the store.
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError>;

    /// Returns one page of documents in key order.
    ///
    /// # Errors
    /// `Invalid` if the page has no room for a document.
    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError>;

    /// Writes all entries or none, and returns the revision that all of them then have. A batch
    /// without entries writes nothing and returns the last revision that was given.
    ///
    /// # Errors
    /// See [`WriteError`].
    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError>;

    /// Removes every document of a range. Not atomic; the call may be repeated.
    ///
    /// # Errors
    /// Those of the store; a part of the range may be removed then.
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
