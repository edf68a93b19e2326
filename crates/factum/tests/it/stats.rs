//! The stats of an application, and their publication.

use std::{sync::Arc, time::Duration};

use factum::{
    App, Consumer, ConsumerOptions, DocumentStore, RecordedEvent,
    consumer::{ConsumerHandle, ConsumerState, FailurePolicy},
    event::Timestamp,
    memory::{MemoryOptions, MemoryStore},
    runtime::WorkerState,
    stats::{PublishedStats, published_stats},
    store::{ExpectedRevision, KeyRange, ScanQuery, Stores, WriteBatch},
};
use factum_testing::{
    VirtualClock,
    bank::{Account, AccountCommand, AccountEvent},
};
use tokio::time::timeout;

const EVERY: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(20);

fn open(key: &str) -> AccountCommand {
    AccountCommand::Open { owner: key.into(), email: format!("{key}@example.org") }
}

fn morning() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().unwrap()
}

async fn published(store: &MemoryStore) -> Vec<PublishedStats> {
    published_stats(store).await.unwrap()
}

#[tokio::test]
async fn stats_sum_up_all_kinds_and_name_entities_and_workers() {
    let app = App::open("memory:").await.unwrap();
    assert!(app.stats().kinds.is_empty());
    for key in ["ada", "bob", "eve"] {
        app.command::<Account>(key, open(key)).await.unwrap();
    }
    app.command::<Account>("bob", AccountCommand::Deposit { cents: 5 }).await.unwrap();
    app.command::<Account>("bob", AccountCommand::Withdraw { cents: 50 }).await.unwrap_err();
    let stats = app.stats();
    assert_eq!((stats.total.commands, stats.total.rejected, stats.total.resident), (5, 1, 3));
    let [kind] = &stats.kinds[..] else { panic!("one kind") };
    assert_eq!((kind.category, kind.stats.commands), ("account", 5));
    let recent: Vec<_> = kind.recent.iter().map(|it| it.stream.key().to_owned()).collect();
    assert_eq!(recent[0], "bob");
    assert_eq!(kind.recent[0].version.map(factum::event::StreamVersion::value), Some(2));
    assert_eq!((recent.len(), kind.heaviest.len(), kind.quarantined.len()), (3, 3, 0));
    assert!(stats.workers.is_empty(), "nothing is published unless it is asked for");
    assert!(published_stats(&**app.kernel().documents()).await.unwrap().is_empty());
    app.close().await.unwrap();
}

#[tokio::test]
async fn what_is_published_is_written_anew_and_taken_away_at_the_end() {
    let store = Arc::new(MemoryStore::new());
    let clock = VirtualClock::new(morning());
    let stores = Stores { events: store.clone(), documents: store.clone() };
    let builder = App::builder().with_clock(Arc::new(clock.clone())).with_stats_every(EVERY);
    let app = builder.open_stores(stores).await.unwrap();
    clock.until_sleeping(1).await;
    let [first] = &published(&store).await[..] else { panic!("one instance") };
    assert_eq!((first.written_at, first.every_ms, first.uptime_ms), (morning(), 5_000, 0));
    assert_eq!(first.process, std::process::id());
    app.command::<Account>("ada", open("ada")).await.unwrap();
    clock.advance(EVERY);
    while published(&store).await[0].total.commands == 0 {
        tokio::task::yield_now().await;
    }
    let [second] = &published(&store).await[..] else { panic!("one instance") };
    assert_eq!((second.instance, second.uptime_ms), (first.instance, 5_000));
    assert_eq!(second.kinds[0].recent[0].stream, "account-ada");
    assert_eq!(second.workers[0].state, "running");
    app.supervisor().shutdown().await;
    assert_eq!(published(&store).await, []);
}

#[tokio::test]
async fn what_clearly_dead_instances_left_is_taken_away_and_nothing_else() {
    let clock = VirtualClock::new(morning());
    let start = async |store: &Arc<MemoryStore>| {
        let stores = Stores { events: store.clone(), documents: store.clone() };
        let builder = App::builder().with_clock(Arc::new(clock.clone())).with_stats_every(EVERY);
        let app = builder.open_stores(stores).await.unwrap();
        clock.until_sleeping(1).await;
        app
    };
    let first = Arc::new(MemoryStore::new());
    let second = Arc::new(MemoryStore::new());
    let app = start(&first).await;
    let all = ScanQuery::new(KeyRange::prefix("$factum/stats/"));
    let document = first.scan(all).await.unwrap().documents.remove(0);
    app.supervisor().shutdown().await;
    // The document of a process that was killed.
    let left = WriteBatch::new().put(document.key, ExpectedRevision::Any, document.value);
    second.write(left.clone()).await.unwrap();
    for (minutes, expected) in [(9, 2), (3, 1)] {
        clock.advance(Duration::from_secs(60 * minutes));
        let app = start(&second).await;
        assert_eq!(published(&second).await.len(), expected, "after {minutes} more minutes");
        app.supervisor().shutdown().await;
    }
    assert_eq!(published(&second).await, []);
    // The document of a process whose clock was ahead for a moment.
    second.write(left).await.unwrap();
    clock.set(morning().saturating_sub(Duration::from_secs(3_600)));
    let app = start(&second).await;
    assert_eq!(published(&second).await.len(), 1);
    app.supervisor().shutdown().await;
}

/// A consumer whose events fail when the test says so.
async fn consumer(app: &App, name: &str, failure: FailurePolicy) -> ConsumerHandle {
    let handle = |event: AccountEvent, _: RecordedEvent| async move {
        match event {
            AccountEvent::Deposited { .. } => Err("thirteen".into()),
            _ => Ok(()),
        }
    };
    let options = ConsumerOptions::new().with_failure(failure);
    app.consumers().start(Consumer::new(name, handle).with_options(options)).await.unwrap()
}

#[tokio::test]
async fn consumers_are_published_with_what_ails_them_those_that_are_ill_in_front() {
    let store = Arc::new(MemoryStore::new());
    let clock = VirtualClock::new(morning());
    let stores = Stores { events: store.clone(), documents: store.clone() };
    let builder = App::builder().with_clock(Arc::new(clock.clone())).with_stats_every(EVERY);
    let app = builder.open_stores(stores).await.unwrap();
    clock.until_sleeping(1).await;
    assert_eq!(published(&store).await[0].consumers, []);
    let none = FailurePolicy::new().with_retries_max(0);
    let parks = consumer(&app, "parks", none).await;
    let stops = consumer(&app, "stops", none.then_stop()).await;
    let well = Consumer::new("a-well", |_: AccountEvent, _: RecordedEvent| async { Ok(()) });
    let well = app.consumers().start(well).await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 13 }).await.unwrap();
    for consumer in [&well, &parks] {
        let mut health = consumer.watch();
        health.wait_for(|it| it.position.value() == 2).await.unwrap();
    }
    stops.watch().wait_for(|it| matches!(it.state, ConsumerState::Stopped(_))).await.unwrap();
    let names: Vec<_> = app.stats().consumers.iter().map(|it| it.name.to_string()).collect();
    assert_eq!(names, ["a-well", "parks", "stops"]);

    clock.advance(EVERY);
    while published(&store).await[0].consumers.is_empty() {
        tokio::task::yield_now().await;
    }
    let consumers = &published(&store).await[0].consumers;
    let seen: Vec<_> = consumers
        .iter()
        .map(|it| (&*it.name, &*it.state, it.position, it.lag_events(), it.parked))
        .collect();
    assert_eq!(
        seen,
        [
            ("parks", "live", 2, Some(0), 1),
            ("stops", "stopped", 1, Some(1), 0),
            ("a-well", "live", 2, Some(0), 0)
        ]
    );
    assert_eq!(consumers[1].cause.as_deref(), Some("an event failed: position=2: thirteen"));
    assert_eq!((consumers[2].handled, &consumers[2].cause), (2, &None));
    app.supervisor().shutdown().await;
}

#[tokio::test]
async fn one_that_tries_again_is_published_with_its_attempts_and_how_late_it_is() {
    let clock = VirtualClock::new(morning());
    let options = MemoryOptions::new().with_clock(Arc::new(clock.clone()));
    let store = Arc::new(MemoryStore::with_options(options));
    let stores = Stores { events: store.clone(), documents: store.clone() };
    let builder = App::builder().with_clock(Arc::new(clock.clone())).with_stats_every(EVERY);
    let app = builder.open_stores(stores).await.unwrap();
    clock.until_sleeping(1).await;
    let pause = 100 * EVERY;
    let mails = consumer(&app, "mails", FailurePolicy::new().with_pause(pause, pause)).await;
    app.command::<Account>("ada", open("ada")).await.unwrap();
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 13 }).await.unwrap();
    let retries =
        |it: &factum::consumer::ConsumerHealth| matches!(it.state, ConsumerState::Retrying { .. });
    mails.watch().wait_for(retries).await.unwrap();
    clock.advance(EVERY);
    while published(&store).await[0].consumers.is_empty() {
        tokio::task::yield_now().await;
    }
    let consumer = &published(&store).await[0].consumers[0];
    assert_eq!((&*consumer.state, consumer.attempts), ("retrying", Some(1)));
    assert_eq!(consumer.cause.as_deref(), Some("thirteen: position=2"));
    assert_eq!((consumer.lag_events(), consumer.lag()), (Some(1), Some(EVERY)));
    app.supervisor().shutdown().await;
}

#[tokio::test]
async fn what_an_earlier_version_published_is_read_as_before() {
    let store = MemoryStore::new();
    let old = r#"{"instance":"019a8d3c-5a43-7c11-8fd1-1d2c3b4a5968","process":7,
        "written_at":"2026-03-01T08:00:00Z","every_ms":5000,"uptime_ms":0,"total":{"active":0,
        "resident":0,"resident_bytes":0,"quarantined":0,"commands":3,"rejected":0,"failed":0,
        "conflicts":0,"stale":0,"loads":0,"deaths":0,"passivated":0,"mailbox_high_water":0},
        "kinds":[],"workers":[]}"#;
    let key = "$factum/stats/019a8d3c-5a43-7c11-8fd1-1d2c3b4a5968";
    store.write(WriteBatch::new().put(key, ExpectedRevision::Absent, old)).await.unwrap();
    let [stats] = &published(&store).await[..] else { panic!("one instance") };
    assert_eq!((stats.total.commands, &stats.consumers[..]), (3, &[][..]));
    let after = |seconds| morning().saturating_add(Duration::from_secs(seconds));
    for (seconds, is_silent, is_dead) in
        [(5, false, false), (10, false, false), (11, true, false), (700, true, true)]
    {
        let now = after(seconds);
        assert_eq!((stats.is_silent(now), stats.is_dead(now)), (is_silent, is_dead), "{seconds}");
    }
}

#[tokio::test]
async fn an_uptime_is_what_has_passed_whatever_the_clock_is_set_to() {
    let store = Arc::new(MemoryStore::new());
    let clock = VirtualClock::new(morning());
    let stores = Stores { events: store.clone(), documents: store };
    let app = App::builder().with_clock(Arc::new(clock.clone())).open_stores(stores).await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    for wrong in [Timestamp::EPOCH, Timestamp::MAX] {
        clock.set(wrong);
        clock.advance(EVERY);
    }
    let stats = app.stats();
    assert_eq!((stats.at, stats.uptime), (Timestamp::MAX, EVERY * 2));
    assert_eq!(stats.kinds[0].stats.uptime, EVERY * 2);
}

#[test]
fn stats_are_published_again_on_another_runtime_when_the_first_has_ended() {
    let store = Arc::new(MemoryStore::new());
    let stores = Stores { events: store.clone(), documents: store.clone() };
    let first = tokio::runtime::Runtime::new().unwrap();
    let app = first.block_on(async {
        let every = factum::stats::STATS_EVERY_MIN;
        let app = App::builder().with_stats_every(every).open_stores(stores).await.unwrap();
        app.command::<Account>("ada", open("ada")).await.unwrap();
        app
    });
    drop(first);
    let [publisher] = &app.supervisor().health()[..] else { panic!("one worker") };
    assert_eq!(publisher.state, WorkerState::Stopped);
    assert!(publisher.cause.as_ref().unwrap().contains("restart it on another"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        app.command::<Account>("bob", open("bob")).await.unwrap();
        app.supervisor().restart("factum.stats").unwrap();
        let published = async {
            while !published(&store).await.iter().any(|it| it.total.commands == 2) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LONG, published).await.expect("it is published");
        timeout(LONG, app.supervisor().shutdown()).await.expect("it stops");
        assert_eq!(self::published(&store).await, []);
        timeout(LONG, app.close()).await.expect("it closes").unwrap();
    });
}
