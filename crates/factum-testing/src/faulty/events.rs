//! A log that fails on purpose.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Clock, EventStore, Guarantees, Page, Position,
    ReadQuery, StoreError, StreamChange, StreamId, StreamInfo,
};
use tokio::sync::watch;

use super::{Fault, FaultRates, Plan, refused, reply_lost, unavailable};

/// Forwards calls to a store and makes some of them fail: by script, and by seeded chance. Every
/// answer stays truthful.
///
/// ```
/// use std::sync::{Arc, atomic::Ordering};
/// use factum_kernel::{AppendBatch, AppendError, EventStore, SystemClock};
/// use factum_testing::{Fault, FaultRates, FaultyStore};
///
/// async fn lose_a_reply(store: Arc<dyn EventStore>, batch: AppendBatch) {
///     let store = FaultyStore::new(store, 7, FaultRates::none(), Arc::new(SystemClock));
///     store.next_append(Fault::DropReply);
///     let outcome = store.append(batch.clone()).await;
///     assert!(matches!(outcome, Err(AppendError::Indeterminate(_))));
///     // It was stored; repeated, it is recognised.
///     assert!(store.append(batch.repeated()).await.is_ok_and(|answer| answer.replayed));
/// }
/// ```
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn EventStore>,
    plan: Plan,
}

impl FaultyStore {
    /// Makes calls fail at these rates; the same seed gives the same faults. Delays use the clock.
    pub fn new(
        inner: Arc<dyn EventStore>,
        seed: u64,
        rates: FaultRates,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { inner, plan: Plan::new(seed, rates, clock) }
    }

    /// Begins an outage: until [`come_back`](Self::come_back), every call except `close` fails with
    /// `Unavailable`, and scripted faults wait.
    pub fn go_away(&self) {
        self.plan.is_away.store(true, Ordering::SeqCst);
    }

    /// Ends an outage.
    pub fn come_back(&self) {
        self.plan.is_away.store(false, Ordering::SeqCst);
    }

    /// Scripts the fault of the next append or change that has none yet.
    pub fn next_append(&self, fault: Fault) {
        self.plan.script_write(Some(fault));
    }

    /// Lets the next append or change succeed for which nothing is scripted yet.
    pub fn next_append_succeeds(&self) {
        self.plan.script_write(None);
    }

    /// Scripts the fault of the next read. Any fault but a delay makes it fail.
    pub fn next_read(&self, fault: Fault) {
        self.plan.script_read(Some(fault));
    }
}

#[async_trait]
impl EventStore for FaultyStore {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        match self.plan.before_write().await {
            Some(Fault::FailBefore) => Err(unavailable().into()),
            Some(Fault::Refuse(kind)) => Err(refused(kind).into()),
            Some(Fault::DropRequest) => Err(AppendError::Indeterminate(reply_lost())),
            Some(Fault::DropReply) => {
                let _ = self.inner.append(batch).await;
                Err(AppendError::Indeterminate(reply_lost()))
            }
            _ => self.inner.append(batch).await,
        }
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.plan.before_read().await?;
        self.inner.read(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.plan.before_read().await?;
        self.inner.stream_info(stream).await
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        match self.plan.before_write().await {
            Some(Fault::FailBefore) => Err(unavailable().into()),
            Some(Fault::Refuse(kind)) => Err(refused(kind).into()),
            Some(Fault::DropRequest) => Err(ChangeError::Indeterminate(reply_lost())),
            Some(Fault::DropReply) => {
                let _ = self.inner.change(stream, change).await;
                Err(ChangeError::Indeterminate(reply_lost()))
            }
            _ => self.inner.change(stream, change).await,
        }
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.inner.head()
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
