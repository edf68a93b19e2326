//! What a model in memory is told: pauses, and parked events on their way back.

use factum_consumer::{
    ConsumerState, Release, ReleaseError, StopReason,
    part::{Chunk, ORDERS_EVERY, Order, StoredLetter, left_orders, next_order, next_parked},
};
use factum_kernel::{
    Event, ExpectedRevision, Position, RecordedEvent, StreamId, StreamVersion, WriteBatch,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{mpsc::error::TryRecvError, oneshot};

use super::folding::{End, Folding, Life};

type Answer = oneshot::Sender<Result<(), ReleaseError>>;

/// A release that is under way.
pub(super) struct Redo {
    stream: StreamId,
    release: Release,
    answer: Option<Answer>,
    /// It is done when the model is there.
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
    pub(super) async fn take_orders(&mut self, life: &mut Life) -> Result<(), End> {
        loop {
            let order = if self.is_paused && !self.is_made_again() {
                self.health.tell(ConsumerState::Paused);
                next_order(&mut self.orders, &self.health).await
            } else {
                match self.order_at_hand() {
                    Some(order) => order,
                    None => return Ok(()),
                }
            };
            self.obey(life, order).await?;
        }
    }

    /// Whether the model is not where it was yet. It is made again also while it is paused: readers
    /// wait for it, and so does whoever has asked for a release.
    fn is_made_again(&self) -> bool {
        self.redo.is_some() || self.health.position() < self.shown.position()
    }

    pub(super) async fn obey(&mut self, life: &mut Life, order: Order) -> Result<(), End> {
        match order {
            Order::Release(stream, release, answer) => {
                self.release(life, &stream, release, Some(answer)).await
            }
            order => self.obey_meanwhile(order, ""),
        }
    }

    fn order_at_hand(&mut self) -> Option<Order> {
        match self.orders.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => self.health.is_halted().then_some(Order::Stop),
            Err(TryRecvError::Disconnected) => Some(Order::Stop),
        }
    }

    /// What can be done at any time; for the rest there is this answer.
    fn obey_meanwhile(&mut self, order: Order, told: &str) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.is_paused = true,
            Order::Resume => self.is_paused = false,
            Order::Letters(answer) => {
                let letters = self.letters.iter().map(|(stream, letter)| letter.open(stream));
                let _ = answer.send(letters.collect());
            }
            Order::Release(_, _, answer) => {
                let _ = answer.send(Err(ReleaseError::NotNow(told.into())));
            }
        }
        Ok(())
    }

    /// Waits before another attempt; orders that end it come through.
    pub(super) async fn pause_after(&mut self, error: &str, attempts: u32) -> Result<(), End> {
        self.health.tell(ConsumerState::Retrying { position: None, attempts, error: error.into() });
        let kernel = self.reading.kernel.clone();
        let pause = self.options.failure.pause_before(attempts);
        let pause = pause / 2 + kernel.ids().jitter(pause / 2);
        let mut asleep = kernel.clock().sleep(pause);
        let told = format!("the model waits to try again: {error}");
        loop {
            tokio::select! {
                biased;
                order = next_order(&mut self.orders, &self.health) => {
                    self.obey_meanwhile(order, &told)?;
                }
                () = &mut asleep => break,
            }
        }
        self.health.look_up(&kernel);
        Ok(())
    }

    /// Whether other processes can leave orders while it runs.
    pub(super) fn takes_stored_orders(&self) -> bool {
        self.reading.kernel.events().guarantees().takes_orders
    }

    /// Does what others have ordered, if it is time to look. A store that fails is asked the next
    /// time.
    pub(super) async fn obey_stored(&mut self, life: &mut Life) -> Result<(), End> {
        let now = self.reading.kernel.clock().monotonic();
        let is_due = match self.looked_at {
            None => true,
            Some(at) => self.takes_stored_orders() && now.saturating_since(at) >= ORDERS_EVERY,
        };
        // Amid a release, or while the model is made again, it would not be seen as a whole.
        if !is_due || self.is_made_again() {
            return Ok(());
        }
        self.looked_at = Some(now);
        let documents = self.reading.kernel.documents().clone();
        let Ok(orders) = left_orders(&*documents, &self.name).await else {
            self.looked_at = None;
            return Ok(());
        };
        for (key, order) in orders {
            // What tears the model begins another life: there it would be done again, without end.
            // One that is lost with the process is given again.
            let done = WriteBatch::new().remove(key, ExpectedRevision::Any);
            if documents.write(done).await.is_err() {
                self.looked_at = None;
                continue;
            }
            let Some(stream) = order.parked_in(&self.letters) else { continue };
            self.release(life, &stream, order.release, None)
                .await
                .inspect_err(|_| self.looked_at = None)?;
        }
        Ok(())
    }

    /// Handles what is parked of a stream, the first event again or not at all. The stream waits
    /// on behind the first event that can't be folded.
    async fn release(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
        answer: Option<Answer>,
    ) -> Result<(), End> {
        let until = self.shown.position();
        let mut redo = Redo { stream: stream.clone(), release, answer, until };
        if self.is_made_again() {
            let told = "the model is being made again, try again";
            redo.answer(Err(ReleaseError::NotNow(told.into())));
            return Ok(());
        }
        let Some(letter) = self.letters.get(stream) else {
            redo.answer(Err(ReleaseError::NothingParked(stream.clone())));
            return Ok(());
        };
        if release == Release::Retry {
            self.faults.remove(&Position::new(letter.position));
        }
        self.redo(life, redo).await
    }

    /// Does a release, or does it again. Readers see it as a whole, when it is stored.
    pub(super) async fn redo(&mut self, life: &mut Life, mut redo: Redo) -> Result<(), End> {
        self.shown.hide();
        let outcome = match self.go_through(life, &redo.stream, redo.release).await {
            Ok(outcome) => self.store(life).await.map(|()| outcome),
            Err(end) => Err(end),
        };
        let parked = self.letters.len();
        self.health.change(|health| health.parked = parked);
        match outcome {
            Ok(outcome) => {
                self.shown.reached(self.health.position());
                redo.answer(outcome);
                Ok(())
            }
            // What came before the event that tore the model is done again, when the model is
            // where it was.
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

    /// Folds the parked events of a stream until one can't be.
    async fn go_through(
        &mut self,
        life: &mut Life,
        stream: &StreamId,
        release: Release,
    ) -> Result<Result<(), ReleaseError>, End> {
        let Some(mut letter) = self.letters.get(stream).cloned() else {
            return Ok(Err(ReleaseError::NothingParked(stream.clone())));
        };
        // What is gone by now can't be left out: the next one is another event.
        let left_out = (release == Release::Discard).then_some(letter.version);
        let kernel = self.reading.kernel.clone();
        loop {
            while let Some(order) = self.order_at_hand() {
                self.obey_meanwhile(order, "another stream is being released, try again")?;
            }
            let checkpoint = life.progress.checkpoint;
            let version = StreamVersion::new(letter.version);
            let chunk = match next_parked(&kernel, checkpoint, stream, version).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    self.letters.remove(stream);
                    return Ok(Ok(()));
                }
                Err(error) => return Ok(Err(ReleaseError::NotNow(error.to_string()))),
            };
            let event = &chunk.events()[0];
            let is_wanted = self.wants(event) && left_out != Some(event.version().value());
            if is_wanted && let Some(error) = self.try_parked(&chunk).await? {
                let letter = letter.again(event, error.clone(), kernel.clock().now());
                self.letters.insert(stream.clone(), letter);
                return Ok(Err(ReleaseError::Failed(error)));
            }
            letter = StoredLetter::after(event, kernel.clock().now());
            self.letters.insert(stream.clone(), letter.clone());
            life.weight += 1;
        }
    }

    /// Folds a parked event; why it can't be, perhaps.
    async fn try_parked(&mut self, chunk: &Chunk) -> Result<Option<String>, End> {
        let position = chunk.events()[0].position();
        if let Some(fault) = self.faults.get(&position) {
            return Ok(Some(fault.clone()));
        }
        let folded = self.apply(chunk, &[0]).await?;
        if let Some(fault) = &folded.fault {
            self.is_at_fault(position, fault.clone());
        }
        if folded.is_torn { Err(End::Again) } else { Ok(folded.fault) }
    }
}
