//! Orders that other processes have stored.

use std::time::Duration;

use factum_kernel::{ExpectedRevision, WriteBatch, WriteError};
use tokio::sync::oneshot;

use super::{End, Life, Worker};
use crate::{
    lease::Bell,
    stored::{StoredOrder, left_orders},
    work::Work,
};

/// The interval at which a running consumer looks for stored orders without a bell.
pub const ORDERS_EVERY: Duration = Duration::from_secs(1);
/// The interval with a bell, because an earlier version stores orders without ringing it.
const ORDERS_SELDOM: Duration = Duration::from_secs(60);

impl<W: Work> Worker<W> {
    /// True if other processes can store orders while this consumer runs.
    pub(crate) fn takes_stored_orders(&self) -> bool {
        self.assignment.is_some() || self.reading.kernel.events().guarantees().takes_orders
    }

    /// Carries out the stored orders, if it is time to look. If the store fails, the next step
    /// looks again.
    pub(crate) async fn carry_out_stored(&mut self, life: &mut Life) -> Result<(), End> {
        let now = self.reading.kernel.clock().monotonic();
        let has_rung = self.bell.as_mut().is_some_and(Bell::take_ring);
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
            self.carry_out_stored_one(life, order).await.inspect_err(|_| self.looked_at = None)?;
            let done = WriteBatch::new().remove(key, ExpectedRevision::Any);
            // An order that stays has no effect once its event is no longer parked.
            let _: Result<_, WriteError> = documents.write(done).await;
        }
        self.looked_at = Some(now);
        Ok(())
    }

    /// Carries out one order. If the event fails again, its dead letter holds the error.
    async fn carry_out_stored_one(
        &mut self,
        life: &mut Life,
        order: StoredOrder,
    ) -> Result<(), End> {
        let Some(stream) = order.parked_in(&self.letters) else { return Ok(()) };
        let (answer, _) = oneshot::channel();
        self.release(life, &stream, order.release, answer).await
    }
}
