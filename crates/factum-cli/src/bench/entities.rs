//! `factum bench entities`: commands through entities against plain appends of the same events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use factum::{
    App, AppendBatch, Clock, EventId, ExpectedVersion, IdSource, Metadata, StreamId, SystemClock,
    SystemIds, encode_event, sentence,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    args::EntitiesArgs,
    bench::{durability, ground::Ground, latency::Latencies, median, report::Reading, sync_policy},
    exit::Failure,
    interrupt::Interrupt,
    number::{self, grouped},
    output::Output,
    stopwatch::Stopwatch,
};

/// What it says in JSON.
#[derive(Debug, Serialize)]
struct EntitiesReading {
    #[serde(flatten)]
    reading: Reading,
    rounds: u64,
    keys: u64,
    appends_per_s: f64,
    ratio: f64,
}

/// Measures, and says what came out.
pub(crate) async fn run(args: &EntitiesArgs, out: &mut Output) -> Result<(), Failure> {
    let ground = Ground::open(&args.ground).await?;
    let claimed = ground.app.kernel().events().guarantees().durability;
    let measured = measure(args, &ground.app).await;
    ground.app.close().await?;
    let mut measured = measured?;
    measured.reading.store = ground.place.scheme().to_owned();
    measured.reading.durability = Some(durability(claimed));
    if args.json {
        return out.line(serde_json::to_string(&measured).expect("all keys are text"));
    }
    let work = [
        format!("store     {}, {}", ground.place, sync_policy(claimed)),
        format!(
            "clients   {}, each with one command under way, on {} accounts",
            grouped(args.clients),
            grouped(args.keys)
        ),
    ];
    measured.reading.print(out, "bench entities", &work, "command")?;
    let (plain, ratio) = (number::rate(measured.appends_per_s), measured.ratio);
    out.line(format_args!("  appends   {plain} plain appends per second"))?;
    out.line(format_args!("  ratio     {ratio:.2} of them"))
}

async fn measure(args: &EntitiesArgs, app: &App) -> Result<EntitiesReading, Failure> {
    let work =
        Work { app: app.clone(), args: (args.clients, args.keys), interrupt: Interrupt::listen() };
    work.open_accounts().await?;
    let (mut commands, mut appends, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut latencies, mut elapsed) = (Latencies::new(), Duration::ZERO);
    for _ in 0..args.rounds {
        let plain = work.append(args.commands).await?;
        let asked = work.ask(args.commands).await?;
        let per_second = |run: &Run| number::per_second(args.commands, run.elapsed);
        ratios.push(per_second(&asked) / per_second(&plain));
        appends.push(per_second(&plain));
        commands.push(per_second(&asked));
        latencies.merge(&asked.latencies);
        elapsed += asked.elapsed;
    }
    let reading = Reading {
        bench: "entities",
        clients: args.clients,
        events_per_s: median(commands),
        ..Reading::of(args.commands, elapsed, &latencies)
    };
    let (rounds, keys, appends_per_s, ratio) =
        (args.rounds, args.keys, median(appends), median(ratios));
    Ok(EntitiesReading { reading, rounds, keys, appends_per_s, ratio })
}

/// What the clients do.
#[derive(Clone)]
struct Work {
    app: App,
    /// Clients and keys.
    args: (u64, u64),
    interrupt: Interrupt,
}

/// How one round of one of the two went.
struct Run {
    elapsed: Duration,
    latencies: Latencies,
}

impl Work {
    fn key(&self, n: u64) -> String {
        format!("{:06}", n % self.args.1)
    }

    async fn open_accounts(&self) -> Result<(), Failure> {
        let (work, accounts) = (self.clone(), self.app.entities::<Account>());
        let opened = self.race(self.args.1, move |n| {
            let (key, accounts) = (work.key(n), accounts.clone());
            let open = AccountCommand::Open { owner: key.clone(), email: format!("{n}@bench") };
            async move { accounts.ask(key, open).await.map(drop).map_err(|e| sentence(&e)) }
        });
        opened.await.map(drop)
    }

    async fn ask(&self, commands: u64) -> Result<Run, Failure> {
        let accounts = self.app.entities::<Account>();
        // Made once, as the streams of plain appends are.
        let keys: Arc<Vec<String>> = Arc::new((0..self.args.1).map(|n| self.key(n)).collect());
        self.race(commands, move |n| {
            let at = (n % keys.len() as u64) as usize;
            let (keys, accounts) = (keys.clone(), accounts.clone());
            let deposit = AccountCommand::Deposit { cents: 1 };
            async move {
                accounts.ask(&*keys[at], deposit).await.map(drop).map_err(|e| sentence(&e))
            }
        })
        .await
    }

    /// The same events, in streams of their own: without loading, without rules.
    async fn append(&self, events: u64) -> Result<Run, Failure> {
        let store = self.app.kernel().events().clone();
        let named = (0..self.args.1).map(|n| StreamId::new("plain", &self.key(n)));
        let streams: Vec<_> =
            named.collect::<Result<_, _>>().map_err(|e| Failure::internal(e.to_string()))?;
        let streams = Arc::new(streams);
        self.race(events, move |n| {
            let (store, streams) = (store.clone(), streams.clone());
            async move {
                let id = EventId::new(SystemIds.uuid(SystemClock.now()));
                let event = AccountEvent::Deposited { cents: 1 };
                let new = encode_event(&event, id, &Metadata::new(), None);
                let new = new.map_err(|error| error.to_string())?;
                let at = usize::try_from(n).unwrap_or(usize::MAX) % streams.len();
                let batch =
                    AppendBatch::new().write(streams[at].clone(), ExpectedVersion::Any, [new]);
                store.append(batch).await.map(drop).map_err(|error| sentence(&error))
            }
        })
        .await
    }

    /// The clients share so much work; each waits for one thing at a time.
    async fn race<F: Future<Output = Result<(), String>> + Send + 'static>(
        &self,
        count: u64,
        work: impl Fn(u64) -> F + Clone + Send + 'static,
    ) -> Result<Run, Failure> {
        let next = Arc::new(AtomicU64::new(0));
        let begun = Stopwatch::start();
        let mut clients = JoinSet::new();
        for _ in 0..self.args.0 {
            let (next, work) = (next.clone(), work.clone());
            let interrupt = self.interrupt.clone();
            clients.spawn(async move {
                let mut latencies = Latencies::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return Ok(latencies);
                    }
                    interrupt.check("the benchmark was interrupted")?;
                    let begun = Stopwatch::start();
                    work(n).await.map_err(Failure::internal)?;
                    latencies.add(begun.elapsed());
                }
            });
        }
        let mut latencies = Latencies::new();
        while let Some(client) = clients.join_next().await {
            latencies.merge(&client.map_err(Failure::from).flatten()?);
        }
        Ok(Run { elapsed: begun.elapsed(), latencies })
    }
}
