//! The orders to a worker, between batches and during a wait.

use factum_kernel::Position;
use tokio::sync::{mpsc::error::TryRecvError, oneshot};

use super::{End, Life, Worker, next_order, to_leave};
use crate::{
    error::ReleaseError,
    handle::Order,
    health::{ConsumerState, StopReason},
    letter::DeadLetter,
    work::Work,
};

impl<W: Work> Worker<W> {
    pub(super) async fn take_orders(&mut self, life: &mut Life) -> Result<(), End> {
        loop {
            let order = if self.machine.is_paused() {
                self.health.tell(ConsumerState::Paused);
                tokio::select! {
                    biased;
                    order = next_order(&mut self.orders, &self.health) => order,
                    () = to_leave(&mut self.seat) => return Err(End::Unseated),
                }
            } else {
                match self.order_at_hand() {
                    Some(order) => order,
                    None => return Ok(()),
                }
            };
            self.obey(life, order).await?;
        }
    }

    pub(super) async fn obey(&mut self, life: &mut Life, order: Order) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.machine.pause(true),
            Order::Resume => self.machine.pause(false),
            Order::Letters(answer) => self.tell_letters(answer),
            Order::Release(stream, release, answer) => {
                return self.release(life, &stream, release, answer).await;
            }
        }
        Ok(())
    }

    fn order_at_hand(&mut self) -> Option<Order> {
        match self.orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => self.health.is_halted().then_some(Order::Stop),
            Err(TryRecvError::Disconnected) => Some(Order::Stop),
        }
    }

    fn tell_letters(&self, answer: oneshot::Sender<Vec<DeadLetter>>) {
        let letters = self.letters.iter().map(|(stream, letter)| letter.open(stream));
        let _ = answer.send(letters.collect());
    }

    /// Waits before another attempt. Orders are taken meanwhile, and a stop ends the wait.
    pub(crate) async fn pause_after(
        &mut self,
        error: &str,
        position: Option<Position>,
        attempts: u32,
    ) -> Result<(), End> {
        self.health.tell(ConsumerState::Retrying { position, attempts, error: error.into() });
        let pause = self.options.failure.pause_before(attempts);
        let kernel = self.reading.kernel.clone();
        let pause = pause / 2 + kernel.ids().jitter(pause / 2);
        let mut asleep = kernel.clock().sleep(pause);
        let told = format!("the consumer waits to try again: {error}");
        loop {
            tokio::select! {
                biased;
                order = next_order(&mut self.orders, &self.health) => {
                    self.obey_meanwhile(order, &told)?;
                }
                () = to_leave(&mut self.seat) => return Err(End::Unseated),
                () = &mut asleep => break,
            }
        }
        self.health.look_up(&self.reading.kernel);
        Ok(())
    }

    /// Carries out an order during another action. A release is refused with `reason`.
    pub(super) fn obey_meanwhile(&mut self, order: Order, told: &str) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.machine.pause(true),
            Order::Resume => self.machine.pause(false),
            Order::Letters(answer) => self.tell_letters(answer),
            Order::Release(_, _, answer) => {
                let _ = answer.send(Err(ReleaseError::NotNow(told.into())));
            }
        }
        Ok(())
    }

    /// Takes the waiting orders during a long action.
    pub(crate) fn glance(&mut self, told: &str) -> Result<(), End> {
        while let Some(order) = self.order_at_hand() {
            self.obey_meanwhile(order, told)?;
        }
        Ok(())
    }
}
