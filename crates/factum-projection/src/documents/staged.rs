//! The changes of one event that don't fit into one write.
//!
//! They are stored aside first, in several writes, then marked as outstanding in one. From then on
//! the event counts as handled: the changes are moved to their places, again in several writes, and
//! the progress moves with the last one. If the process dies before the mark, the event is handled
//! again, as if nothing had been written. If it dies after the mark, the next opening moves the
//! rest. A change is a whole document or a removal, so it may be written twice.
//!
//! Every write is on condition of the fence and moves it, so two processes never write at once.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use factum_consumer::{
    ConsumerName, Fence, Opened, Save, Target, TargetError,
    part::{
        Checkpoints,
        progress::{self, Progress},
    },
};
use factum_kernel::{
    Checkpoint, Document, DocumentStore, DocumentWrite, ExpectedRevision, KeyRange, ScanQuery,
    StoreError, StreamId,
};
use serde::{Deserialize, Serialize};

use super::{WRITE_BYTES_MAX, documents_prefix};
use crate::index::AFTER_TEXT;

/// The bytes of the number of a group, before the kind and the key of a staged change.
const NUMBER_BYTES: usize = 4;
const PUT: u8 = b'p';
const REMOVE: u8 = b'r';

/// The changes of one document: the document, and its index entries.
pub(super) type Group = Vec<DocumentWrite>;

/// The mark that staged changes are outstanding, with what is stored when they are done.
#[derive(Debug, Serialize, Deserialize)]
struct Outstanding {
    /// The checkpoint before the event.
    from: Option<Checkpoint>,
    /// The checkpoint after it.
    to: Option<Checkpoint>,
    mark: Option<Vec<u8>>,
    letters: Vec<(String, Option<Vec<u8>>)>,
}

/// The staged changes of a consumer without partitions.
pub(super) struct Staged<'a> {
    documents: &'a Arc<dyn DocumentStore>,
    progress: &'a Checkpoints,
    consumer: &'a ConsumerName,
    /// The most documents of a write, without the consumer's progress.
    documents_max: usize,
    base: Vec<u8>,
}

impl<'a> Staged<'a> {
    pub(super) fn new(
        documents: &'a Arc<dyn DocumentStore>,
        progress: &'a Checkpoints,
        consumer: &'a ConsumerName,
        documents_max: usize,
    ) -> Self {
        // No name of an index begins with this byte.
        let base = [documents_prefix(consumer).as_bytes(), &[AFTER_TEXT, AFTER_TEXT]].concat();
        Self { documents, progress, consumer, documents_max, base }
    }

    /// Stores the changes of one event in several writes, and the progress in the last one.
    pub(super) async fn store(&self, groups: Vec<Group>, save: Save) -> Result<Fence, TargetError> {
        let Opened { fence, progress, .. } = self.progress.look(self.consumer).await?;
        let before = progress.filter(|_| fence == save.expected).ok_or(TargetError::Fenced)?;
        let outstanding = Outstanding {
            from: decode::<Progress>(&before)?.checkpoint,
            to: decode::<Progress>(&save.progress)?.checkpoint,
            mark: save.mark.as_deref().map(<[u8]>::to_vec),
            letters: save
                .letters
                .iter()
                .map(|(stream, letter)| (stream.to_string(), letter.as_deref().map(<[u8]>::to_vec)))
                .collect(),
        };
        let fence = self.remove_leftovers(fence, &before).await?;
        let fence = self.stage(groups, fence, &before).await?;
        let mark = put(self.mark_key(), progress::encode(&outstanding));
        let fence = self.write(vec![mark], fence, &before).await?;
        // The event is handled now. Only the next opening may say otherwise.
        self.complete(outstanding, fence, &before).await.map_err(|error| match error {
            TargetError::Fenced | TargetError::Broken(_) => error,
            other => TargetError::Unknown(Arc::new(other)),
        })
    }

    /// Completes the changes that an earlier process has left. While another build takes this
    /// one's place, they stay as they are.
    pub(super) async fn finish(&self, opened: Opened) -> Result<Opened, TargetError> {
        let Some(before) = &opened.progress else { return Ok(opened) };
        let Some(mark) = self.documents.get(&self.mark_key()).await? else { return Ok(opened) };
        if decode::<Progress>(before)?.frozen_by != 0 {
            return Ok(opened);
        }
        let outstanding = decode(&mark.value)?;
        self.complete(outstanding, opened.fence, before).await?;
        self.progress.open(self.consumer).await
    }

    /// Moves the staged changes to their places, then stores the progress.
    async fn complete(
        &self,
        outstanding: Outstanding,
        fence: Fence,
        before: &Bytes,
    ) -> Result<Fence, TargetError> {
        let mut fence = fence;
        loop {
            let some = self.next().await?;
            if some.is_empty() {
                break;
            }
            let mut writes = Vec::with_capacity(2 * some.len());
            for document in some {
                writes.push(self.unstaged(&document)?);
                writes.push(remove(document.key));
            }
            fence = self.write(writes, fence, before).await?;
        }
        let mut progress: Progress = decode(before)?;
        // Otherwise the checkpoint was moved by hand since.
        if progress.checkpoint == outstanding.from {
            progress.checkpoint = outstanding.to;
        }
        let letters = outstanding.letters.into_iter().map(|(stream, letter)| {
            let stream = stream.parse::<StreamId>();
            let stream = stream.map_err(|error| TargetError::Broken(Arc::new(error)))?;
            Ok::<_, TargetError>((stream, letter.map(Bytes::from)))
        });
        let save = Save {
            expected: fence,
            progress: progress::encode(&progress),
            mark: outstanding.mark.map(Bytes::from),
            letters: letters.collect::<Result<_, _>>()?,
            events: 1,
        };
        self.progress.write(self.consumer, vec![remove(self.mark_key())], save).await
    }

    /// Stores the changes aside.
    async fn stage(
        &self,
        groups: Vec<Group>,
        fence: Fence,
        before: &Bytes,
    ) -> Result<Fence, TargetError> {
        let mut fence = fence;
        let mut writes = Vec::new();
        let mut bytes = 0;
        for (number, write) in groups
            .into_iter()
            .enumerate()
            .flat_map(|(at, group)| group.into_iter().map(move |it| (at, it)))
        {
            let size = write.value.as_ref().map_or(0, Bytes::len);
            if !writes.is_empty()
                && (writes.len() >= self.documents_max || bytes + size > WRITE_BYTES_MAX)
            {
                fence = self.write(std::mem::take(&mut writes), fence, before).await?;
                bytes = 0;
            }
            bytes += size;
            writes.push(self.staged(number, write));
        }
        self.write(writes, fence, before).await
    }

    /// Removes changes that were stored aside by a process that died before the mark.
    async fn remove_leftovers(&self, fence: Fence, before: &Bytes) -> Result<Fence, TargetError> {
        let mut fence = fence;
        loop {
            let some = self.next().await?;
            if some.is_empty() {
                return Ok(fence);
            }
            let writes = some.into_iter().map(|document| remove(document.key)).collect();
            fence = self.write(writes, fence, before).await?;
        }
    }

    /// Writes while the progress stays.
    async fn write(
        &self,
        writes: Vec<DocumentWrite>,
        fence: Fence,
        before: &Bytes,
    ) -> Result<Fence, TargetError> {
        let save = Save {
            expected: fence,
            progress: before.clone(),
            mark: None,
            letters: Vec::new(),
            events: 0,
        };
        self.progress.write(self.consumer, writes, save).await
    }

    /// The next staged changes that fit into one write. The changes of a document stay together if
    /// all of them fit.
    async fn next(&self) -> Result<Vec<Document>, StoreError> {
        let range = KeyRange::new(self.base.clone(), self.mark_key());
        let query = ScanQuery::new(range)
            .with_documents_max((self.documents_max / 2).max(1))
            .with_bytes_max(WRITE_BYTES_MAX);
        let page = self.documents.scan(query).await?;
        let mut some = page.documents;
        let number = |document: &Document| {
            document.key.get(self.base.len()..self.base.len() + NUMBER_BYTES).map(<[u8]>::to_vec)
        };
        if page.rest.is_some()
            && let Some(last) = some.last().map(number)
            && some.first().map(number) != Some(last.clone())
        {
            some.retain(|document| number(document) != last);
        }
        Ok(some)
    }

    fn mark_key(&self) -> Bytes {
        // After every number.
        [&self.base[..], &[AFTER_TEXT; NUMBER_BYTES]].concat().into()
    }

    fn staged(&self, number: usize, write: DocumentWrite) -> DocumentWrite {
        let number = u32::try_from(number).expect("a change of one event fits into memory");
        let own = documents_prefix(self.consumer).len();
        let mut key = BytesMut::from(&self.base[..]);
        key.put_u32(number);
        key.put_u8(if write.value.is_some() { PUT } else { REMOVE });
        key.put_slice(&write.key[own..]);
        put(key.freeze(), write.value.unwrap_or_default())
    }

    /// The change that a staged document stands for.
    fn unstaged(&self, staged: &Document) -> Result<DocumentWrite, TargetError> {
        let rest = &staged.key[self.base.len() + NUMBER_BYTES..];
        let Some((kind, own)) = rest.split_first() else {
            let text = format!("a staged change has no key: key={:?}", staged.key);
            return Err(StoreError::corrupt(text).into());
        };
        let key = [documents_prefix(self.consumer).as_bytes(), own].concat();
        Ok(if *kind == PUT { put(key, staged.value.clone()) } else { remove(key) })
    }
}

fn put(key: impl Into<Bytes>, value: Bytes) -> DocumentWrite {
    DocumentWrite { key: key.into(), expected: ExpectedRevision::Any, value: Some(value) }
}

fn remove(key: impl Into<Bytes>) -> DocumentWrite {
    DocumentWrite { key: key.into(), expected: ExpectedRevision::Any, value: None }
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, TargetError> {
    progress::decode(bytes).map_err(|error| TargetError::Broken(Arc::new(error)))
}
