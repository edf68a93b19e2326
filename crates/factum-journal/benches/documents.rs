//! Writes of documents by N clients at once: `cargo bench -p factum-journal --bench documents --
//! [--disk FOLDER] [--clients N]`. With `--scale N` instead: the rate, the memory and the time to
//! open as the store grows to N million documents.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time")]

use std::{path::PathBuf, time::Instant};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{DocumentStore, EventStore, ExpectedRevision, WriteBatch};

const VALUE_BYTES: usize = 100;
const ROUNDS: usize = 5;

struct Arguments {
    disk: PathBuf,
    clients: Vec<usize>,
    scale: Option<usize>,
}

fn arguments() -> Arguments {
    let mut given = std::env::args().skip(1);
    let disk = std::env::temp_dir();
    let clients = vec![1, 16, 256];
    let mut arguments = Arguments { disk, clients, scale: None };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--disk" => arguments.disk = given.next().map(Into::into).unwrap_or(arguments.disk),
            "--scale" => arguments.scale = given.next().and_then(|it| it.parse().ok()),
            "--clients" => {
                let clients = given.next().and_then(|it| it.parse().ok());
                arguments.clients = clients.into_iter().collect();
            }
            // Cargo adds `--bench` of its own.
            _ => {}
        }
    }
    arguments
}

fn main() {
    let Arguments { disk, clients, scale } = arguments();
    println!("value_bytes={VALUE_BYTES} rounds={ROUNDS} disk={}", disk.display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads for the clients");
    if let Some(millions) = scale {
        let folder = tempfile::tempdir_in(&disk).expect("the folder can be written");
        return (0..millions).for_each(|it| runtime.block_on(grow(folder.path().into(), it)));
    }
    for clients in clients {
        let folder = tempfile::tempdir_in(&disk).expect("the folder can be written");
        let mut rates: Vec<f64> = (0..ROUNDS)
            .map(|round| {
                let path = folder.path().join(round.to_string());
                runtime.block_on(measure(path, clients))
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        println!("clients={clients}: {:.0} writes/s", rates[ROUNDS / 2]);
    }
}

/// The writes per second. Each client writes its own keys, and every fourth write replaces a
/// document.
async fn measure(path: PathBuf, clients: usize) -> f64 {
    let store = JournalStore::open(JournalOptions::new(path)).await.expect("a fresh store");
    let writes = if clients == 1 { 1_000 } else { 4_000.max(clients * 40) } / clients;
    let begin = Instant::now();
    let work: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..writes {
                    let key = format!("client/{client}/{}", n - n % 4);
                    let batch =
                        WriteBatch::new().put(key, ExpectedRevision::Any, vec![7; VALUE_BYTES]);
                    store.write(batch).await.expect("a write");
                }
            })
        })
        .collect();
    for client in work {
        client.await.expect("no client panics");
    }
    let rate = (writes * clients) as f64 / begin.elapsed().as_secs_f64();
    store.close().await.expect("closing");
    rate
}

/// Adds a million documents, in writes of a thousand, between an opening and a closing.
async fn grow(path: PathBuf, million: usize) {
    const WRITE: usize = 1_000;
    let begin = Instant::now();
    let store = JournalStore::open(JournalOptions::new(path)).await.expect("a journal");
    let opened = begin.elapsed();
    let begin = Instant::now();
    for first in (million * 1_000_000..(million + 1) * 1_000_000).step_by(WRITE) {
        // A multiplier without a common factor spreads neighbours over all keys.
        let key = |n: usize| format!("document/{:010}", n * 7_919 % 1_000_000_007);
        let batch = (first..first + WRITE).fold(WriteBatch::new(), |batch, n| {
            batch.put(key(n), ExpectedRevision::Any, vec![7; VALUE_BYTES])
        });
        store.write(batch).await.expect("a write");
    }
    let rate = 1_000_000.0 / begin.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap_or("unknown").trim();
    println!("million {million}: opening={opened:?} {rate:.0} documents/s resident={resident}");
    store.close().await.expect("closing");
}
