//! A document that is written with everything that other processes look for now and then: each
//! reads it with the leases, and looks for the rest when it has moved.

use factum_kernel::{ExpectedRevision, Revision, WriteBatch};
use tokio::sync::watch;

use super::stored::bell_key;

/// Lets other processes look with this write: within their next look at the leases.
pub fn ring(batch: WriteBatch) -> WriteBatch {
    batch.put(bell_key(), ExpectedRevision::Any, "")
}

/// Hears whether it was rung.
#[derive(Debug, Clone)]
pub struct Bell(pub(super) watch::Receiver<Revision>);

impl Bell {
    /// Whether it was rung since this was last asked.
    pub fn has_rung(&mut self) -> bool {
        // Both in one: what is rung between two steps would be taken for seen.
        self.0.borrow_and_update().has_changed()
    }

    /// Waits until it is rung; [`has_rung`](Self::has_rung) says so as well.
    pub async fn rung(&self) {
        if self.0.clone().changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
