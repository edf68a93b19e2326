//! The bell: a document that is written together with everything that other processes should look
//! for. Each process reads it in its scan of the leases, and looks for the rest when the bell's
//! revision has changed.

use factum_kernel::{ExpectedRevision, Revision, WriteBatch};
use tokio::sync::watch;

use super::stored::bell_key;

/// Adds the bell to a write: other processes then look within their next scan of the leases.
pub fn ring(batch: WriteBatch) -> WriteBatch {
    batch.put(bell_key(), ExpectedRevision::Any, "")
}

/// The bell, as this process has last read it.
#[derive(Debug, Clone)]
pub struct Bell(pub(super) watch::Receiver<Revision>);

impl Bell {
    /// True if the bell has rung since the last call.
    pub fn take_ring(&mut self) -> bool {
        // One call for both: a ring between two calls would be lost.
        self.0.borrow_and_update().has_changed()
    }

    /// Waits until the bell rings; [`take_ring`](Self::take_ring) then returns true as well.
    pub async fn rung(&self) {
        if self.0.clone().changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
