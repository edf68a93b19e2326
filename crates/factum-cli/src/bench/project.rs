//! `factum bench project`: read models made out of the log, and how soon they show an append.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod bare;
mod log;
mod model;
mod reading;

use std::{sync::Arc, time::Duration};

use factum::{
    ConsumerHandle, ConsumerOptions, Consumers, Documents, Fold, KeyRange, MemoryModel, Partitions,
    Position, Projection, ProjectionHandle, ReadQuery, StartFrom, Target,
};

use self::{
    log::Log,
    model::{Balances, ToDocuments},
    reading::{Rates, Reading},
};
use crate::{
    args::ProjectArgs,
    bench::{
        ground::{Folder, Ground},
        latency::Latencies,
    },
    exit::Failure,
    interrupt::Interrupt,
    output::{Notes, Output},
    progress::Progress,
    random::Random,
    stopwatch::Stopwatch,
};

/// A read model that has not caught up by then never will.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Measures, and says what came out.
pub(crate) async fn run(args: &ProjectArgs, out: &mut Output) -> Result<(), Failure> {
    let ground = Ground::open(&args.ground).await?;
    let log = Log {
        kernel: ground.app.kernel().clone(),
        interrupt: Interrupt::listen(),
        streams: args.streams,
        payload_bytes: args.payload_bytes,
    };
    let notes = if args.json { Notes::None } else { out.notes() };
    let measured = Bench { log, args, notes, folder: Folder::make(&args.ground)? }.measure().await;
    ground.app.close().await?;
    let (events, rates, latencies) = measured?;
    let reading = Reading::of(args, ground.place.scheme(), events, &rates, &latencies);
    if args.json { reading.print_json(out) } else { reading.print(out, &ground.place) }
}

struct Bench<'a> {
    log: Log,
    args: &'a ProjectArgs,
    notes: Notes,
    /// Where the read model in SQLite is.
    folder: Folder,
}

impl Bench<'_> {
    async fn measure(&self) -> Result<(u64, Rates, Latencies), Failure> {
        let progress = Progress::start(self.notes, "filling", "event", self.args.events);
        self.log.fill(self.args.events, Arc::new(progress)).await?;
        let head = self.log.kernel.events().read(ReadQuery::log().with_events_max(1)).await?.head;
        let mut rates = Rates::new(head.value());
        let progress = Progress::start(self.notes, "measuring", "round", self.args.rounds);
        for _ in 0..self.args.rounds {
            self.round(head, &mut rates).await?;
            progress.add(1);
        }
        progress.finish();
        Ok((head.value(), rates, self.latencies(head).await?))
    }

    async fn round(&self, head: Position, rates: &mut Rates) -> Result<(), Failure> {
        let kernel = &self.log.kernel;
        rates.add("scan", self.log.scan().await?);
        rates.add("memory", self.fold(head).await?);
        let documents = || (ToDocuments, Documents::new(kernel));
        rates.add("documents", self.rebuild(head, self.options(), documents).await?);
        let parallel = self.rebuild(head, self.in_partitions(), documents).await?;
        rates.add("documents_partitioned", parallel);
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        self.round_in_sql(head, rates).await?;
        Ok(())
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    async fn round_in_sql(&self, head: Position, rates: &mut Rates) -> Result<(), Failure> {
        const CLEAR: &str = "DROP TABLE IF EXISTS factum_bench";
        let deposits: Arc<[_]> = self.log.deposits().await?.into();
        let batch = self.batch();
        #[cfg(feature = "sqlite")]
        {
            let path = self.folder.0.join("model.db");
            let target = || factum::SqliteTarget::new(&path);
            let new = || (model::ToSqlite, target().with_setup(model::TABLE).with_clear(CLEAR));
            rates.add("sqlite_bare", bare::sqlite(&path, &deposits, batch)?);
            rates.add("sqlite", self.rebuild(head, self.options(), new).await?);
        }
        #[cfg(feature = "postgres")]
        if let Some(url) = &self.args.postgres {
            let pool = sqlx::PgPool::connect(url).await;
            let pool = pool.map_err(|error| bare::sql_failure("PostgreSQL", &error))?;
            let target = || factum::PostgresTarget::new(pool.clone());
            let new = || (model::ToPostgres, target().with_setup(model::TABLE).with_clear(CLEAR));
            rates
                .add("postgres_bare", bare::postgres(pool.clone(), deposits.clone(), batch).await?);
            rates.add("postgres", self.rebuild(head, self.options(), new).await?);
            let parallel = self.rebuild(head, self.in_partitions(), new).await?;
            rates.add("postgres_partitioned", parallel);
            pool.close().await;
        }
        Ok(())
    }

    fn batch(&self) -> usize {
        usize::try_from(self.args.batch).unwrap_or(usize::MAX)
    }

    fn options(&self) -> ConsumerOptions {
        ConsumerOptions::new().with_batch_events_max(self.batch())
    }

    fn in_partitions(&self) -> ConsumerOptions {
        let count = usize::try_from(self.args.partitions).unwrap_or(usize::MAX);
        self.options().with_partitions(Partitions::by_stream(count))
    }

    /// Makes a read model out of the whole log, after what an earlier run has left is gone.
    async fn rebuild<P: Projection>(
        &self,
        head: Position,
        options: ConsumerOptions,
        new: impl Fn() -> (P, P::Target),
    ) -> Result<Duration, Failure> {
        let consumers = Consumers::new(self.log.kernel.clone());
        let (projection, target) = new();
        let now = options.clone().from(StartFrom::Now);
        let before = start(&consumers, projection, target, now)?;
        before.stop().await;
        let cleared = before.target().clear(before.name()).await;
        cleared.map_err(|error| Failure::internal(error.to_string()))?;
        let (projection, target) = new();
        let begun = Stopwatch::start();
        let handle = start(&consumers, projection, target, options)?;
        self.wait(&handle, head).await?;
        let elapsed = begun.elapsed();
        consumers.close().await;
        Ok(elapsed)
    }

    /// Makes the model in memory out of the whole log.
    async fn fold(&self, head: Position) -> Result<Duration, Failure> {
        let documents = self.log.kernel.documents();
        for prefix in ["$consumer/bench-memory@", "$model/bench-memory@"] {
            documents.clear(KeyRange::prefix(prefix)).await?;
        }
        let consumers = Consumers::new(self.log.kernel.clone());
        let begun = Stopwatch::start();
        let model = self.start_fold(&consumers)?;
        self.wait(&model, head).await?;
        let elapsed = begun.elapsed();
        consumers.close().await;
        Ok(elapsed)
    }

    fn start_fold(&self, consumers: &Consumers) -> Result<MemoryModel<Balances>, Failure> {
        let fold = Fold::new("bench-memory", 1, model::to_memory).with_options(self.options());
        consumers.fold(fold).map_err(|error| Failure::internal(error.to_string()))
    }

    async fn wait(&self, handle: &ConsumerHandle, position: Position) -> Result<(), Failure> {
        let interrupted = self.log.interrupt.wait("the benchmark was interrupted");
        tokio::select! {
            come = handle.wait_for(position, PATIENCE) => {
                come.map_err(|error| Failure::internal(error.to_string()))
            }
            failure = interrupted => Err(failure),
        }
    }

    /// How long after its answer an append is seen in the model in memory.
    async fn latencies(&self, head: Position) -> Result<Latencies, Failure> {
        let consumers = Consumers::new(self.log.kernel.clone());
        let handle = self.start_fold(&consumers)?;
        self.wait(&handle, head).await?;
        let progress = Progress::start(self.notes, "appending", "event", self.args.appends);
        let (mut random, mut latencies) = (Random::new(1, 1), Latencies::new());
        for _ in 0..self.args.appends {
            let position = self.log.append(&mut random, 1).await?;
            let begun = Stopwatch::start();
            self.wait(&handle, position).await?;
            latencies.add(begun.elapsed());
            progress.add(1);
        }
        progress.finish();
        consumers.close().await;
        Ok(latencies)
    }
}

fn start<P: Projection>(
    consumers: &Consumers,
    projection: P,
    target: P::Target,
    options: ConsumerOptions,
) -> Result<ProjectionHandle<P>, Failure> {
    let handle = consumers.project(projection, target, options);
    handle.map_err(|error| Failure::internal(error.to_string()))
}
