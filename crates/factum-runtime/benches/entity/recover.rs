//! Loading an aggregate, compared with reading the events or the snapshot that it is loaded from.
//!
//! Accounts are loaded one after another, in turn with reads of the same events without decoding.
//! Then each account gets a snapshot at its last event, and is loaded again, in turn with reads of
//! that document and of the page after it.

use factum_kernel::{
    AppendBatch, Clock, EncodeError, EventId, ExpectedVersion, IdSource, KeyRange, Metadata,
    Monotonic, NewEvent, ReadFrom, ReadQuery, Repository, ScanQuery, SnapshotPolicy, StreamId,
    StreamVersion, SystemClock, SystemIds, encode_event,
};
use factum_testing::{
    Arguments,
    bank::{Account, AccountCommand, AccountEvent},
};
use serde_json::{Value, json};

use super::{
    Failure,
    ground::{Ground, Place},
    median, now, since,
};

/// The most events of one append.
const BATCH: u64 = 1_000;

/// Measures with `--events` of an account, `--keys` (accounts), `--rounds`; times are those of one
/// account, in microseconds.
pub(super) async fn run(mut arguments: Arguments) -> Result<Value, Failure> {
    let place = Place::read(&mut arguments);
    let events = arguments.number("--events", 1_000)?;
    let keys = arguments.number("--keys", 100)?;
    let rounds = arguments.number("--rounds", 5)?;
    arguments.end()?;
    let ground = Ground::open(&place).await?;
    let repository = Repository::new(ground.kernel.clone());
    let accounts = Accounts::make(repository, events, keys).await?;
    let mut whole = Times::default();
    for _ in 0..rounds {
        let read = accounts.read().await?;
        whole.add(accounts.load().await?, read);
    }
    let accounts = accounts.with_snapshots().await?;
    let mut short = Times::default();
    for _ in 0..rounds {
        let read = accounts.read_snapshots().await?;
        short.add(accounts.load().await?, read);
    }
    let used = accounts.repository.snapshot_stats().map_or(0, |stats| stats.used());
    assert_eq!(used, keys * rounds, "every load began at a snapshot");
    ground.kernel.events().close().await?;
    let [load, read, ratio] = whole.medians();
    let [snapshot_load, snapshot_read, snapshot_ratio] = short.medians();
    Ok(json!({
        "bench": "recover", "store": ground.store, "clients": 1, "events": events, "keys": keys,
        "rounds": rounds, "load_us": load, "read_us": read, "ratio": ratio,
        "snapshot_load_us": snapshot_load, "snapshot_read_us": snapshot_read,
        "snapshot_ratio": snapshot_ratio,
    }))
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

/// Accounts with a history.
struct Accounts {
    repository: Repository<Account>,
    streams: Vec<StreamId>,
    events: u64,
}

impl Accounts {
    async fn make(
        repository: Repository<Account>,
        events: u64,
        keys: u64,
    ) -> Result<Self, Failure> {
        let mut streams = Vec::new();
        for n in 0..keys {
            let key = format!("{n:06}");
            let open = AccountCommand::Open { owner: key.clone(), email: format!("{n}@bench") };
            repository.execute(&key, &open).await?;
            let stream = repository.stream(&key)?;
            let mut left = events - 1;
            while left > 0 {
                let count = left.min(BATCH);
                let deposits = (0..count).map(|_| deposited()).collect::<Result<Vec<_>, _>>()?;
                let batch =
                    AppendBatch::new().write(stream.clone(), ExpectedVersion::Any, deposits);
                repository.kernel().events().append(batch).await?;
                left -= count;
            }
            streams.push(stream);
        }
        Ok(Self { repository, streams, events })
    }

    async fn with_snapshots(mut self) -> Result<Self, Failure> {
        self.repository = self.repository.with_snapshots(SnapshotPolicy::every_events(1))?;
        for stream in &self.streams {
            let deposit = AccountCommand::Deposit { cents: 1 };
            self.repository.execute(stream.key(), &deposit).await?;
        }
        self.events += 1;
        Ok(self)
    }

    async fn load(&self) -> Result<f64, Failure> {
        let begun = now();
        for stream in &self.streams {
            let loaded = self.repository.load(stream.key()).await?;
            assert_eq!(loaded.version.value(), self.events, "the account is whole");
        }
        Ok(self.each(begun))
    }

    async fn read(&self) -> Result<f64, Failure> {
        let store = self.repository.kernel().events();
        let begun = now();
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
        let begun = now();
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

    fn each(&self, begun: Monotonic) -> f64 {
        since(begun).as_secs_f64() * 1e6 / self.streams.len() as f64
    }
}

fn deposited() -> Result<NewEvent, EncodeError> {
    let id = EventId::new(SystemIds.uuid(SystemClock.now()));
    encode_event(&AccountEvent::Deposited { cents: 1 }, id, &Metadata::new(), None)
}
