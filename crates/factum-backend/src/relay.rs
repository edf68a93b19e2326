//! The relay: brings a group's answers from the writer's thread to the callers.
//!
//! Waking a task from another thread costs a system call if the runtime's threads sleep, and they
//! do sleep while a group commits. So the answers of a large group go to one task of the runtime in
//! one piece. That task is awake, and wakes the others at almost no cost.
//!
//! Callers that are answered together append again together, unless they are slower than the
//! writer. Without a gathering, the writer would commit their batches one by one, and would be
//! woken for each. So the task tells the queue when many batches are on their way, and when the
//! callers have run.

use std::{future::poll_fn, sync::Arc, task::Poll};

use factum_kernel::{AppendBatch, AppendError, Appended};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Semaphore, mpsc, mpsc::error::TryRecvError, oneshot},
};

use crate::queue::Gatherer;

/// Fewer answers than this are sent directly, because the detour would cost more than it saves.
const RELAYED_MIN: usize = 8;
/// After at least this many answers, the queue expects this many batches back. The number is large
/// enough that a group's fixed cost is small beside that of its members. It is small enough that
/// the writer works while the other callers append. With fewer batches under way, waiting for them
/// would cost more than it saves.
const EXPECTED: usize = 128;

/// The place where the outcome of an append is awaited.
pub(crate) struct Reply {
    pub(crate) to: oneshot::Sender<Answer>,
    /// The batch's share of the queue's room, returned with the answers.
    pub(crate) units: u32,
}

/// The outcome of an append, and the batch. The batch goes with it so that its memory is freed by
/// the thread that reuses it, not by the writer's.
pub(crate) struct Answer {
    pub(crate) outcome: Result<Appended, AppendError>,
    pub(crate) _batch: AppendBatch,
}

/// Answers to be sent. Their drop sends them, so that none is lost when a runtime shuts down.
pub(crate) struct Answers {
    room: Arc<Semaphore>,
    answers: Vec<(Reply, Answer)>,
    /// The gathering that ends with the answers, or a little later.
    gathering: Option<Gathering>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        // The room first: a caller that hears the answer may rely on it.
        let units = self.answers.iter().map(|(reply, _)| reply.units as usize).sum();
        self.room.add_permits(units);
        for (Reply { to, .. }, answer) in self.answers.drain(..) {
            // A caller that is gone needs no answer: cancelling a caller cancels no append.
            let _ = to.send(answer);
        }
    }
}

/// The way to the task that sends the answers. On a runtime without threads of its own, the answers
/// are sent from the writer's thread: such a runtime runs its tasks only while a thread drives it,
/// and the callers may be elsewhere.
pub(crate) struct Relay {
    room: Arc<Semaphore>,
    gatherer: Arc<dyn Gatherer>,
    to: Option<mpsc::UnboundedSender<Answers>>,
}

impl Relay {
    /// Starts the task on the caller's runtime, if that has threads of its own. The task ends with
    /// the relay. `room` gets back the room of the answered batches; `gatherer` learns when the
    /// answered callers are about to append again.
    pub(crate) fn start(room: Arc<Semaphore>, gatherer: Arc<dyn Gatherer>) -> Self {
        let drives_itself =
            |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        let Some(runtime) = Handle::try_current().ok().filter(drives_itself) else {
            return Self { room, gatherer, to: None };
        };
        // This channel needs no bound: each answer belongs to an append that the queue has counted.
        let (relay, mut groups) = mpsc::unbounded_channel::<Answers>();
        let gathering = gatherer.clone();
        runtime.spawn(async move {
            let mut next = groups.recv().await;
            while let Some(answers) = next {
                next = give(answers, &mut groups, &*gathering).await;
            }
        });
        Self { room, gatherer, to: Some(relay) }
    }

    /// Sends the answers, by the task if there is one.
    pub(crate) fn deliver(&self, answers: Vec<(Reply, Answer)>) {
        let mut answers = Answers { room: self.room.clone(), answers, gathering: None };
        let count = answers.answers.len();
        if let Some(relay) = &self.to
            && count >= RELAYED_MIN
        {
            answers.gathering =
                (count >= EXPECTED).then(|| Gathering::begin(self.gatherer.clone()));
            // If the task is gone, the answers come back in the error, and their drop sends them.
            let _ = relay.send(answers);
        }
    }
}

/// Sends answers, and lets the tasks that are awake append again before the gathering ends. Returns
/// the next answers; `None`: there will be none.
async fn give(
    mut answers: Answers,
    groups: &mut mpsc::UnboundedReceiver<Answers>,
    gatherer: &dyn Gatherer,
) -> Option<Answers> {
    let gathering = answers.gathering.take();
    drop(answers);
    let mut count = gatherer.count();
    while gathering.is_some() {
        let_others_run().await;
        match groups.try_recv() {
            Ok(answers) => return Some(answers),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => {}
        }
        let before = std::mem::replace(&mut count, gatherer.count());
        if count - before < RELAYED_MIN as u64 {
            break;
        }
    }
    drop(gathering);
    groups.recv().await
}

/// Lets the ready tasks run. Tokio's `yield_now` would wait until its thread has nothing to do, or
/// for 61 polls of other tasks; answers would wait that long.
async fn let_others_run() {
    let mut is_woken = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_woken, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The time in which the answered callers append again. Its drop always tells the gatherer.
struct Gathering(Arc<dyn Gatherer>);

impl Gathering {
    fn begin(gatherer: Arc<dyn Gatherer>) -> Self {
        gatherer.begin(EXPECTED);
        Self(gatherer)
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use factum_kernel::StoreError;

    use super::*;
    use crate::queue::queue;

    type Awaited = Vec<oneshot::Receiver<Answer>>;

    fn answers(count: usize) -> (Vec<(Reply, Answer)>, Awaited) {
        let mut answers = Vec::new();
        let mut awaited = Vec::new();
        for _ in 0..count {
            let (to, answer) = oneshot::channel();
            let outcome = Err(StoreError::closed().into());
            let given = Answer { outcome, _batch: AppendBatch::new() };
            answers.push((Reply { to, units: 3 }, given));
            awaited.push(answer);
        }
        (answers, awaited)
    }

    fn new_relay() -> Relay {
        let (jobs, _) = queue::<()>();
        Relay::start(Arc::new(Semaphore::new(0)), jobs.gatherer())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn every_answer_is_given_and_gives_its_room_back() {
        let relay = new_relay();
        let mut given = 0;
        for count in [1, RELAYED_MIN, 300] {
            let (answers, awaited) = answers(count);
            relay.deliver(answers);
            for answer in awaited {
                assert!(answer.await.unwrap().outcome.is_err());
            }
            given += 3 * count;
            assert_eq!(relay.room.available_permits(), given);
        }
    }

    #[test]
    fn answers_outlive_the_runtime_that_relays_them() {
        let runtime = || {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).build().unwrap()
        };
        let relay = runtime().block_on(async { new_relay() });
        // That runtime is gone, and so is its task.
        runtime().block_on(async {
            let (answers, awaited) = answers(300);
            relay.deliver(answers);
            for answer in awaited {
                assert!(answer.await.unwrap().outcome.is_err());
            }
        });
        // Here the task exists, but may not run before its runtime ends.
        let other = runtime();
        let relay = other.block_on(async { new_relay() });
        let (answers, awaited) = answers(300);
        relay.deliver(answers);
        drop(other);
        runtime().block_on(async {
            for answer in awaited {
                assert!(answer.await.unwrap().outcome.is_err());
            }
        });
    }

    #[test]
    fn answers_do_not_wait_for_a_runtime_that_nobody_drives() {
        let idle = tokio::runtime::Builder::new_current_thread().build().unwrap();
        // The task exists, but only the runtime's `block_on` would run it.
        let relay = idle.block_on(async { new_relay() });
        let (answers, mut awaited) = answers(300);
        relay.deliver(answers);
        assert!(awaited.iter_mut().all(|answer| answer.try_recv().is_ok()));
        drop(idle);
    }
}
