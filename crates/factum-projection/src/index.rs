//! Secondary indexes of documents: their declaration and their entries.
//!
//! Each entry is stored as a document. Its key is the encoded value, followed by the key of the
//! indexed document; encoded bytes sort like values. The entry contains the bytes of the indexed
//! document. So a query is one scan, and a page shows one moment.

mod range;
mod value;

use std::{collections::BTreeSet, fmt, sync::Arc};

use bytes::Bytes;
use factum_consumer::{ConsumerName, TargetError};
use factum_kernel::{Cbor, Codec, CodecError, DocumentWrite, ExpectedRevision, StoreError};
use serde::de::DeserializeOwned;

use crate::documents::documents_prefix;

pub use range::IndexRange;
use value::Place;
pub use value::{
    INDEX_PART_TEXT_BYTES_MAX, INDEX_PARTS_MAX, INDEX_TEXT_BYTES_MAX, INDEX_VALUE_BYTES_MAX,
    IndexValue,
};

/// The most bytes of an index's name.
pub const INDEX_NAME_BYTES_MAX: usize = 48;

/// No text begins with this byte.
pub(crate) const AFTER_TEXT: u8 = 0xff;

type Values = dyn Fn(&[u8]) -> Result<Vec<IndexValue>, CodecError> + Send + Sync;

/// A secondary index, declared on [`Documents`](crate::Documents). Its entries are stored in the
/// same write as the documents.
///
/// Each entry contains a copy of its document, so that a page of an index is one read of one
/// moment: large documents make large indexes.
///
/// A new or changed index needs a larger [`Projection::VERSION`](crate::Projection::VERSION), as
/// every change of the read model does. The name and the prefix of each index are stored with the
/// build, and a start looks at some documents and entries. If they are not what the index makes
/// now, the projection does not start. A changed closure that makes the same of those is not
/// noticed.
///
/// ```
/// use factum_projection::Index;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Account {
///     owner: String,
///     balance_cents: u64,
/// }
///
/// let by_owner = Index::new("owner", |account: &Account| [account.owner.as_str().into()]);
/// // By two values: the owner, then the balance.
/// let richest = Index::new("richest", |account: &Account| {
///     [(account.owner.as_str(), account.balance_cents).into()]
/// });
/// // Only accounts that are not empty, and only documents whose keys begin with `account/`.
/// let by_balance = Index::new("balance", |account: &Account| {
///     (account.balance_cents > 0).then(|| account.balance_cents.into())
/// })
/// .for_keys("account/");
/// # let _ = (by_owner, richest, by_balance);
/// ```
#[must_use]
#[derive(Clone)]
pub struct Index {
    name: String,
    prefix: String,
    values: Arc<Values>,
}

impl Index {
    /// An index with this name, a noun such as `owner`. `values` returns the values of a document:
    /// one, none, or several.
    pub fn new<T, I>(name: &str, values: impl Fn(&T) -> I + Send + Sync + 'static) -> Self
    where
        T: DeserializeOwned,
        I: IntoIterator<Item = IndexValue>,
    {
        let values = move |bytes: &[u8]| {
            let document = Cbor::decode::<T>(bytes)?;
            Ok(values(&document).into_iter().collect())
        };
        Self { name: name.into(), prefix: String::new(), values: Arc::new(values) }
    }

    /// Restricts the index to documents whose keys begin with `prefix`: for a read model with
    /// documents of several kinds.
    pub fn for_keys(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The beginning of the keys of all documents that the index is of.
    pub(crate) fn keys(&self) -> &str {
        &self.prefix
    }

    /// Checks that the name is valid.
    pub(crate) fn check(&self) -> Result<(), TargetError> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_length_fine = (1..=INDEX_NAME_BYTES_MAX).contains(&self.name.len());
        if is_length_fine && self.name.bytes().all(is_fine) {
            return Ok(());
        }
        Err(refused(format!(
            "an index's name has 1 to {INDEX_NAME_BYTES_MAX} letters, digits, '-', '_' or '.': \
             index={:?}",
            self.name
        )))
    }

    /// The writes to this index when a document changes.
    pub(crate) fn writes(
        &self,
        consumer: &ConsumerName,
        key: &str,
        before: Option<&Bytes>,
        after: Option<&Bytes>,
    ) -> Result<Vec<DocumentWrite>, TargetError> {
        if !key.starts_with(&self.prefix) {
            return Ok(Vec::new());
        }
        let before = self.entries(key, before)?;
        let now = self.entries(key, after)?;
        let gone = before.difference(&now).map(|entry| (entry, None));
        let written = now.iter().map(|entry| (entry, after.cloned()));
        let prefix = prefix(consumer, &self.name);
        let write = |(entry, value): (&Vec<u8>, Option<Bytes>)| DocumentWrite {
            key: [&prefix[..], entry].concat().into(),
            expected: ExpectedRevision::Any,
            value,
        };
        Ok(gone.chain(written).map(write).collect())
    }

    /// The keys of a document's entries, without the index's own prefix.
    pub(crate) fn entries(
        &self,
        key: &str,
        document: Option<&Bytes>,
    ) -> Result<BTreeSet<Vec<u8>>, TargetError> {
        let Some(document) = document else { return Ok(BTreeSet::new()) };
        let name = &self.name;
        let values = (self.values)(document).map_err(|error| {
            refused(format!(
                "the index can't decode the document, index only documents of its type, {error}: \
                 index={name} key={key}"
            ))
        })?;
        let mut entries = BTreeSet::new();
        for value in values {
            if !value.is_valid() {
                return Err(refused(format!(
                    "a composite value in an index has 2 to {INDEX_PARTS_MAX} parts, none of them \
                     composite: index={name} key={key} value={value:?}"
                )));
            }
            let mut entry = value.encode(Place::Whole);
            entry.extend(key.as_bytes());
            entries.insert(entry);
        }
        Ok(entries)
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

pub(crate) fn refused(text: String) -> TargetError {
    TargetError::Refused(Arc::new(StoreError::invalid(text)))
}

/// The prefix of an index's entries. They follow the documents, because keys of documents are
/// texts, which begin with another byte. Clearing the documents clears the entries too.
pub(crate) fn prefix(consumer: &ConsumerName, index: &str) -> Vec<u8> {
    [documents_prefix(consumer).as_bytes(), &[AFTER_TEXT], index.as_bytes(), b"/"].concat()
}

/// The key of the indexed document: the part of the entry's key after the value.
pub(crate) fn document_key(entry: &[u8]) -> Option<&[u8]> {
    value::after_value(entry)
}
