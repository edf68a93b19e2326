//! Consumers in a process of their own, which is killed at any moment, or by events.

use std::{
    env,
    path::Path,
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use factum_consumer::{ConsumerHandle, HandleError, WaitError};
use factum_journal::{JournalOptions, JournalStore};
use factum_kernel::{
    AppendBatch, Content, EventId, EventName, ExpectedVersion, IdSource, Kernel, NewEvent,
    RecordedEvent, StreamId, SystemIds, TagKey, Timestamp,
};
use factum_projection::{Documents, DocumentsTx, Fold, Projection, Projections};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::{ChildProcess, ChildTest, Told, tell};

use crate::bench::{Bench, Counted, Counts, Fails, LONG, counts_in_memory, options};

/// The process of the consumer; its order names the work, the store and its path.
const CHILD: ChildTest = ChildTest::new("process::child");
const WRITERS: usize = 3;

fn kills() -> usize {
    if env::var_os("FACTUM_TEST_FULL").is_some() { 200 } else { 20 }
}

/// A store, and the work that reads its events.
#[derive(Clone, Copy)]
struct Case {
    work: &'static str,
    store: &'static str,
    is_in_memory: bool,
}

const IN_JOURNAL: Case = Case { work: "project", store: "journal", is_in_memory: false };
const IN_SQLITE: Case = Case { work: "project", store: "sqlite", is_in_memory: false };

impl Case {
    fn start(self, path: &Path) -> (ChildProcess, Told) {
        let Self { work, store, is_in_memory } = self;
        CHILD.start(format!("{work}:{store}:{is_in_memory}:{}", path.display()))
    }
}

/// The code that the second process runs; not a test by itself.
#[test]
fn child() {
    let Some(order) = CHILD.order() else { return };
    let [work, store, is_in_memory, path] = order.split(':').collect::<Vec<_>>()[..] else {
        panic!("{order}")
    };
    let builder = &mut tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = open(store, Path::new(path)).await;
        match work {
            "project" => project(bench, is_in_memory == "true").await,
            _ => suffer(bench, is_in_memory == "true").await,
        }
    });
}

async fn open(store: &str, path: &Path) -> Bench {
    let kernel = if store == "journal" {
        let store = Arc::new(JournalStore::open(JournalOptions::new(path)).await.unwrap());
        Kernel::new(store.clone(), store)
    } else {
        let store = Arc::new(SqliteStore::open(SqliteOptions::new(path)).await.unwrap());
        Kernel::new(store.clone(), store)
    };
    Bench::on(kernel.with_tag_key(TagKey::new([1; 32])))
}

async fn count(bench: &Bench, fails: Fails, is_in_memory: bool) -> ConsumerHandle {
    let options = options().with_batch_events_max(10);
    if is_in_memory {
        let fold = counts_in_memory(&fails).with_options(options).with_snapshot_events(40);
        return bench.consumers.fold(fold).await.unwrap().consumer().clone();
    }
    let target = Documents::new(&bench.kernel);
    bench
        .consumers
        .start_projection(Counts(fails), target, options)
        .await
        .unwrap()
        .consumer()
        .clone()
}

/// Appends and projects forever, and prints its position.
async fn project(bench: Bench, is_in_memory: bool) {
    let consumer = count(&bench, Fails::default(), is_in_memory).await;
    let bench = Arc::new(bench);
    for writer in 0..WRITERS {
        let bench = bench.clone();
        tokio::spawn(async move {
            for cents in 100.. {
                deposit(&bench, &format!("w{writer}"), cents).await;
            }
        });
    }
    let mut health = consumer.watch();
    while health.changed().await.is_ok() {
        tell(&format!("at {}", health.borrow_and_update().position));
    }
}

/// A deposit, appended without its aggregate.
async fn deposit(bench: &Bench, key: &str, cents: u64) {
    append(bench, key, "account.deposited", cents).await;
}

async fn append(bench: &Bench, key: &str, name: &str, cents: u64) {
    let id = EventId::new(SystemIds.uuid(Timestamp::EPOCH));
    let payload = format!(r#"{{"cents":{cents}}}"#);
    let event = NewEvent::new(id, EventName::parse(name).unwrap(), Content::Json, payload);
    let stream = StreamId::new("account", key).unwrap();
    let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [event]);
    bench.kernel.events().append(batch).await.unwrap();
}

fn killed_again_and_again(case: Case) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    for kill in 0..kills() {
        let (child, mut told) = case.start(&path);
        // The process dies anywhere from the first step on, with appends and batches in flight.
        let moment = 1 + kill * kill * 7 % 61;
        assert_eq!(told.by_ref().take(moment).count(), moment, "it ended by itself");
        // The process prints between two batches, and is to die inside of one.
        let (_silent, nothing) = mpsc::channel::<()>();
        let further = Duration::from_micros(kill as u64 * 7_919 % 6_000);
        let _ = nothing.recv_timeout(further);
        child.kill();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bench = open(case.store, &path).await;
        let expected = bench.fold().await;
        assert!(expected.values().map(|count| count.cents.len()).sum::<usize>() >= kills());
        if case.is_in_memory {
            let handle = bench.count_in_memory(&Fails::default()).await;
            handle.wait_for(bench.head(), LONG).await.unwrap();
            assert_eq!(*handle.read().await.unwrap(), expected);
        } else {
            let handle = bench.count(&Fails::default()).await;
            handle.wait_for(bench.head(), LONG).await.unwrap();
            assert_eq!(bench.counted().await, expected);
        }
        bench.consumers.close().await;
        bench.kernel.events().close().await.unwrap();
    });
}

#[test]
fn killed_at_random_moments_documents_in_a_journal_count_each_event_once() {
    killed_again_and_again(IN_JOURNAL);
}

#[test]
fn killed_at_random_moments_documents_in_sqlite_count_each_event_once() {
    killed_again_and_again(IN_SQLITE);
}

#[test]
fn killed_at_random_moments_a_model_in_memory_counts_each_event_once() {
    killed_again_and_again(Case { is_in_memory: true, ..IN_JOURNAL });
}

/// Projects a log with an event that ends the process, and prints when it is past that event.
async fn suffer(bench: Bench, is_in_memory: bool) {
    let fails = Fails::default();
    fails.aborts.store(true, Ordering::SeqCst);
    let consumer = count(&bench, fails, is_in_memory).await;
    if consumer.wait_for(bench.head(), LONG).await.is_ok() {
        tell(&format!("at its end, {} parked", consumer.health().parked));
    }
    bench.consumers.close().await;
}

/// An older program: it knows no deposits.
mod older {
    #[derive(Debug, factum_macros::Event)]
    #[event(crate = factum_kernel)]
    pub(super) enum AccountEvent {
        Closed,
    }
}

/// The projection of the older program.
struct Blind;

impl Projection for Blind {
    const NAME: &'static str = Counts::NAME;
    const CATEGORIES: &[&str] = Counts::CATEGORIES;
    type Event = older::AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        older::AccountEvent::Closed: older::AccountEvent,
        _: &RecordedEvent,
        _: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        Ok(())
    }

    async fn forget(&self, _: &RecordedEvent, _: &mut DocumentsTx) -> Result<(), HandleError> {
        Ok(())
    }
}

/// Runs the older program up to the end of the log: both streams wait for a newer one.
async fn look_blindly(bench: &Bench, is_in_memory: bool) {
    let consumer = if is_in_memory {
        let nothing = |_: &mut Counted, older::AccountEvent::Closed, _: &RecordedEvent| {};
        let fold = Fold::new("counts-in-memory", 1, nothing).with_options(options());
        bench.consumers.fold(fold).await.unwrap().consumer().clone()
    } else {
        let target = Documents::new(&bench.kernel);
        let blind = bench.consumers.start_projection(Blind, target, options()).await.unwrap();
        blind.consumer().clone()
    };
    let told = consumer.wait_for(bench.head(), LONG).await;
    assert!(matches!(told, Err(WaitError::Unread { .. })), "{told:?}");
    assert_eq!(consumer.health().waiting, 2);
    bench.consumers.close().await;
}

fn parks_what_kills(is_in_memory: bool, has_waited: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bench = open("sqlite", &path).await;
        deposit(&bench, "ada", 1).await;
        // More skipped events than fit into a batch, for which no progress is stored.
        for note in 0..35 {
            append(&bench, "bob", "other.noted", note).await;
        }
        for cents in [13, 2] {
            deposit(&bench, "ada", cents).await;
            deposit(&bench, "bob", cents + 100).await;
        }
        if has_waited {
            look_blindly(&bench, is_in_memory).await;
        }
        bench.kernel.events().close().await.unwrap();
    });
    let case = Case { work: "suffer", is_in_memory, ..IN_SQLITE };
    let mut deaths = 0;
    loop {
        let (child, mut told) = case.start(&path);
        let end = told.next();
        let is_dead = !child.wait().success();
        if let Some(end) = end.filter(|_| !is_dead) {
            assert_eq!(end, "at its end, 1 parked");
            break;
        }
        deaths += 1;
        assert!(deaths <= 6, "an event kills it for ever");
    }
    assert!(deaths >= 3, "given up too early: {deaths}");
    // The event is handled after its cause of death is removed.
    runtime.block_on(async {
        let bench = open("sqlite", &path).await;
        let consumer = count(&bench, Fails::default(), is_in_memory).await;
        consumer.wait_for(bench.head(), LONG).await.unwrap();
        let [letter] = &consumer.dead_letters().await[..] else { panic!("one") };
        assert!(letter.error.contains("the process died"), "{}", letter.error);
        consumer.retry(&letter.stream).await.unwrap();
        consumer.stop().await;
        let expected = bench.fold().await;
        if is_in_memory {
            let handle = bench.again().count_in_memory(&Fails::default()).await;
            handle.wait_for(bench.head(), LONG).await.unwrap();
            assert_eq!(*handle.read().await.unwrap(), expected);
        } else {
            assert_eq!(bench.counted().await, expected);
        }
    });
}

#[test]
fn an_event_that_kills_the_process_is_parked_however_far_after_the_checkpoint() {
    parks_what_kills(false, false);
}

#[test]
fn an_event_that_kills_the_process_of_a_model_in_memory_is_parked() {
    parks_what_kills(true, false);
}

/// Each start tries such a stream first, and must not die of it forever.
#[test]
fn an_event_that_kills_the_process_is_parked_after_its_stream_has_waited_for_a_reader() {
    parks_what_kills(false, true);
    parks_what_kills(true, true);
}
