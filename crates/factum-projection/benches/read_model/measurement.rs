//! The measurement: each read model, compared with its cost without a projection.
//!
//! A read model contains the balance of every account. The rate of the model in memory is compared
//! with a plain scan of the log. The rates in SQLite and PostgreSQL are compared with the same
//! upserts without a projection, in transactions of the same size. All are measured in turn, round
//! by round, and the medians count. Then single events are appended. The time is measured from the
//! append's answer until the in-memory model shows the event.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod bare;
mod log;
mod model;
mod reading;

use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

use factum_consumer::{ConsumerOptions, Consumers, Partitions, StartFrom, Target};
use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    Clock, Kernel, KeyRange, Monotonic, Position, ReadQuery, RecordedEvent, SystemClock,
};
use factum_projection::{Documents, Fold, Projection, Projections};
use factum_testing::Arguments;
use serde_json::Value;
use tempfile::TempDir;

use self::{
    log::Log,
    model::{Balances, BenchEvent, ToDocuments},
    reading::Rates,
};

/// The reason why there is no measurement, in one line.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// The longest time that a read model has to catch up.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Measures with options such as `--rounds 2`.
pub(crate) async fn run(options: &[String]) -> Result<Value, Failure> {
    let options = Options::read(Arguments::read(options)?)?;
    let folder = TempDir::with_prefix_in("factum-bench-", &options.disk)?;
    let journal = JournalOptions::new(folder.path().join("log"));
    let store = Arc::new(JournalStore::open(journal).await?);
    let kernel = Kernel::new(store.clone(), store);
    let streams = options.streams;
    let payload_bytes = options.payload_bytes;
    let log = Log { kernel: kernel.clone(), streams, payload_bytes };
    let bench = Bench {
        log,
        options,
        #[cfg(feature = "sqlite")]
        model: folder.path().join("model.db"),
    };
    let measured = bench.measure().await;
    kernel.events().close().await?;
    measured
}

/// The options of the command line.
#[derive(Debug)]
struct Options {
    disk: PathBuf,
    /// The database of a read model in PostgreSQL.
    #[cfg(feature = "postgres")]
    postgres: Option<String>,
    /// Events to project.
    events: u64,
    /// Bytes of text in each of these events.
    payload_bytes: u64,
    /// Accounts that they are spread over.
    streams: u64,
    /// The most events of a transaction.
    batch: u64,
    /// Partitions of the read models that are made in parallel, at least 2.
    partitions: u64,
    rounds: u64,
    /// The number of appends for which the time to the model in memory is measured.
    appends: u64,
}

impl Options {
    fn read(mut arguments: Arguments) -> Result<Self, Failure> {
        let options = Self {
            disk: arguments.text("--disk").map_or_else(std::env::temp_dir, Into::into),
            #[cfg(feature = "postgres")]
            postgres: arguments.text("--postgres"),
            events: arguments.number("--events", 300_000)?,
            payload_bytes: arguments.number("--payload-bytes", 256)?,
            streams: arguments.number("--streams", 10_000)?,
            batch: arguments.number("--batch", 1_000)?,
            partitions: arguments.number("--partitions", 4)?,
            rounds: arguments.number("--rounds", 3)?,
            appends: arguments.number("--appends", 2_000)?,
        };
        arguments.end()?;
        Ok(options)
    }
}

struct Bench {
    log: Log,
    options: Options,
    /// The file of the read model in SQLite.
    #[cfg(feature = "sqlite")]
    model: PathBuf,
}

impl Bench {
    async fn measure(&self) -> Result<Value, Failure> {
        self.log.fill(self.options.events).await?;
        let head = self.log.kernel.events().read(ReadQuery::log().with_events_max(1)).await?.head;
        let mut rates = Rates::new(head.value());
        for _ in 0..self.options.rounds {
            self.round(head, &mut rates).await?;
        }
        let latencies = self.latencies(head).await?;
        Ok(reading::object(&self.options, &rates, latencies))
    }

    async fn round(&self, head: Position, rates: &mut Rates) -> Result<(), Failure> {
        let kernel = &self.log.kernel;
        rates.add("scan", self.log.scan().await?);
        rates.add("memory", self.fold(head).await?);
        let documents = || (ToDocuments, Documents::new(kernel));
        rates.add("documents", self.rebuild(head, self.consumer(), documents).await?);
        let parallel = self.rebuild(head, self.in_partitions(), documents).await?;
        rates.add("documents_partitioned", parallel);
        #[cfg(feature = "sqlite")]
        self.round_in_sqlite(head, rates).await?;
        #[cfg(feature = "postgres")]
        self.round_in_postgres(head, rates).await?;
        Ok(())
    }

    #[cfg(feature = "sqlite")]
    async fn round_in_sqlite(&self, head: Position, rates: &mut Rates) -> Result<(), Failure> {
        let target = || factum_projection::SqliteTarget::new(&self.model);
        let setup = || target().with_setup(model::TABLE).with_clear(model::CLEAR);
        let new = || (model::ToSqlite, setup());
        let deposits = self.log.deposits().await?;
        rates.add("sqlite_bare", bare::sqlite(&self.model, &deposits, self.batch())?);
        rates.add("sqlite", self.rebuild(head, self.consumer(), new).await?);
        Ok(())
    }

    #[cfg(feature = "postgres")]
    async fn round_in_postgres(&self, head: Position, rates: &mut Rates) -> Result<(), Failure> {
        let Some(url) = &self.options.postgres else { return Ok(()) };
        let pool = sqlx::PgPool::connect(url).await?;
        let target = || factum_projection::PostgresTarget::new(pool.clone());
        let setup = || target().with_setup(model::TABLE).with_clear(model::CLEAR);
        let new = || (model::ToPostgres, setup());
        let deposits: Arc<[_]> = self.log.deposits().await?.into();
        rates.add("postgres_bare", bare::postgres(pool.clone(), deposits, self.batch()).await?);
        rates.add("postgres", self.rebuild(head, self.consumer(), new).await?);
        let parallel = self.rebuild(head, self.in_partitions(), new).await?;
        rates.add("postgres_partitioned", parallel);
        pool.close().await;
        Ok(())
    }

    fn batch(&self) -> usize {
        usize::try_from(self.options.batch).unwrap_or(usize::MAX)
    }

    fn consumer(&self) -> ConsumerOptions {
        ConsumerOptions::new().with_batch_events_max(self.batch())
    }

    fn in_partitions(&self) -> ConsumerOptions {
        let count = usize::try_from(self.options.partitions).unwrap_or(usize::MAX);
        self.consumer().with_partitions(Partitions::by_stream(count))
    }

    /// Makes a read model from the whole log, after clearing the one of an earlier round.
    async fn rebuild<P: Projection>(
        &self,
        head: Position,
        options: ConsumerOptions,
        new: impl Fn() -> (P, P::Target),
    ) -> Result<Duration, Failure> {
        let consumers = Consumers::new(self.log.kernel.clone());
        let (projection, target) = new();
        let before = consumers
            .start_projection(projection, target, options.clone().from(StartFrom::Now))
            .await?;
        before.stop().await;
        before.target().clear(before.name()).await?;
        let (projection, target) = new();
        let begun = now();
        let handle = consumers.start_projection(projection, target, options).await?;
        handle.wait_for(head, PATIENCE).await?;
        let elapsed = since(begun);
        consumers.close().await;
        Ok(elapsed)
    }

    /// Makes the model in memory from the whole log.
    async fn fold(&self, head: Position) -> Result<Duration, Failure> {
        let documents = self.log.kernel.documents();
        for prefix in ["$consumer/bench-memory@", "$model/bench-memory@"] {
            documents.clear(KeyRange::prefix(prefix)).await?;
        }
        let consumers = Consumers::new(self.log.kernel.clone());
        let begun = now();
        let model = consumers.fold(self.to_memory()).await?;
        model.wait_for(head, PATIENCE).await?;
        let elapsed = since(begun);
        consumers.close().await;
        Ok(elapsed)
    }

    fn to_memory(
        &self,
    ) -> Fold<Balances, BenchEvent, impl Fn(&mut Balances, BenchEvent, &RecordedEvent) + use<>>
    {
        Fold::new("bench-memory", 1, model::to_memory).with_options(self.consumer())
    }

    /// The time from the answer of an append until the model in memory shows it, in microseconds.
    async fn latencies(&self, head: Position) -> Result<Vec<u64>, Failure> {
        let consumers = Consumers::new(self.log.kernel.clone());
        let model = consumers.fold(self.to_memory()).await?;
        model.wait_for(head, PATIENCE).await?;
        let mut latencies = Vec::new();
        for n in 0..self.options.appends {
            let position = self.log.append(n, 1).await?;
            let begun = now();
            model.wait_for(position, PATIENCE).await?;
            latencies.push(since(begun).as_micros() as u64);
        }
        consumers.close().await;
        Ok(latencies)
    }
}

fn now() -> Monotonic {
    SystemClock.monotonic()
}

fn since(begun: Monotonic) -> Duration {
    now().saturating_since(begun)
}
