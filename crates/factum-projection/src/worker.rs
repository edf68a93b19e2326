//! The loop of every consumer: read, handle, store progress, again.

mod attempt;
mod begin;
mod order;
mod release;
mod stored_order;

use std::{collections::BTreeMap, sync::Arc};

use factum_core::{
    Checkpoint, Kernel, Position, ReadError, RecordedEvent, Scope, StoreErrorKind, StreamId,
    Timestamp,
};
use tokio::sync::{mpsc, watch};

use crate::{
    handle::Order,
    health::{ConsumerHealth, ConsumerState, StopReason},
    letter::Letter,
    name::ConsumerName,
    option::ConsumerOptions,
    pace::Pace,
    progress::{self, Mark, Progress},
    source::{Chunk, Reading, Source},
    target::{Fence, Save, Target, TargetError},
    work::Work,
};

use release::Redo;

/// So many positions may be passed without an event to handle before that is stored.
const PASSED_MAX: u64 = 10_000;

pub(crate) struct Worker<W: Work> {
    /// Which start this is: what is stored says who stored it.
    pub(crate) id: u64,
    pub(crate) name: ConsumerName,
    pub(crate) work: Arc<W>,
    pub(crate) target: Arc<W::Target>,
    pub(crate) options: ConsumerOptions,
    pub(crate) reading: Reading,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) health: watch::Sender<ConsumerHealth>,
    pub(crate) is_paused: bool,
    /// What is parked.
    pub(crate) letters: BTreeMap<StreamId, Letter>,
    /// None before the first start.
    pub(crate) pace: Option<Pace>,
    /// The event that fails.
    pub(crate) failing: Option<Failing>,
    /// How often its target could not be reached.
    pub(crate) unreached: u32,
    /// When it last looked for orders in the store.
    pub(crate) looked_at: Option<Timestamp>,
    /// It has stored something: whoever has stored since has taken over.
    pub(crate) is_owner: bool,
    /// A release to do again, up to where it failed.
    pub(crate) redo: Option<Redo>,
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
}

impl<W: Work> Worker<W> {
    /// A number that no other start has.
    pub(crate) fn new_id(kernel: &Kernel) -> u64 {
        let (high, low) = kernel.ids().uuid(kernel.clock().now()).as_u64_pair();
        high.rotate_left(32) ^ low
    }

    pub(crate) async fn run(mut self) {
        let _ending = Ending(self.health.clone());
        let reason = loop {
            match self.live().await {
                End::Stop(reason) => break reason,
                End::Reopen => {}
            }
        };
        self.target.reached(None);
        self.health.send_modify(|health| {
            health.state = ConsumerState::Stopped(reason);
            health.lag = None;
        });
    }

    async fn live(&mut self) -> End {
        let mut life = match self.begin().await {
            Ok(life) => life,
            Err(end) => return end,
        };
        let mut outcome = self.redo(&mut life).await;
        while outcome.is_ok() {
            outcome = self.step(&mut life).await;
        }
        match outcome {
            Err(End::Stop(reason)) => {
                self.leave(&mut life).await;
                End::Stop(reason)
            }
            _ => End::Reopen,
        }
    }

    async fn step(&mut self, life: &mut Life) -> Result<(), End> {
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
        let (clock, is_asked) = (self.reading.kernel.clock().clone(), self.takes_stored_orders());
        let at_end = life.source.is_live() && *head.borrow() <= self.health.borrow().position;
        let state = if at_end { ConsumerState::Live } else { ConsumerState::CatchingUp };
        self.tell(state);
        tokio::select! {
            biased;
            order = self.orders.recv() => {
                self.obey(life, order.unwrap_or(Order::Stop)).await?;
                Ok(None)
            }
            () = clock.sleep(stored_order::ORDERS_EVERY), if is_asked => Ok(None),
            chunk = life.source.next() => match chunk {
                Ok(chunk) => {
                    life.unread = 0;
                    chunk.iter().for_each(|chunk| self.see(chunk, 0));
                    Ok(chunk)
                }
                Err(ReadError::Store(error)) if error.kind() == StoreErrorKind::Unavailable => {
                    life.unread += 1;
                    self.pause_after(&error.to_string(), None, life.unread).await?;
                    Ok(None)
                }
                Err(error) => Err(self.read_failed(error).await),
            },
        }
    }

    /// What is to be handled next.
    pub(crate) fn see(&self, chunk: &Chunk, at: usize) {
        let Some(next) = chunk.events().get(at) else { return };
        self.health.send_modify(|health| {
            health.recorded_at = Some(next.recorded_at());
            health.head = chunk.head().max(health.head);
        });
    }

    /// The log can't be read.
    async fn read_failed(&mut self, error: ReadError) -> End {
        match error {
            ReadError::Store(error) if error.kind() == StoreErrorKind::Unavailable => {
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
        self.target.reached(Some(chunk.through));
        self.report(chunk, 0);
        Ok(())
    }

    /// What failed up to there has come through.
    pub(crate) fn is_past(&mut self, chunk: &Chunk, handled: usize) {
        self.unreached = 0;
        if let Some(pace) = &mut self.pace {
            pace.passed(handled, chunk.through);
        }
        self.failing.take_if(|failing| failing.position <= chunk.through);
    }

    pub(crate) fn report(&self, chunk: &Chunk, handled: u64) {
        let now = self.reading.kernel.clock().now();
        let known = *self.reading.kernel.events().head().borrow();
        self.health.send_modify(|health| {
            health.position = chunk.through.max(health.position);
            health.head = chunk.head().max(health.head).max(known).max(health.position);
            let recorded_at = chunk.events().last().map(RecordedEvent::recorded_at);
            health.recorded_at = recorded_at.or(health.recorded_at);
            health.lag = health.lag_at(now);
            health.parked = self.letters.len();
            health.handled += handled;
            health.is_cautious = self.pace.as_ref().is_some_and(Pace::is_cautious);
        });
    }

    pub(crate) fn tell(&self, state: ConsumerState) {
        self.health.send_if_modified(|health| {
            let is_new = health.state != state;
            health.state = state;
            is_new
        });
    }

    /// Whether an event is to be handled, by what is read and by whom.
    pub(crate) fn wants(&self, event: &RecordedEvent) -> bool {
        let stream = event.stream();
        let is_in_scope = match &self.options.scope {
            Scope::Log => !stream.is_system(),
            Scope::Stream(id) => stream == id.as_ref(),
            Scope::Category(category) => stream.category() == category.as_str(),
            Scope::Query(query) => !stream.is_system() && query.matches(event.name(), event.tags()),
        };
        is_in_scope && self.work.wants(event)
    }
}

pub(crate) fn broken(error: impl std::fmt::Display) -> End {
    End::Stop(StopReason::Broken(error.to_string()))
}

/// How many of these events a batch has room for; at least one.
fn within(events: &[RecordedEvent], options: &ConsumerOptions) -> usize {
    let mut left = options.batch_bytes_max;
    let fits = |event: &&RecordedEvent| {
        let fits = event.size() <= left;
        left = left.saturating_sub(event.size());
        fits
    };
    events.iter().take_while(fits).count().max(1)
}

/// However a worker ends, its health says so.
struct Ending(watch::Sender<ConsumerHealth>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.send_if_modified(|health| {
            let is_silent = !matches!(health.state, ConsumerState::Stopped(_));
            if is_silent {
                let told = "its task has ended: its target panicked, or the runtime is gone";
                health.state = ConsumerState::Stopped(StopReason::Broken(told.into()));
            }
            is_silent
        });
    }
}
