//! What is left when events are erased.

use std::{sync::Arc, time::Duration};

use factum_core::{
    AppendBatch, AppendCondition, Clock, EventStore, ExpectedVersion, Position, Query, ReadQuery,
    Retention, StreamChange, StreamVersion, SystemClock, Tag,
};
use factum_sqlite::{SqliteOptions, SqliteStore};
use factum_testing::VirtualClock;

use crate::fresh::{Fresh, event, one, positions, reopen, stream, tagged};

const DELETE: StreamChange = StreamChange::Delete(ExpectedVersion::Any);

#[tokio::test]
async fn positions_versions_and_time_go_on_behind_an_erased_tail() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let start = SystemClock.now();
    let clock = VirtualClock::new(start);
    let options = || SqliteOptions::new(&path).with_clock(Arc::new(clock.clone()));
    let store = SqliteStore::open(options()).await.unwrap();
    store.append(one("ada")).await.unwrap();
    clock.advance(Duration::from_secs(1));
    store.append(one("bob")).await.unwrap();
    store.append(one("bob")).await.unwrap();
    store.change(&stream("bob"), DELETE).await.unwrap();
    store.close().await.unwrap();

    // The clock goes back, and the last event's row is gone.
    clock.set(start.saturating_sub(Duration::from_secs(4)));
    let store = SqliteStore::open(options()).await.unwrap();
    assert_eq!(store.head().borrow().value(), 3);
    let appended = store.append(one("bob")).await.unwrap();
    assert_eq!((appended.first.value(), appended.versions[0].value()), (4, 4));
    assert_eq!(appended.recorded_at, start.saturating_add(Duration::from_secs(1)));
    let page = store.read(ReadQuery::log()).await.unwrap();
    let erased: Vec<_> =
        page.erased.iter().map(|range| (range.first.value(), range.last.value())).collect();
    assert_eq!(erased, [(2, 3)]);
}

#[tokio::test]
async fn a_log_of_which_all_is_erased_goes_on() {
    let fresh = Fresh::open().await;
    for key in ["ada", "bob"] {
        fresh.store.append(one(key)).await.unwrap();
    }
    for key in ["bob", "ada"] {
        fresh.store.change(&stream(key), DELETE).await.unwrap();
    }
    fresh.store.close().await.unwrap();
    let store = reopen(&fresh.path()).await;
    let page = store.read(ReadQuery::log()).await.unwrap();
    assert_eq!((page.scanned_through.value(), page.head.value()), (2, 2));
    assert_eq!(page.erased.len(), 1, "neighbours are one range: {:?}", page.erased);
    assert_eq!(store.append(one("eve")).await.unwrap().first.value(), 3);
}

#[tokio::test]
async fn ranges_are_merged_in_whatever_order_they_come() {
    let fresh = Fresh::open().await;
    let keys = ["a", "b", "c", "d", "e"];
    for key in keys {
        fresh.store.append(one(key)).await.unwrap();
    }
    for key in ["b", "d", "c"] {
        fresh.store.change(&stream(key), DELETE).await.unwrap();
    }
    let count = |sql| fresh.raw().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM erased"), 1);
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [1, 5]);
    // A range is cut to what the page covers, in both directions.
    let query = ReadQuery::log().after(Position::new(2));
    let page = fresh.store.read(query.with_events_max(1)).await.unwrap();
    assert_eq!((page.erased[0].first.value(), page.erased[0].last.value()), (3, 4));
    let page = fresh.store.read(ReadQuery::log().backward().with_events_max(1)).await.unwrap();
    assert_eq!((page.scanned_through.value(), page.erased.len()), (5, 0));
    let back = ReadQuery::log().from(factum_core::ReadFrom::Position(Position::new(3))).backward();
    let page = fresh.store.read(back).await.unwrap();
    assert_eq!((page.erased[0].first.value(), page.erased[0].last.value()), (2, 3));
}

#[tokio::test]
async fn nothing_of_an_erased_event_is_left_in_the_file() {
    let fresh = Fresh::open().await;
    let secret = event("the-secret-payload").with_tag(Tag::new("email", "ada@secret").unwrap());
    let write = AppendBatch::new().write(stream("ada"), ExpectedVersion::Any, [secret]);
    fresh.store.append(write).await.unwrap();
    fresh.store.append(tagged("bob", &["email:ada@other"])).await.unwrap();
    fresh.store.change(&stream("ada"), DELETE).await.unwrap();
    fresh.store.close().await.unwrap();
    let file = std::fs::read(fresh.path()).unwrap();
    let holds = |text: &str| file.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("email:ada@other"));
    assert!(!holds("the-secret-payload") && !holds("ada@secret"));
}

#[tokio::test]
async fn an_erased_event_matches_no_condition() {
    let fresh = Fresh::open().await;
    fresh.store.append(tagged("ada", &["email:ada", "kind:a"])).await.unwrap();
    let claim = |key: &str| {
        let fail_if_events_match = Query::tag(Tag::new("email", "ada").unwrap());
        let condition = AppendCondition { fail_if_events_match, after: Position::ZERO };
        tagged(key, &["email:ada"]).unless(condition)
    };
    fresh.store.append(claim("bob")).await.unwrap_err();
    fresh.store.change(&stream("ada"), DELETE).await.unwrap();
    fresh.store.append(claim("bob")).await.unwrap();
    fresh.store.append(claim("eve")).await.unwrap_err();
    // The text of the tag went with its last event, and came again.
    let tagged = ReadQuery::matching(Query::tag(Tag::new("email", "ada").unwrap()));
    assert_eq!(positions(&fresh.store, tagged).await, [2]);
}

#[tokio::test]
async fn retention_holds_inside_the_append_and_after_reopening() {
    let fresh = Fresh::open().await;
    let retention = Retention { events_max: Some(3), age_max: None };
    // Set before the stream has events.
    fresh.store.change(&stream("ada"), StreamChange::Retain(retention)).await.unwrap();
    let batch = |count: usize| {
        let events = (0..count).map(|_| event("{}").with_tag(Tag::new("n", "1").unwrap()));
        AppendBatch::new().write(stream("ada"), ExpectedVersion::Any, events.collect::<Vec<_>>())
    };
    let appended = fresh.store.append(batch(5)).await.unwrap();
    assert_eq!(appended.versions, [StreamVersion::new(5)]);
    fresh.store.append(one("bob")).await.unwrap();
    assert_eq!(positions(&fresh.store, ReadQuery::stream(stream("ada"))).await, [3, 4, 5]);
    fresh.store.close().await.unwrap();

    let store = reopen(&fresh.path()).await;
    store.append(batch(1)).await.unwrap();
    assert_eq!(positions(&store, ReadQuery::stream(stream("ada"))).await, [4, 5, 7]);
    let info = store.stream_info(&stream("ada")).await.unwrap();
    assert_eq!(info.retention, retention);
    assert_eq!((info.bounds.version.value(), info.bounds.erased_through.value()), (6, 3));
    let tagged = ReadQuery::matching(Query::tag(Tag::new("n", "1").unwrap()));
    assert_eq!(positions(&store, tagged).await, [4, 5, 7]);
    let gone = store.read(ReadQuery::log()).await.unwrap().erased;
    assert_eq!(gone.len(), 1);
}

#[tokio::test]
async fn a_tag_that_retention_took_away_can_come_again() {
    let fresh = Fresh::open().await;
    let retention = Retention { events_max: Some(1), age_max: None };
    fresh.store.change(&stream("ada"), StreamChange::Retain(retention)).await.unwrap();
    for text in ["n:1", "n:2", "n:3"] {
        fresh.store.append(tagged("ada", &[text])).await.unwrap();
    }
    fresh.store.append(tagged("bob", &["n:1"])).await.unwrap();
    for (value, expected) in [(1, vec![4]), (2, vec![]), (3, vec![3])] {
        let query = ReadQuery::matching(Query::tag(Tag::new("n", value).unwrap()));
        assert_eq!(positions(&fresh.store, query).await, expected, "n:{value}");
    }
}

#[tokio::test]
async fn retention_by_age_keeps_the_last_event() {
    let clock = VirtualClock::new(SystemClock.now());
    let fresh = Fresh::with(|options| options.with_clock(Arc::new(clock.clone()))).await;
    for _ in 0..4 {
        fresh.store.append(one("ada")).await.unwrap();
        clock.advance(Duration::from_secs(10));
    }
    let retain = |seconds| {
        let age_max = Some(Duration::from_secs(seconds));
        StreamChange::Retain(Retention { events_max: None, age_max })
    };
    fresh.store.change(&stream("ada"), retain(25)).await.unwrap();
    assert_eq!(positions(&fresh.store, ReadQuery::stream(stream("ada"))).await, [3, 4]);
    fresh.store.change(&stream("ada"), retain(0)).await.unwrap();
    assert_eq!(positions(&fresh.store, ReadQuery::stream(stream("ada"))).await, [4]);
    let forever = Retention { events_max: None, age_max: Some(Duration::MAX) };
    fresh.store.change(&stream("ada"), StreamChange::Retain(forever)).await.unwrap();
    assert_eq!(positions(&fresh.store, ReadQuery::log()).await, [4]);
}
