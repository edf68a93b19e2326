//! The loop of every consumer: read, handle, store progress, again.

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

use factum_kernel::{Checkpoint, Kernel, Monotonic, Position, ReadError, RecordedEvent, StreamId};
use tokio::sync::mpsc;

use crate::{
    caught::caught,
    consumers::Launch,
    handle::Order,
    health::{ConsumerState, Place, StopReason},
    hold::Handover,
    lease::{Bell, Seat},
    letter::Letter,
    name::ConsumerName,
    option::ConsumerOptions,
    outage::Outages,
    progress::{self, Mark, Progress},
    source::{Chunk, Reading, Source, is_in_scope},
    target::{Fence, Save, TargetError},
    work::Work,
};

pub(crate) use call::Calls;
pub use call::Patience;
use machine::{After, End, Machine, Rules, Trouble};
pub use machine::{ERROR_BYTES_MAX, PANICS_MAX};
pub use stored_order::ORDERS_EVERY;

/// So many positions may be passed without an event to handle before that is stored.
const PASSED_MAX: u64 = 10_000;

pub(crate) struct Worker<W: Work> {
    /// Which start this is: what is stored says who stored it.
    id: u64,
    /// What its progress is kept under.
    name: ConsumerName,
    /// Which of the consumer's partitions it works on.
    partition: usize,
    /// Whether the number of partitions is compared with what is stored.
    is_layout_kept: bool,
    /// Who lets another consumer take its place.
    handover: Option<Arc<dyn Handover>>,
    work: Arc<W>,
    target: Calls<W::Target>,
    options: ConsumerOptions,
    /// What tells of an outage in a handler's error.
    outages: Outages,
    reading: Reading,
    orders: mpsc::Receiver<Order>,
    health: Place,
    /// Where several processes run it.
    seat: Option<Seat>,
    /// Says when to look for orders in the store, where others can be heard.
    bell: Option<Bell>,
    /// When it last looked for them.
    looked_at: Option<Monotonic>,
    /// What is parked.
    letters: BTreeMap<StreamId, Letter>,
    /// What it does next.
    machine: Machine,
}

/// What a worker has of its own, among those of a consumer.
pub(crate) struct Part {
    /// Which partition.
    pub(crate) at: usize,
    pub(crate) health: Place,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) seat: Option<Seat>,
    pub(crate) bell: Option<Bell>,
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
}

impl<W: Work> Worker<W> {
    pub(crate) fn new(launch: &Launch<W>, part: Part, reading: Reading, outages: Outages) -> Self {
        let Part { at, health, orders, seat, bell } = part;
        let kernel = reading.kernel.clone();
        let options = launch.options.clone();
        let rules = Rules {
            failure: options.failure,
            batch_events_max: options.batch_events_max,
            is_shared: seat.is_some(),
        };
        Self {
            id: new_id(&kernel),
            name: launch.name.part(at, options.partitions.count()),
            partition: at,
            is_layout_kept: launch.is_layout_kept,
            handover: launch.handover.clone(),
            work: launch.work.clone(),
            target: Calls::new(launch.target.clone(), health.clone(), kernel.clock().clone()),
            options,
            outages,
            reading,
            orders,
            health,
            seat,
            bell,
            looked_at: None,
            letters: BTreeMap::new(),
            machine: Machine::new(rules),
        }
    }

    /// Runs until it stops. The ending is made before, for a task that a runtime never polls.
    pub(crate) async fn run(mut self, _ending: Ending) {
        let reason = loop {
            let end = self.survive().await;
            let after = match self.machine.ended(end) {
                After::LookAgain => self.look_again().await,
                after => after,
            };
            if let After::Stop(reason) = after {
                break reason;
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

    /// A life, with what is to be done about a panic in it: of a target, or of the store.
    async fn survive(&mut self) -> End {
        let life = async {
            match self.stand_by().await {
                Ok(()) => self.live().await,
                Err(end) => end,
            }
        };
        match caught(life).await {
            Ok(end) => end,
            Err(told) => {
                let trouble = self.machine.panicked(&told);
                self.settle(trouble).await
            }
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
        let count = self.machine.take(chunk.events().iter().map(RecordedEvent::position));
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
                    self.machine.is_read();
                    chunk.iter().for_each(|chunk| self.health.see(chunk, 0));
                    Ok(chunk)
                }
                Err(ReadError::Store(error)) if !error.kind().is_permanent() => {
                    let attempts = self.machine.unread();
                    self.pause_after(&error.to_string(), None, attempts).await?;
                    Ok(None)
                }
                Err(error) => Err(self.read_failed(error).await),
            },
        }
    }

    /// The log can't be read.
    async fn read_failed(&mut self, error: ReadError) -> End {
        let trouble = self.machine.read_failed(error);
        self.settle(trouble).await
    }

    /// An error of the target that is no event's fault.
    async fn target_failed(&mut self, error: TargetError) -> End {
        let trouble = self.machine.target_failed(error);
        self.settle(trouble).await
    }

    /// The log or the target can't be reached.
    async fn away(&mut self, error: String) -> End {
        let trouble = self.machine.away(error);
        self.settle(trouble).await
    }

    /// Does what follows on an error that is no event's fault.
    async fn settle(&mut self, trouble: Trouble) -> End {
        let (attempts, error) = match trouble {
            Trouble::End(end) => return end,
            Trouble::Away { attempts, error } => (attempts, error),
        };
        match self.pause_after(&error, None, attempts).await {
            Ok(()) => End::Reopen,
            Err(end) => end,
        }
    }

    /// Stores progress, and a mark.
    async fn save(&self, life: &Life, mark: Option<Mark>) -> Result<Fence, TargetError> {
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
    async fn passed(&mut self, life: &mut Life, chunk: &Chunk) -> Result<(), End> {
        self.machine.passed(0, chunk.through);
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

    fn report(&self, chunk: &Chunk, handled: u64) {
        self.health.report(&self.reading.kernel, chunk, |health| {
            health.parked = self.letters.len();
            health.handled += handled;
            health.is_cautious = self.machine.is_cautious();
        });
    }

    /// Whether an event is to be handled, by what is read and by whom.
    fn wants(&self, event: &RecordedEvent) -> bool {
        is_in_scope(&self.options.scope, event)
            && self.work.wants(event)
            && self.options.partitions.at(event) == self.partition
    }
}

/// A number that no other start has.
fn new_id(kernel: &Kernel) -> u64 {
    let (high, low) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
    high.rotate_left(32) ^ low
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
