//! The orders to a running consumer, as its loop takes them.

use factum_kernel::StreamId;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use crate::{dead_letter::DeadLetter, error::ReleaseError, health::Place, stored::Release};

/// An order to a running consumer.
#[derive(Debug)]
pub enum Order {
    /// Stop after the current event.
    Stop,
    /// Wait until it is resumed.
    Pause,
    /// Continue after a pause.
    Resume,
    /// Answer with the dead letters.
    Letters(oneshot::Sender<Vec<DeadLetter>>),
    /// Handle or discard the parked event of a stream, then handle the later events of the stream
    /// that wait for it.
    Release(StreamId, Release, oneshot::Sender<Result<(), ReleaseError>>),
}

/// The orders to one loop. `Stop` comes also if the handle is gone or the whole consumer must stop.
#[derive(Debug)]
pub struct Orders {
    sent: mpsc::Receiver<Order>,
    health: Place,
    /// An order that was taken while it could not be carried out.
    returned: Option<Order>,
}

impl Orders {
    pub(crate) fn new(sent: mpsc::Receiver<Order>, health: Place) -> Self {
        Self { sent, health, returned: None }
    }

    /// The next order.
    ///
    /// # Cancel safety
    /// No order is lost.
    pub async fn next(&mut self) -> Order {
        if let Some(order) = self.returned.take() {
            return order;
        }
        tokio::select! {
            biased;
            order = self.sent.recv() => order.unwrap_or(Order::Stop),
            () = self.health.halted() => Order::Stop,
        }
    }

    /// The next order, if one waits.
    pub fn waiting(&mut self) -> Option<Order> {
        if let Some(order) = self.returned.take() {
            return Some(order);
        }
        match self.sent.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => self.health.is_halted().then_some(Order::Stop),
            Err(TryRecvError::Disconnected) => Some(Order::Stop),
        }
    }

    /// Returns an order, which is the next one again.
    pub(crate) fn put_back(&mut self, order: Order) {
        debug_assert!(self.returned.is_none(), "only the order that was taken last is put back");
        self.returned = Some(order);
    }
}
