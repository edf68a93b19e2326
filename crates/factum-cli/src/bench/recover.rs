//! `factum bench recover`: loading an aggregate against reading what it is loaded from.

use factum::{
    App, AppendBatch, Clock, EventId, ExpectedVersion, IdSource, KeyRange, Metadata, ReadFrom,
    ReadQuery, Repository, ScanQuery, SnapshotPolicy, StreamId, StreamVersion, SystemClock,
    SystemIds, encode_event,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};
use serde::Serialize;

use crate::{
    args::RecoverArgs,
    bench::{ground::Ground, median},
    exit::Failure,
    interrupt::Interrupt,
    number::{grouped, micros},
    output::Output,
    stopwatch::Stopwatch,
};

/// The most events of one append.
const BATCH: u64 = 1_000;

/// What it says in JSON; times are those of one account.
#[derive(Debug, Serialize)]
struct RecoverReading {
    bench: &'static str,
    store: String,
    clients: u64,
    events: u64,
    keys: u64,
    rounds: u64,
    load_us: f64,
    read_us: f64,
    ratio: f64,
    snapshot_load_us: f64,
    snapshot_read_us: f64,
    snapshot_ratio: f64,
}

/// Measures, and says what came out.
pub(crate) async fn run(args: &RecoverArgs, out: &mut Output) -> Result<(), Failure> {
    let ground = Ground::open(&args.ground).await?;
    let measured = measure(args, &ground).await;
    ground.app.close().await?;
    let reading = measured?;
    if args.json {
        return out.line(serde_json::to_string(&reading).expect("all keys are text"));
    }
    out.line(out.paint().bold("bench recover"))?;
    let (keys, events) = (grouped(args.keys), grouped(args.events));
    out.line(format_args!("  store     {}", ground.place))?;
    out.line(format_args!("  work      {keys} accounts with {events} events each"))?;
    let whole = (reading.load_us, reading.read_us, reading.ratio);
    let short = (reading.snapshot_load_us, reading.snapshot_read_us, reading.snapshot_ratio);
    for (title, (load, read, ratio)) in [("events", whole), ("snapshot", short)] {
        let (load, read) = (micros(load as u64), micros(read as u64));
        out.line(format_args!("  {title:<8}  load {load}, read {read}, ratio {ratio:.2}"))?;
    }
    Ok(())
}

async fn measure(args: &RecoverArgs, ground: &Ground) -> Result<RecoverReading, Failure> {
    let accounts = Accounts::make(args, &ground.app).await?;
    let interrupt = Interrupt::listen();
    let mut whole = Times::default();
    for _ in 0..args.rounds {
        interrupt.check("the benchmark was interrupted")?;
        let read = accounts.read().await?;
        whole.add(accounts.load().await?, read);
    }
    let accounts = accounts.with_snapshots().await?;
    let mut short = Times::default();
    for _ in 0..args.rounds {
        interrupt.check("the benchmark was interrupted")?;
        let read = accounts.read_snapshots().await?;
        short.add(accounts.load().await?, read);
    }
    let used = accounts.repository.snapshot_stats().map_or(0, |stats| stats.used());
    assert_eq!(used, args.keys * args.rounds, "every load began at a snapshot");
    let [load_us, read_us, ratio] = whole.medians();
    let [snapshot_load_us, snapshot_read_us, snapshot_ratio] = short.medians();
    Ok(RecoverReading {
        bench: "recover",
        store: ground.place.scheme().to_owned(),
        clients: 1,
        events: args.events,
        keys: args.keys,
        rounds: args.rounds,
        load_us,
        read_us,
        ratio,
        snapshot_load_us,
        snapshot_read_us,
        snapshot_ratio,
    })
}

/// One number for each round.
#[derive(Default)]
struct Times {
    loads: Vec<f64>,
    reads: Vec<f64>,
    ratios: Vec<f64>,
}

impl Times {
    fn add(&mut self, load: f64, read: f64) {
        self.loads.push(load);
        self.reads.push(read);
        self.ratios.push(load / read);
    }

    fn medians(self) -> [f64; 3] {
        [median(self.loads), median(self.reads), median(self.ratios)]
    }
}

/// Accounts with a past.
struct Accounts {
    repository: Repository<Account>,
    streams: Vec<StreamId>,
    events: u64,
}

impl Accounts {
    async fn make(args: &RecoverArgs, app: &App) -> Result<Self, Failure> {
        let repository = app.aggregate::<Account>();
        let mut streams = Vec::new();
        for n in 0..args.keys {
            let key = format!("{n:06}");
            let open = AccountCommand::Open { owner: key.clone(), email: format!("{n}@bench") };
            repository.execute(&key, &open).await?;
            let stream = repository.stream(&key)?;
            let mut left = args.events - 1;
            while left > 0 {
                let count = left.min(BATCH);
                let events: Result<Vec<_>, _> = (0..count).map(|_| deposited()).collect();
                let events = events.map_err(|error| Failure::internal(error.to_string()))?;
                let batch = AppendBatch::new().write(stream.clone(), ExpectedVersion::Any, events);
                repository.kernel().events().append(batch).await?;
                left -= count;
            }
            streams.push(stream);
        }
        Ok(Self { repository, streams, events: args.events })
    }

    async fn with_snapshots(mut self) -> Result<Self, Failure> {
        let policy = SnapshotPolicy::every_events(1);
        let repository = self.repository.with_snapshots(policy);
        self.repository = repository.map_err(|error| Failure::internal(error.to_string()))?;
        for stream in &self.streams {
            let deposit = AccountCommand::Deposit { cents: 1 };
            self.repository.execute(stream.key(), &deposit).await?;
        }
        self.events += 1;
        Ok(self)
    }

    /// Microseconds for each account.
    async fn load(&self) -> Result<f64, Failure> {
        let begun = Stopwatch::start();
        for stream in &self.streams {
            let loaded = self.repository.load(stream.key()).await?;
            assert_eq!(loaded.version.value(), self.events, "the account is whole");
        }
        Ok(self.each(begun))
    }

    async fn read(&self) -> Result<f64, Failure> {
        let store = self.repository.kernel().events();
        let begun = Stopwatch::start();
        for stream in &self.streams {
            let query = ReadQuery::stream(stream.clone());
            let mut next = Some(query.clone());
            while let Some(ask) = next {
                next = query.next(&store.read(ask).await?);
            }
        }
        Ok(self.each(begun))
    }

    async fn read_snapshots(&self) -> Result<f64, Failure> {
        let kernel = self.repository.kernel();
        let begun = Stopwatch::start();
        for stream in &self.streams {
            let range = KeyRange::prefix(format!("$snapshot/{stream}\0"));
            let query = ScanQuery::new(range).backward().with_documents_max(1);
            let page = kernel.documents().scan(query).await?;
            assert_eq!(page.documents.len(), 1, "there is a snapshot");
            let from = ReadFrom::Version(StreamVersion::new(self.events));
            kernel.events().read(ReadQuery::stream(stream.clone()).from(from)).await?;
        }
        Ok(self.each(begun))
    }

    fn each(&self, begun: Stopwatch) -> f64 {
        begun.elapsed().as_secs_f64() * 1e6 / self.streams.len() as f64
    }
}

fn deposited() -> Result<factum::NewEvent, factum::EncodeError> {
    let id = EventId::new(SystemIds.uuid(SystemClock.now()));
    encode_event(&AccountEvent::Deposited { cents: 1 }, id, &Metadata::new(), None)
}
