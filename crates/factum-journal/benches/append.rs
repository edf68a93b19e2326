//! The journal against two floors, in one run, interleaved:
//! `cargo bench -p factum-journal --bench append -- [--quick] [--disk FOLDER] [--clients N]`.
//!
//! The plain-file floor writes the same groups to a file that was filled with zeros before, with
//! one write and one sync each. In the channel floor, the same clients send their batches through a
//! bounded channel to a thread that only writes and syncs.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures the machine's own time")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, Clock, Content, EventId, EventName, EventStore, ExpectedVersion, IdSource,
    NewEvent, ReadQuery, StreamId, SystemClock, SystemIds,
};
use tokio::sync::{mpsc, oneshot};

const STREAMS: usize = 10_000;
const PAYLOAD_BYTES: usize = 256;
/// The bytes of an event in the floors' files, about as many as in the journal's.
const RECORD_BYTES: usize = 304;
/// The number of batches that may wait in the channel floor's queue, as in the journal's.
const QUEUE: usize = 4_096;

struct Arguments {
    quick: bool,
    disk: PathBuf,
    clients: Vec<usize>,
}

fn arguments() -> Arguments {
    let mut given = std::env::args().skip(1);
    let mut arguments =
        Arguments { quick: false, disk: std::env::temp_dir(), clients: vec![1, 16, 256, 1_024] };
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--quick" => arguments.quick = true,
            "--disk" => arguments.disk = given.next().map(Into::into).unwrap_or(arguments.disk),
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
    let Arguments { quick, disk, clients } = arguments();
    let rounds = if quick { 3 } else { 5 };
    println!(
        "payload_bytes={PAYLOAD_BYTES} streams={STREAMS} sync=every group rounds={rounds} disk={}",
        disk.display()
    );
    for clients in clients {
        let events = events_of(clients, quick);
        compare(&disk, Load { clients, events, per_append: 1 }, rounds);
    }
    let events = if quick { 100_000 } else { 400_000 };
    compare(&disk, Load { clients: 16, events, per_append: 100 }, rounds);
    let folder = tempfile::tempdir_in(&disk).expect("the folder can be written");
    read(folder.path(), if quick { 200_000 } else { 1_000_000 });
}

fn events_of(clients: usize, quick: bool) -> usize {
    let events = match clients {
        1 => 2_000,
        2..=64 => 20_000,
        65..=512 => 150_000,
        _ => 600_000,
    };
    if quick { events / 4 } else { events }
}

#[derive(Debug, Clone, Copy)]
struct Load {
    clients: usize,
    events: usize,
    per_append: usize,
}

fn compare(disk: &Path, load: Load, rounds: usize) {
    let folder = tempfile::tempdir_in(disk).expect("the folder can be written");
    let mut journal = Vec::new();
    let mut file = Vec::new();
    let mut channel = Vec::new();
    let mut group = 0;
    for round in 0..rounds {
        let path = |name: &str| folder.path().join(format!("{name}-{round}"));
        let (rate, size) = measure_journal(&path("journal"), load);
        journal.push(rate);
        group = size;
        file.push(measure_file(&path("file"), load.events, size));
        channel.push(measure_channel(&path("channel"), load));
    }
    let journal = median(journal);
    let file = median(file);
    let channel = median(channel);
    println!(
        "clients={} events_per_append={} group={group}: journal={journal:.0} channel={channel:.0} \
         file={file:.0} events/s; journal/channel={:.2} journal/file={:.2}",
        load.clients,
        load.per_append,
        journal / channel,
        journal / file
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn per_second(events: usize, begin: Instant) -> f64 {
    events as f64 / begin.elapsed().as_secs_f64()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads for the clients")
}

fn stream(n: usize) -> StreamId {
    // A multiplier without a common factor spreads neighbours over all streams.
    StreamId::new("account", &format!("{}", n * 7_919 % STREAMS)).expect("a valid id")
}

fn event() -> NewEvent {
    let id = EventId::new(SystemIds.uuid(SystemClock.now()));
    let name = EventName::from_static("account.money-deposited");
    NewEvent::new(id, name, Content::Cbor, vec![7; PAYLOAD_BYTES])
}

fn batch(n: usize, events: usize) -> AppendBatch {
    let new = (0..events).map(|_| event());
    AppendBatch::new().write(stream(n), ExpectedVersion::Any, new)
}

/// The rate, and the mean size of a group.
fn measure_journal(path: &Path, load: Load) -> (f64, usize) {
    let groups = Arc::new(AtomicUsize::new(0));
    let count = groups.clone();
    // Called once per group; it does not wait.
    let delay = Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Duration::ZERO
    });
    let rate = runtime().block_on(async {
        let options = JournalOptions::new(path).with_commit_delay(delay);
        let store = JournalStore::open(options).await.expect("a fresh store");
        let begin = Instant::now();
        let clients: Vec<_> = (0..load.clients)
            .map(|client| tokio::spawn(append_all(store.clone(), client, load)))
            .collect();
        for client in clients {
            client.await.expect("no client panics");
        }
        let rate = per_second(load.events, begin);
        store.close().await.expect("closing");
        rate
    });
    (rate, load.events / groups.load(Ordering::Relaxed))
}

async fn append_all(store: JournalStore, client: usize, load: Load) {
    let Load { clients, events, per_append } = load;
    for n in (client..events / per_append).step_by(clients) {
        store.append(batch(n, per_append)).await.expect("an append");
    }
}

fn zeroed(path: &Path, bytes: usize) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    let zeros = vec![0; 1 << 20];
    for at in 0..bytes.div_ceil(zeros.len()) {
        file.write_all_at(&zeros, (at * zeros.len()) as u64).expect("zeros");
    }
    file.sync_all().expect("a sync");
    file
}

/// One thread writes the same groups to a file of zeros.
fn measure_file(path: &Path, events: usize, group: usize) -> f64 {
    let file = zeroed(path, events * RECORD_BYTES);
    let begin = Instant::now();
    let mut at = 0;
    for first in (0..events).step_by(group.max(1)) {
        let count = group.max(1).min(events - first);
        let mut bytes = Vec::with_capacity(count * RECORD_BYTES);
        (0..count).for_each(|_| bytes.extend_from_slice(&[7; RECORD_BYTES]));
        file.write_all_at(&bytes, at).expect("a write");
        file.sync_data().expect("a sync");
        at += bytes.len() as u64;
    }
    per_second(events, begin)
}

/// The same clients, through a channel to a thread that only writes and syncs.
fn measure_channel(path: &Path, load: Load) -> f64 {
    let Load { clients, events, per_append } = load;
    let file = zeroed(path, events * RECORD_BYTES);
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = thread::spawn(move || write_all(&file, queue));
    let rate = runtime().block_on(async {
        let begin = Instant::now();
        let spawn = |client| {
            let sender = sender.clone();
            tokio::spawn(async move {
                for n in (client..events / per_append).step_by(clients) {
                    let (reply, answer) = oneshot::channel();
                    let batch = batch(n, per_append);
                    sender.send((batch, reply)).await.expect("the thread lives");
                    answer.await.expect("an answer");
                }
            })
        };
        let clients: Vec<_> = (0..clients).map(spawn).collect();
        for client in clients {
            client.await.expect("no client panics");
        }
        per_second(events, begin)
    });
    drop(sender);
    writer.join().expect("the thread ends");
    rate
}

type Sent = (AppendBatch, oneshot::Sender<()>);

fn write_all(file: &File, mut queue: mpsc::Receiver<Sent>) {
    let mut at = 0;
    let mut bytes = Vec::new();
    let mut replies = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        while let Some((more, reply)) = next {
            for event in more.events() {
                let end = bytes.len() + RECORD_BYTES;
                bytes.extend_from_slice(&event.payload);
                bytes.resize(end, 0);
            }
            replies.push(reply);
            next = queue.try_recv().ok();
        }
        file.write_all_at(&bytes, at).expect("a write");
        file.sync_data().expect("a sync");
        at += bytes.len() as u64;
        bytes.clear();
        for reply in replies.drain(..) {
            let _ = reply.send(());
        }
    }
}

/// A scan of the log, reads of streams of 30 events, and the size on disk.
fn read(path: &Path, events: usize) {
    let load = Load { clients: 256, events, per_append: 30 };
    runtime().block_on(async {
        let store = JournalStore::open(JournalOptions::new(path)).await.expect("a fresh store");
        let clients: Vec<_> = (0..load.clients)
            .map(|client| tokio::spawn(append_all(store.clone(), client, load)))
            .collect();
        for client in clients {
            client.await.expect("no client panics");
        }
        for round in 0..3 {
            let begin = Instant::now();
            let count = scan(&store, ReadQuery::log().with_events_max(10_000)).await;
            let rate = per_second(count, begin);
            let begin = Instant::now();
            let mut found = 0;
            for n in 0..STREAMS.min(5_000) {
                let query = ReadQuery::stream(stream(n * 31)).with_events_max(30);
                found += store.read(query).await.expect("a page").events.len();
            }
            let streams = per_second(found, begin);
            println!("read {round}: scan={rate:.0} streams_of_30={streams:.0} events/s");
        }
        store.close().await.expect("closing");
    });
    let begin = Instant::now();
    runtime().block_on(async {
        let store = JournalStore::open(JournalOptions::new(path)).await.expect("reopened");
        store.close().await.expect("closing");
    });
    println!("reopening: {:?}, bytes per event: {}", begin.elapsed(), disk_bytes(path) / events);
}

async fn scan(store: &JournalStore, query: ReadQuery) -> usize {
    let mut next = Some(query);
    let mut count = 0;
    while let Some(query) = next {
        let page = store.read(query.clone()).await.expect("a page");
        count += page.events.len();
        next = query.next(&page);
    }
    count
}

fn disk_bytes(path: &Path) -> usize {
    let entries = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry"));
    let size = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().expect("metadata");
        if metadata.is_dir() { disk_bytes(&entry.path()) } else { metadata.len() as usize }
    };
    entries.map(size).sum()
}
