//! The orders to a worker, between batches and during a wait.

use factum_kernel::Position;
use tokio::sync::oneshot;

use super::{End, Life, Worker, revoked};
use crate::{
    dead_letter::DeadLetter,
    error::ReleaseError,
    health::{ConsumerState, StopReason},
    orders::Order,
    work::Work,
};

impl<W: Work> Worker<W> {
    pub(super) async fn take_orders(&mut self, life: &mut Life) -> Result<(), End> {
        loop {
            let order = if self.machine.is_paused() {
                self.health.tell(ConsumerState::Paused);
                tokio::select! {
                    biased;
                    order = self.orders.next() => order,
                    () = revoked(&mut self.assignment) => return Err(End::Unassigned),
                }
            } else {
                match self.orders.waiting() {
                    Some(order) => order,
                    None => return Ok(()),
                }
            };
            self.carry_out(life, order).await?;
        }
    }

    pub(super) async fn carry_out(&mut self, life: &mut Life, order: Order) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.machine.pause(true),
            Order::Resume => self.machine.pause(false),
            Order::Letters(answer) => self.answer_letters(answer),
            Order::Release(stream, release, answer) => {
                return self.release(life, &stream, release, answer).await;
            }
        }
        Ok(())
    }

    pub(super) fn answer_letters(&self, answer: oneshot::Sender<Vec<DeadLetter>>) {
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
        let refusal = format!("the consumer waits to try again: {error}");
        loop {
            tokio::select! {
                biased;
                order = self.orders.next() => {
                    self.carry_out_meanwhile(order, &refusal)?;
                }
                () = revoked(&mut self.assignment) => return Err(End::Unassigned),
                () = &mut asleep => break,
            }
        }
        self.health.look_up(&self.reading.kernel);
        Ok(())
    }

    /// Carries out an order during another action. A release is refused with `refusal`.
    pub(super) fn carry_out_meanwhile(&mut self, order: Order, refusal: &str) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.machine.pause(true),
            Order::Resume => self.machine.pause(false),
            Order::Letters(answer) => self.answer_letters(answer),
            Order::Release(_, _, answer) => {
                let _ = answer.send(Err(ReleaseError::NotNow(refusal.into())));
            }
        }
        Ok(())
    }

    /// Takes the waiting orders during a long action.
    pub(crate) fn take_waiting_orders(&mut self, refusal: &str) -> Result<(), End> {
        while let Some(order) = self.orders.waiting() {
            self.carry_out_meanwhile(order, refusal)?;
        }
        Ok(())
    }
}
