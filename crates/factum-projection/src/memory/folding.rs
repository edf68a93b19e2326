//! The loop of a model in memory: reads events, folds them, and takes snapshots.

use std::{collections::BTreeMap, sync::Arc};

use factum_consumer::{
    ConsumerHandle, ConsumerName, ConsumerOptions, ConsumerState, Consumers, Partitions,
    StartError, StartFrom, StopCause, StopReason, TargetError, Then,
    part::{
        Chunk, EventLoop, Names, ORDERS_EVERY, Orders, Pace, PageMax, Patience, Place, Reading,
        Source, StoredLetter, Wanted,
        progress::{Mark, Progress},
    },
};
use factum_kernel::{Event, Monotonic, Position, ReadError, RecordedEvent, StreamId, sentence};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Fold,
    apply::{Fault, FoldWork, Folded},
    order::Redo,
    shown::Shown,
    snapshot::Snapshots,
};

/// The number of skipped positions that weigh as much as one folded event, when the next snapshot
/// is due.
const PASSED_PER_EVENT: u64 = 10;

/// The loop of one model, and its state.
pub(super) struct Folding<M, E, F> {
    pub(super) name: ConsumerName,
    pub(super) options: ConsumerOptions,
    pub(super) reading: Reading,
    pub(super) orders: Orders,
    pub(super) health: Place,
    pub(super) shown: Arc<Shown<M>>,
    pub(super) fold: Arc<FoldWork<E, F>>,
    pub(super) is_paused: bool,
    /// The parked streams.
    pub(super) letters: BTreeMap<StreamId, StoredLetter>,
    /// The events that can't be folded, and the reasons.
    pub(super) faults: BTreeMap<Position, Fault>,
    /// The streams that an earlier program could not read, and that this one is to try; `None`
    /// before the first run.
    pub(super) untried: Option<Vec<StreamId>>,
    /// True once they are tried.
    pub(super) has_tried: bool,
    /// A release to repeat when the restored model has reached the position that readers saw.
    pub(super) redo: Option<Redo>,
    /// The time at which it last read the orders in the store.
    pub(super) looked_at: Option<Monotonic>,
    snapshots: Snapshots,
    snapshot_events: usize,
    /// The name without the version, and the version.
    version: (ConsumerName, u32),
    /// True once the snapshots of earlier versions are removed.
    is_swept: bool,
    /// The position after which it began, if known.
    began: Option<Position>,
    patience: Patience,
    /// The size of batches; `None` before the first start.
    pace: Option<Pace>,
    /// The number of failures in a row to reach the store.
    away: u32,
}

/// One run of the loop: from restoring a model until it is torn or the loop ends.
pub(super) struct Run {
    pub(super) progress: Progress,
    source: Source,
    /// Events that were read and are not folded yet.
    pending: Option<Chunk>,
    /// The work since the last snapshot, counted in skipped positions: a folded event counts as
    /// [`PASSED_PER_EVENT`] of them.
    pub(super) weight: u64,
}

/// The reason why a run ends.
#[derive(Debug)]
pub(super) enum End {
    Stop(StopReason),
    /// The model has to be restored from the last snapshot.
    Again,
}

impl<M, E, F> Folding<M, E, F>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
{
    pub(super) async fn start(
        consumers: &Consumers,
        fold: Fold<M, E, F>,
        name: &ConsumerName,
        shown: Arc<Shown<M>>,
    ) -> Result<ConsumerHandle, StartError> {
        let Fold { version, options, snapshot_events, apply, .. } = fold;
        let reading = consumers.reading();
        let clock = reading.kernel.clock().clone();
        let versioned = name.versioned(version);
        let names = Names::new(options.unknown);
        let whole = options.clone().with_partitions(Partitions::one());
        let wanted = Wanted::new(names.to_stored(), &whole, 0);
        let snapshots = Snapshots::new(reading.kernel.clone(), versioned.clone(), wanted);
        if options.from == StartFrom::Now {
            snapshots.begin_now::<M>(name).await?;
        }
        consumers.launch_alone(&versioned, options.failure, |orders, health| Self {
            name: versioned.clone(),
            fold: Arc::new(FoldWork { apply, names }),
            options,
            orders,
            health: health.clone(),
            shown,
            is_paused: false,
            letters: BTreeMap::new(),
            faults: BTreeMap::new(),
            untried: None,
            has_tried: false,
            redo: None,
            looked_at: None,
            snapshots,
            reading,
            snapshot_events,
            version: (name.clone(), version),
            is_swept: false,
            began: None,
            patience: Patience::new(health, clock),
            pace: None,
            away: 0,
        })
    }

    async fn live(&mut self) -> End {
        let mut run = match self.begin().await {
            Ok(run) => run,
            Err(end) => return end,
        };
        let end = loop {
            if let Err(end) = self.step(&mut run).await {
                break end;
            }
        };
        if matches!(end, End::Stop(_)) {
            self.leave(&mut run).await;
        }
        end
    }

    /// Restores the model of the last snapshot, and opens the source of the events after it.
    async fn begin(&mut self) -> Result<Run, End> {
        let restored = self.patience.answered(self.snapshots.restore::<M>()).await;
        let restored = self.settled(restored).await?;
        let is_stored = restored.is_some();
        let (progress, model) = match restored {
            Some(restored) => match restored.model {
                Some(model) => (restored.progress, Some(model)),
                // Without a model, begin where the model began the first time.
                None => (Progress { checkpoint: None, ..restored.progress }, None),
            },
            None => (self.beginning().await?, None),
        };
        self.began = progress.began_after;
        let (model, letters) = model.unwrap_or_default();
        let position = progress.position();
        let from = progress.checkpoint.ok_or(position);
        let page_max =
            PageMax { events: self.options.batch_events_max, bytes: self.options.batch_bytes_max };
        let scope = self.options.scope_to_read(self.fold.names.want_deletions());
        let source = Source::new(self.reading.clone(), scope, page_max, from);
        // The checkpoint may be of another log, so it is verified before its position is shown.
        if let Err(error) = source.verify().await {
            return Err(self.unread(error).await);
        }
        if self.untried.is_none() {
            let due = letters.iter().filter(|(_, letter)| letter.is_due());
            self.untried = Some(due.map(|(stream, _)| stream.clone()).collect());
        }
        self.letters = letters;
        let head = *self.reading.kernel.events().head().borrow();
        self.mark_start(position, head).await?;
        let mut run = Run { progress, source, pending: None, weight: 0 };
        self.shown.replace(model, position);
        if !is_stored && self.options.from != StartFrom::Start {
            // The snapshot stores the position at which the model began.
            self.store(&mut run).await?;
        }
        self.health.change(|health| {
            health.position = position;
            health.head = head.max(position);
            health.state = ConsumerState::CatchingUp;
        });
        self.tell_letters();
        Ok(run)
    }

    /// The beginning without a snapshot: where this model or another version of it began before.
    async fn beginning(&mut self) -> Result<Progress, End> {
        let taken = self.patience.answered(self.snapshots.is_taken()).await;
        if self.settled(taken).await? {
            let error = "a projection into documents has this name and version, choose another";
            let error = StopCause::new(format!("{error}: model={}", self.name));
            return Err(End::Stop(StopReason::Broken(error)));
        }
        let mut from = self.options.from;
        if from == StartFrom::Now {
            if self.began.is_none() {
                let began = self.patience.answered(self.snapshots.began(&self.version.0)).await;
                self.began = self.settled(began).await?;
            }
            from = self.began.map_or(from, StartFrom::After);
        }
        let beginning = Progress::beginning(&self.reading.kernel, from);
        let beginning = self.patience.answered(async { Ok(beginning.await?) }).await;
        self.settled(beginning).await
    }

    /// Marks the model as at work. After an unclean stop it proceeds cautiously.
    async fn mark_start(&mut self, position: Position, head: Position) -> Result<(), End> {
        let max = self.options.batch_events_max;
        let mut attempt = None;
        if self.pace.is_none() {
            let mark = self.patience.answered(self.snapshots.mark()).await;
            let mark = self.settled(mark).await?;
            self.pace = Some(Pace::of_snapshots(max, mark, position, head));
            attempt = mark.attempt;
        }
        self.put_mark(Mark { at_work: Some(max), attempt }).await
    }

    async fn put_mark(&mut self, mark: Mark) -> Result<(), End> {
        let put = self.patience.answered(self.snapshots.put_mark(mark)).await;
        self.settled(put).await
    }

    async fn step(&mut self, run: &mut Run) -> Result<(), End> {
        self.take_orders(run).await?;
        let position = self.health.position();
        if let Some(redo) = self.redo.take_if(|redo| position >= redo.until) {
            return self.redo(run, redo).await;
        }
        self.obey_stored(run).await?;
        self.try_unread(run).await?;
        match run.pending.take() {
            Some(chunk) => run.pending = self.fold(run, chunk).await?,
            None => run.pending = self.fetch(run).await?,
        }
        if run.weight >= self.due() {
            self.snapshot(run).await?;
        }
        Ok(())
    }

    /// Reads the next events. An order that arrives first is executed instead.
    async fn fetch(&mut self, run: &mut Run) -> Result<Option<Chunk>, End> {
        let head = *self.reading.kernel.events().head().borrow();
        let clock = self.reading.kernel.clock().clone();
        let is_asked = self.takes_stored_orders();
        let at_end = run.source.is_live() && head <= self.health.position();
        self.health.tell(match at_end {
            true if self.letters.values().any(StoredLetter::is_unread) => ConsumerState::Waiting,
            true => ConsumerState::Live,
            false => ConsumerState::CatchingUp,
        });
        tokio::select! {
            biased;
            order = self.orders.next() => {
                self.obey(run, order).await?;
                Ok(None)
            }
            () = clock.sleep(ORDERS_EVERY), if is_asked => Ok(None),
            chunk = run.source.next() => match chunk {
                Ok(chunk) => {
                    self.away = 0;
                    chunk.iter().for_each(|chunk| self.health.see(chunk, 0));
                    Ok(chunk)
                }
                Err(ReadError::Store(error)) if !error.kind().is_permanent() => {
                    self.away += 1;
                    self.pause_after(&sentence(&error), self.away).await?;
                    Ok(None)
                }
                Err(error) => Err(self.unread(error).await),
            },
        }
    }

    /// Folds the first events of a chunk, and returns the events that are still to be folded.
    async fn fold(&mut self, run: &mut Run, chunk: Chunk) -> Result<Option<Chunk>, End> {
        let pace = self.pace.as_ref().expect("it has begun");
        let count = pace.take(chunk.events().iter().map(RecordedEvent::position));
        let count = self.options.within_bytes(&chunk.events()[..count.min(chunk.events().len())]);
        let mut wanted = self.taken(&chunk.events()[..count.min(chunk.events().len())]);
        let position = |at: usize| chunk.events()[at].position();
        let fault = wanted.iter().position(|at| self.faults.contains_key(&position(*at)));
        let (batch, rest) = match fault {
            Some(0) => {
                let at = wanted[0];
                let (batch, rest) = chunk.split(at + 1);
                self.park(run, &batch, at).await?;
                return Ok(rest);
            }
            // Fold up to the event that can't be folded.
            Some(place) => {
                let at = wanted[place];
                wanted.truncate(place);
                chunk.clone().split(at)
            }
            None => chunk.clone().split(count),
        };
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            self.passed(run, &batch, 0);
            return Ok(rest);
        };
        let first = position(*first);
        let last = position(*last);
        if first == last && pace.is_deadly(first, last) {
            self.record_fault(first, Fault::new("the process died while it was folded"));
            return Ok(Some(chunk));
        }
        let noted = pace.note(first, last);
        if let Some(attempt) = noted {
            let at_work = Some(self.options.batch_events_max);
            self.put_mark(Mark { at_work, attempt: Some(attempt) }).await?;
        }
        let Folded { count, fault, is_torn } = self.apply(&batch, &wanted).await?;
        let Some(fault) = fault else {
            self.folded(run, &batch, count).await?;
            if noted.is_some() {
                self.clear_attempt().await;
            }
            return Ok(rest);
        };
        let at = wanted[count];
        self.record_fault(position(at), fault);
        if is_torn {
            return Err(End::Again);
        }
        let (done, rest) = chunk.split(at);
        self.folded(run, &done, count).await?;
        Ok(rest)
    }

    /// Clears the stored note of an attempt: a process that ends later did not die of these events.
    async fn clear_attempt(&mut self) {
        let mark = Mark { at_work: Some(self.options.batch_events_max), attempt: None };
        // If that can't be stored, one death too many may be counted for these events.
        let _ = self.patience.answered(self.snapshots.put_mark(mark)).await;
    }

    /// True if attempts are noted before events are folded.
    pub(super) fn is_cautious(&self) -> bool {
        self.pace.as_ref().is_some_and(Pace::is_cautious)
    }

    /// The indexes of the events that are folded now: they are wanted, and their streams are not
    /// parked. The deletion of a parked stream is folded too, and frees the stream, because what is
    /// parked of it is erased.
    fn taken(&self, events: &[RecordedEvent]) -> Vec<usize> {
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
        (0..events.len()).filter(|at| takes(&events[*at])).collect()
    }

    /// Returns true if the model handles this event.
    pub(super) fn wants(&self, event: &RecordedEvent) -> bool {
        self.options.is_in_scope(event) && self.fold.names.wants(event.name())
    }

    /// Records that an event can't be folded.
    pub(super) fn record_fault(&mut self, position: Position, fault: Fault) {
        if !fault.is_unread {
            self.health.count_failure();
        }
        self.faults.insert(position, fault);
    }

    /// Parks the last event of a batch, with the later events of its stream. This is stored at
    /// once: an event that killed the process would kill it again.
    async fn park(&mut self, run: &mut Run, batch: &Chunk, at: usize) -> Result<(), End> {
        let event = &batch.events()[at];
        let position = event.position();
        let fault = self.faults.get(&position).cloned().expect("it was recorded");
        let letter = fault.letter(event, self.reading.kernel.clock().now());
        let error = fault.error;
        if self.options.failure.then == Then::Stop {
            return Err(End::Stop(StopReason::Failed { position, error }));
        }
        let stream = event.stream().to_stream_id();
        let others = self.letters.keys().filter(|it| **it != stream).count();
        if others >= self.options.failure.parked_max {
            return Err(End::Stop(StopReason::TooManyParked { position, error }));
        }
        self.health.log_parked(&stream, &letter);
        self.letters.insert(stream, letter);
        // The letter shows before the position: a caller that waits must not miss it.
        self.tell_letters();
        self.passed(run, batch, 0);
        self.store(run).await
    }

    /// Moves the progress to the end of a chunk whose wanted events were folded. The parked streams
    /// that it has deleted are free: their letters are removed, and that is stored at once.
    async fn folded(&mut self, run: &mut Run, chunk: &Chunk, count: usize) -> Result<(), End> {
        let mut is_freed = false;
        for event in chunk.events().iter().filter(|it| it.is_deletion()) {
            if self.wants(event)
                && let Some(letter) = self.letters.remove(&event.stream().to_stream_id())
            {
                is_freed = true;
                self.faults.remove(&Position::new(letter.position));
            }
        }
        if is_freed {
            self.tell_letters();
        }
        self.passed(run, chunk, count);
        if is_freed { self.store(run).await } else { Ok(()) }
    }

    /// Moves the progress to the end of a chunk, of which `folded` events were folded.
    fn passed(&mut self, run: &mut Run, chunk: &Chunk, folded: usize) {
        self.away = 0;
        let before = self.health.position();
        let passed = chunk.through.value().saturating_sub(before.value());
        let folded = folded as u64;
        run.weight += passed.saturating_sub(folded) + folded * PASSED_PER_EVENT;
        if let Some(event) = chunk.events().last() {
            run.progress.checkpoint = Some(chunk.checkpoint(event));
        }
        let pace = self.pace.as_mut().expect("it has begun");
        pace.passed(folded as usize, chunk.through);
        self.shown.reached(chunk.through);
        let is_cautious = pace.is_cautious();
        self.health.report(&self.reading.kernel, chunk, |health| {
            health.handled += folded;
            health.is_cautious = is_cautious;
        });
    }

    /// Takes a snapshot. It only saves time, so if the store can't be reached it is taken later.
    async fn snapshot(&mut self, run: &mut Run) -> Result<(), End> {
        match self.try_snapshot(run).await {
            Err(error @ (TargetError::Unavailable(_) | TargetError::Unknown(_))) => {
                tracing::warn!(consumer = %self.name, %error, "a snapshot is put off");
                let due = self.due();
                run.weight = run.weight.min(due - due / 8 - 1);
                Ok(())
            }
            outcome => self.settled(outcome).await,
        }
    }

    /// The amount of work after which a snapshot is taken.
    fn due(&self) -> u64 {
        (self.snapshot_events as u64).saturating_mul(PASSED_PER_EVENT)
    }

    /// Takes a snapshot that is required, and tries again until the store can be reached.
    pub(super) async fn store(&mut self, run: &mut Run) -> Result<(), End> {
        loop {
            match self.try_snapshot(run).await {
                Err(error @ (TargetError::Unavailable(_) | TargetError::Unknown(_))) => {
                    self.away += 1;
                    self.pause_after(&sentence(&error), self.away).await?;
                }
                outcome => return self.settled(outcome).await,
            }
        }
    }

    async fn try_snapshot(&mut self, run: &mut Run) -> Result<(), TargetError> {
        let model = self.shown.look().await;
        let stored = self.snapshots.store(&model.model, run.progress, &self.letters);
        let stored = self.patience.answered(stored).await;
        self.health.note_snapshot(stored.as_ref().err().map(|error| sentence(error)));
        stored?;
        run.weight = 0;
        if run.source.is_live() && !self.is_swept {
            self.is_swept = true;
            // Snapshots that are left are removed by the next start.
            let (name, version) = &self.version;
            let swept = self.snapshots.sweep_versions(name, *version);
            let _ = self.patience.answered(swept).await;
        }
        Ok(())
    }

    /// Ends cleanly: takes a snapshot and clears the mark.
    async fn leave(&mut self, run: &mut Run) {
        // Errors are ignored: without the snapshot the next start takes longer, without the cleared
        // mark it is cautious.
        if run.weight > 0 {
            let _ = self.try_snapshot(run).await;
        }
        let _ = self.patience.answered(self.snapshots.put_mark(Mark::default())).await;
    }

    /// Returns the store's answer, or the end of the run after an error.
    async fn settled<T>(&mut self, outcome: Result<T, TargetError>) -> Result<T, End> {
        match outcome {
            Ok(value) => Ok(value),
            Err(
                error @ (TargetError::Refused(_)
                | TargetError::TooLarge(_)
                | TargetError::Broken(_)),
            ) => Err(End::Stop(StopReason::Broken(StopCause::new(error)))),
            Err(error) => Err(self.retry_later(sentence(&error)).await),
        }
    }

    /// Maps an error of reading the log to the end of the run.
    pub(super) async fn unread(&mut self, error: ReadError) -> End {
        match error {
            ReadError::Store(error) if !error.kind().is_permanent() => {
                self.retry_later(sentence(&error)).await
            }
            ReadError::Diverged(error) => End::Stop(StopReason::Diverged(StopCause::new(error))),
            other => End::Stop(StopReason::Broken(StopCause::new(other))),
        }
    }

    /// Waits before the model is restored again, because the store can't be reached.
    pub(super) async fn retry_later(&mut self, error: String) -> End {
        self.away += 1;
        match self.pause_after(&error, self.away).await {
            Ok(()) => End::Again,
            Err(end) => end,
        }
    }
}

impl<M, E, F> EventLoop for Folding<M, E, F>
where
    M: Default + Serialize + DeserializeOwned + Send + Sync + 'static,
    E: Event,
    F: Fn(&mut M, E, &RecordedEvent) + Send + Sync + 'static,
{
    async fn run(&mut self) -> StopReason {
        loop {
            if let End::Stop(reason) = self.live().await {
                return reason;
            }
        }
    }

    fn leave(&mut self) {
        self.shown.end();
    }
}
