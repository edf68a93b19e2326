//! Who writes together. Writes that come while others are being synced wait in a queue; whoever
//! finds it without a leader begins to lead it: group after group, until it is empty.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use factum_backend::{QUEUE_BYTES_MAX, blocking};
use factum_kernel::{Revision, StoreError, WriteBatch, WriteError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Documents, group::size_of};

/// The most bytes of a group, unless one write is larger.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// The queue's bytes are counted in units of this size, so that small writes count for something.
const ROOM_UNIT: usize = 256;

/// Writes that wait for the next frame.
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

    /// What is written together next. `None`: nothing waits, and from now on nobody leads.
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

/// Held by who leads. Should that one be gone before the queue is empty, those who wait are told.
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
    /// Writes what waits, group after group, until nothing does.
    pub(super) fn serve_queue(&self) {
        loop {
            // First: who gets it next finds only what was queued behind this group.
            let writer = self.writer.lock();
            let Some(group) = self.queue.next_group() else { return };
            let batches: Vec<&WriteBatch> = group.iter().map(|waiting| &waiting.batch).collect();
            let outcomes = self.commit_with(writer, &batches);
            for (waiting, outcome) in group.into_iter().zip(outcomes) {
                // Who asked may be gone; it is stored all the same.
                let _ = waiting.reply.send(outcome);
            }
        }
    }

    /// Queues a write and waits for its outcome.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room in the queue, nothing happens; after that, the write goes
    /// on without the caller.
    pub(crate) async fn write(self: Arc<Self>, batch: WriteBatch) -> Result<Revision, WriteError> {
        // A write larger than the whole queue would wait for ever.
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
            // On its own: others wait for it, whoever began it may be gone.
            drop(blocking(move || lead.serve()));
        }
        answer.await.unwrap_or_else(|_| {
            let message = "the writing of documents was cut off, open the store again";
            Err(WriteError::Indeterminate(StoreError::internal(message)))
        })
    }
}
