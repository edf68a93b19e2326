//! Read models in memory, with snapshots of them as documents.

mod snapshot;

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use factum_core::{
    DocumentStore, ExpectedRevision, Kernel, KeyRange, Position, StreamId, WriteBatch,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::{Commits, Fence, Opened, Save, Target, TargetError, checkpoints::written, documents};
use crate::{
    name::ConsumerName,
    progress::{self, Mark, Progress},
};

pub(crate) use snapshot::{Snapshot, forget};

/// After so many events the model is snapshotted, unless chosen otherwise.
const SNAPSHOT_EVENTS: usize = 100_000;
/// So many positions that are passed count as one event.
const PASSED_PER_EVENT: u64 = 10;

/// A read model in memory. Each process has its own; it is made again from the last snapshot and
/// the log, so each event has taken effect exactly once in what is read. A snapshot of a type with
/// another name is ignored: after such a change the model is made from the whole log.
///
/// A model that was read once is never read as it was before: while it is made again, after an
/// event of it failed, readers wait. A snapshot that can't be written is tried again later.
pub struct InMemory<M> {
    kernel: Kernel,
    snapshot_events: usize,
    current: watch::Sender<Current<M>>,
    kept: Mutex<Kept>,
}

/// The model that is worked on.
struct Current<M> {
    model: Arc<RwLock<Model<M>>>,
    /// It is behind what was read before.
    is_hidden: bool,
}

impl<M> Clone for Current<M> {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), is_hidden: self.is_hidden }
    }
}

/// A model, and whether it may be looked at.
struct Model<M> {
    model: M,
    /// A batch has changed it and has not ended well.
    is_torn: bool,
}

/// What belongs to the model, and what is to be stored with the next snapshot.
#[derive(Debug, Default)]
struct Kept {
    /// How far the model has come; `None` before it is opened.
    at: Option<Progress>,
    letters: BTreeMap<StreamId, Bytes>,
    is_torn: bool,
    /// A stream was parked or released, and that is not stored: a model that is made again would
    /// not have it.
    is_owed: bool,
    /// What was read by somebody, perhaps.
    shown: Position,
    /// Events since the last snapshot.
    events: usize,
    /// How far the last snapshot had come.
    stored: Option<Position>,
}

impl Kept {
    fn position(&self) -> Position {
        self.at.map_or(Position::ZERO, |at| at.position())
    }

    /// Takes over what is to be kept.
    fn take(&mut self, save: &Save, at: Progress) {
        self.is_owed |= !save.letters.is_empty();
        for (stream, letter) in &save.letters {
            match letter {
                Some(letter) => self.letters.insert(stream.clone(), letter.clone()),
                None => self.letters.remove(stream),
            };
        }
        self.events += save.events;
        // A consumer whose last save is not known to it says less than there is.
        if at.position() >= self.position() {
            self.at = Some(at);
        }
    }

    /// Whether it is time for a snapshot.
    fn is_due(&self, events_max: usize) -> bool {
        let passed = self.position().value().saturating_sub(self.stored_at().value());
        self.events >= events_max || passed >= (events_max as u64) * PASSED_PER_EVENT
    }

    /// Whether a first snapshot must tell where it began, before anything is made of it.
    fn is_first(&self) -> bool {
        let began_after = self.at.and_then(|at| at.began_after).unwrap_or(Position::ZERO);
        self.stored.is_none() && began_after > Position::ZERO
    }

    fn stored_at(&self) -> Position {
        self.stored.unwrap_or(Position::ZERO)
    }
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
            kernel: kernel.clone(),
            snapshot_events: SNAPSHOT_EVENTS,
            current: watch::channel(fresh(M::default(), false)).0,
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
            let Current { model, is_hidden } = current.borrow_and_update().clone();
            if is_hidden {
                let _ = current.changed().await;
                continue;
            }
            tokio::select! {
                biased;
                guard = model.clone().read_owned() => {
                    // What was waited for may have been hidden, or replaced, meanwhile.
                    let is_seen = {
                        let now = current.borrow();
                        !now.is_hidden && Arc::ptr_eq(&now.model, &model)
                    };
                    if is_seen && !guard.is_torn {
                        return MemoryGuard(guard);
                    }
                    drop(guard);
                    if is_seen {
                        let _ = current.changed().await;
                    }
                }
                // It was given up, perhaps with somebody in it who never leaves.
                _ = current.changed() => {}
            }
        }
    }

    fn documents(&self) -> &Arc<dyn DocumentStore> {
        self.kernel.documents()
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), TargetError> {
        written(self.documents().write(batch).await).map(drop)
    }

    /// Lets readers in, where the model has come as far as it was read.
    fn show(&self, through: Option<Position>) {
        let is_far = {
            let mut kept = self.kept();
            let is_over = through.is_none();
            let through = through.unwrap_or(kept.shown);
            let is_far = is_over || (through >= kept.shown && !kept.is_owed);
            kept.shown = kept.shown.max(through);
            is_far
        };
        self.current
            .send_if_modified(|current| is_far && std::mem::replace(&mut current.is_hidden, false));
    }

    /// Stores what is due.
    async fn keep(
        &self,
        consumer: &ConsumerName,
        save: Save,
        is_decided: bool,
    ) -> Result<Fence, TargetError> {
        let mark = save.mark.as_deref().and_then(|mark| progress::decode(mark).ok());
        let is_stop = mark.is_some_and(|mark: Mark| mark == Mark::default());
        let (is_whole, is_due, is_news, is_needed) = {
            let kept = self.kept();
            let is_news = kept.events > 0 || kept.position() > kept.stored_at();
            let is_needed = is_decided || kept.is_first();
            (!kept.is_torn, kept.is_due(self.snapshot_events), is_news, is_needed)
        };
        if is_whole && (is_due || is_needed || (is_stop && is_news)) {
            match self.snapshot(consumer).await {
                // It only saves time, so it may come later.
                Err(TargetError::Unavailable(_) | TargetError::Unknown(_)) if !is_needed => {
                    let later = self.snapshot_events - self.snapshot_events / 8 - 1;
                    let mut kept = self.kept();
                    kept.events = kept.events.min(later);
                }
                outcome => outcome?,
            }
        }
        if let Some(mark) = save.mark {
            let batch = WriteBatch::new().put(mark_key(consumer), ExpectedRevision::Any, mark);
            self.write(batch).await?;
        }
        Ok(save.expected)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh<M>(model: M, is_hidden: bool) -> Current<M> {
    Current { model: Arc::new(RwLock::new(Model { model, is_torn: false })), is_hidden }
}

fn progress_of(save: &Save) -> Result<Progress, TargetError> {
    progress::decode(&save.progress).map_err(|error| TargetError::Broken(Arc::new(error)))
}

impl<M> Target for InMemory<M>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    type Tx = MemoryTx<M>;

    const COMMITS: Commits = Commits::Snapshots;

    async fn open(&self, consumer: &ConsumerName) -> Result<Opened, TargetError> {
        let mark = self.documents().get(&mark_key(consumer)).await?.map(|it| it.value);
        let (is_whole, is_owed) = {
            let kept = self.kept();
            (kept.at.is_some() && !kept.is_torn, kept.is_owed)
        };
        // What lies in memory is what was handled, whatever became of the last write.
        if is_whole {
            if is_owed {
                self.snapshot(consumer).await?;
            }
            let position = self.kept().position();
            self.show(Some(position));
        } else {
            let restored = self.restore(consumer).await?;
            let (mut model, mut kept) = (M::default(), Kept::default());
            if let Some((snapshot, found)) = restored {
                kept.stored = Some(snapshot.progress.position());
                kept.at = Some(Progress { checkpoint: None, ..snapshot.progress });
                if let Some(found) = found {
                    (model, kept.at) = (found, Some(snapshot.progress));
                    kept.letters = snapshot::letters(snapshot.letters)?;
                }
            }
            let is_hidden = {
                let mut before = self.kept();
                kept.shown = before.shown;
                *before = kept;
                before.position() < before.shown
            };
            self.current.send_replace(fresh(model, is_hidden));
        }
        let kept = self.kept();
        let progress = kept.at.as_ref().map(progress::encode);
        let letters = kept.letters.clone().into_iter().collect();
        Ok(Opened { fence: Fence::default(), progress, mark, letters })
    }

    async fn begin(&self, _: &ConsumerName) -> Result<MemoryTx<M>, TargetError> {
        let model = self.current.borrow().model.clone();
        let mut guard = model.write_owned().await;
        guard.is_torn = true;
        self.kept().is_torn = true;
        Ok(MemoryTx(guard))
    }

    async fn commit(
        &self,
        consumer: &ConsumerName,
        tx: MemoryTx<M>,
        save: Save,
    ) -> Result<Fence, TargetError> {
        let at = progress_of(&save)?;
        let mut model = tx.0;
        {
            let mut kept = self.kept();
            kept.is_torn = false;
            kept.take(&save, at);
        }
        model.is_torn = false;
        if save.letters.is_empty() {
            self.show(Some(at.position()));
        } else {
            // A release that fails further on takes this back: till then nobody sees it.
            self.current.send_modify(|current| current.is_hidden = true);
        }
        drop(model);
        self.keep(consumer, save, false).await
    }

    async fn save(&self, consumer: &ConsumerName, save: Save) -> Result<Fence, TargetError> {
        let at = progress_of(&save)?;
        self.kept().take(&save, at);
        // A stream that was parked or released stays so.
        let is_decided = !save.letters.is_empty();
        let fence = self.keep(consumer, save, is_decided).await?;
        if is_decided {
            self.show(Some(at.position()));
        }
        Ok(fence)
    }

    async fn clear(&self, consumer: &ConsumerName) -> Result<(), TargetError> {
        // The snapshot goes first: its pieces alone are nothing.
        let progress = format!("$consumer/{consumer}/");
        self.documents().clear(KeyRange::prefix(progress)).await?;
        self.documents().clear(KeyRange::prefix(documents::prefix(consumer))).await?;
        *self.kept() = Kept::default();
        self.current.send_replace(fresh(M::default(), false));
        Ok(())
    }

    fn reached(&self, through: Option<Position>) {
        self.show(through);
    }
}

fn mark_key(consumer: &ConsumerName) -> Bytes {
    format!("$consumer/{consumer}/mark").into()
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
