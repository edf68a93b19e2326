//! The board on which the partitions of a consumer report their health, and the sum of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use factum_kernel::{Clock, Kernel, Position, RecordedEvent, StreamId, sentence};
use tokio::sync::watch;

use super::{ConsumerHealth, ConsumerState, StopReason, metrics::Metrics};
use crate::{
    dead_letter::{StoredLetter, UnreadEvent},
    name::ConsumerName,
    source::Chunk,
};

/// The health of a consumer in this process.
#[derive(Debug)]
pub(crate) struct Board {
    name: ConsumerName,
    parts: Mutex<Vec<ConsumerHealth>>,
    whole: watch::Sender<ConsumerHealth>,
    /// The reason why an earlier build can't be dropped yet.
    undropped: Mutex<Option<String>>,
    /// True if all partitions must stop: the caller asked for it, or one partition has stopped by
    /// itself.
    is_halted: watch::Sender<bool>,
    metrics: Metrics,
}

/// The progress of a consumer's partitions, compared with a position.
pub(crate) struct Reach {
    /// True if the partitions that this process works on have reached the position.
    pub(crate) is_here: bool,
    /// The first event up to the position that those partitions can't read.
    pub(crate) unread: Option<UnreadEvent>,
    /// The partitions that other processes work on.
    pub(crate) elsewhere: Vec<usize>,
}

/// The place of one partition on the board, through which it reports its health.
#[derive(Debug, Clone)]
pub struct Place {
    board: Arc<Board>,
    at: usize,
}

impl Board {
    pub(crate) fn new(name: &ConsumerName, partitions: usize) -> Arc<Self> {
        let parts = vec![ConsumerHealth::new(); partitions];
        let whole = watch::Sender::new(together(&parts));
        let is_halted = watch::Sender::new(false);
        let metrics = Metrics::of(name);
        let undropped = Mutex::default();
        let name = name.clone();
        Arc::new(Self { name, parts: Mutex::new(parts), whole, undropped, is_halted, metrics })
    }

    pub(crate) fn place(self: &Arc<Self>, at: usize) -> Place {
        Place { board: self.clone(), at }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<ConsumerHealth> {
        self.whole.subscribe()
    }

    pub(crate) fn whole(&self) -> ConsumerHealth {
        self.whole.borrow().clone()
    }

    /// The sum of all partitions at this moment.
    pub(crate) fn at(&self, clock: &dyn Clock) -> ConsumerHealth {
        let parts: Vec<_> = self.parts().iter().map(|part| part.clone().at(clock)).collect();
        self.sum(&parts)
    }

    pub(crate) fn each_at(&self, clock: &dyn Clock) -> Vec<ConsumerHealth> {
        let undropped = self.undropped().clone();
        let at = |part: &ConsumerHealth| part.clone().at(clock);
        let at = |part| ConsumerHealth { undropped: undropped.clone(), ..at(part) };
        self.parts().iter().map(at).collect()
    }

    /// Stops the whole consumer: the caller asked for it, or one partition has stopped by itself.
    pub(crate) fn halt(&self) {
        self.is_halted.send_replace(true);
    }

    /// Reports why an earlier build of the projection can't be dropped.
    pub(crate) fn note_undropped(&self, undropped: Option<String>) {
        if *self.undropped() == undropped {
            return;
        }
        if let Some(reason) = &undropped {
            tracing::warn!(consumer = %self.name, reason, "an earlier build can't be dropped");
        }
        *self.undropped() = undropped;
        let parts = self.parts();
        self.whole.send_replace(self.sum(&parts));
    }

    fn undropped(&self) -> MutexGuard<'_, Option<String>> {
        self.undropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum(&self, parts: &[ConsumerHealth]) -> ConsumerHealth {
        ConsumerHealth { undropped: self.undropped().clone(), ..together(parts) }
    }

    /// The partitions that other processes work on.
    pub(crate) fn elsewhere(&self) -> Vec<usize> {
        elsewhere(&self.parts())
    }

    /// The progress of all partitions at the same moment, compared with a position.
    pub(crate) fn reach(&self, position: Position) -> Reach {
        let parts = self.parts();
        let elsewhere = elsewhere(&parts);
        let mut here = (0..parts.len()).filter(|at| !elsewhere.contains(at)).map(|at| &parts[at]);
        let unread = first_unread(here.clone()).filter(|event| event.position <= position).cloned();
        let is_here = here.all(|part| part.position >= position && part.has_tried);
        Reach { is_here, unread, elsewhere }
    }

    /// True if all partitions have stopped.
    pub(crate) fn has_ended(&self) -> bool {
        self.parts().iter().all(|part| matches!(part.state, ConsumerState::Stopped(_)))
    }

    /// True if this process works on no partition at the moment.
    pub(crate) fn stands_still(&self) -> bool {
        use ConsumerState::{Paused, StandingBy, Stopped};
        self.parts().iter().all(|it| matches!(it.state, Paused | StandingBy | Stopped(_)))
    }

    fn parts(&self) -> MutexGuard<'_, Vec<ConsumerHealth>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The position up to which every event is handled, skipped or parked.
    pub fn position(&self) -> Position {
        self.board.parts()[self.at].position
    }

    /// Changes the partition's health.
    pub fn change(&self, change: impl FnOnce(&mut ConsumerHealth)) {
        self.change_if(|health| {
            change(health);
            true
        });
    }

    /// Changes the partition's health, and publishes it if `change` returns true.
    pub(crate) fn change_if(&self, change: impl FnOnce(&mut ConsumerHealth) -> bool) {
        let mut parts = self.board.parts();
        let before = parts[self.at].handled;
        let state = parts[self.at].state.clone();
        if !change(&mut parts[self.at]) {
            return;
        }
        if parts[self.at].state != state {
            self.log(&parts[self.at].state);
        }
        let handled = parts[self.at].handled.saturating_sub(before);
        let whole = self.board.sum(&parts);
        self.board.metrics.record(handled, &whole);
        // Publish under the lock, so that no older sum replaces a newer one.
        self.board.whole.send_replace(whole);
    }

    /// Reports the state.
    pub fn tell(&self, state: ConsumerState) {
        self.change_if(|health| {
            let is_new = health.state != state;
            health.state = state;
            is_new
        });
    }

    /// Reports that a life begins. If other processes may have worked on the partition since,
    /// `has_tried` is false: it is not known which streams wait.
    pub(crate) fn begin(&self, has_tried: bool) {
        self.change(|health| {
            health.state = ConsumerState::Starting;
            health.has_tried = has_tried;
        });
    }

    /// Reports that the partition has ended.
    pub(crate) fn stop(&self, reason: StopReason) {
        self.change(|health| {
            health.state = ConsumerState::Stopped(reason);
            (health.lag, health.committing_since) = (None, None);
            health.heartbeat_error = None;
        });
    }

    /// Reports the outcome of this process's heartbeat.
    pub(crate) fn note_heartbeat(&self, error: Option<&str>) {
        self.change_if(|health| {
            let is_new = health.heartbeat_error.as_deref() != error;
            health.heartbeat_error = error.map(Into::into);
            is_new
        });
    }

    /// Reports the outcome of a snapshot.
    pub fn note_snapshot(&self, error: Option<String>) {
        self.change_if(|health| {
            let is_new = health.snapshot_error != error;
            health.snapshot_error = error;
            is_new
        });
    }

    /// Reports which event of a chunk is handled next.
    pub fn see(&self, chunk: &Chunk, at: usize) {
        let Some(next) = chunk.events().get(at) else { return };
        self.change(|health| {
            health.recorded_at = Some(next.recorded_at());
            health.head = chunk.head().max(health.head);
        });
    }

    /// Reports that every event of a chunk is handled, skipped or parked, with further changes.
    pub fn report(&self, kernel: &Kernel, chunk: &Chunk, change: impl FnOnce(&mut ConsumerHealth)) {
        let before = self.position();
        assert_eq!(chunk.after, before, "batches follow each other without a hole");
        let now = kernel.clock().now();
        let reading = kernel.clock().monotonic();
        let known = *kernel.events().head().borrow();
        self.change(|health| {
            health.position = chunk.through;
            health.head = chunk.head().max(known).max(health.position);
            let recorded_at = chunk.events().last().map(RecordedEvent::recorded_at);
            health.recorded_at = recorded_at.or(health.recorded_at);
            health.lag = health.lag_at(now);
            change(health);
            health.measure(reading);
        });
    }

    /// Reports the current end of the log.
    pub fn look_up(&self, kernel: &Kernel) {
        let head = *kernel.events().head().borrow();
        let now = kernel.clock().now();
        self.change(|health| {
            health.head = health.head.max(head);
            health.lag = health.lag_at(now);
        });
    }

    /// Logs the states that an operator must see without watching the health.
    fn log(&self, state: &ConsumerState) {
        let consumer = &self.board.name;
        let partition = self.at;
        match state {
            ConsumerState::Retrying { position, attempts, error } => {
                let position = position.map(Position::value);
                tracing::warn!(
                    %consumer, partition, position, attempts, error, "a consumer tries again"
                );
            }
            ConsumerState::Stopped(StopReason::Asked) => {}
            ConsumerState::Stopped(StopReason::Diverged(reason)) => {
                let reason = reason.to_string();
                tracing::error!(
                    %consumer, partition, reason,
                    "a consumer has diverged from the log, it handles nothing until it is rewound \
                     or rebuilt"
                );
            }
            ConsumerState::Stopped(reason) => {
                let reason = sentence(reason);
                tracing::error!(%consumer, partition, reason, "a consumer has stopped");
            }
            _ => {}
        }
    }

    /// Logs that an event was parked, or that its stream waits for a program that can read it.
    pub fn log_parked(&self, stream: &StreamId, letter: &StoredLetter) {
        let consumer = &self.board.name;
        let StoredLetter { position, event, error, .. } = letter;
        match letter.is_unread() {
            false => {
                tracing::warn!(%consumer, %stream, position, event, error, "an event was parked");
            }
            true => tracing::warn!(
                %consumer, %stream, position, event, error,
                "a stream waits for a program that can read its event"
            ),
        }
    }

    /// Counts a failed attempt.
    pub fn count_failure(&self) {
        self.board.metrics.record_failure();
    }

    /// Stops the whole consumer, because this partition has stopped.
    pub(crate) fn halt(&self) {
        self.board.halt();
    }

    /// True if the whole consumer must stop.
    pub fn is_halted(&self) -> bool {
        *self.board.is_halted.borrow()
    }

    /// Waits until the whole consumer must stop.
    pub async fn halted(&self) {
        let mut is_halted = self.board.is_halted.subscribe();
        // It can't fail: `self` keeps the sender alive.
        let _ = is_halted.wait_for(|it| *it).await;
    }
}

fn elsewhere(parts: &[ConsumerHealth]) -> Vec<usize> {
    let is_elsewhere = |at: &usize| parts[*at].state == ConsumerState::StandingBy;
    (0..parts.len()).filter(is_elsewhere).collect()
}

/// The sum of the partitions.
fn together(parts: &[ConsumerHealth]) -> ConsumerHealth {
    let is_here = |part: &&ConsumerHealth| part.state != ConsumerState::StandingBy;
    let here = parts.iter().filter(is_here).count();
    // The partitions that this process works on; all, if there is none.
    let counted = || parts.iter().filter(|part| here == 0 || is_here(part));
    let worst =
        parts.iter().max_by_key(|part| weight(&part.state)).expect("a consumer has a partition");
    let last = counted().min_by_key(|part| part.position).expect("a consumer has a partition");
    ConsumerHealth {
        state: worst.state.clone(),
        position: last.position,
        head: parts.iter().map(|it| it.head).max().unwrap_or_default(),
        recorded_at: last.recorded_at,
        lag: counted().filter_map(|it| it.lag).max(),
        parked: counted().map(|it| it.parked).sum(),
        waiting: counted().map(|it| it.waiting).sum(),
        unread: first_unread(counted()).cloned(),
        handled: parts.iter().map(|it| it.handled).sum(),
        rate: parts.iter().map(|it| it.rate).sum(),
        is_cautious: parts.iter().any(|it| it.is_cautious),
        committing_since: parts.iter().filter_map(|it| it.committing_since).min(),
        undropped: None,
        heartbeat_error: parts.iter().find_map(|it| it.heartbeat_error.clone()),
        snapshot_error: parts.iter().find_map(|it| it.snapshot_error.clone()),
        partitions: parts.len(),
        elsewhere: parts.len() - here,
        measured: last.measured,
        has_tried: parts.iter().all(|it| it.has_tried),
    }
}

fn first_unread<'a>(parts: impl Iterator<Item = &'a ConsumerHealth>) -> Option<&'a UnreadEvent> {
    parts.filter_map(|part| part.unread.as_ref()).min_by_key(|event| event.position)
}

/// The rank of a state: the highest one stands for all partitions. `Stopped` shows only when all
/// have stopped. `Diverged` is the exception, because positions of another log mean nothing.
fn weight(state: &ConsumerState) -> u8 {
    match state {
        ConsumerState::Stopped(StopReason::Diverged(_)) => 10,
        ConsumerState::Retrying { .. } => 9,
        ConsumerState::Waiting => 8,
        ConsumerState::Starting => 7,
        ConsumerState::CatchingUp => 6,
        ConsumerState::Paused => 5,
        ConsumerState::Live => 4,
        ConsumerState::StandingBy => 3,
        ConsumerState::Stopped(StopReason::Asked) => 0,
        ConsumerState::Stopped(StopReason::Fenced) => 1,
        ConsumerState::Stopped(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::StopCause, *};

    fn part(state: ConsumerState, position: u64) -> ConsumerHealth {
        ConsumerHealth { state, position: Position::new(position), ..ConsumerHealth::new() }
    }

    #[test]
    fn the_position_is_that_of_the_slowest_partition_worked_on_here() {
        let parts = [
            part(ConsumerState::Live, 9),
            part(ConsumerState::CatchingUp, 7),
            part(ConsumerState::StandingBy, 2),
        ];
        let whole = together(&parts);
        assert_eq!((whole.position.value(), whole.state), (7, ConsumerState::CatchingUp));
        assert_eq!((whole.partitions, whole.elsewhere), (3, 1));
        let whole = together(&parts[2..]);
        assert_eq!((whole.position.value(), whole.state), (2, ConsumerState::StandingBy));
    }

    #[test]
    fn a_consumer_has_stopped_when_all_partitions_have_and_gives_the_reason() {
        let failed = StopReason::Broken(StopCause::new("a defect"));
        let stopped = [
            part(ConsumerState::Stopped(failed.clone()), 9),
            part(ConsumerState::Stopped(StopReason::Asked), 9),
        ];
        assert_eq!(together(&stopped).state, ConsumerState::Stopped(failed));
        let ends = [stopped[0].clone(), part(ConsumerState::Live, 9)];
        assert_eq!(together(&ends).state, ConsumerState::Live);
    }
}
