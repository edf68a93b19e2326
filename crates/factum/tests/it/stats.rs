//! What an application says of itself, and publishes.

use std::{sync::Arc, time::Duration};

use factum::{
    App, DocumentStore, ExpectedRevision, KeyRange, MemoryStore, PublishedStats, ScanQuery, Stores,
    Timestamp, WriteBatch, published_stats,
};
use factum_testing::{
    VirtualClock,
    bank::{Account, AccountCommand},
};

const EVERY: Duration = Duration::from_secs(5);

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
    let accounts = app.entities::<Account>();
    for key in ["ada", "bob", "eve"] {
        accounts.ask(key, open(key)).await.unwrap();
    }
    accounts.ask("bob", AccountCommand::Deposit { cents: 5 }).await.unwrap();
    accounts.ask("bob", AccountCommand::Withdraw { cents: 50 }).await.unwrap_err();
    let stats = app.stats();
    assert_eq!((stats.total.commands, stats.total.rejected, stats.total.resident), (5, 1, 3));
    let [kind] = &stats.kinds[..] else { panic!("one kind") };
    assert_eq!((kind.category, kind.stats.commands), ("account", 5));
    let recent: Vec<_> = kind.recent.iter().map(|it| it.stream.key().to_owned()).collect();
    assert_eq!(recent[0], "bob");
    assert_eq!(kind.recent[0].version.map(factum::StreamVersion::value), Some(2));
    assert_eq!((recent.len(), kind.heaviest.len(), kind.quarantined.len()), (3, 3, 0));
    assert!(stats.workers.is_empty(), "nothing is published unless it is asked for");
    assert!(published_stats(&**app.kernel().documents()).await.unwrap().is_empty());
    app.close().await.unwrap();
}

#[tokio::test]
async fn what_is_published_is_written_anew_and_taken_away_at_the_end() {
    let (store, clock) = (Arc::new(MemoryStore::new()), VirtualClock::new(morning()));
    let stores = Stores { events: store.clone(), documents: store.clone() };
    let builder = App::builder().with_clock(Arc::new(clock.clone())).with_stats_every(EVERY);
    let app = builder.open_stores(stores).await.unwrap();
    clock.until_sleeping(1).await;
    let [first] = &published(&store).await[..] else { panic!("one instance") };
    assert_eq!((first.written_at, first.every_ms, first.uptime_ms), (morning(), 5_000, 0));
    assert_eq!(first.process, std::process::id());
    app.entities::<Account>().ask("ada", open("ada")).await.unwrap();
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
    let (first, second) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let app = start(&first).await;
    let all = ScanQuery::new(KeyRange::prefix("$factum/stats/"));
    let document = first.scan(all).await.unwrap().documents.remove(0);
    app.supervisor().shutdown().await;
    // As a process that was killed leaves it.
    let left = WriteBatch::new().put(document.key, ExpectedRevision::Any, document.value);
    second.write(left).await.unwrap();
    for (minutes, expected) in [(9, 2), (3, 1)] {
        clock.advance(Duration::from_secs(60 * minutes));
        let app = start(&second).await;
        assert_eq!(published(&second).await.len(), expected, "after {minutes} more minutes");
        app.supervisor().shutdown().await;
    }
    assert_eq!(published(&second).await, []);
}
