//! Writers in several processes, readers that verify while they write, and a server that is
//! killed under them.

use std::{
    collections::HashSet,
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_kernel::{
    EventStore, Page, Position, Query, ReadQuery, RecordedEvent, StreamVersion, Tag,
};
use factum_postgres::{PostgresOptions, PostgresStore};
use factum_testing::{ChildProcess, ChildTest, PairWriter, Pairs, Told, check_log, pages, tell};

use crate::{
    fresh::{Fresh, category, stream},
    instance::Instance,
};

/// Its order: the number of pairs that each task appends, the schema, the URL.
const CHILD: ChildTest = ChildTest::new("process::child");
const PROCESSES: usize = 4;
const TASKS: usize = 4;

pub(crate) fn start(url: &str, schema: &str, pairs: usize) -> (ChildProcess, Told) {
    CHILD.start(format!("{pairs} {schema} {url}"))
}

/// Not a test of its own: the program of the other processes.
#[test]
fn child() {
    let Some(order) = CHILD.order() else { return };
    let mut words = order.splitn(3, ' ');
    let pairs = words.next().unwrap().parse().unwrap();
    let schema = words.next().unwrap();
    let url = words.next().unwrap();
    let options = PostgresOptions::parse(url).unwrap().with_schema(schema).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = Arc::new(PostgresStore::open(options).await.unwrap());
        let writer = PairWriter::new(store.clone()).through_outages();
        writer.write(TASKS, pairs, |id| tell(&id.to_string())).await;
        store.close().await.unwrap();
    });
}

/// Follows a read while others write, checks every page, and returns all positions that it saw.
async fn follow(store: PostgresStore, query: ReadQuery, done: Arc<AtomicBool>) -> Vec<Position> {
    let mut seen = Vec::new();
    let mut through = Position::ZERO;
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

/// Every commit waits a random time between its last statement and its end. In that gap, stores
/// that take numbers early lose events.
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
        ReadQuery::matching(Query::tag(Tag::parse(PairWriter::TAG).unwrap())),
        ReadQuery::stream(stream(PairWriter::ALL)).with_events_max(3),
    ];
    let readers: Vec<_> = queries
        .iter()
        .map(|query| runtime.spawn(follow(fresh.store.clone(), query.clone(), done.clone())))
        .collect();
    let children: Vec<_> =
        (0..PROCESSES).map(|_| start(&fresh.schema.url, &fresh.schema.name, appends)).collect();
    let mut acks = Vec::new();
    for (child, told) in children {
        acks.extend(told);
        child.finish();
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
        let pairs = Pairs::read(&fresh.store).await;
        assert_eq!(pairs.count(), acks.len());
        pairs.assert_keeps(&acks);
        let head = check_log(&fresh.store).await;
        assert_eq!(head.value() as usize, 2 * acks.len());
        let all = fresh.store.stream_info(&stream(PairWriter::ALL)).await.unwrap();
        assert_eq!(all.bounds.version, StreamVersion::new(acks.len() as u64));
    });
}

#[test]
fn a_server_killed_ten_times_loses_nothing_and_doubles_nothing() {
    let mut instance = Instance::start(&[]);
    let url = instance.url();
    let schema = "crash";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = || {
        let options = PostgresOptions::parse(&url).unwrap().with_schema(schema).unwrap();
        PostgresStore::open(options)
    };
    runtime.block_on(async { open().await.unwrap().close().await.unwrap() });
    let (heard, acks) = std::sync::mpsc::channel();
    let mut children = Vec::new();
    for (child, told) in [(); 2].map(|()| start(&url, schema, usize::MAX)) {
        let heard = heard.clone();
        std::thread::spawn(move || told.for_each(|id| drop(heard.send(id))));
        children.push(child);
    }
    drop(heard);
    let mut told = HashSet::new();
    for round in 0..10 {
        // Some acknowledgements before each kill, so that each kill meets appends under way.
        for _ in 0..20 + round * 13 % 37 {
            told.insert(acks.recv_timeout(Duration::from_secs(60)).unwrap());
        }
        instance.kill();
        instance.restart();
    }
    for _ in 0..20 {
        told.insert(acks.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    children.into_iter().for_each(ChildProcess::kill);
    told.extend(acks);
    runtime.block_on(async {
        let store = open().await.unwrap();
        // Appends that were under way in a killed process may still be stored.
        Pairs::read(&store).await.assert_keeps(&told);
        check_log(&store).await;
        store.close().await.unwrap();
    });
}
