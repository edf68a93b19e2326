//! The journal as it grows: the rate of appends, the memory it takes, and the time to open it after
//! a close or a kill: `cargo bench -p factum-journal --bench scale -- [--millions N] [--streams N]
//! [--disk FOLDER]`.
//!
//! Every stream is written twice, in an order that looks random, five events at a time. By the
//! second time its state has long left memory. A process of its own does each step, so that the
//! memory is that of a journal that was just opened and written. Each process ends with a SIGKILL
//! while it appends.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, Clock, Content, EventId, EventName, EventStore, ExpectedVersion, IdSource,
    NewEvent, ReadQuery, StreamId, SystemClock, SystemIds,
};

const EVENTS_PER_APPEND: usize = 5;
const CLIENTS: usize = 64;
const PAYLOAD_BYTES: usize = 16;
const STEPS: usize = 10;

#[derive(Debug, Clone)]
struct Arguments {
    events: usize,
    streams: usize,
    disk: PathBuf,
    /// The folder, the first append and the number of appends of a step.
    step: Option<(PathBuf, usize, usize)>,
}

fn arguments() -> Arguments {
    let mut given = std::env::args().skip(1);
    let mut arguments =
        Arguments { events: 1_000_000, streams: 100_000, disk: std::env::temp_dir(), step: None };
    let number = |text: Option<String>| text.and_then(|text| text.parse::<usize>().ok());
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--millions" => {
                let millions = number(given.next()).expect("--millions N");
                arguments.events = millions * 1_000_000;
            }
            "--streams" => arguments.streams = number(given.next()).expect("--streams N"),
            "--disk" => arguments.disk = given.next().expect("--disk FOLDER").into(),
            "--step" => {
                let folder = given.next().expect("a folder").into();
                let first = number(given.next()).expect("a first append");
                let count = number(given.next()).expect("a count");
                arguments.step = Some((folder, first, count));
            }
            // Cargo adds `--bench` of its own.
            _ => {}
        }
    }
    arguments
}

fn main() {
    let arguments = arguments();
    match &arguments.step {
        Some((folder, first, count)) => run_step(folder, &arguments, *first, *count),
        None => grow(&arguments),
    }
}

fn grow(arguments: &Arguments) {
    let Arguments { events, streams, disk, .. } = arguments;
    println!(
        "events={events} streams={streams} payload_bytes={PAYLOAD_BYTES} clients={CLIENTS} \
         events_per_append={EVENTS_PER_APPEND} sync=every group disk={}",
        disk.display()
    );
    let folder = tempfile::tempdir_in(disk).expect("the folder can be written");
    let path = folder.path().join("journal");
    let appends = events / EVENTS_PER_APPEND / STEPS;
    for step in 0..STEPS {
        let mut child = start(arguments, &path, step * appends, appends);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = lines.next().and_then(Result::ok).expect("the step says what it measured");
        println!("{said} disk={} MiB", disk_bytes(&path) >> 20);
        // It appends until it is killed.
        std::thread::sleep(Duration::from_millis(300));
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        let killed = open_and_close(&path);
        println!("  opening: killed={killed:?} closed={:?}", open_and_close(&path));
    }
}

fn start(arguments: &Arguments, path: &Path, first: usize, count: usize) -> std::process::Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.arg("--step").arg(path).args([first, count].map(|number| number.to_string()));
    command.args(["--streams", &arguments.streams.to_string()]);
    command.stdout(Stdio::piped()).spawn().expect("a process")
}

fn open_and_close(path: &Path) -> Duration {
    runtime().block_on(async {
        let begin = Instant::now();
        let store = JournalStore::open(JournalOptions::new(path)).await.expect("a journal");
        let opened = begin.elapsed();
        store.close().await.expect("closing");
        opened
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// Appends, prints the measurements, and appends on until it is killed.
fn run_step(path: &Path, arguments: &Arguments, first: usize, count: usize) {
    let streams = arguments.streams;
    runtime().block_on(async {
        let store = JournalStore::open(JournalOptions::new(path)).await.expect("a journal");
        let begin = Instant::now();
        append_all(&store, streams, first..first + count).await;
        let events = count * EVENTS_PER_APPEND;
        let rate = events as f64 / begin.elapsed().as_secs_f64();
        let reads = read_streams(&store, streams, first + count).await;
        let head = store.head().borrow().value();
        println!("head={head} append={rate:.0} events/s read={reads:.0} streams/s {}", memory());
        append_all(&store, streams, first + count..usize::MAX).await;
    });
}

async fn append_all(store: &JournalStore, streams: usize, range: std::ops::Range<usize>) {
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let store = store.clone();
            let range = range.clone();
            tokio::spawn(async move {
                for n in range.skip(client).step_by(CLIENTS) {
                    store.append(batch(n, streams)).await.expect("an append");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no client panics");
    }
}

/// The stream of an append: first each stream once, in an order that looks random, then each once
/// more.
fn stream(n: usize, streams: usize) -> StreamId {
    // A multiplier without a common factor meets every number once.
    StreamId::new("account", &((n * 7_919) % streams).to_string()).expect("a valid id")
}

fn batch(n: usize, streams: usize) -> AppendBatch {
    let now = SystemClock.now();
    let event = |_| {
        let id = EventId::new(SystemIds.uuid(now));
        let name = EventName::from_static("account.money-deposited");
        NewEvent::new(id, name, Content::Cbor, vec![7; PAYLOAD_BYTES])
    };
    let events = (0..EVENTS_PER_APPEND).map(event);
    AppendBatch::new().write(stream(n, streams), ExpectedVersion::Any, events)
}

/// The number of streams that are read in a second, one after another.
async fn read_streams(store: &JournalStore, streams: usize, written: usize) -> f64 {
    const READS: usize = 2_000;
    let begin = Instant::now();
    for n in 0..READS {
        let stream = stream(n * 104_729 % written, streams);
        let page = store.read(ReadQuery::stream(stream)).await.expect("a page");
        assert!(!page.events.is_empty(), "the stream was written");
    }
    READS as f64 / begin.elapsed().as_secs_f64()
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |what: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        line.unwrap_or("unknown").trim().to_owned()
    };
    format!("resident={} peak={}", of("VmRSS:"), of("VmHWM:"))
}

fn disk_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        // The file was merged away in the meantime.
        Err(_) => 0,
    };
    entries.map(size).sum()
}
