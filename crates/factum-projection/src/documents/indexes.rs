//! The indexes of a read model in documents, and the declarations of those that a build was made
//! with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use factum_consumer::{ConsumerName, Fence, TargetError, part::progress};
use factum_kernel::{
    Document, DocumentStore, DocumentWrite, ExpectedRevision, KeyRange, ScanQuery, StoreError,
};
use serde::{Deserialize, Serialize};

use super::{document_range, documents_prefix};
use crate::index::{self, Index, refused};

/// The number of documents, and of entries, at each end of an index that a start looks at.
const SAMPLE: usize = 16;

/// The declared indexes of a target.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    all: Vec<Index>,
    /// True once the build is known to have exactly these indexes.
    is_checked: AtomicBool,
}

impl Indexes {
    pub(super) fn add(&mut self, index: Index) {
        self.all.push(index);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The declarations of the indexes, by name.
    fn declarations(&self) -> BTreeMap<&str, Declaration> {
        self.all.iter().map(|index| (index.name(), Declaration::of(index))).collect()
    }

    /// Checks that the build was made with exactly these indexes: an index that is added later
    /// would lack entries, and a changed one would leave entries that nothing removes.
    pub(super) async fn check(
        &self,
        documents: &Arc<dyn DocumentStore>,
        consumer: &ConsumerName,
    ) -> Result<(), TargetError> {
        if self.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.all.iter().try_for_each(Index::check)?;
        let made_with = declarations(documents, consumer).await?;
        let declared = self.declarations();
        if declared.len() < self.all.len() {
            let names: Vec<_> = self.all.iter().map(Index::name).collect();
            return Err(refused(format!("two indexes have one name: indexes={names:?}")));
        }
        let is_same = made_with.len() == declared.len()
            && made_with
                .iter()
                .zip(&declared)
                .all(|((name, made), (other, declared))| name == other && made.fits(declared));
        if !is_same {
            return Err(refused(format!(
                "the indexes are not those that the read model was made with, raise the \
                 projection's version: declared={declared:?} made_with={made_with:?}"
            )));
        }
        for index in &self.all {
            Sample { documents, consumer, index }.check().await?;
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The write that stores the declarations of the indexes, in the first write of a build. If the
    /// build has partitions, the first partition that writes stores them.
    pub(super) async fn declared(
        &self,
        documents: &Arc<dyn DocumentStore>,
        consumer: &ConsumerName,
        fence: Fence,
    ) -> Result<Option<DocumentWrite>, StoreError> {
        if fence != Fence(0) || self.is_empty() {
            return Ok(None);
        }
        let is_whole = consumer.whole() == *consumer;
        if !is_whole && documents.get(&key(consumer)).await?.is_some() {
            return Ok(None);
        }
        Ok(Some(DocumentWrite {
            key: key(consumer),
            expected: ExpectedRevision::Any,
            value: Some(progress::encode(&self.declarations())),
        }))
    }

    /// The writes to all indexes when a document changes.
    pub(super) fn writes(
        &self,
        consumer: &ConsumerName,
        key: &str,
        before: Option<&Bytes>,
        after: Option<&Bytes>,
    ) -> Result<Vec<DocumentWrite>, TargetError> {
        let mut writes = Vec::new();
        for index in &self.all {
            writes.extend(index.writes(consumer, key, before, after)?);
        }
        Ok(writes)
    }
}

/// The stored declaration of an index, without its function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Declaration {
    /// The beginning of the keys of its documents; `None` in a build of an earlier release.
    keys: Option<String>,
}

impl Declaration {
    fn of(index: &Index) -> Self {
        Self { keys: Some(index.keys().to_owned()) }
    }

    fn fits(&self, declared: &Self) -> bool {
        self.keys.is_none() || self == declared
    }
}

/// The names of the indexes that a build was made with.
pub(crate) async fn declared_indexes(
    documents: &Arc<dyn DocumentStore>,
    consumer: &ConsumerName,
) -> Result<BTreeSet<String>, StoreError> {
    Ok(declarations(documents, consumer).await?.into_keys().collect())
}

async fn declarations(
    documents: &Arc<dyn DocumentStore>,
    consumer: &ConsumerName,
) -> Result<BTreeMap<String, Declaration>, StoreError> {
    let Some(found) = documents.get(&key(consumer)).await? else { return Ok(BTreeMap::new()) };
    // Builds of earlier releases hold only the names.
    let names = progress::decode::<BTreeSet<String>>(&found.value);
    if let Ok(names) = names {
        return Ok(names.into_iter().map(|name| (name, Declaration { keys: None })).collect());
    }
    progress::decode(&found.value).map_err(|error| {
        StoreError::corrupt(format!("the declarations of indexes can't be read: {error}"))
    })
}

/// A look at some documents and entries of an index, at both ends of each: are they what the index
/// makes today? Its function can't be stored, so a change of it shows only there.
struct Sample<'a> {
    documents: &'a Arc<dyn DocumentStore>,
    consumer: &'a ConsumerName,
    index: &'a Index,
}

impl Sample<'_> {
    async fn check(&self) -> Result<(), TargetError> {
        let prefix = index::prefix(self.consumer, self.index.name());
        for entry in self.ends(KeyRange::prefix(prefix.clone())).await? {
            let stored = &entry.key[prefix.len()..];
            let key = index::document_key(stored).and_then(|key| std::str::from_utf8(key).ok());
            let key = key.unwrap_or_default();
            // The entry holds its document, so this needs no further read.
            if !self.index.entries(key, Some(&entry.value))?.contains(stored) {
                return Err(self.differs(key));
            }
        }
        let own = documents_prefix(self.consumer);
        for document in self.ends(document_range(&own, self.index.keys())).await? {
            let key = std::str::from_utf8(&document.key[own.len()..]).unwrap_or_default();
            for entry in self.index.entries(key, Some(&document.value))? {
                let at = [&prefix[..], &entry].concat();
                if self.documents.get(&at).await?.is_none() && self.is_still(&document).await? {
                    return Err(self.differs(key));
                }
            }
        }
        Ok(())
    }

    /// The first and the last documents of a range.
    async fn ends(&self, range: KeyRange) -> Result<Vec<Document>, StoreError> {
        let query = ScanQuery::new(range).with_documents_max(SAMPLE);
        let first = self.documents.scan(query.clone()).await?;
        let mut ends = first.documents;
        if first.rest.is_some() {
            ends.extend(self.documents.scan(query.backward()).await?.documents);
        }
        Ok(ends)
    }

    /// True if another partition has not changed the document meanwhile.
    async fn is_still(&self, document: &Document) -> Result<bool, StoreError> {
        let now = self.documents.get(&document.key).await?;
        Ok(now.is_some_and(|now| now.revision == document.revision))
    }

    fn differs(&self, key: &str) -> TargetError {
        refused(format!(
            "the index makes other values than those that the read model was made with, raise the \
             projection's version or rebuild it: index={} key={key}",
            self.index.name()
        ))
    }
}

/// The key of the stored declarations. It sorts before all entries and is cleared with them.
fn key(consumer: &ConsumerName) -> Bytes {
    index::prefix(consumer, "").into()
}
