//! Folding one batch, in a task of its own.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use factum_consumer::{
    StopCause, StopReason,
    part::{Apart, Chunk, Failure, Names, StoredLetter, apart, decode},
};
use factum_kernel::{Event, RecordedEvent, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OwnedRwLockWriteGuard;

use super::{
    folding::{End, Folding},
    shown::Model,
};

/// The user's function, and the names of the events that it handles.
pub(super) struct FoldWork<E, F> {
    pub(super) apply: F,
    pub(super) names: Names<E>,
}

/// The reason why an event can't be folded.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) error: StopCause,
    /// True if this program can't read the event; another one may.
    pub(super) is_unread: bool,
}

impl Fault {
    pub(super) fn new(error: impl Into<String>) -> Self {
        Self { error: StopCause::new(error.into()), is_unread: false }
    }

    /// The dead letter of the event.
    pub(super) fn letter(&self, event: &RecordedEvent, now: Timestamp) -> StoredLetter {
        match self.is_unread {
            true => StoredLetter::unread(event, &self.error, now),
            false => StoredLetter::of(event, &self.error, 1, now),
        }
    }
}

/// The outcome of a batch.
pub(super) struct Folded {
    /// The number of its events that were folded.
    pub(super) count: usize,
    /// The error of the next event, if that can't be folded.
    pub(super) fault: Option<Fault>,
    /// True if the model is left half changed.
    pub(super) is_torn: bool,
}

impl<M, E, F> Folding<M, E, F>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
{
    /// Folds these events of a batch into the model.
    pub(super) async fn apply(&mut self, batch: &Chunk, wanted: &[usize]) -> Result<Folded, End> {
        let model = tokio::select! {
            biased;
            model = self.shown.change() => model,
            // A reader still holds the model.
            () = self.health.halted() => return Err(End::Stop(StopReason::Asked)),
        };
        let seen = Arc::new(AtomicUsize::new(0));
        let running = run(self.fold.clone(), model, batch.clone(), wanted.to_vec(), seen.clone());
        let timeout = self.options.failure.timeout;
        let clock = self.reading.kernel.clock();
        let torn =
            |count, fault: String| Folded { count, fault: Some(Fault::new(fault)), is_torn: true };
        Ok(match apart(tokio::spawn(running), &seen, timeout, &**clock).await {
            // Only here is the model known to be whole again. After a batch that was given up, it
            // stays torn.
            Apart::Done((folded, mut model)) => {
                model.is_torn = false;
                folded
            }
            Apart::Panicked(panic) => {
                torn(seen.load(Ordering::Relaxed), format!("the fold panicked: {panic}"))
            }
            Apart::Late { keeps_thread: false, .. } => {
                let error = "the runtime is too busy to begin with a batch";
                return Err(self.retry_later(error.into()).await);
            }
            Apart::Late { at, keeps_thread: true } => {
                torn(at, format!("it was not folded within {timeout:?}, and keeps its thread"))
            }
            Apart::Cancelled => {
                let error = "the runtime that it was folded on has ended";
                return Err(self.retry_later(error.into()).await);
            }
        })
    }
}

async fn run<M, E, F>(
    fold: Arc<FoldWork<E, F>>,
    mut model: OwnedRwLockWriteGuard<Model<M>>,
    batch: Chunk,
    wanted: Vec<usize>,
    seen: Arc<AtomicUsize>,
) -> (Folded, OwnedRwLockWriteGuard<Model<M>>)
where
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent),
{
    model.is_torn = true;
    let mut count = 0;
    for at in wanted {
        seen.store(count, Ordering::Relaxed);
        let recorded = &batch.events()[at];
        let (first, rest) = match decode::<E>(recorded) {
            Ok(events) => events,
            Err(failure) => {
                let fault = match failure {
                    Failure::Decode(error) => {
                        Fault { error: StopCause::new(*error), is_unread: true }
                    }
                    Failure::Handler(error) => {
                        Fault { error: StopCause::new(error), is_unread: false }
                    }
                };
                return (Folded { count, fault: Some(fault), is_torn: false }, model);
            }
        };
        for event in first.into_iter().chain(rest) {
            (fold.apply)(&mut model.model, event, recorded);
        }
        count += 1;
    }
    (Folded { count, fault: None, is_torn: false }, model)
}
