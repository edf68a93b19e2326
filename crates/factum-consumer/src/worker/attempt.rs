//! One batch: its events are handled, then stored with the progress. On a failure the state machine
//! decides.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use factum_kernel::{Position, ReadQuery, RecordedEvent, StreamId, sentence};

use super::{
    End, Life, Worker,
    machine::{Batch, Failing, Fault, Next, Unstored},
    revoked,
};
use crate::{
    apart::{Apart, apart},
    checkpoints::layout_key,
    dead_letter::StoredLetter,
    error::HandleError,
    health::StopCause,
    orders::Order,
    progress::{self, Attempt, Mark},
    source::Chunk,
    target::{Save, Target, TargetError},
    work::{Failure, Work},
};

pub(crate) type TxOf<W> = <<W as Work>::Target as Target>::Tx;

/// The time within which the store and the target must answer to count as reachable.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// The outcome of handling a batch.
pub(crate) enum Handled<W: Work> {
    Done {
        tx: TxOf<W>,
        /// The number of handled events: fewer than all after an order to the worker.
        count: usize,
    },
    Failed {
        /// The index of the event that failed, among the wanted ones.
        at: usize,
        error: StopCause,
        fault: Fault,
    },
    /// An outage; no event is at fault.
    Outage {
        /// The index of the event that met it, among the wanted ones.
        at: usize,
        error: HandleError,
    },
}

impl<W: Work> Worker<W> {
    /// Handles the first `count` events of a chunk. Returns the events that remain.
    pub(crate) async fn attempt(
        &mut self,
        life: &mut Life,
        chunk: Chunk,
        count: usize,
    ) -> Result<Option<Chunk>, End> {
        let (batch, rest) = chunk.clone().split(count);
        let wanted = self.taken(&batch);
        if wanted.is_empty() {
            self.passed(life, &batch).await?;
            return Ok(rest);
        }
        let hand = hand(&batch, &wanted);
        match self.machine.next(&hand, self.parked_besides(&batch.events()[wanted[0]])) {
            Next::Handle(note) => self.note(life, note).await?,
            Next::Wait { attempts, error } => {
                self.health.see(&batch, wanted[0]);
                self.wait_before_attempt(life, hand.first, attempts, &error).await?;
                return Ok(Some(chunk));
            }
            Next::Park(failing) => {
                self.park(life, &batch, wanted[0], failing).await?;
                return Ok(rest);
            }
            Next::Stop(reason) => return Err(End::Stop(reason)),
        }
        match self.handle(&batch, &wanted).await? {
            Handled::Done { tx, count } => {
                let (batch, rest) = match wanted.get(count) {
                    Some(next) => chunk.clone().split(*next),
                    None => (batch, rest),
                };
                self.store(life, &batch, &wanted[..count], tx).await.map(
                    |is_stored| match is_stored {
                        true => rest,
                        false => Some(chunk),
                    },
                )
            }
            Handled::Failed { at, error, fault } => {
                let position = batch.events()[wanted[at]].position();
                self.machine.failed(&hand, position, error, fault);
                if fault != Fault::Unread {
                    self.health.count_failure();
                }
                match self.keep(life, &chunk, wanted[at], at).await {
                    Ok(rest) => Ok(rest),
                    Err(error) => Err(self.target_failed(error).await),
                }
            }
            Handled::Outage { at, error } => {
                self.machine.blameless(&hand);
                // If these can't be stored, the next life of this process ignores the note, and
                // handles the kept events again.
                let _ = self.keep(life, &chunk, wanted[at], at).await;
                let _ = self.unnote(life).await;
                Err(self.outage(sentence(&*error)).await)
            }
        }
    }

    /// Stores a batch that was handled. Returns false if its events must be handled again.
    async fn store(
        &mut self,
        life: &mut Life,
        batch: &Chunk,
        wanted: &[usize],
        tx: TxOf<W>,
    ) -> Result<bool, End> {
        let Err(error) = self.commit(life, batch, tx, wanted.len()).await else {
            return Ok(true);
        };
        match self.machine.unstored(&hand(batch, wanted), error) {
            Unstored::Again => {}
            Unstored::Failed => self.health.count_failure(),
            Unstored::Trouble(trouble) => return Err(self.settle(trouble).await),
        }
        Ok(false)
    }

    /// Stores that the first `count` events of a chunk are done, `handled` of them by the handler:
    /// if their effects are elsewhere, they have happened, and a later event of their batch has
    /// failed. Returns the events that remain.
    async fn keep(
        &mut self,
        life: &mut Life,
        chunk: &Chunk,
        count: usize,
        handled: usize,
    ) -> Result<Option<Chunk>, TargetError> {
        if !W::Target::HAS_EFFECTS_ELSEWHERE || handled == 0 {
            return Ok(Some(chunk.clone()));
        }
        let (done, rest) = chunk.clone().split(count);
        let tx = self.target.begin(&self.name, self.options.failure.timeout).await?;
        self.commit(life, &done, tx, handled).await?;
        Ok(rest)
    }

    /// The indexes of the events that must be handled now: they are wanted, and their streams are
    /// not parked. The deletion of a parked stream is handled too, and frees the stream, because
    /// what is parked of it is erased.
    fn taken(&self, batch: &Chunk) -> Vec<usize> {
        let mut freed = Vec::new();
        let mut takes = |event: &RecordedEvent| {
            if !self.wants(event) || self.letters.is_empty() {
                return self.wants(event);
            }
            let stream = event.stream().to_stream_id();
            let is_held = self.letters.contains_key(&stream) && !freed.contains(&stream);
            if is_held && event.is_deletion() {
                freed.push(stream);
            }
            !is_held || event.is_deletion()
        };
        (0..batch.events().len()).filter(|at| takes(&batch.events()[*at])).collect()
    }

    /// The number of parked streams besides that of an event.
    fn parked_besides(&self, event: &RecordedEvent) -> usize {
        let is_other = |stream: &&StreamId| stream.as_ref() != event.stream();
        self.letters.keys().filter(is_other).count()
    }

    /// The parked streams that a handled batch has deleted.
    fn freed(&self, batch: &Chunk) -> Vec<StreamId> {
        if self.letters.is_empty() {
            return Vec::new();
        }
        let deletions = batch.events().iter().filter(|it| it.is_deletion() && self.wants(it));
        let streams = deletions.map(|event| event.stream().to_stream_id());
        streams.filter(|stream| self.letters.contains_key(stream)).collect()
    }

    async fn note(&mut self, life: &mut Life, note: Option<Attempt>) -> Result<(), End> {
        if note.is_none() {
            return Ok(());
        }
        let mark = Mark { attempt: note, ..self.machine.at_work() };
        match self.save(life, Some(mark)).await {
            Ok(fence) => {
                life.saved(life.progress, fence);
                Ok(())
            }
            Err(error) => Err(self.target_failed(error).await),
        }
    }

    /// Waits before the next attempt at an event.
    async fn wait_before_attempt(
        &mut self,
        life: &mut Life,
        first: Position,
        attempts: u32,
        error: &str,
    ) -> Result<(), End> {
        if let Err(error) = self.unnote(life).await {
            return Err(self.target_failed(error).await);
        }
        self.pause_after(error, Some(first), attempts).await
    }

    /// Removes the note before a pause: if the process ends in the pause, the event did not kill
    /// it.
    async fn unnote(&mut self, life: &mut Life) -> Result<(), TargetError> {
        if self.machine.is_cautious() {
            let fence = self.save(life, Some(self.machine.at_work())).await?;
            life.saved(life.progress, fence);
        }
        Ok(())
    }

    /// Handles events. While the store or the target can't be reached, no failure counts against an
    /// event, whatever the handler returns: an error of an unknown kind, a panic, or nothing in
    /// time.
    pub(crate) async fn handle(
        &mut self,
        batch: &Chunk,
        wanted: &[usize],
    ) -> Result<Handled<W>, End> {
        let handled = self.handle_apart(batch, wanted).await?;
        if let Handled::Failed { at, error, fault } = &handled
            && *fault != Fault::Unread
            && let Err(away) = self.check_reachable().await
        {
            return match away.kind().is_outage() {
                true => Ok(Handled::Outage { at: *at, error: format!("{error}; {away}").into() }),
                false => Err(self.target_failed(away).await),
            };
        }
        Ok(handled)
    }

    /// Checks that both halves of the store, which handlers may use, and the target answer.
    async fn check_reachable(&self) -> Result<(), TargetError> {
        let kernel = &self.reading.kernel;
        let looks = async {
            kernel.events().read(ReadQuery::log().backward().with_events_max(1)).await?;
            kernel.documents().get(&layout_key(&self.name.whole())).await?;
            self.target.look(&self.name).await?;
            Ok(())
        };
        tokio::select! {
            biased;
            looked = looks => looked,
            () = kernel.clock().sleep(LOOK_MAX) => {
                let text = format!("the store or the target did not answer within {LOOK_MAX:?}");
                Err(TargetError::Unavailable(Arc::from(HandleError::from(text))))
            }
        }
    }

    /// Handles events in a task of their own: a panic stays in the task, and a handler that never
    /// ends can be given up. After an order to the worker, the current event is the last one.
    async fn handle_apart(&mut self, batch: &Chunk, wanted: &[usize]) -> Result<Handled<W>, End> {
        let event_max = self.options.failure.timeout;
        let tx = match self.target.begin(&self.name, event_max).await {
            Ok(tx) => tx,
            Err(error) => return Err(self.target_failed(error).await),
        };
        let seen = Arc::new(Seen::default());
        let running = run(self.work.clone(), batch.clone(), wanted.to_vec(), tx, seen.clone());
        let task = self.target.spawn(running);
        let clock = self.reading.kernel.clock().clone();
        let outcome = {
            let mut outcome = pin!(apart(task, &seen.begun, event_max, &*clock));
            tokio::select! {
                biased;
                outcome = &mut outcome => outcome,
                () = self.interrupted() => {
                    seen.is_last.store(true, Ordering::Relaxed);
                    outcome.await
                }
            }
        };
        Ok(self.ended(outcome, &seen))
    }

    /// Waits until the worker has something else to do than the rest of its batch.
    async fn interrupted(&mut self) {
        loop {
            let order = tokio::select! {
                biased;
                order = self.orders.next() => order,
                () = revoked(&mut self.assignment) => return,
            };
            match order {
                Order::Letters(answer) => self.answer_letters(answer),
                order => return self.orders.put_back(order),
            }
        }
    }

    fn ended(&self, outcome: Outcome<W>, seen: &Seen) -> Handled<W> {
        let at = seen.begun.load(Ordering::Relaxed);
        let timeout = self.options.failure.timeout;
        let (at, error, fault) = match outcome {
            Apart::Done(Ok((tx, count))) => return Handled::Done { tx, count },
            Apart::Done(Err(Failure::Handler(error)))
                if self.outages.caused(&*error) || self.target.is_to_blame(&error) =>
            {
                return Handled::Outage { at, error };
            }
            Apart::Done(Err(Failure::Handler(error))) => {
                (at, StopCause::new(error), Fault::Passing)
            }
            Apart::Done(Err(Failure::Decode(error))) => (at, StopCause::new(*error), Fault::Unread),
            Apart::Panicked(panic) => {
                (at, StopCause::new(format!("the handler panicked: {panic}")), Fault::Passing)
            }
            Apart::Cancelled => {
                let error = "the runtime of the handler has ended".into();
                return Handled::Outage { at, error };
            }
            Apart::Late { at, keeps_thread } => {
                let kept = if keeps_thread { ", and its handler keeps its thread" } else { "" };
                let error = format!("the event was not handled within {timeout:?}{kept}");
                let fault = if keeps_thread { Fault::Lasting } else { Fault::Passing };
                (at, StopCause::new(error), fault)
            }
        };
        Handled::Failed { at, error, fault }
    }

    /// Stores a batch together with the progress after it.
    async fn commit(
        &mut self,
        life: &mut Life,
        batch: &Chunk,
        tx: TxOf<W>,
        events: usize,
    ) -> Result<(), TargetError> {
        let mut next = life.progress;
        next.checkpoint = batch.events().last().map(|event| batch.checkpoint(event));
        let freed = self.freed(batch);
        let letters = freed.iter().map(|stream| (stream.clone(), None)).collect();
        let save = Save { mark: self.unnoted(), letters, events, ..life.saving(&next) };
        let fence = self.target.commit(&self.name, tx, save).await?;
        life.saved(next, fence);
        self.letters.retain(|stream, _| !freed.contains(stream));
        self.machine.passed(events, batch.through);
        self.report(batch, events as u64);
        Ok(())
    }

    /// The mark without a note; `None` if no notes are taken.
    fn unnoted(&self) -> Option<bytes::Bytes> {
        self.machine
            .is_cautious()
            .then(|| progress::encode_mark(self.machine.at_work(), &self.wanted))
    }

    /// Parks an event whose attempts are used up, or that this program can't read.
    async fn park(
        &mut self,
        life: &mut Life,
        batch: &Chunk,
        at: usize,
        failing: Failing,
    ) -> Result<(), End> {
        let event = &batch.events()[at];
        let now = self.reading.kernel.clock().now();
        let letter = match failing.fault {
            Fault::Unread => StoredLetter::unread(event, &failing.error, now),
            _ => StoredLetter::of(event, &failing.error, failing.attempts, now),
        };
        let mut next = life.progress;
        next.checkpoint = batch.events().last().map(|event| batch.checkpoint(event));
        let stream = event.stream().to_stream_id();
        let letters = vec![(stream.clone(), Some(progress::encode(&letter)))];
        let save = Save { mark: self.unnoted(), letters, ..life.saving(&next) };
        match self.target.save(&self.name, save).await {
            Ok(fence) => life.saved(next, fence),
            Err(error) => return Err(self.target_failed(error).await),
        }
        self.health.log_parked(&stream, &letter);
        let before = self.letters.insert(stream, letter);
        assert!(
            before.is_none() || event.is_deletion(),
            "no event of a parked stream is handled but its deletion: {before:?}"
        );
        self.machine.passed(1, batch.through);
        // The letter shows before the position: a caller that waits must not miss it.
        self.tell_letters();
        self.report(batch, 0);
        Ok(())
    }
}

type Outcome<W> = Apart<Result<(TxOf<W>, usize), Failure>>;

/// The state that a worker shares with the task that handles its batch.
#[derive(Default)]
struct Seen {
    /// The index of the current event, among the wanted ones.
    begun: AtomicUsize,
    /// True if no further event is handled after the current one.
    is_last: AtomicBool,
}

/// Handles the events of a batch. Returns the number of the handled ones.
async fn run<W: Work>(
    work: Arc<W>,
    batch: Chunk,
    wanted: Vec<usize>,
    mut tx: TxOf<W>,
    seen: Arc<Seen>,
) -> Result<(TxOf<W>, usize), Failure> {
    let mut count = 0;
    for at in wanted {
        if count > 0 && seen.is_last.load(Ordering::Relaxed) {
            break;
        }
        seen.begun.store(count, Ordering::Relaxed);
        match work.handle(&batch.events()[at], &mut tx).await {
            Ok(()) => match W::Target::has_ended(&tx) {
                None => {}
                Some(why) => return Err(Failure::Handler(why.into())),
            },
            Err(Failure::Handler(error)) => {
                // Ask the target first: a transaction that its handler has ended can look like an
                // outage, such as a standby.
                let why = W::Target::explain(&mut tx, &error).await;
                let explained = why.map(|why| format!("{why}: {error}").into());
                return Err(Failure::Handler(explained.unwrap_or(error)));
            }
            Err(failure) => return Err(failure),
        }
        count += 1;
    }
    Ok((tx, count))
}

/// The wanted events of a batch; at least one.
fn hand(batch: &Chunk, wanted: &[usize]) -> Batch {
    let position = |at: &usize| batch.events()[*at].position();
    Batch {
        first: position(&wanted[0]),
        last: position(&wanted[wanted.len() - 1]),
        wanted: wanted.len(),
        events: batch.events().len(),
    }
}
