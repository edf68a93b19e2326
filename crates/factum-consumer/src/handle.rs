//! The handle of a running consumer.

use std::{collections::BTreeMap, fmt, pin::Pin, sync::Arc, time::Duration};

use factum_kernel::{Checkpoint, Clock, Position, StreamId};
use factum_runtime::Supervisor;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    dead_letter::{DeadLetter, StoredLetter, UnreadEvent, Waiting},
    error::{ReleaseError, WaitError},
    health::{Board, ConsumerHealth, ConsumerState, Reach, StopReason},
    lease::Membership,
    name::ConsumerName,
    orders::Order,
    progress::{self, Progress},
    stored::Release,
    target::{Target, TargetError, unreadable},
};

/// The interval at which a waiting caller reads the progress that other processes have stored.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The stored progress of one partition.
#[derive(Debug, Clone, Default)]
pub struct StoredPart {
    /// The position up to which every event is handled, skipped or parked.
    pub position: Position,
    /// The checkpoint of that position; `None` if there is none yet.
    pub checkpoint: Option<Checkpoint>,
    /// The position after which the partition began; `None` if it has no progress, or its progress
    /// does not say.
    pub began_after: Option<Position>,
    /// The streams that wait.
    pub waiting: Waiting,
}

impl StoredPart {
    /// Reads the progress of a partition from its target.
    pub async fn look<T: Target>(target: &T, part: &ConsumerName) -> Result<Self, TargetError> {
        let opened = target.look(part).await?;
        let mut letters = BTreeMap::<StreamId, StoredLetter>::new();
        for (stream, letter) in opened.letters {
            letters.insert(stream, progress::decode(&letter).map_err(unreadable)?);
        }
        let waiting = Waiting::of(&letters);
        let Some(progress) = &opened.progress else {
            return Ok(Self { waiting, ..Self::default() });
        };
        let progress: Progress = progress::decode(progress).map_err(unreadable)?;
        let position = progress.position();
        let Progress { checkpoint, began_after, .. } = progress;
        Ok(Self { position, checkpoint, began_after, waiting })
    }

    /// The first event up to a position that waits for a program that can read it.
    pub fn unread_to(&self, position: Position) -> Option<&UnreadEvent> {
        self.waiting.first.as_ref().filter(|event| event.position <= position)
    }
}

type Looked = Pin<Box<dyn Future<Output = Result<StoredPart, TargetError>> + Send>>;
/// Reads the stored progress of a partition and changes nothing.
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
    /// The supervisor of the partitions' loops.
    pub(crate) supervisor: Supervisor,
    /// This process's part in the leases; `None` if the consumer is not shared.
    pub(crate) membership: Option<Membership>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl ConsumerHandle {
    /// The consumer's name, with its version.
    pub fn name(&self) -> &ConsumerName {
        &self.name
    }

    /// The current health, over all partitions.
    pub fn health(&self) -> ConsumerHealth {
        self.board.at(&*self.clock)
    }

    /// The health of each partition, by the name under which its progress is stored.
    pub fn partitions(&self) -> Vec<(ConsumerName, ConsumerHealth)> {
        let parts = self.board.each_at(&*self.clock);
        let name = |at: usize| self.name.part(at, self.partitions.len());
        parts.into_iter().enumerate().map(|(at, health)| (name(at), health)).collect()
    }

    /// The health, as a value that can be watched for changes.
    pub fn watch(&self) -> watch::Receiver<ConsumerHealth> {
        self.board.watch()
    }

    /// Waits until every event up to `position` is handled, skipped or parked. Pass the position of
    /// a command's events to read your own writes. For a partition on which another process works,
    /// its stored progress or its owner's last heartbeat counts.
    ///
    /// # Errors
    /// [`WaitError::Behind`] after `timeout`, [`WaitError::Unread`] if the program of the consumer
    /// can't read one of the events, [`WaitError::Stopped`] if the consumer will never reach the
    /// position.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        tokio::select! {
            biased;
            reached = self.comes_to(position) => reached,
            () = self.clock.sleep(timeout) => Err(WaitError::Behind {
                consumer: self.name.clone(),
                position,
                reached: self.board.whole().position,
                waited: timeout,
            }),
        }
    }

    /// True if the partitions that other processes work on have reached the position.
    ///
    /// # Errors
    /// The first event up to the position that those processes can't read.
    async fn have_reached(
        &self,
        elsewhere: &[usize],
        position: Position,
    ) -> Result<bool, UnreadEvent> {
        for &at in elsewhere {
            let part = (self.name.clone(), at);
            // Read the report first: the letters of the events up to it are stored by then.
            let reported = self.membership.as_ref().and_then(|it| it.position(&part));
            let Ok(stored) = (self.partitions[at].look)().await else { return Ok(false) };
            if reported.unwrap_or_default().max(stored.position) < position {
                return Ok(false);
            }
            if let Some(event) = stored.unread_to(position) {
                // Without a live owner that has come so far, the next owner is to try the event.
                let is_owned = reported.is_some_and(|reported| reported >= position);
                return if is_owned { Err(event.clone()) } else { Ok(false) };
            }
        }
        Ok(true)
    }

    /// Pauses the consumer in this process after the current event, until [`resume`](Self::resume)
    /// or the next start. A partition that moves to another process continues there.
    pub async fn pause(&self) {
        for partition in &*self.partitions {
            let _ = partition.orders.send(Order::Pause).await;
        }
    }

    /// Ends a pause.
    pub async fn resume(&self) {
        for partition in &*self.partitions {
            let _ = partition.orders.send(Order::Resume).await;
        }
    }

    /// Stops the consumer after the current event and waits for that. A target that does not answer
    /// is given ten seconds. Other processes that run the consumer continue it.
    pub async fn stop(&self) -> StopReason {
        self.tell_to_stop();
        // Ends the pause of a loop that is about to be restarted, and restarts none any more.
        self.supervisor.shutdown().await;
        let mut health = self.board.watch();
        // Not `watch::Receiver::wait_for`: it holds the lock of the value while it asks.
        while !self.has_ended() && health.changed().await.is_ok() {}
        stopped(&self.board.whole().state).unwrap_or(StopReason::Asked)
    }

    /// Asks the consumer to stop, without waiting for it.
    pub(crate) fn tell_to_stop(&self) {
        self.board.halt();
    }

    /// The dead letters, by the position of their events.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut letters = Vec::new();
        for partition in &*self.partitions {
            letters.extend(partition.letters().await);
        }
        letters.sort_by_key(|letter| letter.position);
        letters
    }

    /// Handles the parked event of a stream again, then the later events of the stream that wait
    /// for it.
    ///
    /// # Errors
    /// [`ReleaseError::Failed`] with the error of this attempt. The stream stays parked at the
    /// event that failed.
    pub async fn retry(&self, stream: &StreamId) -> Result<(), ReleaseError> {
        self.release(stream, Release::Retry).await
    }

    /// Discards the parked event of a stream, then handles the later events of the stream that wait
    /// for it.
    ///
    /// # Errors
    /// [`ReleaseError::Failed`] with the error of a later event. The stream stays parked at that
    /// event.
    pub async fn discard(&self, stream: &StreamId) -> Result<(), ReleaseError> {
        self.release(stream, Release::Discard).await
    }

    async fn release(&self, stream: &StreamId, release: Release) -> Result<(), ReleaseError> {
        if let [only] = &*self.partitions {
            return only.release(stream, release).await;
        }
        let mut is_parked = false;
        // If the partition key is not the stream, the stream may be parked in several partitions.
        for partition in &*self.partitions {
            if partition.letters().await.iter().any(|letter| letter.stream == *stream) {
                is_parked = true;
                partition.release(stream, release).await?;
            }
        }
        if is_parked { Ok(()) } else { Err(ReleaseError::NothingParked(stream.clone())) }
    }
}

/// For the crates above: see `part.rs`.
#[doc(hidden)]
impl ConsumerHandle {
    /// The consumer's clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Reports in the health why an earlier build can't be dropped.
    pub fn note_undropped(&self, undropped: Option<String>) {
        self.board.note_undropped(undropped);
    }

    /// Waits until the consumer has reached a position.
    ///
    /// # Errors
    /// [`WaitError::Unread`], [`WaitError::Stopped`]: the reason why it does not.
    pub async fn comes_to(&self, position: Position) -> Result<(), WaitError> {
        let consumer = || self.name.clone();
        let ended = |reason| WaitError::Stopped { consumer: consumer(), reason };
        let unread = |event| WaitError::Unread { consumer: consumer(), event };
        let mut health = self.board.watch();
        loop {
            let whole = health.borrow_and_update().clone();
            let Reach { is_here, unread: first, elsewhere } = self.board.reach(position);
            let stopped = stopped(&whole.state);
            // The consumer's positions belong to another log.
            if let Some(reason @ StopReason::Diverged(_)) = stopped {
                return Err(ended(reason));
            }
            if is_here {
                if let Some(event) = first {
                    return Err(unread(event));
                }
                if self.have_reached(&elsewhere, position).await.map_err(unread)? {
                    return Ok(());
                }
            }
            if let Some(reason) = stopped {
                return Err(ended(reason));
            }
            tokio::select! {
                biased;
                changed = health.changed() => if changed.is_err() {
                    return Err(ended(StopReason::Asked));
                },
                () = self.clock.sleep(LOOK_EVERY), if !elsewhere.is_empty() => {}
            }
        }
    }

    /// The number of streams that wait, in the partitions that other processes work on.
    pub async fn waiting_elsewhere(&self) -> Result<usize, TargetError> {
        let mut waiting = 0;
        for at in self.board.elsewhere() {
            let part = (self.partitions[at].look)().await?;
            waiting += part.waiting.parked + part.waiting.unread;
        }
        Ok(waiting)
    }

    /// True if no partition runs in this process any more.
    pub fn has_ended(&self) -> bool {
        self.board.has_ended()
    }

    /// True if no partition is being worked on in this process: each is paused, stands by or has
    /// stopped.
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
