//! The log that is projected: filled, scanned, appended to.

use std::{hint::black_box, sync::Arc, time::Duration};

use factum::{
    AppendBatch, Clock, EventId, ExpectedVersion, IdSource, Kernel, Metadata, PAGE_BYTES_MAX,
    PAGE_EVENTS_MAX, Page, Position, ReadQuery, StreamId, SystemClock, SystemIds, encode_event,
};
use tokio::task::JoinSet;

use crate::{
    bench::project::{
        bare::Deposit,
        model::{BenchEvent, CATEGORY},
    },
    exit::Failure,
    interrupt::Interrupt,
    progress::Progress,
    random::Random,
    stopwatch::Stopwatch,
};

/// Events of an append that fills the log, and how many of these are under way.
const FILL: u64 = 100;
const CLIENTS: u64 = 16;
/// From one account of a batch to the next. A prime larger than there are accounts, so that each
/// is another.
const STRIDE: u64 = 1_000_003;

/// A log of deposits.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) kernel: Kernel,
    pub(super) interrupt: Interrupt,
    pub(super) streams: u64,
    pub(super) payload_bytes: u64,
}

impl Log {
    /// Appends so many deposits.
    pub(super) async fn fill(&self, events: u64, progress: Arc<Progress>) -> Result<(), Failure> {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (log, progress) = (self.clone(), progress.clone());
            clients.spawn(async move {
                let mut random = Random::new(SystemClock.now().as_micros(), client);
                let mine = events / CLIENTS + u64::from(client < events % CLIENTS);
                let mut left = mine;
                while left > 0 {
                    log.interrupt.check("the benchmark was interrupted")?;
                    let count = left.min(FILL).min(log.streams);
                    log.append(&mut random, count).await?;
                    progress.add(count);
                    left -= count;
                }
                Ok::<_, Failure>(())
            });
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
        progress.finish();
        Ok(())
    }

    /// Appends deposits to random accounts. The answer: the last position.
    pub(super) async fn append(
        &self,
        random: &mut Random,
        count: u64,
    ) -> Result<Position, Failure> {
        let now = SystemClock.now();
        let mut batch = AppendBatch::new();
        let first = random.below(self.streams);
        for n in 0..count {
            let key = format!("{:07}", (first + n * STRIDE) % self.streams);
            let note = "x".repeat(usize::try_from(self.payload_bytes).unwrap_or(usize::MAX));
            let event = BenchEvent::Deposited { cents: random.below(10_000).cast_signed(), note };
            let id = EventId::new(SystemIds.uuid(now));
            let event = encode_event(&event, id, &Metadata::default(), None);
            let event = event.map_err(|e| Failure::internal(e.to_string()))?;
            let stream = StreamId::new(CATEGORY, &key);
            let stream = stream.map_err(|e| Failure::internal(e.to_string()))?;
            batch = batch.write(stream, ExpectedVersion::Any, [event]);
        }
        let appended = self.kernel.events().append(batch).await?;
        Ok(appended.last)
    }

    /// Reads it all, as `bench read` does.
    pub(super) async fn scan(&self) -> Result<Duration, Failure> {
        let begun = Stopwatch::start();
        self.pages(|page| {
            black_box(page.events.iter().map(factum::RecordedEvent::size).sum::<usize>());
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// What is deposited, in the log's order.
    pub(super) async fn deposits(&self) -> Result<Vec<Deposit>, Failure> {
        let mut deposits = Vec::new();
        self.pages(|page| {
            for recorded in &page.events {
                let _ = factum::decode_event(recorded, &mut |event| {
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
            self.interrupt.check("the benchmark was interrupted")?;
            let page = self.kernel.events().read(query.clone()).await?;
            look(&page);
            next = query.next(&page).filter(|_| page.scanned_through < page.head);
        }
        Ok(())
    }
}
