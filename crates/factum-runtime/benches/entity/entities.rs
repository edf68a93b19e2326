//! Commands through entities against plain appends of the same events.
//!
//! Rounds are interleaved on one store. In each round, the clients append events with any version
//! expected, each waiting for its answer. Then they give as many commands to entities in memory:
//! deposits on accounts, encoded in CBOR, answered when they are durable. Rates are the medians of
//! the rounds, and the ratio is the median of the rounds' ratios.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use factum_kernel::{
    AppendBatch, Clock, EventId, ExpectedVersion, IdSource, Kernel, Metadata, Repository, StreamId,
    SystemClock, SystemIds, encode_event,
};
use factum_runtime::{Entities, EntityOptions};
use factum_testing::{
    Arguments,
    bank::{Account, AccountCommand, AccountEvent},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Failure,
    ground::{Ground, Place},
    median, now, since,
};

/// The longest time that the entities may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Measures with `--clients`, `--commands` of a round, `--keys` (accounts), `--rounds`.
pub(super) async fn run(mut arguments: Arguments) -> Result<Value, Failure> {
    let place = Place::read(&mut arguments);
    let clients = arguments.number("--clients", 1_024)?;
    let commands = arguments.number("--commands", 100_000)?;
    let keys = arguments.number("--keys", 10_000)?;
    let rounds = arguments.number("--rounds", 3)?;
    arguments.end()?;
    let ground = Ground::open(&place).await?;
    let kernel = ground.kernel.clone();
    let repository = Repository::<Account>::new(kernel.clone());
    let accounts = Entities::new(repository, EntityOptions::new());
    let bench = Bench { kernel, accounts, clients, keys };
    bench.open_accounts().await?;
    let mut rates = Vec::new();
    let mut appends = Vec::new();
    let mut ratios = Vec::new();
    let mut latencies = Vec::new();
    let mut elapsed = Duration::ZERO;
    for _ in 0..rounds {
        let plain = bench.append(commands).await?;
        let asked = bench.ask(commands).await?;
        let per_second = |run: &Run| commands as f64 / run.elapsed.as_secs_f64();
        ratios.push(per_second(&asked) / per_second(&plain));
        appends.push(per_second(&plain));
        rates.push(per_second(&asked));
        elapsed += asked.elapsed;
        latencies.extend(asked.latencies);
    }
    bench.accounts.shutdown(SHUTDOWN).await;
    ground.kernel.events().close().await?;
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[(latencies.len() * percent).div_ceil(100) - 1];
    Ok(json!({
        "bench": "entities", "store": ground.store, "clients": clients, "events": commands,
        "durability": ground.durability(), "seconds": elapsed.as_secs_f64(),
        "events_per_s": median(rates), "p50_us": percentile(50), "p99_us": percentile(99),
        "rounds": rounds, "keys": keys, "appends_per_s": median(appends), "ratio": median(ratios),
    }))
}

#[derive(Clone)]
struct Bench {
    kernel: Kernel,
    accounts: Entities<Account>,
    clients: u64,
    keys: u64,
}

/// A round of entities or of plain appends; latencies in microseconds.
struct Run {
    elapsed: Duration,
    latencies: Vec<u64>,
}

impl Bench {
    fn key(&self, n: u64) -> String {
        format!("{:06}", n % self.keys)
    }

    async fn open_accounts(&self) -> Result<(), Failure> {
        let bench = self.clone();
        let opened = self.race(self.keys, move |n| {
            let key = bench.key(n);
            let accounts = bench.accounts.clone();
            let open = AccountCommand::Open { owner: key.clone(), email: format!("{n}@bench") };
            async move { Ok(accounts.ask(key, open).await.map(drop)?) }
        });
        opened.await.map(drop)
    }

    async fn ask(&self, commands: u64) -> Result<Run, Failure> {
        let accounts = self.accounts.clone();
        // Made once, like the streams of plain appends.
        let keys: Arc<Vec<String>> = Arc::new((0..self.keys).map(|n| self.key(n)).collect());
        let ask = move |n| {
            let at = (n % keys.len() as u64) as usize;
            let keys = keys.clone();
            let accounts = accounts.clone();
            let deposit = AccountCommand::Deposit { cents: 1 };
            async move { Ok(accounts.ask(&*keys[at], deposit).await.map(drop)?) }
        };
        self.race(commands, ask).await
    }

    /// The same events, in streams of their own: without loading, without rules.
    async fn append(&self, events: u64) -> Result<Run, Failure> {
        let store = self.kernel.events().clone();
        let named = (0..self.keys).map(|n| StreamId::new("plain", &self.key(n)));
        let streams: Arc<Vec<_>> = Arc::new(named.collect::<Result<_, _>>()?);
        let append = move |n| {
            let store = store.clone();
            let streams = streams.clone();
            async move {
                let id = EventId::new(SystemIds.uuid(SystemClock.now()));
                let event = AccountEvent::Deposited { cents: 1 };
                let new = encode_event(&event, id, &Metadata::new(), None)?;
                let stream = streams[(n % streams.len() as u64) as usize].clone();
                let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [new]);
                Ok(store.append(batch).await.map(drop)?)
            }
        };
        self.race(events, append).await
    }

    /// The clients share this much work. Each waits for one request at a time.
    async fn race<F: Future<Output = Result<(), Failure>> + Send + 'static>(
        &self,
        count: u64,
        work: impl Fn(u64) -> F + Clone + Send + 'static,
    ) -> Result<Run, Failure> {
        let next = Arc::new(AtomicU64::new(0));
        let begun = now();
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let next = next.clone();
            let work = work.clone();
            clients.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return Ok::<_, Failure>(latencies);
                    }
                    let begun = now();
                    work(n).await?;
                    latencies.push(since(begun).as_micros() as u64);
                }
            });
        }
        let mut latencies = Vec::new();
        while let Some(client) = clients.join_next().await {
            latencies.extend(client??);
        }
        Ok(Run { elapsed: since(begun), latencies })
    }
}
