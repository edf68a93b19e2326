//! The changes of a read model, as they happen.

use std::{collections::VecDeque, fmt, sync::Arc};

use bytes::Bytes;
use factum_consumer::{ConsumerHandle, ConsumerHealth, ConsumerState, StopReason};
use factum_kernel::{Cbor, Codec};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};

use super::QueryError;

use crate::{
    documents::{Changed, Documents},
    maintain::{Local, Maintained, RunningBuild},
    model_build::REFRESH,
};

/// A change of a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelChange<T> {
    /// A document was added or replaced.
    Put {
        /// The key of the document.
        key: String,
        /// The document.
        value: T,
    },
    /// A document was removed.
    Removed {
        /// The key of the document.
        key: String,
    },
    /// Changes may have been missed: the listener was slow, another build took over, or the
    /// projection restarted after a failure. Read the model again, and continue to listen. It is
    /// also sent once a second while another process works on the model or on partitions of it.
    Missed,
}

/// The changes of the documents that readers see, while this process maintains them.
///
/// A slow listener never delays the projection. Changes wait in a buffer of 64 batches; a listener
/// that falls behind the buffer gets [`ModelChange::Missed`].
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
    subscribed: Option<Subscribed>,
    has_subscribed: bool,
    waiting: VecDeque<(String, Option<Bytes>)>,
    kind: std::marker::PhantomData<fn() -> T>,
}

/// The target that this listener has subscribed to.
struct Subscribed {
    target: Arc<Documents>,
    changes: broadcast::Receiver<Changed>,
    health: watch::Receiver<ConsumerHealth>,
}

impl<T: DeserializeOwned> ModelChanges<T> {
    pub(super) fn new(maintained: &Maintained<Documents>) -> Self {
        let mut changes = Self {
            maintained: maintained.clone(),
            local: maintained.local(),
            subscribed: None,
            has_subscribed: false,
            waiting: VecDeque::new(),
            kind: std::marker::PhantomData,
        };
        // Changes count from here on, not from the first `next`.
        changes.subscribe();
        changes
    }

    /// Returns the next change; `None` when this process does not maintain the read model any more.
    ///
    /// # Errors
    /// [`QueryError::Decode`] for a document of another shape. Later changes can still be received.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Option<Result<ModelChange<T>, QueryError>> {
        loop {
            if let Some((key, value)) = self.waiting.pop_front() {
                return Some(self.change(key, value));
            }
            if self.subscribe() {
                return Some(Ok(ModelChange::Missed));
            }
            let clock = self.maintained.stored().kernel().clock().clone();
            let Some(subscribed) = &mut self.subscribed else {
                self.local.changed().await.ok()?;
                continue;
            };
            tokio::select! {
                biased;
                changed = subscribed.changes.recv() => match changed {
                    Ok(Changed::Documents(changed)) => self.waiting.extend(changed.iter().cloned()),
                    Ok(Changed::Unknown) | Err(broadcast::error::RecvError::Lagged(_)) => {
                        return Some(Ok(ModelChange::Missed));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                changed = self.local.changed() => changed.ok()?,
                () = clock.sleep(REFRESH), if subscribed.health.borrow().elsewhere > 0 => {
                    // Changes of another process reach only the listeners there.
                    return Some(Ok(ModelChange::Missed));
                }
                () = ended(&mut subscribed.health) => return None,
            }
        }
    }

    /// Subscribes to the build that readers see now. Returns true if it is another build than
    /// before.
    fn subscribe(&mut self) -> bool {
        let serving = self.local.borrow_and_update().serving.clone();
        let Some(RunningBuild { target, consumer, .. }) = serving else {
            self.subscribed = None;
            return false;
        };
        if self
            .subscribed
            .as_ref()
            .is_some_and(|subscribed| Arc::ptr_eq(&subscribed.target, &target))
        {
            return false;
        }
        let changes = target.changes().subscribe();
        let health = ConsumerHandle::watch(&consumer);
        self.subscribed = Some(Subscribed { target, changes, health });
        std::mem::replace(&mut self.has_subscribed, true)
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

/// Waits until a consumer has stopped, unless it stopped because another build took its place.
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
