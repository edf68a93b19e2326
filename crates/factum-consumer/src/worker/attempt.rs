//! One batch: its events are handled, then stored with the progress. On a failure the state machine
//! decides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use factum_kernel::{Position, ReadQuery, RecordedEvent, StreamId};

use super::{
    End, Life, Worker,
    machine::{Batch, Failing, Next, Unstored},
};
use crate::{
    apart::{Apart, apart},
    dead_letter::StoredLetter,
    error::HandleError,
    progress::{self, Attempt, Mark},
    source::Chunk,
    target::{Save, Target, TargetError, layout_key},
    work::{Failure, Work},
};

pub(crate) type TxOf<W> = <<W as Work>::Target as Target>::Tx;

/// The time within which the store and the target must answer to count as reachable.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// The outcome of handling a batch.
pub(crate) enum Handled<W: Work> {
    Done(TxOf<W>),
    Failed {
        /// The index of the event that failed, among the wanted ones.
        at: usize,
        error: String,
        /// True if another attempt changes nothing.
        is_final: bool,
    },
    /// An outage; no event is at fault.
    Outage(HandleError),
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
        let (wanted, freed) = self.taken(&batch);
        let Some(first) = wanted.first().map(|at| batch.events()[*at].position()) else {
            self.passed(life, &batch).await?;
            return Ok(rest);
        };
        let last = batch.events()[wanted[wanted.len() - 1]].position();
        let events = batch.events().len();
        let hand = Batch { first, last, wanted: wanted.len(), events };
        match self.machine.next(&hand, self.letters.len()) {
            Next::Handle(note) => self.note(life, note).await?,
            Next::Wait { attempts, error } => {
                self.health.see(&batch, wanted[0]);
                self.wait_before_attempt(life, first, (attempts, &error)).await?;
                return Ok(Some(chunk));
            }
            Next::Park(failing) => {
                self.park(life, &batch, wanted[0], failing).await?;
                return Ok(rest);
            }
            Next::Stop(reason) => return Err(End::Stop(reason)),
        }
        match self.handle(&batch, &wanted).await? {
            Handled::Done(tx) => match self.commit(life, &batch, tx, (wanted.len(), freed)).await {
                Ok(()) => return Ok(rest),
                Err(error) => match self.machine.unstored(&hand, error) {
                    Unstored::Again => {}
                    Unstored::Failed => self.health.count_failure(),
                    Unstored::Trouble(trouble) => return Err(self.settle(trouble).await),
                },
            },
            Handled::Failed { at, error, is_final } => {
                let at = batch.events()[wanted[at]].position();
                self.machine.failed(&hand, at, error, is_final);
                self.health.count_failure();
            }
            Handled::Outage(error) => {
                self.machine.blameless(&hand);
                // If this can't be stored, the next life of this process ignores the note.
                let _ = self.unnote(life).await;
                return Err(self.outage(error.to_string()).await);
            }
        }
        Ok(Some(chunk))
    }

    /// The indexes of the events that must be handled now: they are wanted, and their streams are
    /// not parked. The deletion of a parked stream is handled too, and frees the stream, because
    /// what is parked of it is erased. Returns these streams.
    fn taken(&self, batch: &Chunk) -> (Vec<usize>, Vec<StreamId>) {
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
        let wanted = (0..batch.events().len()).filter(|at| takes(&batch.events()[*at])).collect();
        (wanted, freed)
    }

    async fn note(&mut self, life: &mut Life, note: Option<Attempt>) -> Result<(), End> {
        if note.is_none() {
            return Ok(());
        }
        let mark = Mark { attempt: note, ..self.machine.at_work() };
        match self.save(life, Some(mark)).await {
            Ok(fence) => {
                (life.fence, life.stored) = (fence, life.progress.checkpoint);
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
        (attempts, error): (u32, &str),
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
            life.fence = self.save(life, Some(self.machine.at_work())).await?;
            life.stored = life.progress.checkpoint;
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
        if let Handled::Failed { error, .. } = &handled
            && let Err(away) = self.check_reachable().await
        {
            return match away.kind().is_outage() {
                true => Ok(Handled::Outage(format!("{error}; {away}").into())),
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
    /// ends can be given up.
    async fn handle_apart(&mut self, batch: &Chunk, wanted: &[usize]) -> Result<Handled<W>, End> {
        let event_max = self.options.failure.timeout;
        let tx = match self.target.begin(&self.name, event_max).await {
            Ok(tx) => tx,
            Err(error) => return Err(self.target_failed(error).await),
        };
        let seen = Arc::new(AtomicUsize::new(0));
        let running = run(self.work.clone(), batch.clone(), wanted.to_vec(), tx, seen.clone());
        let task = self.target.spawn(running);
        let clock = self.reading.kernel.clock();
        Ok(self.ended(apart(task, &seen, event_max, &**clock).await, &seen))
    }

    fn ended(&self, outcome: Outcome<W>, seen: &AtomicUsize) -> Handled<W> {
        let at = seen.load(Ordering::Relaxed);
        let timeout = self.options.failure.timeout;
        let (at, error, is_final) = match outcome {
            Apart::Done(Ok(tx)) => return Handled::Done(tx),
            Apart::Done(Err(Failure::Handler(error)))
                if self.outages.caused(&*error) || self.target.is_to_blame(&error) =>
            {
                return Handled::Outage(error);
            }
            Apart::Done(Err(Failure::Handler(error))) => (at, error.to_string(), false),
            Apart::Done(Err(Failure::Decode(error))) => (at, error.to_string(), true),
            Apart::Panicked(panic) => (at, format!("the handler panicked: {panic}"), false),
            Apart::Cancelled => {
                return Handled::Outage("the runtime of the handler has ended".into());
            }
            Apart::Late { at, keeps_thread } => {
                let kept = if keeps_thread { ", and its handler keeps its thread" } else { "" };
                let error = format!("the event was not handled within {timeout:?}{kept}");
                (at, error, keeps_thread)
            }
        };
        Handled::Failed { at, error, is_final }
    }

    /// Stores a batch together with the progress after it.
    async fn commit(
        &mut self,
        life: &mut Life,
        batch: &Chunk,
        tx: TxOf<W>,
        (events, freed): (usize, Vec<StreamId>),
    ) -> Result<(), TargetError> {
        let mut next = life.progress;
        next.checkpoint = batch.events().last().map(|event| batch.checkpoint(event));
        let save = Save {
            expected: life.fence,
            progress: progress::encode(&next),
            mark: self.unnoted(),
            letters: freed.iter().map(|stream| (stream.clone(), None)).collect(),
            events,
        };
        life.fence = self.target.commit(&self.name, tx, save).await?;
        self.letters.retain(|stream, _| !freed.contains(stream));
        (life.progress, life.stored) = (next, next.checkpoint);
        self.machine.passed(events, batch.through);
        self.report(batch, events as u64);
        Ok(())
    }

    /// The mark without a note; `None` if no notes are taken.
    fn unnoted(&self) -> Option<bytes::Bytes> {
        self.machine.is_cautious().then(|| progress::encode(&self.machine.at_work()))
    }

    /// Parks an event whose attempts are used up.
    async fn park(
        &mut self,
        life: &mut Life,
        batch: &Chunk,
        at: usize,
        failing: Failing,
    ) -> Result<(), End> {
        let event = &batch.events()[at];
        let now = self.reading.kernel.clock().now();
        let letter = StoredLetter::of(event, failing.error, failing.attempts, now);
        let mut next = life.progress;
        next.checkpoint = batch.events().last().map(|event| batch.checkpoint(event));
        let stream = event.stream().to_stream_id();
        let save = Save {
            expected: life.fence,
            progress: progress::encode(&next),
            mark: self.unnoted(),
            letters: vec![(stream.clone(), Some(progress::encode(&letter)))],
            events: 0,
        };
        match self.target.save(&self.name, save).await {
            Ok(fence) => life.fence = fence,
            Err(error) => return Err(self.target_failed(error).await),
        }
        (life.progress, life.stored) = (next, next.checkpoint);
        self.health.log_parked(&stream, &letter);
        self.letters.insert(stream, letter);
        self.machine.passed(1, batch.through);
        self.report(batch, 0);
        Ok(())
    }
}

type Outcome<W> = Apart<Result<TxOf<W>, Failure>>;

async fn run<W: Work>(
    work: Arc<W>,
    batch: Chunk,
    wanted: Vec<usize>,
    mut tx: TxOf<W>,
    seen: Arc<AtomicUsize>,
) -> Result<TxOf<W>, Failure> {
    for (count, at) in wanted.into_iter().enumerate() {
        seen.store(count, Ordering::Relaxed);
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
    }
    Ok(tx)
}
