//! What readers see of a model in memory.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_kernel::Position;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

/// A model, and whether it may be looked at.
pub(super) struct Model<M> {
    pub(super) model: M,
    /// A batch has changed it and has not ended well.
    pub(super) is_torn: bool,
}

/// A model to look at; nothing is folded while it is held.
pub struct MemoryGuard<M>(OwnedRwLockReadGuard<Model<M>>);

/// The model of one process, and how far it was read.
pub(super) struct Shown<M> {
    current: watch::Sender<Current<M>>,
    /// What was read by somebody, perhaps.
    through: Mutex<Position>,
}

/// The model that is worked on.
struct Current<M> {
    model: Arc<RwLock<Model<M>>>,
    view: View,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Open,
    /// It is not as far as it was read before, or amid a change that is seen only as a whole.
    Hidden,
    /// It is hidden and nobody works on it any more.
    Gone,
}

impl<M> Clone for Current<M> {
    fn clone(&self) -> Self {
        Self { model: self.model.clone(), view: self.view }
    }
}

impl<M: Default> Shown<M> {
    /// Nothing is shown yet.
    pub(super) fn new() -> Self {
        let model = Model { model: M::default(), is_torn: true };
        let current = Current { model: Arc::new(RwLock::new(model)), view: View::Hidden };
        Self { current: watch::channel(current).0, through: Mutex::default() }
    }
}

impl<M: Send + Sync + 'static> Shown<M> {
    /// Puts a model in the place of the one before, which has come to a position.
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

    /// The model, to change it. Waits for those who look at it.
    pub(super) async fn change(&self) -> OwnedRwLockWriteGuard<Model<M>> {
        let model = self.current.borrow().model.clone();
        model.write_owned().await
    }

    /// The model as it is, whether readers see it or not.
    pub(super) async fn look(&self) -> OwnedRwLockReadGuard<Model<M>> {
        let model = self.current.borrow().model.clone();
        model.read_owned().await
    }

    /// How far it was read.
    pub(super) fn position(&self) -> Position {
        *self.through()
    }

    /// Readers wait from now on.
    pub(super) fn hide(&self) {
        self.set(View::Hidden);
    }

    /// Lets readers in, where the model has come as far as it was read.
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

    /// Nobody works on it any more. Readers see it as it is, unless it is torn.
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

    /// The model between two batches; `None`: it is gone.
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
                    // What was waited for may have been hidden, or replaced, meanwhile.
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
                // It was given up, perhaps with somebody in it who never leaves.
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
