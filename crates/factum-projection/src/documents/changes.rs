//! What has changed in documents, told to whoever listens.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::DocumentsTx;

/// Batches that wait for the slowest listener. One that falls behind them is told so.
pub(crate) const CHANGES_BATCHES_MAX: usize = 64;

/// The changes of a batch, or none that can be named.
#[derive(Debug, Clone)]
pub(crate) enum Changed {
    Documents(Arc<[(String, Option<Bytes>)]>),
    /// Something may have been stored that nobody was told of.
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
    pub(crate) fn listen(&self) -> broadcast::Receiver<Changed> {
        self.0.subscribe()
    }

    /// A batch is stored.
    pub(super) fn tell(&self, tx: &DocumentsTx) {
        if self.0.receiver_count() == 0 {
            return;
        }
        let changed = tx.changed().map(|(key, _, after)| (key.into(), after.cloned()));
        let changed: Arc<[_]> = changed.collect();
        if !changed.is_empty() {
            let _ = self.0.send(Changed::Documents(changed));
        }
    }

    /// What is stored is looked at again: the answer to a write may have been lost.
    pub(super) fn missed(&self) {
        let _ = self.0.send(Changed::Unknown);
    }
}
