//! Read models as documents of the store itself.

mod changes;
mod indexes;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use factum_consumer::{
    ConsumerName, Fence, HandleError, Opened, Save, Target, TargetError,
    part::{Checkpoints, checkpoint_key},
};
use factum_kernel::{
    Cbor, Codec, Document, DocumentStore, DocumentWrite, ExpectedRevision, Kernel, KeyRange,
    Limits, Revision, StoreError,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{document_key::check_key, index::Index};

pub(crate) use changes::{Changed, Changes};
use indexes::Indexes;
pub(crate) use indexes::declared_indexes;

/// The most bytes of documents that one partition keeps from one batch to the next. All partitions
/// together keep about as many.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// The number of documents in a write that are reserved for the consumer's progress.
const PROGRESS_DOCUMENTS_MAX: usize = 8;
/// The most bytes that a batch writes.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// Read models as documents of the store itself. Effects and checkpoint are one write, so each
/// event takes effect exactly once, on every store.
#[derive(Debug)]
pub struct Documents {
    documents: Arc<dyn DocumentStore>,
    progress: Checkpoints,
    limits: Limits,
    /// The documents that the last batch of each partition read or wrote, unless it failed.
    cache: Mutex<HashMap<ConsumerName, Entries>>,
    indexes: Indexes,
    changes: Changes,
}

/// The documents that a batch has read or written.
#[derive(Debug, Default)]
struct Entries {
    found: HashMap<String, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Option<Bytes>,
    is_changed: bool,
    /// The stored document, if it is known.
    stored: Option<Stored>,
    cached: Cached,
}

/// The use of the cache for an entry: taken from an earlier batch or not, and read by this batch or
/// not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cached {
    No,
    Unused,
    Used,
}

/// A document as it is stored. An absent document has revision 0.
#[derive(Debug, Clone, Default)]
struct Stored {
    value: Option<Bytes>,
    revision: Revision,
}

/// A document that a batch changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'t> {
    pub(crate) key: &'t str,
    /// The values before and after the batch; `None` where there is none.
    pub(crate) before: Option<&'t Bytes>,
    pub(crate) after: Option<&'t Bytes>,
}

/// The batch that a projection into [`Documents`] writes to. Reads see the writes of the same
/// batch.
#[derive(Debug)]
pub struct DocumentsTx {
    documents: Arc<dyn DocumentStore>,
    prefix: String,
    entries: Entries,
}

impl Documents {
    /// Read models in the documents of this kernel.
    pub fn new(kernel: &Kernel) -> Self {
        let documents = kernel.documents().clone();
        Self {
            progress: Checkpoints::new(documents.clone()),
            documents,
            limits: kernel.events().guarantees().limits,
            cache: Mutex::default(),
            indexes: Indexes::default(),
            changes: Changes::default(),
        }
    }

    /// Adds a secondary index, which is written together with the documents.
    #[must_use]
    pub fn with_index(mut self, index: Index) -> Self {
        self.indexes.add(index);
        self
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Returns true if any progress of a build is stored.
    pub(crate) async fn has_begun(
        documents: &Arc<dyn DocumentStore>,
        consumer: &ConsumerName,
    ) -> Result<bool, StoreError> {
        let is_there = documents.get(&checkpoint_key(consumer, "progress")).await?.is_some();
        let partitions = Checkpoints::new(documents.clone());
        Ok(is_there || !partitions.partitions(consumer).await?.is_empty())
    }

    fn take(&self, consumer: &ConsumerName) -> Entries {
        self.cache().remove(consumer).unwrap_or_default()
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<ConsumerName, Entries>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The prefix of the documents of a read model, in all its partitions.
pub(crate) fn documents_prefix(consumer: &ConsumerName) -> String {
    format!("$model/{}/", consumer.whole())
}

impl Target for Documents {
    type Tx = DocumentsTx;

    const IS_PARALLEL: bool = true;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        // Another process may have written since.
        drop(self.take(consumer));
        self.changes.publish_unknown();
        self.progress.open_with(consumer, Some(KeyRange::prefix(documents_prefix(consumer)))).await
    }

    async fn look(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        self.progress.look(consumer).await
    }

    async fn begin(&self, consumer: &ConsumerName) -> Result<DocumentsTx, TargetError> {
        self.indexes.check(&self.documents, consumer).await?;
        let documents = self.documents.clone();
        Ok(DocumentsTx {
            documents,
            prefix: documents_prefix(consumer),
            entries: self.take(consumer),
        })
    }

    async fn commit(
        &self,
        consumer: &ConsumerName,
        mut tx: DocumentsTx,
        save: Save,
    ) -> Result<Fence, TargetError> {
        // With one partition, only the owner of the fence writes these documents. With several
        // partitions, another one may have changed what this batch has read.
        let is_shared = consumer.whole() != *consumer;
        if is_shared && !tx.is_cache_current().await? {
            return Err(TargetError::Overtaken);
        }
        if !self.indexes.is_empty() {
            tx.look_up_stored().await?;
        }
        let mut writes = tx.writes(is_shared);
        if !self.indexes.is_empty() {
            for Change { key, before, after } in tx.changed() {
                writes.extend(self.indexes.writes(consumer, key, before, after)?);
            }
        }
        let bytes: usize = writes.iter().map(|it| it.value.as_ref().map_or(0, Bytes::len)).sum();
        let max = self.limits.write_documents_max.saturating_sub(PROGRESS_DOCUMENTS_MAX);
        if writes.len() > max || bytes > WRITE_BYTES_MAX {
            let text = format!("documents={} bytes={bytes}", writes.len());
            return Err(TargetError::TooLarge(Arc::new(StoreError::invalid(text))));
        }
        writes.extend(self.indexes.declared(&self.documents, consumer, save.expected).await?);
        let fence = self.progress.write(consumer, writes, save).await?;
        self.changes.publish(&tx);
        let mut cache = self.cache();
        if tx.entries.bytes <= CACHE_BYTES_MAX / (cache.len() + 1) {
            let revision = Revision::new(fence.0);
            tx.entries.found.values_mut().for_each(|entry| entry.mark_stored(revision));
            cache.insert(consumer.clone(), tx.entries);
        }
        Ok(fence)
    }

    async fn save(&self, consumer: &ConsumerName, save: Save) -> Result<Fence, TargetError> {
        let declared = self.indexes.declared(&self.documents, consumer, save.expected).await?;
        self.progress.write(consumer, declared.into_iter().collect(), save).await
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        self.cache().clear();
        self.progress.clear_with(consumer, Some(KeyRange::prefix(documents_prefix(consumer)))).await
    }
}

impl DocumentsTx {
    /// The document with this key.
    ///
    /// # Errors
    /// [`InvalidDocumentKey`](crate::InvalidDocumentKey), errors of the store, a document of
    /// another shape.
    pub async fn get<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, HandleError> {
        check_key(key)?;
        let value = self.look_up(key).await?;
        Ok(value.map(|bytes| Cbor::decode(&bytes)).transpose()?)
    }

    /// Adds or replaces the document with this key: any text of 1 to 512 bytes.
    ///
    /// # Errors
    /// [`InvalidDocumentKey`](crate::InvalidDocumentKey), a value that CBOR can't represent.
    pub fn put<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), HandleError> {
        check_key(key)?;
        let mut out = BytesMut::new();
        Cbor::encode(value, &mut out)?;
        self.entries.set(key, Some(out.freeze()));
        Ok(())
    }

    /// Removes the document with this key, if it exists.
    pub fn remove(&mut self, key: &str) {
        // No document has an invalid key.
        if check_key(key).is_ok() {
            self.entries.set(key, None);
        }
    }

    /// Changes the document with this key. If it does not exist, `change` gets the default value.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get) and [`put`](Self::put).
    pub async fn update<T: Serialize + DeserializeOwned + Default>(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut T),
    ) -> Result<(), HandleError> {
        let mut value = self.get::<T>(key).await?.unwrap_or_default();
        change(&mut value);
        self.put(key, &value)
    }

    /// Reads the stored documents for entries that were written without being read.
    async fn look_up_stored(&mut self) -> Result<(), StoreError> {
        for (key, entry) in &mut self.entries.found {
            if entry.is_changed && entry.stored.is_none() {
                let found = self.documents.get(format!("{}{key}", self.prefix).as_bytes()).await?;
                entry.stored = Some(found.map(Stored::from).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Returns true if all cached documents that this batch has only read are unchanged in the
    /// store. Documents that it writes are compared by the write itself.
    async fn is_cache_current(&self) -> Result<bool, StoreError> {
        let used =
            |(_, entry): &(&String, &Entry)| entry.cached == Cached::Used && !entry.is_changed;
        for (key, entry) in self.entries.found.iter().filter(used) {
            let found = self.documents.get(format!("{}{key}", self.prefix).as_bytes()).await?;
            let revision = found.map_or(Revision::ZERO, |document| document.revision);
            if entry.stored.as_ref().is_none_or(|stored| stored.revision != revision) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The changed documents.
    pub(super) fn changed(&self) -> impl Iterator<Item = Change<'_>> {
        let changed = self.entries.found.iter().filter(|(_, entry)| entry.is_changed);
        changed.map(|(key, entry)| {
            let before = entry.stored.as_ref().and_then(|stored| stored.value.as_ref());
            Change { key, before, after: entry.value.as_ref() }
        })
    }

    async fn look_up(&mut self, key: &str) -> Result<Option<Bytes>, StoreError> {
        if let Some(entry) = self.entries.found.get_mut(key) {
            if entry.cached == Cached::Unused {
                entry.cached = Cached::Used;
            }
            return Ok(entry.value.clone());
        }
        let found = self.documents.get(format!("{}{key}", self.prefix).as_bytes()).await?;
        let stored = found.map(Stored::from).unwrap_or_default();
        let value = stored.value.clone();
        self.entries.add_stored(key, stored);
        Ok(value)
    }

    /// The writes of the batch. If other partitions write too, each write is on condition of the
    /// revision that was read.
    fn writes(&self, is_shared: bool) -> Vec<DocumentWrite> {
        let changed = self.entries.found.iter().filter(|(_, entry)| entry.is_changed);
        let write = |(key, entry): (&String, &Entry)| DocumentWrite {
            key: format!("{}{key}", self.prefix).into(),
            expected: match &entry.stored {
                Some(stored) if is_shared => stored.expected(),
                _ => ExpectedRevision::Any,
            },
            value: entry.value.clone(),
        };
        changed.map(write).collect()
    }
}

impl Entries {
    fn set(&mut self, key: &str, value: Option<Bytes>) {
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&value);
        if let Some(entry) = self.found.get_mut(key) {
            self.bytes -= size(&entry.value);
            (entry.value, entry.is_changed) = (value, true);
        } else {
            self.bytes += key.len();
            let entry = Entry { value, is_changed: true, stored: None, cached: Cached::No };
            self.found.insert(key.into(), entry);
        }
    }

    fn add_stored(&mut self, key: &str, stored: Stored) {
        let value = stored.value.clone();
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        let entry = Entry { value, is_changed: false, stored: Some(stored), cached: Cached::No };
        self.found.insert(key.into(), entry);
    }
}

impl Entry {
    /// Marks the entry as stored by the write with this revision.
    fn mark_stored(&mut self, revision: Revision) {
        self.cached = Cached::Unused;
        if std::mem::replace(&mut self.is_changed, false) {
            let revision = if self.value.is_some() { revision } else { Revision::ZERO };
            self.stored = Some(Stored { value: self.value.clone(), revision });
        }
    }
}

impl Stored {
    fn expected(&self) -> ExpectedRevision {
        match self.revision {
            Revision::ZERO => ExpectedRevision::Absent,
            revision => ExpectedRevision::Exact(revision),
        }
    }
}

impl From<Document> for Stored {
    fn from(document: Document) -> Self {
        Self { value: Some(document.value), revision: document.revision }
    }
}
