//! What people hold of a running consumer.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use factum_kernel::{Clock, Position, StreamId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    error::{ReleaseError, WaitError},
    health::{Board, ConsumerHealth, ConsumerState, StopReason},
    lease::Membership,
    letter::DeadLetter,
    name::ConsumerName,
    progress::{self, Progress},
    stored::Release,
    target::{Target, TargetError, unreadable},
};

/// How often what others have stored is looked at by those who wait for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a consumer is told.
#[derive(Debug)]
pub enum Order {
    /// Stop after the batch at hand.
    Stop,
    /// Wait until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Tell what is parked.
    Letters(oneshot::Sender<Vec<DeadLetter>>),
    /// Try the parked event of a stream again, or let it go, and then what is behind it.
    Release(StreamId, Release, oneshot::Sender<Result<(), ReleaseError>>),
}

/// What a consumer has stored of one partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoredPart {
    /// How far it has come.
    pub position: Position,
    /// After which position it began; `None`: it has not, or has forgotten.
    pub began_after: Option<Position>,
    /// How many streams are parked.
    pub parked: usize,
}

impl StoredPart {
    /// Looks at what a target keeps of a partition.
    pub async fn look<T: Target>(target: &T, part: &ConsumerName) -> Result<Self, TargetError> {
        let opened = target.look(part).await?;
        let parked = opened.letters.len();
        let Some(progress) = &opened.progress else {
            return Ok(Self { parked, ..Self::default() });
        };
        let progress: Progress = progress::decode(progress).map_err(unreadable)?;
        Ok(Self { position: progress.position(), began_after: progress.began_after, parked })
    }
}

type Looked = Pin<Box<dyn Future<Output = Result<StoredPart, TargetError>> + Send>>;
/// Looks at what is stored, and changes nothing.
pub(crate) type Look = Arc<dyn Fn() -> Looked + Send + Sync>;

/// One partition of a running consumer.
pub(crate) struct Partition {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) look: Look,
}

/// A running consumer. Cheap to clone; dropping it changes nothing.
#[derive(Clone)]
pub struct ConsumerHandle {
    pub(crate) name: ConsumerName,
    pub(crate) partitions: Arc<[Partition]>,
    pub(crate) board: Arc<Board>,
    /// Where several processes run it.
    pub(crate) membership: Option<Membership>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl ConsumerHandle {
    /// Its name, with its version.
    pub fn name(&self) -> &ConsumerName {
        &self.name
    }

    /// How it fares.
    pub fn health(&self) -> ConsumerHealth {
        self.board.at(&*self.clock)
    }

    /// How each of its partitions fares, under the name that its progress is stored by.
    pub fn partitions(&self) -> Vec<(ConsumerName, ConsumerHealth)> {
        let parts = self.board.each_at(&*self.clock);
        let name = |at: usize| self.name.part(at, self.partitions.len());
        parts.into_iter().enumerate().map(|(at, health)| (name(at), health)).collect()
    }

    /// How it fares, whenever that changes.
    pub fn watch(&self) -> watch::Receiver<ConsumerHealth> {
        self.board.watch()
    }

    /// Waits until every event up to this position is handled, passed, or parked: the position
    /// that an execution answered, to read what one has written. Where other processes work on
    /// partitions of it, what they have stored or said last counts.
    ///
    /// # Errors
    /// [`WaitError::Behind`] when the time is over, [`WaitError::Stopped`] if it will never come.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        tokio::select! {
            biased;
            come = self.comes_to(position) => come.map_err(|reason| {
                WaitError::Stopped { consumer: self.name.clone(), reason }
            }),
            () = self.clock.sleep(timeout) => Err(WaitError::Behind {
                consumer: self.name.clone(),
                position,
                reached: self.board.whole().position,
                waited: timeout,
            }),
        }
    }

    /// Whether these partitions, which others work on, have come so far.
    async fn have_come(&self, elsewhere: &[usize], position: Position) -> bool {
        for &at in elsewhere {
            let part = (self.name.clone(), at);
            let said = self.membership.as_ref().and_then(|it| it.position(&part));
            if said.is_some_and(|said| said >= position) {
                continue;
            }
            match (self.partitions[at].look)().await {
                Ok(stored) if stored.position >= position => {}
                _ => return false,
            }
        }
        true
    }

    /// Lets it wait, after the batch at hand, until [`resume`](Self::resume) or the next start. In
    /// this process: a partition that another is to have goes on there.
    pub async fn pause(&self) {
        for partition in &*self.partitions {
            let _ = partition.orders.send(Order::Pause).await;
        }
    }

    /// Lets it go on.
    pub async fn resume(&self) {
        for partition in &*self.partitions {
            let _ = partition.orders.send(Order::Resume).await;
        }
    }

    /// Lets it stop after the batch at hand, and waits for that; ten seconds for a target that
    /// does not answer. Where other processes run it too,
    /// they go on with it.
    pub async fn stop(&self) -> StopReason {
        self.tell_to_stop();
        let mut health = self.board.watch();
        // Not by `wait_for`, which holds the sum while it asks.
        while !self.has_ended() && health.changed().await.is_ok() {}
        stopped(&self.board.whole().state).unwrap_or(StopReason::Asked)
    }

    /// Tells it to stop, and does not wait.
    pub(crate) fn tell_to_stop(&self) {
        self.board.halt();
    }

    /// What is parked, by the position of the events.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        for partition in &*self.partitions {
            letters.extend(partition.letters().await);
        }
        letters.sort_by_key(|letter| letter.position);
        letters
    }

    /// Handles the parked event of a stream again, and what waits behind it.
    ///
    /// # Errors
    /// [`ReleaseError::Failed`] with what the event said this time: it stays parked, or a later one
    /// is in its place.
    pub async fn retry(&self, stream: &StreamId) -> Result<(), ReleaseError> {
        self.release(stream, Release::Retry).await
    }

    /// Leaves the parked event of a stream out, and handles what waits behind it.
    ///
    /// # Errors
    /// [`ReleaseError::Failed`] with what a later event said; the stream waits behind that one.
    pub async fn discard(&self, stream: &StreamId) -> Result<(), ReleaseError> {
        self.release(stream, Release::Discard).await
    }

    async fn release(&self, stream: &StreamId, release: Release) -> Result<(), ReleaseError> {
        if let [only] = &*self.partitions {
            return only.release(stream, release).await;
        }
        let mut is_parked = false;
        // Where the key is not the stream, it may wait in several.
        for partition in &*self.partitions {
            if partition.letters().await.iter().any(|letter| letter.stream == *stream) {
                is_parked = true;
                partition.release(stream, release).await?;
            }
        }
        if is_parked { Ok(()) } else { Err(ReleaseError::NothingParked(stream.clone())) }
    }
}

/// For what is run above consumers: see `part.rs`.
#[doc(hidden)]
impl ConsumerHandle {
    /// The clock that it goes by.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Lets its health say what keeps an earlier build from being dropped.
    pub fn note_undropped(&self, undropped: Option<String>) {
        self.board.note_undropped(undropped);
    }

    /// Waits until it has come to a position; if it never will, why.
    pub async fn comes_to(&self, position: Position) -> Result<(), StopReason> {
        let mut health = self.board.watch();
        loop {
            let whole = health.borrow_and_update().clone();
            let (is_here, elsewhere) = self.board.is_at(position);
            match stopped(&whole.state) {
                // Its positions are another log's.
                Some(reason @ StopReason::Diverged(_)) => return Err(reason),
                _ if is_here && self.have_come(&elsewhere, position).await => return Ok(()),
                Some(reason) => return Err(reason),
                None => {}
            }
            tokio::select! {
                biased;
                changed = health.changed() => if changed.is_err() {
                    return Err(StopReason::Asked);
                },
                () = self.clock.sleep(LOOK_EVERY), if !elsewhere.is_empty() => {}
            }
        }
    }

    /// Streams that wait in the partitions that others work on.
    pub async fn parked_elsewhere(&self) -> Result<usize, TargetError> {
        let mut parked = 0;
        for at in self.board.elsewhere() {
            parked += (self.partitions[at].look)().await?.parked;
        }
        Ok(parked)
    }

    /// Whether nothing of it runs any more in this process.
    pub fn has_ended(&self) -> bool {
        self.board.has_ended()
    }

    /// Whether no partition is worked on in this process, for now.
    pub fn stands_still(&self) -> bool {
        self.board.stands_still()
    }
}

impl Partition {
    async fn letters(&self) -> Vec<DeadLetter> {
        let (answer, answered) = oneshot::channel();
        let _ = self.orders.send(Order::Letters(answer)).await;
        answered.await.unwrap_or_default()
    }

    async fn release(&self, stream: &StreamId, release: Release) -> Result<(), ReleaseError> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Release(stream.clone(), release, answer);
        let _ = self.orders.send(order).await;
        answered.await.unwrap_or(Err(ReleaseError::Stopped))
    }
}

fn stopped(state: &ConsumerState) -> Option<StopReason> {
    if let ConsumerState::Stopped(reason) = state { Some(reason.clone()) } else { None }
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerHandle").field("name", &self.name).finish_non_exhaustive()
    }
}
