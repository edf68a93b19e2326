//! The way of a group's answers from the writer's thread to the callers.
//!
//! To wake a task from a foreign thread costs a system call where the runtime's threads sleep,
//! and they do sleep while a group commits. So a large group's answers go to one task of the
//! runtime in one piece, and that task, being awake, wakes the others for next to nothing.
//!
//! Many who are answered at once append again at once, unless they are slower than the writer: then
//! it would commit them one by one, and be woken for each. So the task also tells the queue when
//! many are on their way, and when they have run.

use std::{future::poll_fn, sync::Arc, task::Poll};

use factum_kernel::{AppendBatch, AppendError, Appended};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Semaphore, mpsc, mpsc::error::TryRecvError, oneshot},
};

use crate::queue::Gatherer;

/// Fewer answers than this are given directly: the detour would cost more than it saves.
const RELAYED_MIN: usize = 8;
/// After this many answers or more, so many of those who heard them are expected back: enough that
/// the price of a group is small beside that of its members, and few enough that the writer works
/// while the others append. Where fewer are under way, to wait for them costs more than it saves.
const EXPECTED: usize = 128;

/// Where the outcome of an append is awaited.
pub(crate) struct Reply {
    pub(crate) to: oneshot::Sender<Answer>,
    /// The batch's share of the queue's room, given back with the answers.
    pub(crate) units: u32,
}

/// The outcome of an append, and with it the batch: its memory is given back by the thread that
/// uses it again, instead of by the writer's.
pub(crate) struct Answer {
    pub(crate) outcome: Result<Appended, AppendError>,
    pub(crate) _batch: AppendBatch,
}

/// Answers to be given. To drop them is to give them, so that none is lost with a runtime that
/// shuts down.
pub(crate) struct Answers {
    room: Arc<Semaphore>,
    answers: Vec<(Reply, Answer)>,
    /// Ends with the answers, or somewhat later.
    gathering: Option<Gathering>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        // Room first: who hears the answer may count on it.
        let units = self.answers.iter().map(|(reply, _)| reply.units as usize).sum();
        self.room.add_permits(units);
        for (Reply { to, .. }, answer) in self.answers.drain(..) {
            // Somebody who is gone wants no answer: cancelling a caller cancels no append.
            let _ = to.send(answer);
        }
    }
}

/// The way to the task that gives answers. Without a runtime whose threads are its own they are
/// given where they arise: one of a single thread runs its tasks only while somebody drives it, and
/// the callers may be elsewhere.
pub(crate) struct Relay {
    room: Arc<Semaphore>,
    gatherer: Arc<dyn Gatherer>,
    to: Option<mpsc::UnboundedSender<Answers>>,
}

impl Relay {
    /// Starts the task on the caller's runtime, if there is one that drives itself. It ends with
    /// the relay. `room` gets back what the answered batches took, and `gatherer` hears when those
    /// who were answered are about to append again.
    pub(crate) fn start(room: Arc<Semaphore>, gatherer: Arc<dyn Gatherer>) -> Self {
        let drives_itself =
            |runtime: &Handle| runtime.runtime_flavor() == RuntimeFlavor::MultiThread;
        let Some(runtime) = Handle::try_current().ok().filter(drives_itself) else {
            return Self { room, gatherer, to: None };
        };
        // Not bounded here: each answer belongs to an append that the queue has counted.
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

    /// Sees to it that the answers are given.
    pub(crate) fn deliver(&self, answers: Vec<(Reply, Answer)>) {
        let mut answers = Answers { room: self.room.clone(), answers, gathering: None };
        let count = answers.answers.len();
        if let Some(relay) = &self.to
            && count >= RELAYED_MIN
        {
            answers.gathering =
                (count >= EXPECTED).then(|| Gathering::begin(self.gatherer.clone()));
            // Where the task is gone, the answers come back, and are given here by being dropped.
            let _ = relay.send(answers);
        }
    }
}

/// Gives answers, and lets those who are awake append again before the writer hears that it need
/// expect no more. The next answers; `None`: there will be none.
async fn give(
    mut answers: Answers,
    groups: &mut mpsc::UnboundedReceiver<Answers>,
    gatherer: &dyn Gatherer,
) -> Option<Answers> {
    let gathering = answers.gathering.take();
    drop(answers);
    let mut count = gatherer.count();
    while gathering.is_some() {
        behind_others().await;
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

/// Lets the tasks run that are ready. Tokio's `yield_now` waits until its thread has nothing to do,
/// or for 61 polls of others; meanwhile answers would wait.
async fn behind_others() {
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

/// The time in which those who were answered append again; however it ends, the writer hears.
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
        // That runtime is gone, and its task with it.
        runtime().block_on(async {
            let (answers, awaited) = answers(300);
            relay.deliver(answers);
            for answer in awaited {
                assert!(answer.await.unwrap().outcome.is_err());
            }
        });
        // Here the task is there, and may not run before its runtime goes.
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
        // It is there, but only its `block_on` would run its tasks.
        let relay = idle.block_on(async { new_relay() });
        let (answers, mut awaited) = answers(300);
        relay.deliver(answers);
        assert!(awaited.iter_mut().all(|answer| answer.try_recv().is_ok()));
        drop(idle);
    }
}
