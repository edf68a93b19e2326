//! The indexes of a read model in documents, and the names of the indexes that a build was made
//! with.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use factum_consumer::{ConsumerName, Fence, TargetError, part::progress};
use factum_kernel::{DocumentStore, DocumentWrite, ExpectedRevision, StoreError};

use crate::index::{self, Index};

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

    fn names(&self) -> BTreeSet<&str> {
        self.all.iter().map(Index::name).collect()
    }

    /// Checks that the build was made with exactly these indexes: an index that is added later
    /// would lack entries.
    pub(super) async fn check(
        &self,
        documents: &Arc<dyn DocumentStore>,
        consumer: &ConsumerName,
    ) -> Result<(), TargetError> {
        if self.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.all.iter().try_for_each(Index::check)?;
        let made_with = declared_indexes(documents, consumer).await?;
        let names = self.names();
        let refused = |text| Err(TargetError::Refused(Arc::new(StoreError::invalid(text))));
        if names.len() < self.all.len() {
            return refused(format!("two indexes have one name: indexes={names:?}"));
        }
        if !made_with.iter().map(String::as_str).eq(names.iter().copied()) {
            return refused(format!(
                "the indexes are not those that the read model was made with, raise the \
                 projection's version: declared={names:?} made_with={made_with:?}"
            ));
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The write that stores the names of the indexes, in the first write of a build. If the build
    /// has partitions, the first partition that writes stores them.
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
            value: Some(progress::encode(&self.names())),
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

/// The indexes that a build was made with.
pub(crate) async fn declared_indexes(
    documents: &Arc<dyn DocumentStore>,
    consumer: &ConsumerName,
) -> Result<BTreeSet<String>, StoreError> {
    let Some(found) = documents.get(&key(consumer)).await? else { return Ok(BTreeSet::new()) };
    progress::decode(&found.value).map_err(|error| {
        StoreError::corrupt(format!("the names of indexes can't be read: {error}"))
    })
}

/// The key of the stored names. It sorts before all entries and is cleared with them.
fn key(consumer: &ConsumerName) -> Bytes {
    index::prefix(consumer, "").into()
}
