//! Orders that others have left in the store.

use std::time::Duration;

use factum_kernel::{ExpectedRevision, WriteBatch, WriteError};
use tokio::sync::oneshot;

use super::{End, Life, Worker};
use crate::{
    lease::Bell,
    stored::{StoredOrder, left_orders},
    work::Work,
};

/// How often a running consumer looks for orders, where others may leave some and it hears of none.
pub const ORDERS_EVERY: Duration = Duration::from_secs(1);
/// How often it looks although it would hear of them: an earlier version may have left some.
const ORDERS_SELDOM: Duration = Duration::from_secs(60);

impl<W: Work> Worker<W> {
    /// Whether other processes can leave orders while it runs.
    pub(crate) fn takes_stored_orders(&self) -> bool {
        self.seat.is_some() || self.reading.kernel.events().guarantees().takes_orders
    }

    /// Does what was ordered, if it is time to look. A store that fails is asked the next time.
    pub(crate) async fn obey_stored(&mut self, life: &mut Life) -> Result<(), End> {
        let now = self.reading.kernel.clock().monotonic();
        let has_rung = self.bell.as_mut().is_some_and(Bell::has_rung);
        let every = if self.bell.is_some() { ORDERS_SELDOM } else { ORDERS_EVERY };
        let is_due = match self.looked_at {
            None => true,
            Some(_) if has_rung => true,
            Some(at) => self.takes_stored_orders() && now.saturating_since(at) >= every,
        };
        if !is_due {
            return Ok(());
        }
        let documents = self.reading.kernel.documents().clone();
        let Ok(orders) = left_orders(&*documents, &self.name).await else {
            self.looked_at = None;
            return Ok(());
        };
        for (key, order) in orders {
            self.obey_stored_one(life, order).await.inspect_err(|_| self.looked_at = None)?;
            let done = WriteBatch::new().remove(key, ExpectedRevision::Any);
            // If it stays, it means an event that is parked no more.
            let _: Result<_, WriteError> = documents.write(done).await;
        }
        self.looked_at = Some(now);
        Ok(())
    }

    /// What it says of an event that fails again stays with the letter.
    async fn obey_stored_one(&mut self, life: &mut Life, order: StoredOrder) -> Result<(), End> {
        let Some(stream) = order.parked_in(&self.letters) else { return Ok(()) };
        let (answer, _) = oneshot::channel();
        self.release(life, &stream, order.release, answer).await
    }
}
