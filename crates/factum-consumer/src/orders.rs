//! The orders of a handle to a running loop.

use factum_kernel::StreamId;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use crate::{dead_letter::DeadLetter, error::ReleaseError, health::Place, stored::Release};

/// The most orders that wait for one loop.
const ORDERS_MAX: usize = 16;

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

/// The orders to one loop. `Stop` is among them once the handle is gone or the whole consumer must
/// stop.
#[derive(Debug)]
pub struct Orders {
    orders: mpsc::Receiver<Order>,
    health: Place,
    /// An order that was taken while it could not be carried out.
    returned: Option<Order>,
}

impl Orders {
    /// The orders to a loop that reports its health here, and the sender of them.
    pub(crate) fn new(health: Place) -> (mpsc::Sender<Order>, Self) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        (sender, Self { orders, health, returned: None })
    }

    /// Waits for the next order.
    ///
    /// # Cancel safety
    /// A dropped future loses nothing.
    pub async fn next(&mut self) -> Order {
        if let Some(order) = self.returned.take() {
            return order;
        }
        tokio::select! {
            biased;
            order = self.orders.recv() => order.unwrap_or(Order::Stop),
            () = self.health.halted() => Order::Stop,
        }
    }

    /// An order that waits already.
    pub fn waiting(&mut self) -> Option<Order> {
        if let Some(order) = self.returned.take() {
            return Some(order);
        }
        match self.orders.try_recv() {
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
