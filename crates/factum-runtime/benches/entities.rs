//! Commands through entities against plain appends of the same events, on the journal, in one run,
//! interleaved: `cargo bench -p factum-runtime -- [--quick] [--disk FOLDER] [--clients N]`.
//!
//! A command is a deposit on one of 10,000 accounts, encoded in CBOR and durable before it is
//! answered. The plain appends store the same events with `Any`: no loading, no rules.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use factum_core::{
    AppendBatch, Clock, EventId, EventStore, ExpectedVersion, IdSource, Kernel, Metadata,
    Repository, StreamId, SystemClock, SystemIds, TagKey, encode_event,
};
use factum_journal::{JournalOptions, JournalStore};
use factum_runtime::{Entities, EntityOptions};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

const KEYS: usize = 10_000;

struct Arguments {
    quick: bool,
    disk: PathBuf,
    clients: usize,
}

fn arguments() -> Arguments {
    let mut given = std::env::args().skip(1);
    let mut arguments = Arguments { quick: false, disk: std::env::temp_dir(), clients: 1_024 };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => arguments.quick = true,
            "--disk" => arguments.disk = given.next().map(Into::into).unwrap_or(arguments.disk),
            "--clients" => {
                let clients = given.next().and_then(|it| it.parse().ok());
                arguments.clients = clients.unwrap_or(arguments.clients);
            }
            // Cargo adds `--bench` of its own.
            _ => {}
        }
    }
    arguments
}

#[tokio::main]
async fn main() {
    let Arguments { quick, disk, clients } = arguments();
    let (rounds, commands) = if quick { (3, 100_000) } else { (5, 400_000) };
    println!("clients={clients} commands={commands} accounts={KEYS} rounds={rounds}");
    let (mut plain, mut entities, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let bare = appends(&disk, clients, commands).await;
        let asked = asks(&disk, clients, commands).await;
        plain.push(bare);
        entities.push(asked);
        ratios.push(asked / bare);
    }
    println!("plain     {:>9.0} appends/s", median(plain));
    println!("entities  {:>9.0} commands/s", median(entities));
    println!("ratio     {:>9.2}", median(ratios));
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

async fn journal(disk: &Path) -> (tempfile::TempDir, Arc<JournalStore>) {
    let folder = tempfile::tempdir_in(disk).expect("the folder can be written");
    let store = JournalStore::open(JournalOptions::new(folder.path().join("log"))).await;
    (folder, Arc::new(store.expect("the journal opens")))
}

/// Plain appends per second.
async fn appends(disk: &Path, clients: usize, commands: usize) -> f64 {
    let (_folder, store) = journal(disk).await;
    let streams: Arc<Vec<_>> =
        Arc::new((0..KEYS).map(|n| StreamId::new("account", &key(n)).expect("a key")).collect());
    let shared = store.clone();
    let elapsed = race(clients, commands, move |n| {
        let (store, streams) = (shared.clone(), streams.clone());
        async move {
            let id = EventId::new(SystemIds.uuid(SystemClock.now()));
            let event = AccountEvent::Deposited { cents: 1 };
            let new = encode_event(&event, id, &Metadata::new(), None).expect("it encodes");
            let stream = streams[n % KEYS].clone();
            let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [new]);
            store.append(batch).await.expect("it is stored");
        }
    })
    .await;
    store.close().await.expect("it closes");
    commands as f64 / elapsed.as_secs_f64()
}

/// Commands per second.
async fn asks(disk: &Path, clients: usize, commands: usize) -> f64 {
    let (_folder, store) = journal(disk).await;
    let kernel = Kernel::new(store.clone(), store.clone()).with_tag_key(TagKey::new([1; 32]));
    let accounts = Entities::<Account>::new(Repository::new(kernel), EntityOptions::new());
    let bank = accounts.clone();
    race(clients, KEYS, move |n| {
        let accounts = bank.clone();
        async move {
            let (owner, email) = (key(n), format!("{n}@example.org"));
            let open = AccountCommand::Open { owner, email };
            accounts.ask(key(n), open).await.expect("it opens");
        }
    })
    .await;
    let elapsed = race(clients, commands, move |n| {
        let accounts = accounts.clone();
        async move {
            let deposit = AccountCommand::Deposit { cents: 1 };
            accounts.ask(key(n % KEYS), deposit).await.expect("it is deposited");
        }
    })
    .await;
    store.close().await.expect("it closes");
    commands as f64 / elapsed.as_secs_f64()
}

fn key(n: usize) -> String {
    format!("{n:05}")
}

/// So many clients share the work; how long it takes them.
async fn race<F: Future<Output = ()> + Send + 'static>(
    clients: usize,
    count: usize,
    work: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Duration {
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let tasks = (0..clients).map(|_| {
        let (work, next) = (work.clone(), next.clone());
        let client = async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    break;
                }
                work(n).await;
            }
        };
        tokio::spawn(client)
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no client fails");
    }
    begun.elapsed()
}
