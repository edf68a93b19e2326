//! Waiting for a partition that another process works on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use factum_kernel::{Kernel, StreamId};

use super::{
    End, Worker,
    machine::{After, Held},
    next_order, to_leave,
};
use crate::{
    error::ReleaseError,
    handle::Order,
    health::{ConsumerState, StopReason},
    lease::Seat,
    letter::{DeadLetter, Letter},
    name::ConsumerName,
    progress,
    stored::{Release, StoredOrder, leave_orders},
    target::{Opened, Target},
    work::Work,
};

/// What came of an order for another process is looked at so often,
const DONE_EVERY: Duration = Duration::from_millis(50);
/// and so many times: that one looks for orders every second.
const DONE_LOOKS_MAX: u32 = 200;

/// What is held is looked at so often.
const HELD_EVERY: Duration = Duration::from_secs(1);

impl<W: Work> Worker<W> {
    /// Waits until the partition is this process's.
    pub(super) async fn stand_by(&mut self) -> Result<(), End> {
        if self.seat.as_ref().is_none_or(Seat::is_mine) {
            return Ok(());
        }
        self.health.tell(ConsumerState::StandingBy);
        loop {
            let Self { seat: Some(seat), orders, health, .. } = self else { return Ok(()) };
            let order = tokio::select! {
                biased;
                order = next_order(orders, health) => order,
                () = seat.mine() => return Ok(()),
            };
            self.obey_standing_by(order).await?;
        }
    }

    /// After somebody else has moved the checkpoint: whose is the partition?
    pub(super) async fn look_again(&mut self) -> After {
        loop {
            let Self { seat: Some(seat), orders, health, .. } = self else { return After::Begin };
            let order = tokio::select! {
                biased;
                order = next_order(orders, health) => order,
                () = seat.look_again() => break,
            };
            if let Err(end) = self.obey_standing_by(order).await {
                return self.machine.ended(end);
            }
        }
        if self.seat.as_ref().is_some_and(Seat::is_mine) {
            // It was rewound from outside, or who took over is gone again.
            let told = "somebody else has moved the checkpoint";
            if let Err(end) = self.pause_after(told, None, 1).await {
                return self.machine.ended(end);
            }
        }
        After::Begin
    }

    /// What can be done about a partition that is another's, perhaps.
    async fn obey_standing_by(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.machine.pause(true),
            Order::Resume => self.machine.pause(false),
            Order::Letters(answer) => {
                let _ = answer.send(self.stored_letters().await);
            }
            Order::Release(stream, release, answer) => {
                // Told when it is done, and meanwhile this one goes on to stand by.
                let kernel = self.reading.kernel.clone();
                let name = self.name.clone();
                let asked = Asked { kernel, name, target: self.target.target().clone() };
                tokio::spawn(async move {
                    let _ = answer.send(asked.release(&stream, release).await);
                });
            }
        }
        Ok(())
    }

    /// What is parked, by whoever works on it. What can't be read is not known.
    async fn stored_letters(&self) -> Vec<DeadLetter> {
        self.target.look(&self.name).await.map(|it| letters(&it)).unwrap_or_default()
    }

    /// Waits while another consumer is about to take this one's place: what comes now is to come in
    /// that one. Where one process runs both, this one is stopped.
    pub(super) async fn thaw(&mut self, frozen_by: u64) -> Result<(), End> {
        match self.machine.held(frozen_by) {
            Held::No => return Ok(()),
            Held::Rest => {}
            // Whoever holds it may have stood still, and go on now: what it is about to write has
            // to fail before this one goes on.
            Held::Forbid if self.forbid_handover().await => return Ok(()),
            Held::Forbid => {}
        }
        self.health.tell(ConsumerState::Paused);
        let clock = self.reading.kernel.clock().clone();
        let mut rest = clock.sleep(HELD_EVERY);
        loop {
            tokio::select! {
                biased;
                order = next_order(&mut self.orders, &self.health) => {
                    self.obey_meanwhile(order, "another consumer is about to take its place")?;
                }
                () = to_leave(&mut self.seat) => return Err(End::Unseated),
                () = &mut rest => return Err(End::Reopen),
            }
        }
    }

    /// Lets every try fail that has begun by now to let another take its place.
    async fn forbid_handover(&self) -> bool {
        match &self.handover {
            Some(handover) => handover.forbid().await,
            None => true,
        }
    }
}

/// An order for the process that works on a partition.
struct Asked<T> {
    kernel: Kernel,
    name: ConsumerName,
    target: Arc<T>,
}

impl<T: Target> Asked<T> {
    /// Leaves the order in the store, and waits for what comes of it.
    async fn release(&self, stream: &StreamId, release: Release) -> Result<(), ReleaseError> {
        let before = self.letter(stream).await?;
        let before = before.ok_or_else(|| ReleaseError::NothingParked(stream.clone()))?;
        let orders = [(self.name.clone(), StoredOrder::of(&before, release))];
        leave_orders(&self.kernel, &orders)
            .await
            .map_err(|e| ReleaseError::NotNow(e.to_string()))?;
        for _ in 0..DONE_LOOKS_MAX {
            self.kernel.clock().sleep(DONE_EVERY).await;
            match self.letter(stream).await? {
                None => return Ok(()),
                Some(letter) if letter == before => {}
                // On its way behind an event that is done with.
                Some(letter) if letter.attempts == 0 => {}
                Some(letter) => return Err(ReleaseError::Failed(letter.error)),
            }
        }
        let told = "another process works on it, and has not done it yet: see its dead letters";
        Err(ReleaseError::NotNow(told.into()))
    }

    async fn letter(&self, stream: &StreamId) -> Result<Option<DeadLetter>, ReleaseError> {
        let opened = self.target.look(&self.name).await;
        let opened = opened.map_err(|e| ReleaseError::NotNow(e.to_string()))?;
        Ok(letters(&opened).into_iter().find(|letter| letter.stream == *stream))
    }
}

fn letters(opened: &Opened) -> Vec<DeadLetter> {
    let open = |(stream, letter): &(_, Bytes)| {
        let letter: Letter = progress::decode(letter).ok()?;
        Some(letter.open(stream))
    };
    opened.letters.iter().filter_map(open).collect()
}
