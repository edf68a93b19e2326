//! The loop of every consumer: read, handle, store progress, again.

mod attempt;
mod begin;
mod call;
mod layout;
mod order;
mod release;
mod stand_by;
mod stored_order;
mod survive;

use std::{collections::BTreeMap, sync::Arc};

use factum_kernel::{Checkpoint, Kernel, Monotonic, Position, ReadError, RecordedEvent, StreamId};
use tokio::sync::mpsc;

use crate::{
    handle::Order,
    health::{ConsumerState, Place, StopReason},
    hold::Handover,
    lease::{Bell, Seat},
    letter::Letter,
    name::ConsumerName,
    option::ConsumerOptions,
    outage::Outages,
    pace::Pace,
    progress::{self, Mark, Progress},
    source::{Chunk, Reading, Source, is_in_scope},
    target::{Fence, Save, TargetError},
    work::Work,
};

pub use attempt::ERROR_BYTES_MAX;
pub(crate) use call::Calls;
pub use call::Patience;
pub use stored_order::ORDERS_EVERY;
pub use survive::PANICS_MAX;

/// So many positions may be passed without an event to handle before that is stored.
const PASSED_MAX: u64 = 10_000;

pub(crate) struct Worker<W: Work> {
    /// Which start this is: what is stored says who stored it.
    pub(crate) id: u64,
    /// What its progress is kept under.
    pub(crate) name: ConsumerName,
    /// Which of the consumer's partitions it works on.
    pub(crate) partition: usize,
    /// Whether the number of partitions is compared with what is stored,
    pub(crate) is_layout_kept: bool,
    /// and was, behind a progress that it has stored.
    pub(crate) is_layout_checked: bool,
    /// Who lets another consumer take its place.
    pub(crate) handover: Option<Arc<dyn Handover>>,
    pub(crate) work: Arc<W>,
    pub(crate) target: Calls<W::Target>,
    pub(crate) options: ConsumerOptions,
    /// What tells of an outage in a handler's error.
    pub(crate) outages: Outages,
    pub(crate) reading: Reading,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) health: Place,
    /// Where several processes run it.
    pub(crate) seat: Option<Seat>,
    pub(crate) is_paused: bool,
    /// What is parked.
    pub(crate) letters: BTreeMap<StreamId, Letter>,
    /// None before the first start.
    pub(crate) pace: Option<Pace>,
    /// The event that fails.
    pub(crate) failing: Option<Failing>,
    /// How often its target could not be reached.
    pub(crate) unreached: u32,
    /// How often another partition was in the way of a batch.
    pub(crate) overtaken: u32,
    /// How often the loop itself, a target or a store has panicked.
    pub(crate) panics: u32,
    /// Which try to take its place holds it, and how often that was found.
    pub(crate) frozen: (u64, u32),
    /// When it last looked for orders in the store.
    pub(crate) looked_at: Option<Monotonic>,
    /// Says when to look again, where others can be heard.
    pub(crate) bell: Option<Bell>,
    /// It has stored something: whoever has stored since has taken over.
    pub(crate) is_owner: bool,
}

/// An event that fails, and what it said.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) position: Position,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    /// It is not tried again.
    pub(crate) is_final: bool,
    /// The pause before the next attempt is still to come.
    pub(crate) is_due: bool,
}

/// What a worker knows while nothing goes wrong with its target.
pub(crate) struct Life {
    pub(crate) fence: Fence,
    pub(crate) progress: Progress,
    /// The checkpoint that is stored.
    pub(crate) stored: Option<Checkpoint>,
    pub(crate) source: Source,
    /// Read and not handled.
    pub(crate) pending: Option<Chunk>,
    /// How often the store could not be read.
    pub(crate) unread: u32,
}

/// Why a life ends.
#[derive(Debug)]
pub(crate) enum End {
    Stop(StopReason),
    /// What is stored is to be looked at again.
    Reopen,
    /// Somebody else has moved the checkpoint.
    Overtaken,
    /// Another process is to have the partition, or has it.
    Unseated,
}

impl<W: Work> Worker<W> {
    /// A number that no other start has.
    pub(crate) fn new_id(kernel: &Kernel) -> u64 {
        let (high, low) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
        high.rotate_left(32) ^ low
    }

    /// Runs until it stops. The ending is made before, for a task that a runtime never polls.
    pub(crate) async fn run(mut self, _ending: Ending) {
        let reason = loop {
            let end = self.survive().await;
            match self.go_on_after(end).await {
                Ok(()) => {}
                Err(reason) => break reason,
            }
        };
        if reason != StopReason::Asked {
            self.health.halt();
        }
        // Before it is said that it has stopped: it may be started again then.
        drop(self.seat.take());
        self.health.change(|health| {
            health.state = ConsumerState::Stopped(reason);
            (health.lag, health.committing_since) = (None, None);
        });
    }

    /// Whether there is another life after this one.
    async fn go_on_after(&mut self, end: End) -> Result<(), StopReason> {
        let outcome = match end {
            End::Stop(reason) => return Err(reason),
            End::Reopen => return Ok(()),
            End::Unseated => Ok(()),
            End::Overtaken if self.seat.is_none() => return Err(StopReason::Fenced),
            End::Overtaken => self.look_again().await,
        };
        self.forget();
        match outcome {
            Err(End::Stop(reason)) => Err(reason),
            _ => Ok(()),
        }
    }

    /// What was known of what is stored: it begins as after a start.
    fn forget(&mut self) {
        (self.is_owner, self.is_layout_checked) = (false, false);
        (self.pace, self.failing) = (None, None);
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
        if matches!(end, End::Stop(_) | End::Unseated) {
            self.leave(&mut life).await;
        }
        end
    }

    async fn step(&mut self, life: &mut Life) -> Result<(), End> {
        if self.seat.as_ref().is_some_and(|seat| !seat.is_mine()) {
            return Err(End::Unseated);
        }
        self.take_orders(life).await?;
        self.obey_stored(life).await?;
        let Some(chunk) = life.pending.take() else {
            let chunk = self.fetch(life).await?;
            life.pending = chunk;
            return Ok(());
        };
        let pace = self.pace.as_ref().expect("it has begun");
        let count = pace.take(chunk.events().iter().map(RecordedEvent::position));
        let count = within(&chunk.events()[..count.min(chunk.events().len())], &self.options);
        life.pending = self.attempt(life, chunk, count).await?;
        Ok(())
    }

    /// What comes next, or an order before it.
    async fn fetch(&mut self, life: &mut Life) -> Result<Option<Chunk>, End> {
        let head = self.reading.kernel.events().head();
        let clock = self.reading.kernel.clock().clone();
        let is_asked = self.takes_stored_orders();
        let at_end = life.source.is_live() && *head.borrow() <= self.health.position();
        let state = if at_end { ConsumerState::Live } else { ConsumerState::CatchingUp };
        self.health.tell(state);
        tokio::select! {
            biased;
            order = next_order(&mut self.orders, &self.health) => {
                self.obey(life, order).await?;
                Ok(None)
            }
            () = to_leave(&mut self.seat) => Err(End::Unseated),
            () = rung(&self.bell) => Ok(None),
            () = clock.sleep(ORDERS_EVERY), if is_asked => Ok(None),
            chunk = life.source.next() => match chunk {
                Ok(chunk) => {
                    life.unread = 0;
                    chunk.iter().for_each(|chunk| self.health.see(chunk, 0));
                    Ok(chunk)
                }
                Err(ReadError::Store(error)) if !error.kind().is_permanent() => {
                    life.unread += 1;
                    self.pause_after(&error.to_string(), None, life.unread).await?;
                    Ok(None)
                }
                Err(error) => Err(self.read_failed(error).await),
            },
        }
    }

    /// The log can't be read.
    async fn read_failed(&mut self, error: ReadError) -> End {
        match error {
            ReadError::Store(error) if !error.kind().is_permanent() => {
                self.away(error.to_string()).await
            }
            ReadError::Diverged(error) => End::Stop(StopReason::Diverged(error.to_string())),
            other => broken(other),
        }
    }

    /// The log or the target can't be reached.
    pub(crate) async fn away(&mut self, error: String) -> End {
        self.unreached += 1;
        match self.pause_after(&error, None, self.unreached).await {
            Ok(()) => End::Reopen,
            Err(end) => end,
        }
    }

    /// Stores progress, and a mark.
    pub(crate) async fn save(&self, life: &Life, mark: Option<Mark>) -> Result<Fence, TargetError> {
        let save = Save {
            expected: life.fence,
            progress: progress::encode(&life.progress),
            mark: mark.map(|mark| progress::encode(&mark)),
            letters: Vec::new(),
            events: 0,
        };
        self.target.save(&self.name, save).await
    }

    /// The clean end: how far it came, and that it is not at work.
    async fn leave(&mut self, life: &mut Life) {
        // Without it the next start is a cautious one, no more.
        let _ = self.save(life, Some(Mark::default())).await;
    }

    /// Everything up to there is done with.
    pub(crate) async fn passed(&mut self, life: &mut Life, chunk: &Chunk) -> Result<(), End> {
        self.is_past(chunk, 0);
        if let Some(event) = chunk.events().last() {
            life.progress.checkpoint = Some(chunk.checkpoint(event));
        }
        let stored = life.stored.map_or(Position::ZERO, |it| it.position).value();
        if chunk.through.value() > stored + PASSED_MAX && life.progress.checkpoint != life.stored {
            match self.save(life, None).await {
                Ok(fence) => (life.fence, life.stored) = (fence, life.progress.checkpoint),
                Err(error) => return Err(self.target_failed(error).await),
            }
        }
        self.report(chunk, 0);
        Ok(())
    }

    /// What failed up to there has come through.
    pub(crate) fn is_past(&mut self, chunk: &Chunk, handled: usize) {
        (self.unreached, self.overtaken, self.panics) = (0, 0, 0);
        if let Some(pace) = &mut self.pace {
            pace.passed(handled, chunk.through);
        }
        self.failing.take_if(|failing| failing.position <= chunk.through);
    }

    pub(crate) fn report(&self, chunk: &Chunk, handled: u64) {
        self.health.report(&self.reading.kernel, chunk, |health| {
            health.parked = self.letters.len();
            health.handled += handled;
            health.is_cautious = self.pace.as_ref().is_some_and(Pace::is_cautious);
        });
    }

    /// Whether an event is to be handled, by what is read and by whom.
    pub(crate) fn wants(&self, event: &RecordedEvent) -> bool {
        is_in_scope(&self.options.scope, event)
            && self.work.wants(event)
            && self.options.partitions.at(event) == self.partition
    }
}

pub(crate) fn broken(error: impl std::fmt::Display) -> End {
    End::Stop(StopReason::Broken(error.to_string()))
}

/// How many of these events a batch has room for; at least one.
pub fn within(events: &[RecordedEvent], options: &ConsumerOptions) -> usize {
    let mut left = options.batch_bytes_max;
    let fits = |event: &&RecordedEvent| {
        let fits = event.size() <= left;
        left = left.saturating_sub(event.size());
        fits
    };
    events.iter().take_while(fits).count().max(1)
}

/// The next order; one that the consumer's end gives, too.
pub async fn next_order(orders: &mut mpsc::Receiver<Order>, health: &Place) -> Order {
    tokio::select! {
        biased;
        order = orders.recv() => order.unwrap_or(Order::Stop),
        () = health.halted() => Order::Stop,
    }
}

/// Waits until another process is to have the partition.
async fn to_leave(seat: &mut Option<Seat>) {
    match seat {
        Some(seat) => seat.until_leaving().await,
        None => std::future::pending().await,
    }
}

/// Waits until others have stored something to look for.
async fn rung(bell: &Option<Bell>) {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}

/// However a worker ends, its health says so.
#[derive(Debug)]
pub struct Ending(pub Place);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.change_if(|health| {
            let is_silent = !matches!(health.state, ConsumerState::Stopped(_));
            if is_silent {
                let told =
                    "its target panicked, or the runtime that it ran on has ended: start it again";
                health.state = ConsumerState::Stopped(StopReason::Broken(told.into()));
                self.0.halt();
            }
            is_silent
        });
    }
}
