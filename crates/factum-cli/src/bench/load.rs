//! The work of `bench append`: clients that append, each waiting for its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use factum::{
    EventStore, ExpectedVersion,
    event::{Content, EventId, EventName, NewEvent, StreamId},
    store::{AppendBatch, Clock, IdSource, SystemClock, SystemIds},
};
use tokio::task::JoinSet;

use crate::{
    args::LoadArgs, bench::latency::Latencies, exit::Failure, interrupt::Interrupt,
    progress::Progress, random::Random, stopwatch::Stopwatch,
};

/// The category of all events that a benchmark appends.
pub(crate) const CATEGORY: &str = "bench";
const NAME: EventName = EventName::from_static("bench.appended");
/// The content of the payload: random bytes, which no codec reads.
const CONTENT: Content = Content::Other(256);

/// The appends of a benchmark and the clients that make them.
#[derive(Debug)]
pub(crate) struct Load {
    store: Arc<dyn EventStore>,
    args: LoadArgs,
    /// The number of events whose append has begun.
    begun: AtomicU64,
    progress: Progress,
    interrupt: Interrupt,
}

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The time from the first append to the last answer.
    pub(crate) elapsed: Duration,
    /// The durations of the appends.
    pub(crate) latencies: Latencies,
}

impl Load {
    /// The appends that the command line describes.
    pub(crate) fn new(
        store: Arc<dyn EventStore>,
        args: LoadArgs,
        progress: Progress,
        interrupt: Interrupt,
    ) -> Self {
        Self { store, args, begun: AtomicU64::new(0), progress, interrupt }
    }

    /// Runs all clients until every event is appended.
    pub(crate) async fn run(self) -> Result<Loaded, Failure> {
        let load = Arc::new(self);
        let begun = Stopwatch::start();
        let mut clients = JoinSet::new();
        for client in 0..load.args.clients {
            clients.spawn(load.clone().client(client));
        }
        let mut latencies = Latencies::new();
        let mut ended = Ok(());
        while let Some(client) = clients.join_next().await {
            match client.map_err(Failure::from).flatten() {
                Ok(of_client) => latencies.merge(&of_client),
                Err(failure) => ended = ended.and(Err(failure)),
            }
        }
        load.progress.finish();
        ended.map(|()| Loaded { elapsed: begun.elapsed(), latencies })
    }

    async fn client(self: Arc<Self>, client: u64) -> Result<Latencies, Failure> {
        // The time is the seed, because a second run on the same store must not write the same
        // bytes.
        let mut random = Random::new(SystemClock.now().as_micros(), client);
        let mut latencies = Latencies::new();
        while let Some(count) = self.take() {
            self.interrupt.check("the benchmark was interrupted")?;
            let batch = self.batch(count, &mut random)?;
            let begun = Stopwatch::start();
            if let Err(error) = self.store.append(batch).await {
                // One failure ends the benchmark: after it, the result would not be comparable.
                self.begun.store(self.args.events, Ordering::Relaxed);
                return Err(error.into());
            }
            latencies.add(begun.elapsed());
            self.progress.add(count);
        }
        Ok(latencies)
    }

    /// The number of events in the next append; `None` when all appends have begun.
    fn take(&self) -> Option<u64> {
        let batch = self.args.batch;
        let begun = self.begun.fetch_add(batch, Ordering::Relaxed);
        let left = self.args.events.saturating_sub(begun);
        (left > 0).then(|| left.min(batch))
    }

    fn batch(&self, count: u64, random: &mut Random) -> Result<AppendBatch, Failure> {
        let key = random.below(self.args.streams).to_string();
        let stream = StreamId::new(CATEGORY, &key).map_err(|e| Failure::internal(e.to_string()))?;
        let bytes = usize::try_from(self.args.payload_bytes).unwrap_or(usize::MAX);
        let now = SystemClock.now();
        let event = |_| {
            let id = EventId::new(SystemIds.uuid(now));
            NewEvent::new(id, NAME, CONTENT, random.bytes(bytes))
        };
        Ok(AppendBatch::new().write(stream, ExpectedVersion::Any, (0..count).map(event)))
    }
}
