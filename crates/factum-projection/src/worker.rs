//! The loop of every consumer: read, handle, store progress, again.

mod attempt;
mod order;
mod release;

use std::{collections::BTreeMap, sync::Arc};

use factum_core::{
    Checkpoint, Position, ReadError, ReadFrom, ReadQuery, RecordedEvent, Scope, StoreError,
    StoreErrorKind, StreamId, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    handle::Order,
    health::{ConsumerHealth, ConsumerState, StopReason},
    letter::{DeadLetter, Letter},
    name::ConsumerName,
    option::{ConsumerOptions, StartFrom},
    pace::Pace,
    progress::{self, Mark, Progress},
    source::{Chunk, Reading, Source},
    target::{Fence, Opened, Save, Target, TargetError},
    work::Work,
};

/// So many positions may be passed without an event to handle before that is stored.
const PASSED_MAX: u64 = 10_000;

pub(crate) struct Worker<W: Work> {
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
}

/// An event that fails, and what it said.
#[derive(Debug, Clone)]
pub(crate) struct Failing {
    pub(crate) position: Position,
    pub(crate) attempts: u32,
    pub(crate) error: String,
    /// It is not tried again.
    pub(crate) is_final: bool,
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
    pub(crate) async fn run(mut self) {
        let reason = loop {
            match self.live().await {
                End::Stop(reason) => break reason,
                End::Reopen => {}
            }
        };
        self.health.send_modify(|health| {
            health.state = ConsumerState::Stopped(reason);
            health.lag = None;
        });
    }

    async fn live(&mut self) -> End {
        let mut life = match self.begin().await {
            Ok(life) => life,
            Err(error) => return self.target_failed(error).await,
        };
        self.unreached = 0;
        loop {
            match self.step(&mut life).await {
                Ok(()) => {}
                Err(End::Stop(reason)) => {
                    self.leave(&mut life).await;
                    return End::Stop(reason);
                }
                Err(End::Reopen) => return End::Reopen,
            }
        }
    }

    /// What is stored, and the source behind it.
    async fn begin(&mut self) -> Result<Life, TargetError> {
        self.tell(ConsumerState::Starting);
        let Opened { fence, progress, mark, letters } = self.target.open(&self.name).await?;
        let is_first = progress.is_none();
        let mut progress: Progress = read(progress.as_deref())?;
        let mark: Mark = read(mark.as_deref())?;
        if is_first {
            progress.began_after = Some(self.beginning().await?);
        }
        self.letters.clear();
        for (stream, letter) in letters {
            self.letters.insert(stream, decode(&letter)?);
        }
        let events = self.reading.kernel.events();
        let head = *events.head().borrow();
        let max = self.options.batch_events_max;
        // Only what another life of the process left behind asks for care.
        self.pace.get_or_insert_with(|| Pace::new(max, mark, W::Target::COMMITS, head));
        let from = progress.checkpoint.ok_or(progress.began_after.unwrap_or(Position::ZERO));
        let page_max = (max, self.options.batch_bytes_max);
        let source = Source::new(self.reading.clone(), self.options.scope.clone(), page_max, from);
        let stored = progress.checkpoint;
        let mut life = Life { fence, progress, stored, source, pending: None, unread: 0 };
        let at_work = Mark { at_work: Some(max), attempt: mark.attempt };
        life.fence = self.save(&life, Some(at_work)).await?;
        let reached = from.map_or_else(|position| position, |checkpoint| checkpoint.position);
        self.health.send_modify(|health| {
            health.position = reached;
            health.head = head.max(reached);
            health.parked = self.letters.len();
        });
        Ok(life)
    }

    /// The position after which it begins.
    async fn beginning(&self) -> Result<Position, StoreError> {
        let events = self.reading.kernel.events();
        match self.options.from {
            StartFrom::Start => Ok(Position::ZERO),
            StartFrom::After(position) => Ok(position),
            StartFrom::Now => Ok(events.read(ReadQuery::log().with_events_max(1)).await?.head),
            StartFrom::Time(time) => {
                let query = ReadQuery::log().from(ReadFrom::Time(time)).with_events_max(1);
                let page = events.read(query).await?;
                let first = page.events.first().map(|event| event.position().previous());
                Ok(first.unwrap_or(page.head))
            }
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
            () = clock.sleep(order::ORDERS_EVERY), if is_asked => Ok(None),
            chunk = life.source.next() => match chunk {
                Ok(chunk) => {
                    life.unread = 0;
                    Ok(Some(chunk))
                }
                Err(ReadError::Store(error)) if error.kind() == StoreErrorKind::Unavailable => {
                    life.unread += 1;
                    self.pause_after(&error.to_string(), None, life.unread).await?;
                    Ok(None)
                }
                Err(ReadError::Store(error)) => Err(broken(error)),
                Err(ReadError::Diverged(error)) => {
                    Err(End::Stop(StopReason::Diverged(error.to_string())))
                }
                Err(other) => Err(broken(other)),
            },
        }
    }

    async fn take_orders(&mut self, life: &mut Life) -> Result<(), End> {
        loop {
            let order = if self.is_paused {
                self.tell(ConsumerState::Paused);
                self.orders.recv().await.unwrap_or(Order::Stop)
            } else {
                match self.orders.try_recv() {
                    Ok(order) => order,
                    Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                    Err(mpsc::error::TryRecvError::Disconnected) => Order::Stop,
                }
            };
            self.obey(life, order).await?;
        }
    }

    async fn obey(&mut self, life: &mut Life, order: Order) -> Result<(), End> {
        match order {
            Order::Stop => return Err(End::Stop(StopReason::Asked)),
            Order::Pause => self.is_paused = true,
            Order::Resume => self.is_paused = false,
            Order::Letters(answer) => self.tell_letters(answer),
            Order::Release(stream, release, answer) => {
                let outcome = self.release(life, &stream, release).await?;
                let _ = answer.send(outcome);
            }
        }
        Ok(())
    }

    fn tell_letters(&self, answer: oneshot::Sender<Vec<DeadLetter>>) {
        let letters = self.letters.iter().map(|(stream, letter)| letter.open(stream));
        let _ = answer.send(letters.collect());
    }

    /// Waits before another attempt; orders that end it come through.
    pub(crate) async fn pause_after(
        &mut self,
        error: &str,
        position: Option<Position>,
        attempts: u32,
    ) -> Result<(), End> {
        self.tell(ConsumerState::Retrying { position, attempts, error: error.into() });
        let pause = self.options.failure.pause_before(attempts);
        let kernel = self.reading.kernel.clone();
        let pause = pause / 2 + kernel.ids().jitter(pause / 2);
        let mut asleep = kernel.clock().sleep(pause);
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None | Some(Order::Stop) => return Err(End::Stop(StopReason::Asked)),
                    Some(Order::Pause) => self.is_paused = true,
                    Some(Order::Resume) => self.is_paused = false,
                    Some(Order::Letters(answer)) => self.tell_letters(answer),
                    Some(Order::Release(_, _, answer)) => {
                        let told = format!("the consumer waits to try again: {error}");
                        let _ = answer.send(Err(told));
                    }
                },
                () = &mut asleep => return Ok(()),
            }
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
        self.is_past(chunk);
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
    pub(crate) fn is_past(&mut self, chunk: &Chunk) {
        if let Some(pace) = &mut self.pace {
            pace.passed(chunk.events().len(), chunk.through);
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
            let behind = health.recorded_at.filter(|_| health.position < health.head);
            health.lag = behind.map(|at| now.saturating_since(at));
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

fn read<T: serde::de::DeserializeOwned + Default>(bytes: Option<&[u8]>) -> Result<T, TargetError> {
    bytes.map_or_else(|| Ok(T::default()), decode)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, TargetError> {
    progress::decode(bytes).map_err(|e| TargetError::Refused(Arc::new(e)))
}
