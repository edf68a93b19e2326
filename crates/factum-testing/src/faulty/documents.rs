//! Documents that fail on purpose.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use factum_kernel::{
    Clock, Document, DocumentStore, KeyRange, Revision, ScanPage, ScanQuery, StoreError,
    WriteBatch, WriteError,
};

use super::{Fault, FaultRates, Plan, refused, reply_lost, unavailable};

/// Forwards calls to a document store and makes some of them fail, like
/// [`FaultyStore`](crate::FaultyStore) for a log.
#[derive(Debug)]
pub struct FaultyDocuments {
    inner: Arc<dyn DocumentStore>,
    plan: Plan,
}

impl FaultyDocuments {
    /// Makes calls fail at these rates; the same seed gives the same faults. Delays use the clock.
    pub fn new(
        inner: Arc<dyn DocumentStore>,
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

    /// Scripts the fault of the next write or `clear` that has none yet.
    pub fn next_write(&self, fault: Fault) {
        self.plan.script_write(Some(fault));
    }

    /// Lets the next write or `clear` succeed for which nothing is scripted yet.
    pub fn next_write_succeeds(&self) {
        self.plan.script_write(None);
    }

    /// Scripts the fault of the next `get` or scan. Any fault but a delay makes it fail.
    pub fn next_read(&self, fault: Fault) {
        self.plan.script_read(Some(fault));
    }
}

#[async_trait]
impl DocumentStore for FaultyDocuments {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        self.plan.before_read().await?;
        self.inner.get(key).await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        self.plan.before_read().await?;
        self.inner.scan(query).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        match self.plan.before_write().await {
            Some(Fault::FailBefore) => Err(unavailable().into()),
            Some(Fault::Refuse(kind)) => Err(refused(kind).into()),
            Some(Fault::DropRequest) => Err(WriteError::Indeterminate(reply_lost())),
            Some(Fault::DropReply) => {
                let _ = self.inner.write(batch).await;
                Err(WriteError::Indeterminate(reply_lost()))
            }
            _ => self.inner.write(batch).await,
        }
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        match self.plan.before_write().await {
            // An error of `clear` means that any part of the range may be gone.
            Some(Fault::FailBefore | Fault::DropRequest) => Err(unavailable()),
            Some(Fault::Refuse(kind)) => Err(refused(kind)),
            Some(Fault::DropReply) => {
                let _ = self.inner.clear(range).await;
                Err(reply_lost())
            }
            _ => self.inner.clear(range).await,
        }
    }
}
