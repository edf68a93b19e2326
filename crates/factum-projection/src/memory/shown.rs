//! The model in memory as readers see it.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_kernel::Position;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

/// A model, and whether readers may see it.
pub(super) struct Model<M> {
    pub(super) model: M,
    /// True if a batch has begun to change the model and has not ended normally.
    pub(super) is_torn: bool,
}

/// Read access to a model. Nothing is folded while it is held.
pub struct MemoryGuard<M>(OwnedRwLockReadGuard<Model<M>>);

/// The model of one process, and the position that readers have seen.
pub(super) struct Shown<M> {
    current: watch::Sender<Current<M>>,
    /// The last position that readers may have seen.
    through: Mutex<Position>,
}

/// The current model, and its state for readers.
struct Current<M> {
    model: Arc<RwLock<Model<M>>>,
    view: View,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Readers see the model.
    Open,
    /// The model is before the position that readers have seen, or in a change that is shown only
    /// as a whole.
    Hidden,
    /// The loop has ended and left no whole model to show.
    Gone,
}

impl<M> Clone for Current<M> {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), view: self.view }
    }
}

impl<M: Default> Shown<M> {
    /// A model that is hidden until the first [`replace`](Self::replace).
    pub(super) fn new() -> Self {
        let model = Model { model: M::default(), is_torn: true };
        let current = Current { model: Arc::new(RwLock::new(model)), view: View::Hidden };
        Self { current: watch::channel(current).0, through: Mutex::default() }
    }
}

impl<M: Send + Sync + 'static> Shown<M> {
    /// Replaces the model by a restored one, which has reached a position.
    pub(super) fn replace(&self, model: M, position: Position) {
        let view = {
            let mut through = self.through();
            let is_behind = position < *through;
            *through = position.max(*through);
            if is_behind { View::Hidden } else { View::Open }
        };
        let model = Arc::new(RwLock::new(Model { model, is_torn: false }));
        self.current.send_replace(Current { model, view });
    }

    /// The model for changes. Waits until no reader holds it.
    pub(super) async fn change(&self) -> OwnedRwLockWriteGuard<Model<M>> {
        let model = self.current.borrow().model.clone();
        model.write_owned().await
    }

    /// The model as it is, also if it is hidden.
    pub(super) async fn look(&self) -> OwnedRwLockReadGuard<Model<M>> {
        let model = self.current.borrow().model.clone();
        model.read_owned().await
    }

    /// The last position that readers may have seen.
    pub(super) fn position(&self) -> Position {
        *self.through()
    }

    /// Hides the model: readers wait from now on.
    pub(super) fn hide(&self) {
        self.set(View::Hidden);
    }

    /// Shows the model, if it has reached the position that readers have seen.
    pub(super) fn reached(&self, through: Position) {
        let is_far = {
            let mut shown = self.through();
            *shown = through.max(*shown);
            through >= *shown
        };
        if is_far {
            self.set(View::Open);
        }
    }

    /// Notes that the loop has ended. Readers see the model in its last state, unless it is torn.
    pub(super) fn end(&self) {
        let is_whole = {
            let current = self.current.borrow();
            current.model.try_read().is_ok_and(|model| !model.is_torn)
        };
        self.set(if is_whole { View::Open } else { View::Gone });
    }

    fn set(&self, view: View) {
        self.current.send_if_modified(|current| std::mem::replace(&mut current.view, view) != view);
    }

    /// The model between two batches; `None` if the loop ended with a torn model.
    pub(super) async fn read(&self) -> Option<MemoryGuard<M>> {
        let mut current = self.current.subscribe();
        loop {
            let Current { model, view } = current.borrow_and_update().clone();
            if view == View::Gone {
                return None;
            }
            if view == View::Hidden {
                let _ = current.changed().await;
                continue;
            }
            tokio::select! {
                biased;
                guard = model.clone().read_owned() => {
                    // The model may have been hidden or replaced during the wait.
                    let is_seen = {
                        let now = current.borrow();
                        now.view == View::Open && Arc::ptr_eq(&now.model, &model)
                    };
                    if is_seen && !guard.is_torn {
                        return Some(MemoryGuard(guard));
                    }
                    drop(guard);
                    if is_seen {
                        let _ = current.changed().await;
                    }
                }
                // A replaced model may be held forever by a batch that never ends, so a change ends
                // the wait for it.
                _ = current.changed() => {}
            }
        }
    }

    fn through(&self) -> MutexGuard<'_, Position> {
        self.through.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> Deref for MemoryGuard<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0.model
    }
}

impl<M: fmt::Debug> fmt::Debug for MemoryGuard<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryGuard").field(&**self).finish()
    }
}
