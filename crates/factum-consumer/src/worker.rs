//! The loop of every consumer: read, handle, store progress, repeat.

mod attempt;
mod begin;
mod call;
mod layout;
mod machine;
mod order;
mod release;
mod stand_by;
mod stored_order;

use std::{collections::BTreeMap, sync::Arc};

use factum_kernel::{
    Checkpoint, Kernel, Monotonic, Position, ReadError, RecordedEvent, StreamId, sentence,
};

use crate::{
    consumers::Launch,
    dead_letter::StoredLetter,
    freeze::Handover,
    health::{ConsumerState, Place, StopReason},
    lag::Wanted,
    lease::{Assignment, Bell},
    name::ConsumerName,
    option::ConsumerOptions,
    orders::Orders,
    outage::Outages,
    progress::{self, Mark, Progress},
    source::{Chunk, Reading, Source},
    supervision::EventLoop,
    target::{Fence, Save, TargetError},
    work::Work,
};

pub(crate) use call::Calls;
pub use call::Patience;
use machine::{After, End, Machine, Rules, Trouble};
pub use stored_order::ORDERS_EVERY;

/// The number of positions without an event to handle after which progress is stored.
const PASSED_MAX: u64 = 10_000;

pub(crate) struct Worker<W: Work> {
    /// The id of this start. Stored progress holds the id of the start that stored it.
    id: u64,
    /// The name under which its progress is stored.
    name: ConsumerName,
    /// The number of its partition.
    partition: usize,
    /// True if the number of partitions is compared with the stored one.
    is_layout_kept: bool,
    /// The events that it wants, for other processes.
    wanted: Wanted,
    /// The handover in which another consumer may take this one's place.
    handover: Option<Arc<dyn Handover>>,
    work: Arc<W>,
    target: Calls<W::Target>,
    options: ConsumerOptions,
    /// The rules that recognise an outage in a handler's error.
    outages: Outages,
    reading: Reading,
    orders: Orders,
    health: Place,
    /// The assignment of the partition; `None` if the consumer is not shared.
    assignment: Option<Assignment>,
    /// The bell that announces stored orders, if other processes share the store.
    bell: Option<Bell>,
    /// The time when it last looked for stored orders.
    looked_at: Option<Monotonic>,
    /// The dead letters, by stream.
    letters: BTreeMap<StreamId, StoredLetter>,
    /// The state machine that decides the next step.
    machine: Machine,
}

/// The inputs of a worker that differ by partition.
pub(crate) struct PartitionSetup {
    /// The number of the partition.
    pub(crate) at: usize,
    pub(crate) health: Place,
    pub(crate) orders: Orders,
    pub(crate) assignment: Option<Assignment>,
    pub(crate) bell: Option<Bell>,
}

/// The state of a worker between two openings of its target.
pub(crate) struct Life {
    pub(crate) fence: Fence,
    pub(crate) progress: Progress,
    /// The stored checkpoint.
    pub(crate) stored: Option<Checkpoint>,
    pub(crate) source: Source,
    /// Events that are read and not handled yet.
    pub(crate) pending: Option<Chunk>,
}

impl Life {
    /// A save of this progress. The stored checkpoint never goes back: only a rewind moves it, and
    /// that changes the fence.
    pub(crate) fn saving(&self, progress: &Progress) -> Save {
        let stored = self.stored.map_or(Position::ZERO, |checkpoint| checkpoint.position);
        let position = progress.position();
        assert!(position >= stored, "a checkpoint goes back: from={stored} to={position}");
        let progress = progress::encode(progress);
        Save { expected: self.fence, progress, mark: None, letters: Vec::new(), events: 0 }
    }

    /// Records that a progress is stored, with its fence.
    pub(crate) fn saved(&mut self, progress: Progress, fence: Fence) {
        (self.fence, self.progress, self.stored) = (fence, progress, progress.checkpoint);
    }
}

impl<W: Work> Worker<W> {
    pub(crate) fn new(
        launch: &Launch<W>,
        part: PartitionSetup,
        reading: Reading,
        outages: Outages,
    ) -> Self {
        let PartitionSetup { at, health, orders, assignment, bell } = part;
        let kernel = reading.kernel.clone();
        let options = launch.options.clone();
        let rules = Rules {
            failure: options.failure,
            batch_events_max: options.batch_events_max,
            is_shared: assignment.is_some(),
        };
        Self {
            id: new_id(&kernel),
            name: launch.name.part(at, options.partitions.count()),
            partition: at,
            is_layout_kept: launch.is_layout_kept,
            wanted: Wanted::new(launch.work.names(), &options, at),
            handover: launch.handover.clone(),
            work: launch.work.clone(),
            target: Calls::new(launch.target.clone(), health.clone(), kernel.clock().clone()),
            options,
            outages,
            reading,
            orders,
            health,
            assignment,
            bell,
            looked_at: None,
            letters: BTreeMap::new(),
            machine: Machine::new(rules),
        }
    }

    /// Runs one life, when the partition is assigned to this process.
    async fn run_life(&mut self) -> End {
        match self.stand_by().await {
            Ok(()) => self.live().await,
            Err(end) => end,
        }
    }

    async fn live(&mut self) -> End {
        let mut life = match self.begin().await {
            Ok(life) => life,
            Err(end) => return end,
        };
        let end = loop {
            if let Err(end) = self.step(&mut life).await {
                break end;
            }
        };
        if matches!(end, End::Stop(_) | End::Unassigned) {
            self.leave(&mut life).await;
        }
        end
    }

    async fn step(&mut self, life: &mut Life) -> Result<(), End> {
        if self.assignment.as_ref().is_some_and(|assignment| !assignment.is_assigned()) {
            return Err(End::Unassigned);
        }
        self.take_orders(life).await?;
        self.carry_out_stored(life).await?;
        let Some(chunk) = life.pending.take() else {
            let chunk = self.fetch(life).await?;
            life.pending = chunk;
            return Ok(());
        };
        let count = self.machine.take(chunk.events().iter().map(RecordedEvent::position));
        let count = self.options.within_bytes(&chunk.events()[..count.min(chunk.events().len())]);
        life.pending = self.attempt(life, chunk, count).await?;
        Ok(())
    }

    /// Waits for the next chunk, or for an order before it.
    async fn fetch(&mut self, life: &mut Life) -> Result<Option<Chunk>, End> {
        let head = self.reading.kernel.events().head();
        let clock = self.reading.kernel.clock().clone();
        let is_asked = self.takes_stored_orders();
        let at_end = life.source.is_live() && *head.borrow() <= self.health.position();
        let state = if at_end { ConsumerState::Live } else { ConsumerState::CatchingUp };
        self.health.tell(state);
        tokio::select! {
            biased;
            order = self.orders.next() => {
                self.carry_out(life, order).await?;
                Ok(None)
            }
            () = revoked(&mut self.assignment) => Err(End::Unassigned),
            () = rung(&self.bell) => Ok(None),
            () = clock.sleep(ORDERS_EVERY), if is_asked => Ok(None),
            chunk = life.source.next() => match chunk {
                Ok(chunk) => {
                    self.machine.read_succeeded();
                    chunk.iter().for_each(|chunk| self.health.see(chunk, 0));
                    Ok(chunk)
                }
                Err(ReadError::Store(error)) if !error.kind().is_permanent() => {
                    let attempts = self.machine.read_delayed();
                    self.pause_after(&sentence(&error), None, attempts).await?;
                    Ok(None)
                }
                Err(error) => Err(self.read_failed(error).await),
            },
        }
    }

    /// Settles an error of reading the log.
    async fn read_failed(&mut self, error: ReadError) -> End {
        let trouble = self.machine.read_failed(error);
        self.settle(trouble).await
    }

    /// Settles an error of the target that no event caused.
    async fn target_failed(&mut self, error: TargetError) -> End {
        let trouble = self.machine.target_failed(error);
        self.settle(trouble).await
    }

    /// Settles an outage of the log or the target.
    async fn outage(&mut self, error: String) -> End {
        let trouble = self.machine.outage(error);
        self.settle(trouble).await
    }

    /// Settles an error that no event caused: ends the life, or waits first.
    async fn settle(&mut self, trouble: Trouble) -> End {
        let (attempts, error) = match trouble {
            Trouble::End(end) => return end,
            Trouble::Outage { attempts, error } => (attempts, error),
        };
        match self.pause_after(&error, None, attempts).await {
            Ok(()) => End::Reopen,
            Err(end) => end,
        }
    }

    /// Stores the progress, with a mark.
    async fn save(&self, life: &Life, mark: Option<Mark>) -> Result<Fence, TargetError> {
        let mark = mark.map(|mark| progress::encode_mark(mark, &self.wanted));
        let save = Save { mark, ..life.saving(&life.progress) };
        self.target.save(&self.name, save).await
    }

    /// Ends cleanly: stores the progress, and that the worker is no longer at work.
    async fn leave(&mut self, life: &mut Life) {
        // If this fails, the next start is a cautious one, no more.
        let _ = self.save(life, Some(Mark::default())).await;
    }

    /// Records that a chunk without events to handle is done.
    async fn passed(&mut self, life: &mut Life, chunk: &Chunk) -> Result<(), End> {
        self.machine.passed(0, chunk.through);
        if let Some(event) = chunk.events().last() {
            life.progress.checkpoint = Some(chunk.checkpoint(event));
        }
        let stored = life.stored.map_or(Position::ZERO, |it| it.position).value();
        if chunk.through.value() > stored + PASSED_MAX && life.progress.checkpoint != life.stored {
            match self.save(life, None).await {
                Ok(fence) => life.saved(life.progress, fence),
                Err(error) => return Err(self.target_failed(error).await),
            }
        }
        self.report(chunk, 0);
        Ok(())
    }

    fn report(&self, chunk: &Chunk, handled: u64) {
        self.health.report(&self.reading.kernel, chunk, |health| {
            health.parked = self.letters.len();
            health.handled += handled;
            health.is_cautious = self.machine.is_cautious();
        });
    }

    /// True if an event must be handled: it is in the scope, the consumer wants it, and it is in
    /// this partition.
    fn wants(&self, event: &RecordedEvent) -> bool {
        self.options.is_in_scope(event)
            && self.work.wants(event)
            && self.options.partitions.at(event) == self.partition
    }
}

impl<W: Work> EventLoop for Worker<W> {
    async fn run(&mut self) -> StopReason {
        loop {
            let end = self.run_life().await;
            let after = match self.machine.ended(end) {
                After::Refresh => self.refresh_assignment().await,
                after => after,
            };
            if let After::Stop(reason) = after {
                return reason;
            }
        }
    }

    fn leave(&mut self) {
        drop(self.assignment.take());
    }
}

/// A new id of a start.
fn new_id(kernel: &Kernel) -> u64 {
    let (high, low) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
    high.rotate_left(32) ^ low
}

/// Waits until the partition is revoked or lost.
async fn revoked(assignment: &mut Option<Assignment>) {
    match assignment {
        Some(assignment) => assignment.revoked().await,
        None => std::future::pending().await,
    }
}

/// Waits until the bell rings.
async fn rung(bell: &Option<Bell>) {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
