//! Writers in several processes, readers that verify while they write, and a server that is
//! killed under them.

use std::{
    collections::{HashMap, HashSet},
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_core::{
    AppendBatch, AppendError, Clock, EventStore, ExpectedVersion, Page, Position, Query, ReadQuery,
    RecordedEvent, StoreErrorKind, StreamVersion, SystemClock, Tag,
};
use factum_postgres::{PostgresOptions, PostgresStore};

use crate::{
    fresh::{Fresh, category, check_laws, event, pages, stream},
    instance::Instance,
};

/// Says to the test `child` that it is one: how many appends each task makes, schema, URL.
const CHILD: &str = "FACTUM_POSTGRES_TEST_CHILD";
const PROCESSES: usize = 4;
const TASKS: usize = 4;
const STREAMS: usize = 5;

pub(crate) fn spawn(url: &str, schema: &str, appends: usize) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "process::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{appends} {schema} {url}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a process has done its appends, and counts what was acknowledged.
pub(crate) fn finish(mut child: Child) -> usize {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let count = lines.filter_map(|line| acknowledged(&line.unwrap())).count();
    assert!(child.wait().unwrap().success());
    count
}

/// Not a test of its own: what the other processes run.
#[test]
fn child() {
    let Ok(order) = env::var(CHILD) else { return };
    let mut words = order.splitn(3, ' ');
    let appends = words.next().unwrap().parse().unwrap();
    let (schema, url) = (words.next().unwrap(), words.next().unwrap());
    let options = PostgresOptions::parse(url).unwrap().with_schema(schema).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = PostgresStore::open(options).await.unwrap();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    for n in 0..appends {
                        let id = append(&store, task + n).await;
                        // In one piece, and told before anything else is done.
                        std::io::stdout().write_all(format!("\nack {id}\n").as_bytes()).unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        store.close().await.unwrap();
    });
}

/// Appends two events, at the version that was read, until nobody else is first; through any
/// trouble with the server, by the rules: the same batch again, marked, while its outcome is
/// unknown.
async fn append(store: &PostgresStore, n: usize) -> String {
    let (one, other) = (stream(&format!("s{}", n % STREAMS)), stream("all"));
    loop {
        let Ok(info) = store.stream_info(&one).await else {
            SystemClock.sleep(Duration::from_millis(20)).await;
            continue;
        };
        let first = event("first").with_tag(Tag::parse("part:1").unwrap());
        let id = first.id;
        let expected = match n % 2 {
            0 => ExpectedVersion::from(info.bounds.version),
            _ => ExpectedVersion::Any,
        };
        let mut batch = AppendBatch::new().write(one.clone(), expected, [first]).write(
            other.clone(),
            ExpectedVersion::Any,
            [event("second")],
        );
        loop {
            match store.append(batch.clone()).await {
                Ok(_) => return id.to_string(),
                Err(AppendError::Conflict(_)) => break,
                Err(AppendError::Indeterminate(_)) => batch = batch.repeated(),
                Err(AppendError::Store(e)) if e.kind() == StoreErrorKind::Unavailable => {}
                Err(other) => panic!("{other:?}"),
            }
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How often each id is in the log; every batch must be whole.
async fn stored(store: &dyn EventStore) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    let mut first = None;
    for page in pages(store, ReadQuery::log()).await {
        for event in &page.events {
            match event.payload() {
                b"first" => {
                    assert_eq!(first.replace(event.position()), None, "half a batch");
                    *found.entry(event.id().to_string()).or_insert(0) += 1;
                }
                _ => assert_eq!(first.take().map(Position::next), Some(event.position())),
            }
        }
    }
    assert_eq!(first, None, "half a batch at the end");
    found
}

fn acknowledged(line: &str) -> Option<String> {
    line.strip_prefix("ack ").filter(|id| id.len() == 36).map(str::to_owned)
}

/// Follows a read while others write; checks every page, and answers with all that it saw.
async fn follow(store: PostgresStore, query: ReadQuery, done: Arc<AtomicBool>) -> Vec<Position> {
    let (mut seen, mut through) = (Vec::new(), Position::ZERO);
    loop {
        let was_done = done.load(Ordering::Acquire);
        let page = store.read(query.clone().after(through)).await.unwrap();
        assert!(page.scanned_through >= through, "a read went back");
        verify(&query, &page, &seen);
        seen.extend(page.events.iter().map(RecordedEvent::position));
        through = page.scanned_through;
        if was_done && through >= page.head {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

fn verify(query: &ReadQuery, page: &Page, seen: &[Position]) {
    let mut last = seen.last().copied().unwrap_or(Position::ZERO);
    for event in &page.events {
        assert!(event.position() > last, "an event came late");
        if *query == ReadQuery::log().with_events_max(query.events_max) {
            assert_eq!(event.position(), last.next(), "a hole in a live read");
        }
        last = event.position();
    }
}

/// Every commit waits a random while between its last statement and its end, which is where
/// stores that take numbers early lose events.
const DELAYS: &str = "
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF random() < 0.3 THEN PERFORM pg_sleep(random() * 0.004); END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait()";

#[test]
fn sixteen_writers_in_four_processes_under_four_live_readers() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let appends = if env::var_os("FACTUM_TEST_FULL").is_some() { 400 } else { 40 };
    let fresh = runtime.block_on(async {
        let fresh = Fresh::open().await;
        fresh.run(DELAYS).await;
        fresh
    });
    let done = Arc::new(AtomicBool::new(false));
    let queries = [
        ReadQuery::log().with_events_max(7),
        ReadQuery::category(category()),
        ReadQuery::matching(Query::tag(Tag::parse("part:1").unwrap())),
        ReadQuery::stream(stream("all")).with_events_max(3),
    ];
    let readers: Vec<_> = queries
        .iter()
        .map(|query| runtime.spawn(follow(fresh.store.clone(), query.clone(), done.clone())))
        .collect();
    let mut children: Vec<_> =
        (0..PROCESSES).map(|_| spawn(&fresh.schema.url, &fresh.schema.name, appends)).collect();
    let mut acks = Vec::new();
    for child in &mut children {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        acks.extend(lines.filter_map(|line| acknowledged(&line.unwrap())));
        assert!(child.wait().unwrap().success());
    }
    done.store(true, Ordering::Release);
    assert_eq!(acks.len(), PROCESSES * TASKS * appends);
    runtime.block_on(async {
        for (query, reader) in queries.into_iter().zip(readers) {
            let all = pages(&fresh.store, query.clone()).await;
            let all: Vec<_> =
                all.iter().flat_map(|page| &page.events).map(RecordedEvent::position).collect();
            assert_eq!(reader.await.unwrap(), all, "a live read of {query:?} missed something");
        }
        let found = stored(&fresh.store).await;
        assert_eq!(found.len(), acks.len());
        assert!(acks.iter().all(|id| found.get(id) == Some(&1)));
        let head = check_laws(&fresh.store).await;
        assert_eq!(head.value() as usize, 2 * acks.len());
        let all = fresh.store.stream_info(&stream("all")).await.unwrap();
        assert_eq!(all.bounds.version, StreamVersion::new(acks.len() as u64));
    });
}

#[test]
fn a_server_killed_ten_times_loses_nothing_and_doubles_nothing() {
    let mut instance = Instance::start(&[]);
    let (url, schema) = (instance.url(), "crash");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = || {
        let options = PostgresOptions::parse(&url).unwrap().with_schema(schema).unwrap();
        PostgresStore::open(options)
    };
    runtime.block_on(async { open().await.unwrap().close().await.unwrap() });
    let (tell, acks) = std::sync::mpsc::channel();
    let mut children: Vec<_> = (0..2).map(|_| spawn(&url, schema, usize::MAX)).collect();
    for child in &mut children {
        let (tell, lines) = (tell.clone(), BufReader::new(child.stdout.take().unwrap()).lines());
        std::thread::spawn(move || {
            for id in lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)) {
                let _ = tell.send(id);
            }
        });
    }
    drop(tell);
    let mut told = HashSet::new();
    for round in 0..10 {
        // Some are told before each blow, so that each meets appends under way.
        for _ in 0..20 + round * 13 % 37 {
            told.insert(acks.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        instance.kill();
        instance.restart();
    }
    for _ in 0..20 {
        told.insert(acks.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    told.extend(acks);
    runtime.block_on(async {
        let store = open().await.unwrap();
        // What a killed process left under way may still be stored.
        let found = stored(&store).await;
        let lost: Vec<_> = told.iter().filter(|id| found.get(*id) != Some(&1)).collect();
        assert!(lost.is_empty(), "acknowledged, but not there once: {lost:?}");
        assert!(found.values().all(|count| *count == 1), "something is there twice");
        check_laws(&store).await;
        store.close().await.unwrap();
    });
}
