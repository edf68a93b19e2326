//! The changes of documents, sent to the listeners of this process.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::DocumentsTx;

/// The most batches that wait for the slowest listener. A listener that is further behind learns
/// that it missed some.
pub(crate) const CHANGES_BATCHES_MAX: usize = 64;

/// The changes of a batch, or a notice that they are unknown.
#[derive(Debug, Clone)]
pub(crate) enum Changed {
    /// The keys and values of the changed documents; without a value the document was removed.
    Documents(Arc<[(String, Option<Bytes>)]>),
    /// Changes may have been stored that were not sent.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Changes(broadcast::Sender<Changed>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::channel(CHANGES_BATCHES_MAX).0)
    }
}

impl Changes {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Changed> {
        self.0.subscribe()
    }

    /// Sends the changes of a stored batch.
    pub(super) fn publish(&self, tx: &DocumentsTx) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let changed = tx.changed().map(|(key, entry)| (key.into(), entry.value.clone()));
        let changed: Arc<[_]> = changed.collect();
        if !changed.is_empty() {
            let _ = self.0.send(Changed::Documents(changed));
        }
    }

    /// Sends [`Changed::Unknown`], because the answer to a write may have been lost.
    pub(super) fn publish_unknown(&self) {
        let _ = self.0.send(Changed::Unknown);
    }
}
