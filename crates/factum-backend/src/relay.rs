//! The way of a group's answers from the writer's thread to the callers.
//!
//! To wake a task from a foreign thread costs a system call where the runtime's threads sleep,
//! and they do sleep while a group commits. So a large group's answers go to one task of the
//! runtime in one piece, and that task, being awake, wakes the others for next to nothing.

use factum_core::{AppendError, Appended};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
};

/// Fewer answers than this are given directly: the detour would cost more than it saves.
const RELAYED_MIN: usize = 8;

/// Where the outcome of an append is awaited.
pub(crate) struct Reply {
    pub(crate) to: oneshot::Sender<Result<Appended, AppendError>>,
    /// The batch's share of the queue's bytes, given back with the answer.
    pub(crate) room: OwnedSemaphorePermit,
}

/// Answers to be given. To drop them is to give them, so that none is lost with a runtime that
/// shuts down.
pub(crate) struct Answers(pub(crate) Vec<(Reply, Result<Appended, AppendError>)>);

impl Drop for Answers {
    fn drop(&mut self) {
        for (Reply { to, room }, outcome) in self.0.drain(..) {
            // Room first: who hears the answer may count on it.
            drop(room);
            // Somebody who is gone wants no answer: cancelling a caller cancels no append.
            let _ = to.send(outcome);
        }
    }
}

/// The way to the task that gives answers; without a runtime they are given where they arise.
pub(crate) struct Relay(Option<mpsc::UnboundedSender<Answers>>);

impl Relay {
    /// Starts the task on the caller's runtime, if there is one. It ends with the relay.
    pub(crate) fn start() -> Self {
        let Ok(runtime) = Handle::try_current() else { return Self(None) };
        // Not bounded here: each answer belongs to an append that the queue has counted.
        let (relay, mut groups) = mpsc::unbounded_channel::<Answers>();
        runtime.spawn(async move {
            while let Some(answers) = groups.recv().await {
                drop(answers);
            }
        });
        Self(Some(relay))
    }

    /// Sees to it that the answers are given.
    pub(crate) fn deliver(&self, answers: Answers) {
        if let Some(relay) = &self.0
            && answers.0.len() >= RELAYED_MIN
        {
            // Where the task is gone, the answers come back, and are given here by being dropped.
            let _ = relay.send(answers);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use factum_core::StoreError;
    use tokio::sync::Semaphore;

    use super::*;

    type Awaited = Vec<oneshot::Receiver<Result<Appended, AppendError>>>;

    async fn answers(count: usize) -> (Answers, Awaited, Arc<Semaphore>) {
        let room = Arc::new(Semaphore::new(count));
        let (mut answers, mut awaited) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (to, answer) = oneshot::channel();
            let room = room.clone().acquire_owned().await.unwrap();
            answers.push((Reply { to, room }, Err(StoreError::closed().into())));
            awaited.push(answer);
        }
        (Answers(answers), awaited, room)
    }

    #[tokio::test]
    async fn every_answer_is_given_and_gives_its_room_back() {
        let relay = Relay::start();
        for count in [1, RELAYED_MIN, 300] {
            let (answers, awaited, room) = answers(count).await;
            relay.deliver(answers);
            for answer in awaited {
                assert!(answer.await.unwrap().is_err());
            }
            assert_eq!(room.available_permits(), count);
        }
    }

    #[test]
    fn answers_outlive_the_runtime_that_relays_them() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let relay = runtime().block_on(async { Relay::start() });
        // That runtime is gone, and its task with it.
        runtime().block_on(async {
            let (answers, awaited, _) = answers(300).await;
            relay.deliver(answers);
            for answer in awaited {
                assert!(answer.await.unwrap().is_err());
            }
        });
        // Here the task is there but never runs before its runtime goes.
        let other = runtime();
        let relay = other.block_on(async { Relay::start() });
        let (answers, awaited, _) = runtime().block_on(answers(300));
        relay.deliver(answers);
        drop(other);
        runtime().block_on(async {
            for answer in awaited {
                assert!(answer.await.unwrap().is_err());
            }
        });
    }
}
