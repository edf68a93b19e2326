//! Read models in memory, with snapshots of them as documents.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use factum_core::{
    Cbor, Codec, DocumentStore, ExpectedRevision, Kernel, KeyRange, ScanQuery, StreamId,
    WriteBatch, WriteError,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::{Commits, Fence, Opened, Save, Target, TargetError, documents};
use crate::name::ConsumerName;

/// After so many events the model is snapshotted, unless chosen otherwise.
const SNAPSHOT_EVENTS: usize = 100_000;
/// A snapshot is kept in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// So many pieces are written at once.
const PIECES_AT_ONCE: usize = 8;

/// A read model in memory. Each process has its own; it is made again from the last snapshot and
/// the log, so each event has taken effect exactly once in what is read.
pub struct InMemory<M> {
    documents: Arc<dyn DocumentStore>,
    snapshot_events: usize,
    current: watch::Sender<Arc<RwLock<Model<M>>>>,
    kept: Mutex<Kept>,
}

/// A model, and whether it may be looked at.
struct Model<M> {
    model: M,
    /// A batch has changed it and has not ended well.
    is_torn: bool,
}

/// What is to be stored with the next snapshot.
#[derive(Debug, Default)]
struct Kept {
    letters: std::collections::BTreeMap<StreamId, Bytes>,
    events: usize,
    generation: u64,
}

/// What is stored of a snapshot beside its pieces.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) progress: Vec<u8>,
    pub(crate) letters: Vec<(String, Vec<u8>)>,
    generation: u64,
    pieces: usize,
}

/// What a projection into [`InMemory`] writes to: the model itself.
pub struct MemoryTx<M>(OwnedRwLockWriteGuard<Model<M>>);

/// A model to look at; the projection waits while it is held.
pub struct MemoryGuard<M>(OwnedRwLockReadGuard<Model<M>>);

impl<M> InMemory<M>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// A model whose snapshots are documents of this kernel.
    pub fn new(kernel: &Kernel) -> Self {
        Self {
            documents: kernel.documents().clone(),
            snapshot_events: SNAPSHOT_EVENTS,
            current: watch::channel(fresh(M::default())).0,
            kept: Mutex::default(),
        }
    }

    /// Sets after how many events a snapshot is taken; one is taken at a clean stop too.
    #[must_use]
    pub fn with_snapshot_events(mut self, snapshot_events: usize) -> Self {
        self.snapshot_events = snapshot_events.max(1);
        self
    }

    /// The model as it is between two batches.
    pub async fn read(&self) -> MemoryGuard<M> {
        let mut current = self.current.subscribe();
        loop {
            let model = current.borrow_and_update().clone();
            tokio::select! {
                biased;
                guard = model.read_owned() => {
                    if !guard.is_torn {
                        return MemoryGuard(guard);
                    }
                    drop(guard);
                    let _ = current.changed().await;
                }
                // It was given up, perhaps with somebody in it who never leaves.
                _ = current.changed() => {}
            }
        }
    }

    async fn restore(&self, consumer: &ConsumerName) -> Result<Option<(M, Snapshot)>, TargetError> {
        let Some(found) = self.documents.get(&header_key(consumer)).await? else { return Ok(None) };
        // One that can't be read is as good as none: the model is made anew.
        let Ok(snapshot) = Cbor::decode::<Snapshot>(&found.value) else { return Ok(None) };
        let mut bytes = Vec::new();
        let (mut pieces, mut rest) =
            (0, Some(KeyRange::prefix(pieces_prefix(consumer, snapshot.generation))));
        while let Some(range) = rest {
            let page = self.documents.scan(ScanQuery::new(range)).await?;
            pieces += page.documents.len();
            page.documents.iter().for_each(|piece| bytes.extend_from_slice(&piece.value));
            rest = page.rest;
        }
        if pieces != snapshot.pieces {
            return Ok(None);
        }
        Ok(Cbor::decode(&bytes).ok().map(|model| (model, snapshot)))
    }

    /// Writes a snapshot: its pieces, then what names them.
    async fn snapshot(&self, consumer: &ConsumerName, progress: Bytes) -> Result<(), TargetError> {
        let (bytes, letters, before) = {
            let model = self.current.borrow().clone();
            let model = model.read_owned().await;
            let mut out = BytesMut::new();
            Cbor::encode(&model.model, &mut out).map_err(|e| TargetError::Refused(Arc::new(e)))?;
            let kept = self.kept();
            let letters = kept.letters.iter().map(|(stream, it)| (stream.to_string(), it.to_vec()));
            (out.freeze(), letters.collect(), kept.generation)
        };
        let generation = before + 1;
        self.documents.clear(KeyRange::prefix(pieces_prefix(consumer, generation))).await?;
        let pieces: Vec<&[u8]> = bytes.chunks(PIECE_BYTES).collect();
        for (at, some) in pieces.chunks(PIECES_AT_ONCE).enumerate() {
            let mut batch = WriteBatch::new();
            for (offset, piece) in some.iter().enumerate() {
                let key = piece_key(consumer, generation, at * PIECES_AT_ONCE + offset);
                batch = batch.put(key, ExpectedRevision::Any, Bytes::copy_from_slice(piece));
            }
            self.write(batch).await?;
        }
        let pieces = pieces.len();
        let snapshot = Snapshot { progress: progress.to_vec(), letters, generation, pieces };
        let header = crate::progress::encode(&snapshot);
        self.write(WriteBatch::new().put(header_key(consumer), ExpectedRevision::Any, header))
            .await?;
        {
            let mut kept = self.kept();
            (kept.events, kept.generation) = (0, generation);
        }
        Ok(self.documents.clear(KeyRange::prefix(pieces_prefix(consumer, before))).await?)
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), TargetError> {
        match self.documents.write(batch).await {
            Ok(_) => Ok(()),
            Err(WriteError::Store(error)) => Err(error.into()),
            Err(other) => Err(TargetError::Unknown(Arc::new(other))),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh<M>(model: M) -> Arc<RwLock<Model<M>>> {
    Arc::new(RwLock::new(Model { model, is_torn: false }))
}

impl<M> Target for InMemory<M>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Tx = MemoryTx<M>;

    const COMMITS: Commits = Commits::Snapshots;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let mark = self.documents.get(&mark_key(consumer)).await?.map(|it| it.value);
        let mut opened = Opened { mark, ..Opened::default() };
        let mut kept = Kept::default();
        let mut model = M::default();
        if let Some((restored, snapshot)) = self.restore(consumer).await? {
            (model, kept.generation) = (restored, snapshot.generation);
            opened.progress = Some(snapshot.progress.into());
            for (stream, letter) in snapshot.letters {
                let stream = stream.parse::<StreamId>();
                let stream = stream.map_err(|e| TargetError::Refused(Arc::new(e)))?;
                kept.letters.insert(stream, letter.into());
            }
        }
        opened.letters = kept.letters.clone().into_iter().collect();
        *self.kept() = kept;
        self.current.send_replace(fresh(model));
        Ok(opened)
    }

    async fn begin(&self, _: &ConsumerName) -> Result<MemoryTx<M>, TargetError> {
        let model = self.current.borrow().clone();
        let mut guard = model.write_owned().await;
        guard.is_torn = true;
        Ok(MemoryTx(guard))
    }

    async fn commit(
        &self,
        consumer: &ConsumerName,
        tx: MemoryTx<M>,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let mut model = tx.0;
        model.is_torn = false;
        drop(model);
        self.save(consumer, save).await
    }

    async fn save(&self, consumer: &ConsumerName, save: Save) -> Result<Fence, TargetError> {
        let is_stop = save.mark.as_ref().is_some_and(|mark| {
            crate::progress::decode(mark)
                .is_ok_and(|mark: crate::progress::Mark| mark == crate::progress::Mark::default())
        });
        let has_letters = !save.letters.is_empty();
        let is_due = {
            let mut kept = self.kept();
            kept.events += save.events;
            for (stream, letter) in save.letters {
                match letter {
                    Some(letter) => kept.letters.insert(stream, letter),
                    None => kept.letters.remove(&stream),
                };
            }
            has_letters || (is_stop && kept.events > 0) || kept.events >= self.snapshot_events
        };
        if is_due {
            self.snapshot(consumer, save.progress).await?;
        }
        if let Some(mark) = save.mark {
            let batch = WriteBatch::new().put(mark_key(consumer), ExpectedRevision::Any, mark);
            self.write(batch).await?;
        }
        Ok(save.expected)
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        let progress = format!("$consumer/{consumer}/");
        self.documents.clear(KeyRange::prefix(progress)).await?;
        self.documents.clear(KeyRange::prefix(documents::prefix(consumer))).await?;
        *self.kept() = Kept::default();
        self.current.send_replace(fresh(M::default()));
        Ok(())
    }
}

fn header_key(consumer: &ConsumerName) -> Bytes {
    format!("$consumer/{consumer}/snapshot").into()
}

fn mark_key(consumer: &ConsumerName) -> Bytes {
    format!("$consumer/{consumer}/mark").into()
}

fn pieces_prefix(consumer: &ConsumerName, generation: u64) -> String {
    format!("{}{generation:016x}/", documents::prefix(consumer))
}

fn piece_key(consumer: &ConsumerName, generation: u64, piece: usize) -> Bytes {
    format!("{}{piece:08x}", pieces_prefix(consumer, generation)).into()
}

impl<M> Deref for MemoryTx<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0.model
    }
}

impl<M> DerefMut for MemoryTx<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0.model
    }
}

impl<M> Deref for MemoryGuard<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0.model
    }
}

impl<M> fmt::Debug for InMemory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<M: fmt::Debug> fmt::Debug for MemoryTx<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryTx").field(&**self).finish()
    }
}

impl<M: fmt::Debug> fmt::Debug for MemoryGuard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryGuard").field(&**self).finish()
    }
}
