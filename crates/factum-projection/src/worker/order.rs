//! Orders that others have left in the store.

use std::time::Duration;

use factum_core::{ExpectedRevision, ScanQuery, StreamId, WriteBatch, WriteError, Writers};

use super::{End, Life, Worker};
use crate::{
    progress,
    stored::{self, StoredOrder},
    work::Work,
};

/// How often a running consumer looks for orders, where others may leave some.
pub(crate) const ORDERS_EVERY: Duration = Duration::from_secs(1);

impl<W: Work> Worker<W> {
    /// Whether other processes can leave orders while it runs.
    pub(crate) fn takes_stored_orders(&self) -> bool {
        self.reading.kernel.events().guarantees().writers == Writers::ManyProcesses
    }

    /// Does what was ordered, if it is time to look. A store that fails is asked the next time.
    pub(crate) async fn obey_stored(&mut self, life: &mut Life) -> Result<(), End> {
        let now = self.reading.kernel.clock().now();
        let is_due = match self.looked_at {
            None => true,
            Some(at) => self.takes_stored_orders() && now.saturating_since(at) >= ORDERS_EVERY,
        };
        if !is_due {
            return Ok(());
        }
        self.looked_at = Some(now);
        let documents = self.reading.kernel.documents().clone();
        let Ok(page) = documents.scan(ScanQuery::new(stored::orders(&self.name))).await else {
            return Ok(());
        };
        for document in page.documents {
            let order = progress::decode::<StoredOrder>(&document.value).ok();
            let stream = order.as_ref().and_then(|it| it.stream.parse::<StreamId>().ok());
            if let (Some(order), Some(stream)) = (order, stream) {
                // What it says stays with the letter, if it fails again.
                let _ = self.release(life, &stream, order.release).await?;
            }
            let done = WriteBatch::new().remove(document.key, ExpectedRevision::Any);
            // An order that stays is obeyed again: a stream that is parked no more is no error.
            let _: Result<_, WriteError> = documents.write(done).await;
        }
        Ok(())
    }
}
