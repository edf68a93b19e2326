//! Secondary indexes of documents: their declaration, the order of their values, and their entries.
//!
//! Each entry is stored as a document. Its key is the encoded value, followed by the key of the
//! indexed document; encoded bytes sort like values. The entry contains the bytes of the indexed
//! document. So a query is one scan, and a page shows one moment.

use std::{
    collections::BTreeSet,
    fmt,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use bytes::Bytes;
use factum_consumer::{ConsumerName, TargetError};
use factum_kernel::{
    Cbor, Codec, CodecError, DocumentWrite, ExpectedRevision, KeyRange, StoreError, Timestamp,
};
use serde::de::DeserializeOwned;

use crate::documents::documents_prefix;

/// The most bytes of an index's name.
pub const INDEX_NAME_BYTES_MAX: usize = 48;
/// The most bytes of a value in an index. A text counts its length, each zero byte twice, and three
/// more bytes.
pub const INDEX_VALUE_BYTES_MAX: usize = 256;

/// No text begins with this byte.
pub(crate) const AFTER_TEXT: u8 = 0xff;

/// A value by which an index finds documents. Values of one kind sort as they do in Rust, texts by
/// their bytes. All values of one kind come before all values of the next kind.
///
/// ```
/// use factum_projection::IndexValue;
///
/// assert_eq!(IndexValue::from(7_u64), IndexValue::Integer(7));
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
}

impl IndexValue {
    fn kind(&self) -> u8 {
        match self {
            Self::Bool(_) => 1,
            Self::Integer(_) => 2,
            Self::Time(_) => 3,
            Self::Text(_) => 4,
        }
    }

    /// Bytes that sort as the values do. The encoding of one value is never the beginning of
    /// another's.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind()];
        match self {
            Self::Bool(value) => out.push((*value).into()),
            // With the sign bit inverted, negative numbers come first.
            Self::Integer(value) => out.extend((*value ^ i128::MIN).to_be_bytes()),
            Self::Time(value) => out.extend(value.as_micros().to_be_bytes()),
            Self::Text(text) => {
                for byte in text.bytes() {
                    // A zero byte that is not followed by 255 ends the text.
                    out.extend(if byte == 0 { &[0, 255][..] } else { std::slice::from_ref(&byte) });
                }
                out.extend([0, 0]);
            }
        }
        out
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

type Values = dyn Fn(&[u8]) -> Result<Vec<IndexValue>, CodecError> + Send + Sync;

/// A secondary index, declared on [`Documents`](crate::Documents). Its entries are stored in the
/// same write as the documents.
///
/// Each entry contains a copy of its document, so that a page of an index is one read of one
/// moment: large documents make large indexes. All changes of one event, with the entries, have to
/// fit into one write of 4 MiB.
///
/// A new or changed index needs a larger [`Projection::VERSION`](crate::Projection::VERSION), as
/// every change of the read model does.
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
/// // Only accounts that are not empty, and only documents whose keys begin with `account/`.
/// let by_balance = Index::new("balance", |account: &Account| {
///     (account.balance_cents > 0).then(|| account.balance_cents.into())
/// })
/// .for_keys("account/");
/// # let _ = (by_owner, by_balance);
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
    fn entries(
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
            let mut entry = value.encode();
            if entry.len() > INDEX_VALUE_BYTES_MAX {
                return Err(refused(format!(
                    "a value in an index has at most {INDEX_VALUE_BYTES_MAX} bytes, shorten it: \
                     index={name} key={key} bytes={}",
                    entry.len()
                )));
            }
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

fn refused(text: String) -> TargetError {
    TargetError::Refused(Arc::new(StoreError::invalid(text)))
}

/// The prefix of an index's entries. They follow the documents, because keys of documents are
/// texts, which begin with another byte. Clearing the documents clears the entries too.
pub(crate) fn prefix(consumer: &ConsumerName, index: &str) -> Vec<u8> {
    [documents_prefix(consumer).as_bytes(), &[AFTER_TEXT], index.as_bytes(), b"/"].concat()
}

/// A range of values in an index.
///
/// ```
/// use factum_projection::IndexRange;
///
/// let ada = IndexRange::equal("ada");
/// let some = IndexRange::within(1_000_u64..5_000);
/// let rich = IndexRange::within(1_000_000_u64..);
/// # let _ = (ada, some, rich, IndexRange::all());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct IndexRange {
    from: Bound<IndexValue>,
    to: Bound<IndexValue>,
}

impl IndexRange {
    /// All entries of the index, in its order.
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// The entries with exactly this value.
    pub fn equal(value: impl Into<IndexValue>) -> Self {
        let value = value.into();
        Self { from: Bound::Included(value.clone()), to: Bound::Included(value) }
    }

    /// The entries whose values lie in the range. A range with one bound contains all values of
    /// that kind on its side of the bound.
    pub fn within<V: Into<IndexValue> + Clone>(range: impl RangeBounds<V>) -> Self {
        let value = |value: &V| value.clone().into();
        Self { from: range.start_bound().map(value), to: range.end_bound().map(value) }
    }

    /// The range of keys with this prefix.
    pub(crate) fn keys(&self, prefix: &[u8]) -> KeyRange {
        let at = |bytes: &[u8]| -> Bytes { [prefix, bytes].concat().into() };
        let after = |bytes: &[u8]| KeyRange::prefix(at(bytes)).to;
        let kind = |bound: &Bound<IndexValue>| match bound {
            Bound::Included(value) | Bound::Excluded(value) => vec![value.kind()],
            Bound::Unbounded => Vec::new(),
        };
        let from = match &self.from {
            Bound::Included(value) => Some(at(&value.encode())),
            Bound::Excluded(value) => after(&value.encode()),
            Bound::Unbounded => Some(at(&kind(&self.to))),
        };
        let to = match &self.to {
            Bound::Included(value) => after(&value.encode()),
            Bound::Excluded(value) => Some(at(&value.encode())),
            Bound::Unbounded => after(&kind(&self.from)),
        };
        KeyRange { from: from.unwrap_or_default(), to }
    }
}

/// The key of the indexed document: the part of the entry's key after the value.
pub(crate) fn document_key(entry: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = entry.split_first()?;
    let length = match kind {
        1 => 1,
        2 => 16,
        3 => 8,
        _ => {
            let mut at = 0;
            loop {
                match rest.get(at..at + 2)? {
                    [0, 0] => break at + 2,
                    [0, _] => at += 2,
                    _ => at += 1,
                }
            }
        }
    };
    rest.get(length..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = IndexValue> {
        let text =
            prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'b', 'ÿ']), 0..5);
        prop_oneof![
            any::<bool>().prop_map(IndexValue::Bool),
            any::<i128>().prop_map(IndexValue::Integer),
            (-3..3_i128).prop_map(IndexValue::Integer),
            (0..9_u64).prop_map(|micros| IndexValue::Time(Timestamp::from_micros(micros))),
            text.prop_map(|text| IndexValue::Text(text.into_iter().collect())),
        ]
    }

    proptest! {
        #[test]
        fn bytes_sort_as_values_do_with_any_key_after_them(
            left in value(), right in value(), keys in ("[\0a-c]{1,3}", "[\0a-c]{1,3}"),
        ) {
            let of = |value: &IndexValue, key: &str| [value.encode(), key.into()].concat();
            let a = of(&left, &keys.0);
            let b = of(&right, &keys.1);
            prop_assert_eq!(a.cmp(&b), (&left, &keys.0).cmp(&(&right, &keys.1)));
            prop_assert_eq!(document_key(&a), Some(keys.0.as_bytes()));
        }

        #[test]
        fn a_range_holds_what_lies_in_it(
            value in value(), low in value(), high in value(), bounds in 0..9_u8,
        ) {
            prop_assume!(low.kind() == high.kind());
            let bound = |number: u8, value: &IndexValue| match number % 3 {
                0 => Bound::Included(value.clone()),
                1 => Bound::Excluded(value.clone()),
                _ => Bound::Unbounded,
            };
            let from = bound(bounds, &low);
            let to = bound(bounds / 3, &high);
            let is_bounded = from != Bound::Unbounded || to != Bound::Unbounded;
            let is_kind_fine = !is_bounded || value.kind() == low.kind();
            let expected = is_kind_fine && (from.clone(), to.clone()).contains(&value);
            let keys = IndexRange { from, to }.keys(b"p/");
            let key = [b"p/".to_vec(), value.encode(), b"key".to_vec()].concat();
            prop_assert_eq!(keys.contains(&key), expected);
        }
    }
}
