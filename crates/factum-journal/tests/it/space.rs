//! The reclaim of erased events' space: the folder shrinks, and no reader sees a difference.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_journal::{Access, JournalOptions, JournalStore, verify};
use factum_kernel::{
    AppendBatch, Category, Content, EventName, EventStore, ExpectedVersion, NewEvent, Page,
    Position, Query, ReadFrom, ReadQuery, Retention, StoreErrorKind, StreamChange, StreamVersion,
    Tag, Timestamp,
};
use factum_testing::deletion;

use crate::fresh::{check_log, files, new_id, open, pages, stream};

const EVENTS: u64 = 3_000;
const STREAMS: u64 = 10;
/// The segments at the end that need not be rewritten: the active one, and those before it of which
/// less than half is erased.
const LAST: usize = 4;
/// The number of events of each stream.
const VERSIONS: u64 = EVENTS / STREAMS;
/// The number of streams that [`erase`] deletes.
const DELETED: u64 = 4;

/// The observed properties of an event.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    stream: String,
    version: u64,
    name: String,
    payload: Vec<u8>,
    recorded_at: Timestamp,
}

impl Seen {
    fn is_deletion(&self) -> bool {
        self.name == EventName::STREAM_DELETED.as_str()
    }
}

type Log = BTreeMap<u64, Seen>;

fn event(n: u64) -> NewEvent {
    let names = ["account.opened", "account.money-deposited", "account.closed"];
    let name = EventName::from_static(names[(n % 3) as usize]);
    let payload = format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat((n % 400) as usize));
    NewEvent::new(new_id(), name, Content::Json, payload)
        .with_tag(Tag::new("parity", n % 2).unwrap())
}

fn key(n: u64) -> String {
    format!("s{n}")
}

async fn append(store: &JournalStore, range: std::ops::RangeInclusive<u64>) {
    for n in range {
        let stream = stream(&key(n % STREAMS));
        let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event(n)]);
        store.append(batch).await.unwrap();
    }
}

fn seen(pages: &[Page]) -> Log {
    let events = pages.iter().flat_map(|page| &page.events).map(|event| {
        let seen = Seen {
            stream: event.stream().as_str().into(),
            version: event.version().value(),
            name: event.name().into(),
            payload: event.payload().to_vec(),
            recorded_at: event.recorded_at(),
        };
        (event.position().value(), seen)
    });
    events.collect()
}

async fn read(store: &dyn EventStore, query: ReadQuery) -> Log {
    seen(&pages(store, query.with_events_max(97)).await)
}

/// Checks every scope in both directions: it must show exactly its part of the log.
async fn check(store: &dyn EventStore, wanted: &Log) {
    let of = |fits: &dyn Fn(u64, &Seen) -> bool| -> Log {
        let found = wanted.iter().filter(|(position, seen)| fits(**position, seen));
        found.map(|(position, seen)| (*position, seen.clone())).collect()
    };
    let middle = wanted.values().nth(wanted.len() / 2).unwrap().recorded_at;
    let tag = Query::tag(Tag::new("parity", 1).unwrap());
    let types = Query::types([EventName::from_static("account.closed")]);
    let mut scopes = vec![
        (ReadQuery::log(), of(&|_, _| true)),
        (ReadQuery::category(Category::new("account").unwrap()), of(&|_, _| true)),
        (ReadQuery::matching(tag), of(&|position, seen| position % 2 == 1 && !seen.is_deletion())),
        (ReadQuery::matching(types), of(&|_, seen| seen.name == "account.closed")),
    ];
    for n in 0..STREAMS {
        let stream = stream(&key(n));
        let name = stream.as_str().to_owned();
        scopes.push((ReadQuery::stream(stream), of(&|_, seen| seen.stream == name)));
    }
    for (query, wanted) in scopes {
        assert!(read(store, query.clone()).await == wanted, "{query:?}");
        assert!(read(store, query.clone().backward()).await == wanted, "{query:?}");
        let from = ReadFrom::Time(middle);
        let later = read(store, query.clone().from(from)).await;
        let earlier = read(store, query.clone().from(from).backward()).await;
        assert!(later.values().all(|seen| seen.recorded_at >= middle), "{query:?}");
        assert!(earlier.values().all(|seen| seen.recorded_at <= middle), "{query:?}");
        assert!(earlier.into_iter().chain(later).collect::<Log>() == wanted, "{query:?}");
    }
}

fn bytes(path: &Path) -> u64 {
    files(path, ".log").iter().map(|file| file.metadata().unwrap().len()).sum()
}

/// The number of rewritten segments, by their headers.
pub(crate) fn rewritten(path: &Path) -> usize {
    let is_rewritten = |path: &&PathBuf| {
        let mut header = [0; 9];
        std::fs::File::open(path).unwrap().read_exact(&mut header).unwrap();
        header[8] == 2
    };
    files(path, ".log").iter().filter(is_rewritten).count()
}

/// Waits for the work of the background threads.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::spawn_blocking(std::thread::yield_now).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect(what);
}

async fn erase(store: &JournalStore) {
    for n in 0..DELETED {
        store.append(deletion(stream(&key(n)))).await.unwrap();
    }
    let last = store.stream_info(&stream(&key(4))).await.unwrap().bounds.version;
    let truncation = StreamChange::TruncateBefore(last);
    store.change(&stream(&key(4)), truncation).await.unwrap();
    let retention = StreamChange::Retain(Retention { events_max: Some(2), age_max: None });
    store.change(&stream(&key(5)), retention).await.unwrap();
}

/// The log without the events that [`erase`] erases.
fn left(log: &Log) -> Log {
    let is_left = |seen: &Seen| match &seen.stream[..] {
        "account-s0" | "account-s1" | "account-s2" | "account-s3" => false,
        "account-s4" => seen.version >= VERSIONS,
        "account-s5" => seen.version > VERSIONS - 2,
        _ => true,
    };
    log.iter().filter(|it| is_left(it.1)).map(|it| (*it.0, it.1.clone())).collect()
}

async fn follow(path: &Path) -> JournalStore {
    let options = JournalOptions::new(path).with_access(Access::ReadOnly);
    JournalStore::open(options).await.unwrap()
}

/// Pages through the log repeatedly: every event is unchanged or erased, and there is no gap.
fn page_on(store: &JournalStore, log: &Arc<Log>, is_done: &Arc<AtomicBool>) -> Reader {
    let store = store.clone();
    let log = log.clone();
    let is_done = is_done.clone();
    tokio::spawn(async move {
        let mut rounds = 0;
        while !is_done.load(Ordering::Relaxed) || rounds < 2 {
            check_log(&store).await;
            for query in [ReadQuery::log(), ReadQuery::stream(stream("s5")).backward()] {
                let found = read(&store, query).await.into_iter();
                for (position, seen) in found.filter(|(_, seen)| !seen.is_deletion()) {
                    assert_eq!(log.get(&position), Some(&seen), "position {position}");
                }
            }
            rounds += 1;
        }
        rounds
    })
}

type Reader = tokio::task::JoinHandle<usize>;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn erased_events_give_their_space_back_and_no_reader_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open(path).await;
    append(&store, 1..=EVENTS).await;
    let before = Arc::new(read(&store, ReadQuery::log()).await);
    assert_eq!(before.len() as u64, EVENTS);
    check(&store, &before).await;
    let segments = files(path, ".log").len();
    let size = bytes(path);
    assert!(segments > 20, "{segments}");

    let follower = follow(path).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let readers = [&store, &follower].map(|store| page_on(store, &before, &is_done));
    erase(&store).await;
    until("segments are rewritten", || rewritten(path) >= segments - LAST).await;
    is_done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    // A merge of the index holds the old runs and the new one until it ends.
    until("half of the space is back", || bytes(path) * 2 < size).await;

    let mut after = left(&before);
    after.extend(read(&store, ReadQuery::log().after(Position::new(EVENTS))).await);
    assert_eq!(after.values().filter(|seen| seen.is_deletion()).count() as u64, DELETED);
    let head = EVENTS + DELETED;
    for store in [&store, &follower] {
        check(store, &after).await;
        assert_eq!(check_log(store).await.value(), head);
    }
    check(&follow(path).await, &after).await;
    store.close().await.unwrap();
    drop(store);
    let report = verify(path).unwrap();
    assert!(report.is_whole(), "{:?}", report.damages);
    assert_eq!((report.events, report.erased), (head, head - after.len() as u64));

    // Once with the existing runs, once with runs that are made from the rewritten log.
    for _ in 0..2 {
        let store = open(path).await;
        check(&store, &after).await;
        assert_eq!(check_log(&store).await.value(), head);
        check(&follower, &after).await;
        let info = store.stream_info(&stream("s4")).await.unwrap();
        assert_eq!(info.bounds.erased_through, StreamVersion::new(VERSIONS - 1));
        store.close().await.unwrap();
        drop(store);
        assert!(verify(path).unwrap().is_whole());
        files(path, ".index").iter().for_each(|run| std::fs::remove_file(run).unwrap());
    }
}

#[tokio::test]
async fn a_rewritten_log_is_written_on_and_rewritten_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open(path).await;
    append(&store, 1..=EVENTS - 1).await;
    // To be repeated when everything around it is gone.
    let repeated = AppendBatch::new().write(stream("kept"), StreamVersion::ZERO, [event(EVENTS)]);
    let first = store.append(repeated.clone()).await.unwrap();
    append(&store, EVENTS + 1..=2 * EVENTS).await;
    let segments = files(path, ".log").len();
    for n in 0..6 {
        store.append(deletion(stream(&key(n)))).await.unwrap();
    }
    until("segments are rewritten", || rewritten(path) >= segments - LAST).await;
    let size = bytes(path);
    // A deleted stream begins again after the deleted versions.
    let deleted = store.stream_info(&stream("s0")).await.unwrap().bounds.version;
    let batch = AppendBatch::new().write(stream("s0"), deleted, [event(1)]);
    let again = store.append(batch).await.unwrap();
    for n in 6..9 {
        let truncation = StreamChange::TruncateBefore(StreamVersion::new(2 * VERSIONS));
        store.change(&stream(&key(n)), truncation).await.unwrap();
    }
    // Of the remaining events a tenth is kept; a second pass reclaims the others.
    until("segments are rewritten again", || bytes(path) < size * 3 / 4).await;
    assert_eq!(store.append(repeated.clone()).await.unwrap().first, first.first);
    assert_eq!(check_log(&store).await, again.first);
    let left = read(&store, ReadQuery::log()).await;
    store.close().await.unwrap();
    drop(store);
    assert!(verify(path).unwrap().is_whole(), "{:?}", verify(path).unwrap().damages);
    for is_lost in [false, true] {
        if is_lost {
            files(path, ".index").iter().for_each(|run| std::fs::remove_file(run).unwrap());
        }
        let store = open(path).await;
        check(&store, &left).await;
        assert_eq!(store.append(repeated.clone()).await.unwrap().first, first.first);
        store.close().await.unwrap();
    }
}

/// Retention erases with every append, while segments are sealed, their runs merged, and readers at
/// work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_kept_in_part_only_takes_the_space_of_that_part() {
    const KEPT: u64 = 5;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let store = open(path).await;
    let retention = StreamChange::Retain(Retention { events_max: Some(KEPT), age_max: None });
    for n in 0..STREAMS {
        store.change(&stream(&key(n)), retention).await.unwrap();
    }
    let is_done = Arc::new(AtomicBool::new(false));
    let readers = [store.clone(), follow(path).await].map(|store| {
        let is_done = is_done.clone();
        tokio::spawn(async move {
            while !is_done.load(Ordering::Relaxed) {
                check_log(&store).await;
                let query = ReadQuery::stream(stream("s3")).with_events_max(3);
                let found = seen(&pages(&store, query).await);
                let versions: Vec<_> = found.values().map(|seen| seen.version).collect();
                assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
            }
        })
    });
    append(&store, 1..=EVENTS).await;
    // Less than a third of what was written. Names and changes stay; here there is a change per
    // event.
    let sealed = files(path, ".log").len() as u64 - 1;
    let written = 16 << 10;
    until("the space is given back", || {
        let active = files(path, ".log").pop().unwrap().metadata().unwrap().len();
        (bytes(path) - active) * 3 < sealed * written
    })
    .await;
    is_done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let left = read(&store, ReadQuery::log()).await;
    assert_eq!(left.len() as u64, STREAMS * KEPT);
    check(&store, &left).await;
    store.close().await.unwrap();
    drop(store);
    assert!(verify(path).unwrap().is_whole(), "{:?}", verify(path).unwrap().damages);
    files(path, ".index").iter().for_each(|run| std::fs::remove_file(run).unwrap());
    let store = open(path).await;
    check(&store, &left).await;
    assert_eq!(check_log(&store).await.value(), EVENTS);
    store.close().await.unwrap();
}

/// A journal whose last segment was just begun and holds all its changes.
struct ErasedLately {
    head: u64,
    /// The last segment, and its bytes before the changes.
    active: PathBuf,
    before: Vec<u8>,
    /// The recorded durable end before the changes.
    synced: Vec<u8>,
}

async fn erased_lately(path: &Path) -> ErasedLately {
    let store = open(path).await;
    append(&store, 1..=EVENTS / 2).await;
    let mut head = EVENTS / 2;
    let segments = files(path, ".log").len();
    while files(path, ".log").len() == segments {
        head += 1;
        append(&store, head..=head).await;
    }
    let active = files(path, ".log").pop().unwrap();
    let before = std::fs::read(&active).unwrap();
    let synced = std::fs::read(path.join("log/synced")).unwrap();
    erase(&store).await;
    until("segments are rewritten", || rewritten(path) >= segments - LAST).await;
    store.close().await.unwrap();
    assert_eq!(files(path, ".log").pop().unwrap(), active);
    ErasedLately { head, active, before, synced }
}

#[tokio::test]
async fn a_log_that_lost_the_change_that_erased_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ErasedLately { active, before, .. } = erased_lately(folder.path()).await;
    std::fs::write(active, before).unwrap();
    let options = JournalOptions::new(folder.path());
    let error = JournalStore::open(options).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("the change that erased them is gone"), "{error}");
    // Once by the durable end that the writer recorded, and once without it, by what was left out.
    let report = verify(folder.path()).unwrap();
    assert!(
        report.damages[0].what.contains("its writer recorded it as durable"),
        "{:?}",
        report.damages
    );
    std::fs::remove_file(folder.path().join("log/synced")).unwrap();
    let report = verify(folder.path()).unwrap();
    assert!(
        report.damages[0].what.contains("the change that erased them is gone"),
        "{:?}",
        report.damages
    );
}

/// A reader that opens the journal first reads the durable end. After that, segments may be
/// rewritten without events that were not erased by then, and runs may be gone.
#[tokio::test]
async fn a_reader_that_opened_before_events_were_erased_sees_whole_streams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let ErasedLately { head, synced, .. } = erased_lately(path).await;
    std::fs::write(path.join("log/synced"), synced).unwrap();
    files(path, ".index").iter().for_each(|run| std::fs::remove_file(run).unwrap());
    // Locked like a writer's; without a writer, the reader would go on to the end.
    let writer = std::fs::File::open(path.join("log")).unwrap();
    writer.lock().unwrap();

    let reader = follow(path).await;
    assert_eq!(check_log(&reader).await.value(), head);
    for n in 0..STREAMS {
        let query = ReadQuery::stream(stream(&key(n))).with_events_max(97);
        let pages = pages(&reader, query).await;
        let bounds = pages[0].bounds.unwrap();
        let versions = seen(&pages).values().map(|seen| seen.version).collect::<Vec<_>>();
        let kept = bounds.erased_through.value() + 1..=bounds.version.value();
        assert_eq!(versions, kept.collect::<Vec<_>>(), "{}", key(n));
        assert!(!bounds.is_deleted(), "that is not durable yet");
    }
}
