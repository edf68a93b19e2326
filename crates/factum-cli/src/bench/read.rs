//! `factum bench read`: the log from start to end, or whole streams.

use std::{
    collections::HashSet,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use factum::{
    EventStore, Position, ReadQuery,
    event::StreamId,
    read::{PAGE_BYTES_MAX, PAGE_EVENTS_MAX},
    store::SystemClock,
};
use tokio::task::JoinSet;

use crate::{
    args::{BenchReadArgs, LoadArgs, What},
    bench::{latency::Latencies, load::Load, report::Reading},
    effect::Effect,
    exit::{Exit, Failure},
    interrupt::Interrupt,
    number::{self, counted},
    output::{Notes, Output},
    place::Place,
    progress::Progress,
    random::Random,
    stopwatch::Stopwatch,
};

/// The most streams that are read, even if the log has more.
const STREAMS_MAX: usize = 1_000_000;

/// Measures reads and prints the result.
pub(crate) async fn run(
    args: &BenchReadArgs,
    effect: Effect,
    out: &mut Output,
) -> Result<(), Failure> {
    let place = Place::find(&args.store)?;
    let stores = place.open(effect, Arc::new(SystemClock)).await?;
    let notes = if args.json { Notes::None } else { out.notes() };
    let bench = Bench { store: stores.events.clone(), interrupt: Interrupt::listen(), notes };
    let measured = bench.measure(args).await;
    stores.events.close().await?;
    let (head, read) = measured?;
    let disk = place.disk_bytes().and_then(|bytes| number::ratio(bytes, head.value()));
    let reading = Reading {
        bench: if args.what == What::Scan { "scan" } else { "streams" },
        store: place.to_string(),
        clients: args.clients,
        bytes_per_event: disk,
        ..Reading::of(read.events, read.elapsed, &read.latencies)
    };
    if args.json {
        return reading.print_json(out);
    }
    let events = number::grouped(read.events);
    let clients = number::grouped(args.clients);
    let work = [
        format!("store     {place}, {} in its log", counted(head.value(), "event")),
        match args.what {
            What::Scan => format!("clients   {clients}, each reads the whole log"),
            What::Streams => {
                format!("clients   {clients}, sharing {}", counted(read.operations, "stream"))
            }
        },
        format!("events    {events} read, {}", counted(read.bytes, "byte")),
    ];
    let operation = if args.what == What::Scan { "page" } else { "stream" };
    reading.print(out, "bench read", &work, operation)
}

/// The store to read, the interrupt, and the kind of notes.
#[derive(Debug, Clone)]
struct Bench {
    store: Arc<dyn EventStore>,
    interrupt: Interrupt,
    notes: Notes,
}

/// The result of reads.
#[derive(Debug)]
struct Read {
    elapsed: Duration,
    events: u64,
    bytes: u64,
    /// The number of pages of a scan, or of streams.
    operations: u64,
    latencies: Latencies,
}

impl Read {
    fn new() -> Self {
        let latencies = Latencies::new();
        Self { elapsed: Duration::ZERO, events: 0, bytes: 0, operations: 0, latencies }
    }

    fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.operations += other.operations;
        self.latencies.merge(&other.latencies);
    }
}

impl Bench {
    async fn measure(&self, args: &BenchReadArgs) -> Result<(Position, Read), Failure> {
        let head = match self.head().await? {
            Position::ZERO => self.fill(args).await?,
            head => head,
        };
        let read = match args.what {
            What::Scan => self.scan(args.clients, head).await?,
            What::Streams => self.streams(args.clients).await?,
        };
        Ok((head, read))
    }

    async fn head(&self) -> Result<Position, Failure> {
        Ok(self.store.read(ReadQuery::log().with_events_max(1)).await?.head)
    }

    async fn fill(&self, args: &BenchReadArgs) -> Result<Position, Failure> {
        let &BenchReadArgs { events, payload_bytes, streams, .. } = args;
        let load = LoadArgs { clients: 256, events, batch: 1, payload_bytes, streams };
        let progress = Progress::start(self.notes, "filling", "event", events);
        let store = self.store.clone();
        let interrupt = self.interrupt.clone();
        Load::new(store, load, progress, interrupt).run().await?;
        self.head().await
    }

    async fn scan(&self, clients: u64, head: Position) -> Result<Read, Failure> {
        let total = head.value().saturating_mul(clients);
        let progress = Arc::new(Progress::start(self.notes, "reading", "event", total));
        let client = |_| self.clone().scan_once(head, progress.clone());
        let read = together((0..clients).map(client)).await;
        progress.finish();
        read
    }

    /// Reads the whole log, up to the head that it had at the beginning.
    async fn scan_once(self, head: Position, progress: Arc<Progress>) -> Result<Read, Failure> {
        let mut read = Read::new();
        let mut next = Some(large_pages(ReadQuery::log()));
        while let Some(query) = next {
            self.check_interrupt()?;
            let begun = Stopwatch::start();
            let page = self.store.read(query.clone()).await?;
            read.latencies.add(begun.elapsed());
            read.operations += 1;
            let events = page.events.len() as u64;
            read.events += events;
            read.bytes +=
                page.events.iter().map(|event| black_box(event).size() as u64).sum::<u64>();
            progress.add(events);
            next = query.next(&page).filter(|_| page.scanned_through < head);
        }
        Ok(read)
    }

    async fn streams(&self, clients: u64) -> Result<Read, Failure> {
        let streams: Arc<[StreamId]> = self.find_streams().await?.into();
        let progress = Progress::start(self.notes, "reading", "stream", streams.len() as u64);
        let progress = Arc::new(progress);
        let begun = Arc::new(AtomicUsize::new(0));
        let client = |_| {
            let streams = streams.clone();
            let begun = begun.clone();
            self.clone().read_streams(streams, begun, progress.clone())
        };
        let read = together((0..clients).map(client)).await;
        progress.finish();
        read
    }

    /// The streams of the log in random order.
    async fn find_streams(&self) -> Result<Vec<StreamId>, Failure> {
        let mut found = HashSet::new();
        let mut next = Some(large_pages(ReadQuery::log()));
        while let Some(query) = next.filter(|_| found.len() < STREAMS_MAX) {
            self.check_interrupt()?;
            let page = self.store.read(query.clone()).await?;
            found.extend(page.events.iter().map(|event| event.stream().to_stream_id()));
            next = query.next(&page);
        }
        let mut streams: Vec<_> = found.into_iter().take(STREAMS_MAX).collect();
        // Sort first: the order of a set differs in every run, so no run could be repeated.
        streams.sort_unstable();
        Random::new(1, streams.len() as u64).shuffle(&mut streams);
        if streams.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                "all events of the log are erased, name another store",
            ));
        }
        Ok(streams)
    }

    async fn read_streams(
        self,
        streams: Arc<[StreamId]>,
        begun: Arc<AtomicUsize>,
        progress: Arc<Progress>,
    ) -> Result<Read, Failure> {
        let mut read = Read::new();
        while let Some(stream) = streams.get(begun.fetch_add(1, Ordering::Relaxed)) {
            self.check_interrupt()?;
            let watch = Stopwatch::start();
            let mut next = Some(ReadQuery::stream(stream.clone()));
            while let Some(query) = next {
                let page = self.store.read(query.clone()).await?;
                read.events += page.events.len() as u64;
                read.bytes +=
                    page.events.iter().map(|event| black_box(event).size() as u64).sum::<u64>();
                next = query.next(&page);
            }
            read.latencies.add(watch.elapsed());
            read.operations += 1;
            progress.add(1);
        }
        Ok(read)
    }

    fn check_interrupt(&self) -> Result<(), Failure> {
        self.interrupt.check("the benchmark was interrupted")
    }
}

fn large_pages(query: ReadQuery) -> ReadQuery {
    query.with_events_max(PAGE_EVENTS_MAX).with_bytes_max(PAGE_BYTES_MAX)
}

/// Runs clients concurrently and adds up their reads.
async fn together<F>(clients: impl Iterator<Item = F>) -> Result<Read, Failure>
where
    F: Future<Output = Result<Read, Failure>> + Send + 'static,
{
    let begun = Stopwatch::start();
    let mut clients: JoinSet<_> = clients.collect();
    let mut all = Read::new();
    while let Some(client) = clients.join_next().await {
        all.merge(&client??);
    }
    Ok(Read { elapsed: begun.elapsed(), ..all })
}
