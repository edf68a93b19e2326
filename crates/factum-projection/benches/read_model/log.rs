//! The log that is projected: filled, scanned, appended to.

use std::{hint::black_box, time::Duration};

use factum_kernel::{
    AppendBatch, Clock, EventId, ExpectedVersion, IdSource, Kernel, Metadata, PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX, Page, Position, ReadQuery, RecordedEvent, StreamId, SystemClock, SystemIds,
    encode_event,
};
use tokio::task::JoinSet;

use super::{
    Failure,
    model::{BenchEvent, CATEGORY},
    now, since,
};

/// Events of an append that fills the log, and how many of these are in flight.
const FILL: u64 = 100;
const CLIENTS: u64 = 16;
/// The step from one account of a batch to the next: a prime larger than the number of accounts, so
/// that all accounts of a batch differ.
const STRIDE: u64 = 1_000_003;

/// A log of deposits.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) kernel: Kernel,
    pub(super) streams: u64,
    pub(super) payload_bytes: u64,
}

impl Log {
    /// Appends this many deposits.
    pub(super) async fn fill(&self, events: u64) -> Result<(), Failure> {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let log = self.clone();
            clients.spawn(async move {
                let mut left = events / CLIENTS + u64::from(client < events % CLIENTS);
                while left > 0 {
                    let count = left.min(FILL).min(log.streams);
                    log.append(left * CLIENTS + client, count).await?;
                    left -= count;
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Appends deposits to accounts that the number `n` selects. Returns the last position.
    pub(super) async fn append(&self, n: u64, count: u64) -> Result<Position, Failure> {
        let now = SystemClock.now();
        let mut batch = AppendBatch::new();
        let first = mixed(n) % self.streams;
        let note = "x".repeat(usize::try_from(self.payload_bytes).unwrap_or(usize::MAX));
        for n in 0..count {
            let key = format!("{:07}", (first + n * STRIDE) % self.streams);
            let cents = (mixed(first + n) % 10_000).cast_signed();
            let event = BenchEvent::Deposited { cents, note: note.clone() };
            let id = EventId::new(SystemIds.uuid(now));
            let event = encode_event(&event, id, &Metadata::default(), None)?;
            batch = batch.write(StreamId::new(CATEGORY, &key)?, ExpectedVersion::Any, [event]);
        }
        Ok(self.kernel.events().append(batch).await?.last)
    }

    /// Reads the whole log and visits every event.
    pub(super) async fn scan(&self) -> Result<Duration, Failure> {
        let begun = now();
        self.pages(|page| {
            black_box(page.events.iter().map(RecordedEvent::size).sum::<usize>());
        })
        .await?;
        Ok(since(begun))
    }

    /// The accounts and their deposits, in the order of the log.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) async fn deposits(&self) -> Result<Vec<super::bare::Deposit>, Failure> {
        let mut deposits = Vec::new();
        self.pages(|page| {
            for recorded in &page.events {
                let _ = factum_kernel::decode_event(recorded, &mut |event| {
                    let BenchEvent::Deposited { cents, .. } = event;
                    deposits.push((recorded.stream().key().to_owned(), cents));
                });
            }
        })
        .await?;
        Ok(deposits)
    }

    async fn pages(&self, mut look: impl FnMut(&Page)) -> Result<(), Failure> {
        let query = ReadQuery::log().with_events_max(PAGE_EVENTS_MAX);
        let mut next = Some(query.with_bytes_max(PAGE_BYTES_MAX));
        while let Some(query) = next {
            let page = self.kernel.events().read(query.clone()).await?;
            look(&page);
            next = query.next(&page).filter(|_| page.scanned_through < page.head);
        }
        Ok(())
    }
}

/// Mixes the bits of a number (SplitMix64).
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
