//! Read models as documents of the store itself.

mod changes;
mod indexes;
mod staged;

use std::{
    any::type_name,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use factum_consumer::{
    ConsumerName, Fence, HandleError, Opened, Save, Target, TargetError,
    part::{Checkpoints, checkpoint_key},
};
use factum_kernel::{
    __private::{ReadBackError, encode_read_back},
    Cbor, Codec, Document, DocumentStore, DocumentWrite, ExpectedRevision, Kernel, KeyRange,
    Limits, Revision, ScanQuery, StoreError,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    document_key::check_key,
    index::{AFTER_TEXT, Index},
};

pub(crate) use changes::{Changed, Changes};
use indexes::Indexes;
pub(crate) use indexes::declared_indexes;
use staged::{Group, Staged};

/// The most bytes of documents that one partition keeps from one batch to the next. All partitions
/// together keep about as many.
const CACHE_BYTES_MAX: usize = 16 << 20;
/// The number of documents in a write that are reserved for the consumer's progress.
const PROGRESS_DOCUMENTS_MAX: usize = 8;
/// The number of values of a type that a batch reads back before it goes on with some of them.
const READ_BACK_FIRST: usize = 16;
/// One in this many later values is read back.
const READ_BACK_EVERY: usize = 32;
/// The most bytes that a batch writes.
const WRITE_BYTES_MAX: usize = 4 << 20;

/// Read models as documents of the store itself. Effects and checkpoint are one write, so each
/// event takes effect exactly once, on every store.
///
/// # Limits
/// A write has at most 992 documents and index entries
/// ([`Limits::write_documents_max`], less eight for the progress) and 4 MiB. Events that change
/// more together are handled in smaller batches.
///
/// The changes of *one* event may be larger. They are then stored aside, and moved to their places
/// in several writes; the progress moves with the last one. A process that dies in between leaves
/// nothing half done: the next one either handles the event again or moves the rest. Readers may
/// see some documents of the event before the others; `wait_for` waits for all of them. With
/// several partitions this is not possible, because another partition may change the same documents
/// meanwhile: such an event fails, and the error says so.
///
/// A document has at most 4 MiB ([`Limits::document_bytes_max`]), a key
/// [`DOCUMENT_KEY_BYTES_MAX`](crate::DOCUMENT_KEY_BYTES_MAX).
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

/// The batch that a projection into [`Documents`] writes to. Reads see the writes of the same
/// batch.
#[derive(Debug)]
pub struct DocumentsTx {
    documents: Arc<dyn DocumentStore>,
    prefix: String,
    entries: Entries,
    /// True if the documents before their changes are needed, for their index entries.
    is_indexed: bool,
    /// The number of values that were written, by type.
    written: Vec<(&'static str, usize)>,
}

/// The error for a document that would not read back as it is.
#[derive(Debug, thiserror::Error)]
#[error("{error}: key={key}")]
struct UnreadableDocument {
    key: String,
    error: ReadBackError,
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

    /// Stores the changes of a batch in one write, or in several if it is of one event.
    async fn write(
        &self,
        consumer: &ConsumerName,
        groups: Vec<Group>,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let max = self.write_max();
        let count: usize = groups.iter().map(Vec::len).sum();
        let size = |write: &DocumentWrite| write.value.as_ref().map_or(0, Bytes::len);
        let bytes: usize = groups.iter().flatten().map(size).sum();
        if count <= max && bytes <= WRITE_BYTES_MAX {
            let mut writes: Vec<_> = groups.into_iter().flatten().collect();
            writes.extend(self.indexes.declared(&self.documents, consumer, save.expected).await?);
            return self.progress.write(consumer, writes, save).await;
        }
        if save.events != 1 || is_partition(consumer) {
            return Err(TargetError::TooLarge(Arc::new(StoreError::invalid(format!(
                "one write of a partition holds all changes of an event, run the projection in \
                 one partition: documents={count} documents_max={max} bytes={bytes} \
                 bytes_max={WRITE_BYTES_MAX}"
            )))));
        }
        Staged::new(&self.documents, &self.progress, consumer, max).store(groups, save).await
    }

    /// The most documents of a write, without the consumer's progress.
    fn write_max(&self) -> usize {
        self.limits.write_documents_max.saturating_sub(PROGRESS_DOCUMENTS_MAX).max(2)
    }

    fn take(&self, consumer: &ConsumerName) -> Entries {
        self.cache().remove(consumer).unwrap_or_default()
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<ConsumerName, Entries>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True if other partitions may write to the same documents.
fn is_partition(consumer: &ConsumerName) -> bool {
    consumer.whole() != *consumer
}

/// The stored keys of the documents whose keys begin with `keys`. Index entries are left out.
pub(crate) fn document_range(prefix: &str, keys: &str) -> KeyRange {
    let from = format!("{prefix}{keys}");
    match keys {
        "" => KeyRange::new(from.clone(), [from.as_bytes(), &[AFTER_TEXT]].concat()),
        _ => KeyRange::prefix(from),
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
        let effects = KeyRange::prefix(documents_prefix(consumer));
        let mut opened = self.progress.open_with(consumer, Some(effects)).await?;
        if !is_partition(consumer) {
            let staged = Staged::new(&self.documents, &self.progress, consumer, self.write_max());
            opened = staged.finish(opened).await?;
        }
        if opened.progress.is_some() {
            self.indexes.check(&self.documents, consumer).await?;
        }
        Ok(opened)
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
            is_indexed: !self.indexes.is_empty(),
            written: Vec::new(),
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
        let is_shared = is_partition(consumer);
        if is_shared && !tx.is_cache_current().await? {
            return Err(TargetError::Overtaken);
        }
        if tx.is_indexed {
            tx.look_up_stored().await?;
        }
        let mut groups = Vec::new();
        for (key, entry) in tx.changed() {
            let mut group = vec![entry.write(&tx.prefix, key, is_shared)];
            let before = entry.before();
            group.extend(self.indexes.writes(consumer, key, before, entry.value.as_ref())?);
            groups.push(group);
        }
        let fence = self.write(consumer, groups, save).await?;
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
    /// The value is read back, and compared as serde sees it, so that no reader finds another one.
    /// In a large batch, while the projection catches up, that is done for the first 16 values of
    /// each type and then for one in 32. So a type that never reads back is found always; one of
    /// which only some values don't is found for certain in small batches only.
    ///
    /// # Errors
    /// [`InvalidDocumentKey`](crate::InvalidDocumentKey), and a value that CBOR does not hold, such
    /// as `Some(None)`, or that is not read as it is written. The error names the field.
    pub fn put<T: Serialize + DeserializeOwned>(
        &mut self,
        key: &str,
        value: &T,
    ) -> Result<(), HandleError> {
        check_key(key)?;
        let mut out = BytesMut::new();
        if self.is_read_back(type_name::<T>()) {
            encode_read_back(value, &mut out)
                .map_err(|error| UnreadableDocument { key: key.into(), error })?;
        } else {
            Cbor::encode(value, &mut out)?;
        }
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

    /// Removes every document whose key begins with `prefix`; with an empty one, all documents. If
    /// they are many, they are removed in several writes: see [`Documents`]. Where a projection has
    /// several partitions, a document that another one adds at the same time may stay.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn remove_prefix(&mut self, prefix: &str) -> Result<(), HandleError> {
        let mut rest = Some(document_range(&self.prefix, prefix));
        while let Some(range) = rest {
            let page = self.documents.scan(ScanQuery::new(range)).await?;
            for document in page.documents {
                let key = std::str::from_utf8(&document.key[self.prefix.len()..])?.to_owned();
                if !self.entries.found.contains_key(&key) {
                    let mut stored = Stored::from(document);
                    stored.value = stored.value.filter(|_| self.is_indexed);
                    self.entries.add_stored(&key, stored);
                }
                // Also one that the cache holds as absent: another partition has added it since.
                self.entries.set(&key, None);
            }
            rest = page.rest;
        }
        let found = self.entries.found.iter();
        let there = found.filter(|(key, entry)| key.starts_with(prefix) && entry.value.is_some());
        let keys: Vec<_> = there.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.entries.set(key, None));
        Ok(())
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

    /// Counts a value of this type, and returns true if it is read back.
    fn is_read_back(&mut self, of: &'static str) -> bool {
        let at = self.written.iter().position(|(name, _)| *name == of);
        let at = at.unwrap_or_else(|| {
            self.written.push((of, 0));
            self.written.len() - 1
        });
        let count = &mut self.written[at].1;
        *count += 1;
        *count <= READ_BACK_FIRST || count.is_multiple_of(READ_BACK_EVERY)
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

    /// The changed documents, by key.
    fn changed(&self) -> impl Iterator<Item = (&str, &Entry)> {
        let changed = self.entries.found.iter().filter(|(_, entry)| entry.is_changed);
        changed.map(|(key, entry)| (&key[..], entry))
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
    /// The document before the batch, if it was there.
    fn before(&self) -> Option<&Bytes> {
        self.stored.as_ref().and_then(|stored| stored.value.as_ref())
    }

    /// The write of the document. If other partitions write too, it is on condition of the revision
    /// that was read.
    fn write(&self, prefix: &str, key: &str, is_shared: bool) -> DocumentWrite {
        let expected = match &self.stored {
            Some(stored) if is_shared => stored.expected(),
            _ => ExpectedRevision::Any,
        };
        DocumentWrite { key: format!("{prefix}{key}").into(), expected, value: self.value.clone() }
    }

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
