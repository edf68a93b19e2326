//! The orders to a model in memory: pauses, and releases of parked events.

use factum_consumer::{
    ConsumerState, Release, ReleaseError, StopReason,
    part::{Chunk, ORDERS_EVERY, Order, StoredLetter, left_orders, next_parked},
};
use factum_kernel::{
    Event, ExpectedRevision, Position, RecordedEvent, StreamId, StreamVersion, WriteBatch, sentence,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use super::{
    apply::Fault,
    folding::{End, Folding, Run},
};

type Answer = oneshot::Sender<Result<(), ReleaseError>>;

/// A release of a parked stream that is under way.
pub(super) struct Redo {
    pub(super) stream: StreamId,
    pub(super) release: Release,
    pub(super) answer: Option<Answer>,
    /// The position that the model must reach before the release is repeated.
    pub(super) until: Position,
}

impl Redo {
    fn answer(&mut self, outcome: Result<(), ReleaseError>) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(outcome);
        }
    }
}

impl<M, E, F> Folding<M, E, F>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
{
    pub(super) async fn take_orders(&mut self, run: &mut Run) -> Result<(), End> {
        loop {
            let order = if self.is_paused && !self.is_restoring() {
                self.health.tell(ConsumerState::Paused);
                self.orders.next().await
            } else {
                match self.orders.waiting() {
                    Some(order) => order,
                    None => return Ok(()),
                }
            };
            self.obey(run, order).await?;
        }
    }

    /// Returns true while the model has not reached the position that readers saw. It is restored
    /// even if it is paused, because readers wait for it, and so does the caller of a release.
    pub(super) fn is_restoring(&self) -> bool {
        self.redo.is_some() || self.health.position() < self.shown.position()
    }

    pub(super) async fn obey(&mut self, run: &mut Run, order: Order) -> Result<(), End> {
        match order {
            Order::Release(stream, release, answer) => {
                self.release(run, &stream, release, Some(answer)).await
            }
            order => self.obey_or_refuse(order, ""),
        }
    }

    /// Executes an order that can be executed at any time. A release gets the answer that now is
    /// not the time, with this reason.
    fn obey_or_refuse(&mut self, order: Order, reason: &str) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.is_paused = true,
            Order::Resume => self.is_paused = false,
            Order::Letters(answer) => {
                let letters = self.letters.iter().map(|(stream, letter)| letter.open(stream));
                let _ = answer.send(letters.collect());
            }
            Order::Release(_, _, answer) => {
                let _ = answer.send(Err(ReleaseError::NotNow(reason.into())));
            }
        }
        Ok(())
    }

    /// Waits before another attempt. A stop ends the wait.
    pub(super) async fn pause_after(&mut self, error: &str, attempts: u32) -> Result<(), End> {
        self.health.tell(ConsumerState::Retrying { position: None, attempts, error: error.into() });
        let kernel = self.reading.kernel.clone();
        let pause = self.options.failure.pause_before(attempts);
        let pause = pause / 2 + kernel.ids().jitter(pause / 2);
        let mut asleep = kernel.clock().sleep(pause);
        let reason = format!("the model is waiting before another attempt: {error}");
        loop {
            tokio::select! {
                biased;
                order = self.orders.next() => {
                    self.obey_or_refuse(order, &reason)?;
                }
                () = &mut asleep => break,
            }
        }
        self.health.look_up(&kernel);
        Ok(())
    }

    /// Returns true if other processes can store orders while the model runs.
    pub(super) fn takes_stored_orders(&self) -> bool {
        self.reading.kernel.events().guarantees().takes_orders
    }

    /// Executes the orders that other processes have stored, when it is time to look. After an
    /// error it looks again at the next step.
    pub(super) async fn obey_stored(&mut self, run: &mut Run) -> Result<(), End> {
        let now = self.reading.kernel.clock().monotonic();
        let is_due = match self.looked_at {
            None => true,
            Some(at) => self.takes_stored_orders() && now.saturating_since(at) >= ORDERS_EVERY,
        };
        // Not during a release or a restoration: readers must see a release as a whole.
        if !is_due || self.is_restoring() {
            return Ok(());
        }
        self.looked_at = Some(now);
        let documents = self.reading.kernel.documents().clone();
        let Ok(orders) = left_orders(&*documents, &self.name).await else {
            self.looked_at = None;
            return Ok(());
        };
        for (key, order) in orders {
            // The order is removed before it is executed: an order that tears the model would
            // otherwise be executed again in each run, without end. An order that is lost when the
            // process dies has to be given again.
            let done = WriteBatch::new().remove(key, ExpectedRevision::Any);
            if documents.write(done).await.is_err() {
                self.looked_at = None;
                continue;
            }
            let Some(stream) = order.parked_in(&self.letters) else { continue };
            self.release(run, &stream, order.release, None)
                .await
                .inspect_err(|_| self.looked_at = None)?;
        }
        Ok(())
    }

    /// Releases a parked stream: retries its first event or discards it. The stream waits again at
    /// the first event that can't be folded.
    async fn release(
        &mut self,
        run: &mut Run,
        stream: &StreamId,
        release: Release,
        answer: Option<Answer>,
    ) -> Result<(), End> {
        let until = self.shown.position();
        let mut redo = Redo { stream: stream.clone(), release, answer, until };
        if self.is_restoring() {
            let reason = "the model is being restored, try again";
            redo.answer(Err(ReleaseError::NotNow(reason.into())));
            return Ok(());
        }
        let Some(letter) = self.letters.get(stream) else {
            redo.answer(Err(ReleaseError::NothingParked(stream.clone())));
            return Ok(());
        };
        if release == Release::Retry {
            self.faults.remove(&Position::new(letter.position));
        }
        self.redo(run, redo).await
    }

    /// Executes a release, or repeats it. Readers see its effects as a whole, after they are
    /// stored.
    pub(super) async fn redo(&mut self, run: &mut Run, mut redo: Redo) -> Result<(), End> {
        self.shown.hide();
        let outcome = match self.go_through(run, &redo.stream, redo.release).await {
            Ok(outcome) => self.store(run).await.map(|()| outcome),
            Err(end) => Err(end),
        };
        self.tell_letters();
        match outcome {
            Ok(outcome) => {
                self.shown.reached(self.health.position());
                redo.answer(outcome);
                Ok(())
            }
            // The events before the one that tore the model are folded again, when the restored
            // model has reached its old position.
            Err(End::Again) => {
                self.redo = Some(Redo { until: self.shown.position(), ..redo });
                Err(End::Again)
            }
            Err(end) => {
                redo.answer(Err(ReleaseError::interrupted()));
                Err(end)
            }
        }
    }

    /// Folds the parked events of a stream up to the first that can't be folded.
    async fn go_through(
        &mut self,
        run: &mut Run,
        stream: &StreamId,
        release: Release,
    ) -> Result<Result<(), ReleaseError>, End> {
        let Some(mut letter) = self.letters.get(stream).cloned() else {
            return Ok(Err(ReleaseError::NothingParked(stream.clone())));
        };
        // The version names the discarded event: if that event was deleted meanwhile, the next one
        // is not discarded in its place.
        let left_out = (release == Release::Discard).then_some(letter.version);
        let kernel = self.reading.kernel.clone();
        loop {
            while let Some(order) = self.orders.waiting() {
                self.obey_or_refuse(order, "another stream is being released, try again")?;
            }
            let checkpoint = run.progress.checkpoint;
            let version = StreamVersion::new(letter.version);
            let chunk = match next_parked(&kernel, checkpoint, stream, version).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    self.letters.remove(stream);
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(ReleaseError::NotNow(sentence(&error)))),
            };
            let event = &chunk.events()[0];
            let is_wanted = self.wants(event) && left_out != Some(event.version().value());
            if is_wanted && let Some(fault) = self.try_parked(&chunk).await? {
                let now = kernel.clock().now();
                let letter = match fault.is_unread {
                    true => fault.letter(event, now),
                    false => letter.again(event, &fault.error, now),
                };
                self.letters.insert(stream.clone(), letter);
                return Ok(Err(ReleaseError::Failed(fault.error.to_string())));
            }
            letter = StoredLetter::after(event, kernel.clock().now());
            self.letters.insert(stream.clone(), letter.clone());
            run.weight += 1;
        }
    }

    /// Folds a parked event. Returns the error if it can't be folded.
    async fn try_parked(&mut self, chunk: &Chunk) -> Result<Option<Fault>, End> {
        let position = chunk.events()[0].position();
        if let Some(fault) = self.faults.get(&position) {
            return Ok(Some(fault.clone()));
        }
        let folded = self.apply(chunk, &[0]).await?;
        if let Some(fault) = &folded.fault {
            self.record_fault(position, fault.clone());
        }
        if folded.is_torn { Err(End::Again) } else { Ok(folded.fault) }
    }
}
