//! What changes in a read model, as it changes.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use factum_consumer::{ConsumerHandle, ConsumerHealth, ConsumerState, StopReason};
use factum_kernel::{Cbor, Codec};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

use super::QueryError;

use crate::{
    documents::{Changed, Documents},
    maintain::{Local, Maintained, Running},
    model_build::REFRESH,
};

/// A change of a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelChange<T> {
    /// A document is there, or is another than before.
    Put {
        /// Its key.
        key: String,
        /// The document.
        value: T,
    },
    /// A document is gone.
    Removed {
        /// Its key.
        key: String,
    },
    /// Changes were not told, perhaps: the listener was slow, another build took over, or the
    /// projection began again after a failure. Read the model, and listen on. Told once a second
    /// while another process works on the model, or on partitions of it.
    Missed,
}

/// What changes in the documents that readers see, as long as this process maintains them.
///
/// It never holds up the projection. Changes wait in a bounded buffer of 64 batches; a listener
/// that is slower is told [`ModelChange::Missed`].
///
/// ```no_run
/// # async fn run(balances: factum_projection::Maintained<factum_projection::Documents>)
/// # -> Result<(), factum_projection::QueryError> {
/// use factum_projection::ModelChange;
///
/// let mut changes = balances.changes::<u64>();
/// while let Some(change) = changes.next().await {
///     match change? {
///         ModelChange::Put { key, value } => println!("{key} has {value}"),
///         ModelChange::Removed { key } => println!("{key} is gone"),
///         _ => println!("reading all of it again"),
///     }
/// }
/// # Ok(()) }
/// ```
pub struct ModelChanges<T> {
    maintained: Maintained<Documents>,
    local: watch::Receiver<Local<Documents>>,
    heard: Option<Heard>,
    has_heard: bool,
    waiting: VecDeque<(String, Option<Bytes>)>,
    kind: std::marker::PhantomData<fn() -> T>,
}

/// The target that is listened to.
struct Heard {
    target: Arc<Documents>,
    changes: broadcast::Receiver<Changed>,
    health: watch::Receiver<ConsumerHealth>,
}

impl<T: DeserializeOwned> ModelChanges<T> {
    pub(super) fn new(maintained: &Maintained<Documents>) -> Self {
        let mut changes = Self {
            maintained: maintained.clone(),
            local: maintained.local(),
            heard: None,
            has_heard: false,
            waiting: VecDeque::new(),
            kind: std::marker::PhantomData,
        };
        // From here on, not from the first `next`.
        changes.listen();
        changes
    }

    /// The next change; `None` when this process does not maintain the read model any more.
    ///
    /// # Errors
    /// [`QueryError::Decode`] for a document of another shape; listen on for the others.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Result<ModelChange<T>, QueryError>> {
        loop {
            if let Some((key, value)) = self.waiting.pop_front() {
                return Some(self.change(key, value));
            }
            if self.listen() {
                return Some(Ok(ModelChange::Missed));
            }
            let clock = self.maintained.stored().kernel().clock().clone();
            let Some(heard) = &mut self.heard else {
                self.local.changed().await.ok()?;
                continue;
            };
            tokio::select! {
                biased;
                changed = heard.changes.recv() => match changed {
                    Ok(Changed::Documents(changed)) => self.waiting.extend(changed.iter().cloned()),
                    Ok(Changed::Unknown) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        return Some(Ok(ModelChange::Missed));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                changed = self.local.changed() => changed.ok()?,
                () = clock.sleep(REFRESH), if heard.health.borrow().elsewhere > 0 => {
                    // What another process stores is told there.
                    return Some(Ok(ModelChange::Missed));
                }
                () = ended(&mut heard.health) => return None,
            }
        }
    }

    /// Listens to what readers see now. Whether that is another than before.
    fn listen(&mut self) -> bool {
        let serving = self.local.borrow_and_update().serving.clone();
        let Some(Running { target, consumer, .. }) = serving else {
            self.heard = None;
            return false;
        };
        if self.heard.as_ref().is_some_and(|heard| Arc::ptr_eq(&heard.target, &target)) {
            return false;
        }
        let changes = target.changes().listen();
        let health = ConsumerHandle::watch(&consumer);
        self.heard = Some(Heard { target, changes, health });
        std::mem::replace(&mut self.has_heard, true)
    }

    fn change(&self, key: String, value: Option<Bytes>) -> Result<ModelChange<T>, QueryError> {
        let Some(value) = value else { return Ok(ModelChange::Removed { key }) };
        match Cbor::decode(&value) {
            Ok(value) => Ok(ModelChange::Put { key, value }),
            Err(error) => {
                let projection = self.maintained.name().clone();
                let build = self.maintained.serving();
                Err(QueryError::Decode { projection, build, key, error })
            }
        }
    }
}

/// Waits until a consumer has stopped for another reason than a build that takes its place.
async fn ended(health: &mut watch::Receiver<ConsumerHealth>) {
    let is_over = |it: &ConsumerHealth| match &it.state {
        ConsumerState::Stopped(reason) => *reason != StopReason::Asked,
        _ => false,
    };
    if health.wait_for(is_over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl<T> fmt::Debug for ModelChanges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelChanges").field("of", &self.maintained).finish_non_exhaustive()
    }
}
