//! Waiting for a partition that another process works on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use factum_kernel::{Kernel, StreamId, sentence};

use super::{
    End, Worker,
    machine::{After, Frozen},
    revoked,
};
use crate::{
    dead_letter::{DeadLetter, StoredLetter},
    error::ReleaseError,
    health::{ConsumerState, StopReason},
    lease::Assignment,
    name::ConsumerName,
    orders::Order,
    progress,
    stored::{Release, StoredOrder, store_orders},
    target::{Opened, Target},
    work::Work,
};

/// The interval at which a caller looks for the outcome of an order to another process.
const DONE_EVERY: Duration = Duration::from_millis(50);
/// The number of these looks; the other process looks for orders every second.
const DONE_LOOKS_MAX: u32 = 200;

/// The interval at which a frozen worker reads its progress again.
const FROZEN_EVERY: Duration = Duration::from_secs(1);

impl<W: Work> Worker<W> {
    /// Waits until the partition is assigned to this process.
    pub(super) async fn stand_by(&mut self) -> Result<(), End> {
        if self.assignment.as_ref().is_none_or(Assignment::is_assigned) {
            return Ok(());
        }
        self.health.tell(ConsumerState::StandingBy);
        loop {
            let Self { assignment: Some(assignment), orders, .. } = self else {
                return Ok(());
            };
            let order = tokio::select! {
                biased;
                order = orders.next() => order,
                () = assignment.assigned() => return Ok(()),
            };
            self.carry_out_in_standby(order).await?;
        }
    }

    /// Reads the assignment again after another process has moved the checkpoint.
    pub(super) async fn refresh_assignment(&mut self) -> After {
        loop {
            let Self { assignment: Some(assignment), orders, .. } = self else {
                return After::Begin;
            };
            let order = tokio::select! {
                biased;
                order = orders.next() => order,
                () = assignment.refresh() => break,
            };
            if let Err(end) = self.carry_out_in_standby(order).await {
                return self.machine.ended(end);
            }
        }
        if self.assignment.as_ref().is_some_and(Assignment::is_assigned) {
            // The consumer was rewound from outside, or the process that took over has ended.
            let message = "another process has moved the checkpoint";
            if let Err(end) = self.pause_after(message, None, 1).await {
                return self.machine.ended(end);
            }
        }
        After::Begin
    }

    /// Carries out an order while another process may work on the partition.
    async fn carry_out_in_standby(&mut self, order: Order) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.machine.pause(true),
            Order::Resume => self.machine.pause(false),
            Order::Letters(answer) => {
                let _ = answer.send(self.stored_letters().await);
            }
            Order::Release(stream, release, answer) => {
                // Answer when the other process is done; this worker stands by meanwhile.
                let kernel = self.reading.kernel.clone();
                let name = self.name.clone();
                let remote = RemoteOrder { kernel, name, target: self.target.target().clone() };
                tokio::spawn(async move {
                    let _ = answer.send(remote.release(&stream, release).await);
                });
            }
        }
        Ok(())
    }

    /// The stored dead letters of the partition; empty if they can't be read.
    async fn stored_letters(&self) -> Vec<DeadLetter> {
        self.target.look(&self.name).await.map(|it| letters(&it)).unwrap_or_default()
    }

    /// Waits while another consumer is about to take this one's place: later events belong to that
    /// one. If one process runs both, that process stops this one.
    pub(super) async fn wait_while_frozen(&mut self, frozen_by: u64) -> Result<(), End> {
        match self.machine.frozen(frozen_by) {
            Frozen::No => return Ok(()),
            Frozen::Wait => {}
            // The attempt may have been stopped for long and continue now: its write must fail
            // before this worker continues.
            Frozen::Forbid if self.forbid_handover().await => return Ok(()),
            Frozen::Forbid => {}
        }
        self.health.tell(ConsumerState::Paused);
        let clock = self.reading.kernel.clock().clone();
        let mut pause = clock.sleep(FROZEN_EVERY);
        loop {
            tokio::select! {
                biased;
                order = self.orders.next() => {
                    let refusal = "another consumer is about to take this one's place";
                    self.carry_out_meanwhile(order, refusal)?;
                }
                () = revoked(&mut self.assignment) => return Err(End::Unassigned),
                () = &mut pause => return Err(End::Reopen),
            }
        }
    }

    /// Makes every handover fail that has begun by now.
    async fn forbid_handover(&self) -> bool {
        match &self.handover {
            Some(handover) => handover.forbid().await,
            None => true,
        }
    }
}

/// An order to the process that works on a partition.
struct RemoteOrder<T> {
    kernel: Kernel,
    name: ConsumerName,
    target: Arc<T>,
}

impl<T: Target> RemoteOrder<T> {
    /// Stores the order, and waits for its outcome.
    async fn release(&self, stream: &StreamId, release: Release) -> Result<(), ReleaseError> {
        let before = self.letter(stream).await?;
        let before = before.ok_or_else(|| ReleaseError::NothingParked(stream.clone()))?;
        let orders = [(self.name.clone(), StoredOrder::of(&before, release))];
        store_orders(&self.kernel, &orders)
            .await
            .map_err(|e| ReleaseError::NotNow(sentence(&e)))?;
        for _ in 0..DONE_LOOKS_MAX {
            self.kernel.clock().sleep(DONE_EVERY).await;
            match self.letter(stream).await? {
                None => return Ok(()),
                Some(letter) if letter == before => {}
                // The release has handled an event and continues with the next one.
                Some(letter) if letter.attempts == 0 && !letter.is_unread => {}
                Some(letter) => return Err(ReleaseError::Failed(letter.error)),
            }
        }
        let message = "another process has not carried out the order yet, look at the dead letters";
        Err(ReleaseError::NotNow(message.into()))
    }

    async fn letter(&self, stream: &StreamId) -> Result<Option<DeadLetter>, ReleaseError> {
        let opened = self.target.look(&self.name).await;
        let opened = opened.map_err(|e| ReleaseError::NotNow(sentence(&e)))?;
        Ok(letters(&opened).into_iter().find(|letter| letter.stream == *stream))
    }
}

fn letters(opened: &Opened) -> Vec<DeadLetter> {
    let open = |(stream, letter): &(_, Bytes)| {
        let letter: StoredLetter = progress::decode(letter).ok()?;
        Some(letter.open(stream))
    };
    opened.letters.iter().filter_map(open).collect()
}
