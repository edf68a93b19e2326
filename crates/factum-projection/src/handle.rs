//! What people hold of a running consumer.

use std::{fmt, sync::Arc, time::Duration};

use factum_core::{Clock, Position, StreamId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    error::WaitError,
    health::{ConsumerHealth, ConsumerState, StopReason},
    letter::DeadLetter,
    name::ConsumerName,
    projection::Projection,
    stored::Release,
};

/// What a consumer is told.
#[derive(Debug)]
pub(crate) enum Order {
    Stop,
    Pause,
    Resume,
    Letters(oneshot::Sender<Vec<DeadLetter>>),
    /// Try the parked event of a stream again, or let it go, and then what is behind it.
    Release(StreamId, Release, oneshot::Sender<Result<(), String>>),
}

/// A running consumer. Cheap to clone; dropping it changes nothing.
#[derive(Clone)]
pub struct ConsumerHandle {
    pub(crate) name: ConsumerName,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) health: watch::Receiver<ConsumerHealth>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl ConsumerHandle {
    /// Its name, with its version.
    pub fn name(&self) -> &ConsumerName {
        &self.name
    }

    /// How it fares.
    pub fn health(&self) -> ConsumerHealth {
        let mut health = self.health.borrow().clone();
        // Time goes on for one that waits, too.
        health.lag = health.lag_at(self.clock.now());
        health
    }

    /// How it fares, whenever that changes.
    pub fn watch(&self) -> watch::Receiver<ConsumerHealth> {
        self.health.clone()
    }

    /// Waits until every event up to this position is handled, passed, or parked: the position
    /// that an execution answered, to read what one has written.
    ///
    /// # Errors
    /// [`WaitError::Behind`] when the time is over, [`WaitError::Stopped`] if it will never come.
    pub async fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let mut health = self.health.clone();
        let come = async {
            let is_over =
                |it: &ConsumerHealth| it.position >= position || stopped(&it.state).is_some();
            let found = match health.wait_for(is_over).await {
                Ok(health) => health.clone(),
                Err(_) => self.health(),
            };
            match stopped(&found.state) {
                // Its positions are another log's.
                Some(reason @ StopReason::Diverged(_)) => Err(reason),
                _ if found.position >= position => Ok(()),
                reason => Err(reason.unwrap_or(StopReason::Asked)),
            }
        };
        tokio::select! {
            biased;
            come = come => come.map_err(|reason| {
                WaitError::Stopped { consumer: self.name.clone(), reason }
            }),
            () = self.clock.sleep(timeout) => Err(WaitError::Behind {
                consumer: self.name.clone(),
                position,
                reached: self.health.borrow().position,
                waited: timeout,
            }),
        }
    }

    /// Lets it wait, after the batch at hand, until [`resume`](Self::resume) or the next start.
    pub async fn pause(&self) {
        let _ = self.orders.send(Order::Pause).await;
    }

    /// Lets it go on.
    pub async fn resume(&self) {
        let _ = self.orders.send(Order::Resume).await;
    }

    /// Lets it stop after the batch at hand, and waits for that.
    pub async fn stop(&self) -> StopReason {
        let _ = self.orders.send(Order::Stop).await;
        let mut health = self.health.clone();
        let found = health.wait_for(|health| stopped(&health.state).is_some()).await;
        found.ok().and_then(|health| stopped(&health.state)).unwrap_or(StopReason::Asked)
    }

    /// What is parked.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let (answer, answered) = oneshot::channel();
        let _ = self.orders.send(Order::Letters(answer)).await;
        answered.await.unwrap_or_default()
    }

    /// Handles the parked event of a stream again, and what waits behind it.
    ///
    /// # Errors
    /// What the event said this time; it stays parked.
    pub async fn retry(&self, stream: &StreamId) -> Result<(), String> {
        self.release(stream, Release::Retry).await
    }

    /// Leaves the parked event of a stream out, and handles what waits behind it.
    ///
    /// # Errors
    /// What a later event said; the stream waits behind that one.
    pub async fn discard(&self, stream: &StreamId) -> Result<(), String> {
        self.release(stream, Release::Discard).await
    }

    async fn release(&self, stream: &StreamId, release: Release) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Release(stream.clone(), release, answer);
        let _ = self.orders.send(order).await;
        answered.await.unwrap_or_else(|_| Err("the consumer has stopped".into()))
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

/// A running projection, and the target that its read model is in.
pub struct ProjectionHandle<P: Projection> {
    pub(crate) consumer: ConsumerHandle,
    pub(crate) target: Arc<P::Target>,
}

impl<P: Projection> Clone for ProjectionHandle<P> {
    fn clone(&self) -> Self {
        Self { consumer: self.consumer.clone(), target: self.target.clone() }
    }
}

impl<P: Projection> ProjectionHandle<P> {
    /// Where the read model is.
    pub fn target(&self) -> &P::Target {
        &self.target
    }

    /// The consumer that maintains it.
    pub fn consumer(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl<P: Projection> std::ops::Deref for ProjectionHandle<P> {
    type Target = ConsumerHandle;

    fn deref(&self) -> &ConsumerHandle {
        &self.consumer
    }
}

impl<P: Projection> fmt::Debug for ProjectionHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionHandle")
            .field("name", &self.consumer.name)
            .finish_non_exhaustive()
    }
}
