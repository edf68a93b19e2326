//! The queue of writes, for group commit. Writes that arrive during a sync wait in the queue. A
//! caller that finds the queue without a leader starts one: it commits group after group until the
//! queue is empty.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_backend::{QUEUE_BYTES_MAX, blocking};
use factum_kernel::{Revision, StoreError, WriteBatch, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Documents, group::size_of};

/// The most bytes of a group, unless a single write is larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// The unit in which the queue's bytes are counted, so that small writes count too.
const ROOM_UNIT: usize = 256;

/// The writes that wait for the next frame.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: Vec<Waiting>,
    is_led: bool,
}

#[derive(Debug)]
struct Waiting {
    batch: WriteBatch,
    reply: oneshot::Sender<Result<Revision, WriteError>>,
    _room: OwnedSemaphorePermit,
}

impl Default for Queue {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / ROOM_UNIT));
        Self { state: Mutex::default(), room }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next group to commit. `None`: the queue is empty, and from now on has no leader.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        let mut bytes = 0;
        let sizes = state.waiting.iter().map(|waiting| size_of(&waiting.batch));
        let fitting = sizes.take_while(|size| {
            bytes += size;
            bytes <= GROUP_BYTES_MAX
        });
        let count = fitting.count().max(1).min(state.waiting.len());
        let rest = state.waiting.split_off(count);
        let group = mem::replace(&mut state.waiting, rest);
        state.is_led = !group.is_empty();
        state.is_led.then_some(group)
    }
}

/// The right to lead the queue. If it is dropped before the queue is empty, the waiting writes
/// fail.
struct Lead {
    documents: Arc<Documents>,
    is_done: bool,
}

impl Lead {
    fn serve(mut self) {
        self.documents.serve_queue();
        self.is_done = true;
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.is_done {
            *self.documents.queue.state() = QueueState::default();
        }
    }
}

impl Documents {
    /// Commits group after group, until the queue is empty.
    pub(super) fn serve_queue(&self) {
        loop {
            // The writer's lock comes first, so that the next holder finds only later writes.
            let writer = self.writer.lock();
            let Some(group) = self.queue.next_group() else { return };
            let batches: Vec<&WriteBatch> = group.iter().map(|waiting| &waiting.batch).collect();
            let outcomes = self.commit_with(writer, &batches);
            for (waiting, outcome) in group.into_iter().zip(outcomes) {
                // The caller may be gone; the write is stored all the same.
                let _ = waiting.reply.send(outcome);
            }
        }
    }

    /// Queues a write and waits for its outcome.
    ///
    /// # Cancel safety
    /// If it is dropped while it waits for room in the queue, nothing happens. If it is dropped
    /// later, the write goes on without the caller.
    pub(crate) async fn write(self: Arc<Self>, batch: WriteBatch) -> Result<Revision, WriteError> {
        // A write larger than the whole queue would wait forever.
        let units = size_of(&batch).min(QUEUE_BYTES_MAX).div_ceil(ROOM_UNIT) as u32;
        let room = Arc::clone(&self.queue.room).acquire_many_owned(units).await;
        let room = room.map_err(|_| StoreError::closed())?;
        let (reply, answer) = oneshot::channel();
        let is_led = {
            let mut state = self.queue.state();
            state.waiting.push(Waiting { batch, reply, _room: room });
            mem::replace(&mut state.is_led, true)
        };
        if !is_led {
            let lead = Lead { documents: self, is_done: false };
            // In a task of its own: other writes depend on it, and its caller may be gone.
            drop(blocking(move || lead.serve()));
        }
        answer.await.unwrap_or_else(|_| {
            let message = "the writing of documents was cut off, open the store again";
            Err(WriteError::Indeterminate(StoreError::internal(message)))
        })
    }
}
