//! Whole and endless reads, and what they notice.

use std::{sync::Arc, time::Duration};

use factum_kernel::{
    AppendBatch, Category, Checkpoint, Content, DivergedReason, EventId, EventName, EventStore,
    ExpectedVersion, Metadata, NewEvent, Page, Position, ReadError, ReadFrom, ReadLog, ReadQuery,
    Scope, StreamChange, StreamId, StreamVersion, SubscribeFrom, Subscription, Timestamp,
};

use factum_testing::bank::AccountCommand;
use factum_testing::deletion;

use crate::{
    bench::{Bench, stream},
    meddled::{Meddler, meddled_losing},
};

async fn positions(bench: &Bench, query: ReadQuery) -> Vec<u64> {
    let mut read = ReadLog::new(bench.store.clone(), query);
    let mut positions = Vec::new();
    while let Some(event) = read.next().await {
        positions.push(event.unwrap().position().value());
    }
    positions
}

#[tokio::test]
async fn a_whole_read_goes_over_all_pages_both_ways() {
    let bench = Bench::new();
    bench.open("ada", &[1; 9]).await;
    for size in 1..=11 {
        let query = ReadQuery::log().with_events_max(size);
        assert_eq!(positions(&bench, query.clone()).await, (1..=10).collect::<Vec<_>>());
        let backward = positions(&bench, query.backward()).await;
        assert_eq!(backward, (1..=10).rev().collect::<Vec<_>>());
        let stream = ReadQuery::stream(stream("ada")).with_events_max(size).backward();
        assert_eq!(positions(&bench, stream).await, (1..=10).rev().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_subscription_catches_up_and_then_waits_for_what_comes() {
    let bench = Bench::new();
    bench.open("ada", &[1, 2]).await;
    let scope = Scope::Category(Category::new("account").unwrap());
    let mut all = Subscription::new(&bench.kernel, scope, SubscribeFrom::Start);
    let mut new = Subscription::new(&bench.kernel, Scope::Log, SubscribeFrom::Now);
    let after = SubscribeFrom::After(Position::new(2));
    let mut rest = Subscription::new(&bench.kernel, Scope::Log, after);
    for expected in 1..=3 {
        assert_eq!(all.next().await.unwrap().unwrap().position().value(), expected);
    }
    assert_eq!(rest.next().await.unwrap().unwrap().position().value(), 3);
    let waiting = tokio::spawn(async move {
        let first = new.next().await.unwrap().unwrap().position().value();
        (first, all.next().await.unwrap().unwrap().position().value())
    });
    tokio::task::yield_now().await;
    bench.deposit("ada", &[3]).await;
    let seen = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!(seen.1, 4);
}

#[tokio::test]
async fn erased_events_leave_no_hole() {
    let bench = Bench::new();
    bench.open("ada", &[1, 2, 3]).await;
    bench.open("bob", &[1]).await;
    let before = StreamChange::TruncateBefore(StreamVersion::new(3));
    bench.store.change(&stream("ada"), before).await.unwrap();
    bench.store.append(deletion(stream("bob"))).await.unwrap();
    for size in 1..=5 {
        assert_eq!(positions(&bench, ReadQuery::log().with_events_max(size)).await, [3, 4, 7]);
    }
}

async fn log_page(bench: &Bench) -> Page {
    bench.store.read(ReadQuery::log()).await.unwrap()
}

#[tokio::test]
async fn a_hole_is_an_error_wherever_it_is() {
    let bench = Bench::new();
    bench.open("ada", &[1, 2, 3]).await;
    let whole = log_page(&bench).await;
    assert!(whole.check_gapless(Position::new(1)).is_ok());
    for missing in 0..4 {
        let mut holed = whole.clone();
        holed.events.remove(missing);
        let error = holed.check_gapless(Position::new(1)).unwrap_err();
        let ReadError::Gap { expected, .. } = error else { panic!("{error}") };
        assert_eq!(expected.value() as usize, missing + 1);
    }
}

#[tokio::test]
async fn a_hole_at_the_start_is_noticed_and_a_filter_leaves_none() {
    let bench = Bench::new();
    bench.open("ada", &[1, 2, 3]).await;
    let east = Metadata::new().with_origin("east");
    let deposit = AccountCommand::Deposit { cents: 4 };
    bench.accounts().execute_with("ada", &deposit, &east).await.unwrap();
    assert_eq!(positions(&bench, ReadQuery::log().with_origin("east")).await, [5]);

    /// Loses the first two events.
    struct Loser;
    impl Meddler for Loser {}
    let store = meddled_losing(bench.store.clone(), Loser, 2);
    let first = ReadLog::new(store, ReadQuery::log()).next().await.unwrap();
    assert!(matches!(first, Err(ReadError::Gap { .. })), "{first:?}");
}

#[tokio::test]
async fn a_subscription_begins_when_it_is_made_and_may_begin_anywhere() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let mut now = Subscription::new(&bench.kernel, Scope::Log, SubscribeFrom::Now);
    bench.deposit("ada", &[1]).await;
    assert_eq!(now.next().await.unwrap().unwrap().position().value(), 2);

    let after = SubscribeFrom::After(Position::new(u64::MAX));
    let mut never = Subscription::new(&bench.kernel, Scope::Log, after);
    let waiting = tokio::spawn(async move { never.next().await.map(|event| event.is_err()) });
    bench.deposit("ada", &[1]).await;
    EventStore::close(&*bench.store).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Some(true), "until the store is closed");
}

#[tokio::test]
async fn a_checkpoint_of_another_log_is_noticed() {
    let bench = Bench::new();
    let other = Bench::new();
    bench.open("ada", &[1, 2]).await;
    let page = log_page(&bench).await;
    let good = Checkpoint::of(page.lineage, &page.events[1]);
    let from = SubscribeFrom::Checkpoint;
    let mut fine = Subscription::new(&bench.kernel, Scope::Log, from(good));
    assert_eq!(fine.checkpoint(), None, "nothing was handed out");
    let third = fine.next().await.unwrap().unwrap();
    assert_eq!(fine.checkpoint(), Some(Checkpoint::of(page.lineage, &third)));
    assert_eq!(third.position().value(), 3);

    let other_event = Checkpoint { event_id: page.events[0].id(), ..good };
    let ahead = Checkpoint { position: Position::new(9), ..good };
    let cases = [
        (&bench, other_event, DivergedReason::Event(good.event_id)),
        (&bench, ahead, DivergedReason::Short(Position::new(3))),
        (&other, good, DivergedReason::Lineage(log_page(&other).await.lineage)),
    ];
    for (bench, checkpoint, reason) in cases {
        let mut stopped = Subscription::new(&bench.kernel, Scope::Log, from(checkpoint));
        let error = stopped.next().await.unwrap().unwrap_err();
        let ReadError::Diverged(diverged) = error else { panic!("{error}") };
        assert_eq!((diverged.checkpoint, diverged.reason), (checkpoint, reason));
        assert!(stopped.next().await.is_none(), "and that is its end");
    }
}

/// Events of a stream that nobody follows.
async fn others_write(bench: &Bench, count: u64) {
    let events = (0..count).map(|number| {
        let id = EventId::derived(Timestamp::EPOCH, &number.to_le_bytes());
        NewEvent::new(id, EventName::from_static("hall.opened"), Content::Json, "{}")
    });
    let hall = StreamId::new("hall", "1").unwrap();
    let batch = AppendBatch::new().write(hall, ExpectedVersion::Any, events);
    bench.store.append(batch).await.unwrap();
}

/// An account that is followed, and 1,200 events of others after it.
async fn beside_others() -> (Bench, Scope) {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    others_write(&bench, 1_200).await;
    (bench, Scope::Stream(stream("ada")))
}

/// What a subscription that begins at a checkpoint reads first.
async fn next_after(bench: &Bench, scope: &Scope, checkpoint: Checkpoint) -> Page {
    let from = SubscribeFrom::Checkpoint(checkpoint);
    let mut pages = Subscription::new(&bench.kernel, scope.clone(), from).into_pages();
    pages.try_next().await.unwrap().expect("an event was appended")
}

#[tokio::test]
async fn the_checkpoint_of_a_filtered_subscription_moves_with_what_is_scanned() {
    let (bench, scope) = beside_others().await;
    let mut pages =
        Subscription::new(&bench.kernel, scope.clone(), SubscribeFrom::Start).into_pages();
    while pages.try_next().await.unwrap().is_some() {}
    let checkpoint = pages.checkpoint().unwrap();
    assert_eq!(checkpoint.position, Position::new(1_201), "nothing need be scanned again");
    // It holds the event that is there, so that another log is noticed.
    let there = ReadQuery::log().from(ReadFrom::Position(checkpoint.position));
    let there = bench.store.read(there).await.unwrap();
    assert_eq!(checkpoint, Checkpoint::of(there.lineage, &there.events[0]));

    bench.deposit("ada", &[7]).await;
    let found = next_after(&bench, &scope, checkpoint).await;
    assert_eq!(found.events.len(), 1);
    assert_eq!(found.events[0].position(), Position::new(1_202));
}

#[tokio::test]
async fn a_subscription_that_waits_and_finds_nothing_moves_its_checkpoint() {
    let (bench, scope) = beside_others().await;
    let mut events = Subscription::new(&bench.kernel, scope.clone(), SubscribeFrom::Start);
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first.position(), Position::new(1));
    let has_moved = |events: &Subscription| {
        events.checkpoint().is_some_and(|it| it.position >= Position::new(2_201))
    };
    others_write(&bench, 1_000).await;
    let moved = async {
        while !has_moved(&events) {
            let waited = tokio::time::timeout(Duration::from_millis(1), events.next()).await;
            assert!(waited.is_err(), "nothing more is meant: {waited:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), moved).await.expect("it moves");
    bench.deposit("ada", &[7]).await;
    let found = next_after(&bench, &scope, events.checkpoint().unwrap()).await;
    assert_eq!(found.events.len(), 1, "and nothing is passed over");
}

#[tokio::test]
async fn a_checkpoint_is_before_what_was_not_handed_out() {
    let bench = Bench::new();
    bench.open("ada", &[1, 2, 3]).await;
    others_write(&bench, 1_100).await;
    let scope = Scope::Stream(stream("ada"));
    let mut events = Subscription::new(&bench.kernel, scope, SubscribeFrom::Start);
    for position in 1..=3 {
        events.next().await.unwrap().unwrap();
        assert_eq!(events.checkpoint().unwrap().position, Position::new(position));
    }
    events.next().await.unwrap().unwrap();
    assert!(events.checkpoint().unwrap().position >= Position::new(4));
}

#[tokio::test]
async fn system_events_are_left_out_unless_asked_for() {
    let bench = Bench::new();
    bench.open("ada", &[]).await;
    let id = EventId::derived(Timestamp::EPOCH, b"system");
    let event = NewEvent::new(id, EventName::from_static("queue.noted"), Content::Json, "{}");
    let queue = StreamId::of(&Category::system("queue").unwrap(), "1").unwrap();
    let batch = AppendBatch::new().write(queue, ExpectedVersion::Any, [event]);
    bench.store.append(batch).await.unwrap();
    bench.deposit("ada", &[1]).await;
    assert_eq!(positions(&bench, ReadQuery::log()).await, [1, 3]);
    let category = ReadQuery::category(Category::system("queue").unwrap());
    assert_eq!(positions(&bench, category).await, [2]);
    let mut with = ReadLog::new(bench.store.clone(), ReadQuery::log()).with_system();
    let mut count = 0;
    while let Some(event) = with.next().await {
        event.unwrap();
        count += 1;
    }
    assert_eq!(count, 3);
    let store: Arc<dyn EventStore> = bench.store.clone();
    let from_end = ReadLog::new(store, ReadQuery::log().from(ReadFrom::End)).next().await;
    assert!(from_end.is_none());
}
