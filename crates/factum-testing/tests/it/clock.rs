//! Time and ids under a test's control.

use std::{collections::HashSet, time::Duration};

use factum_kernel::{Clock, EventId, IdSource, Monotonic, Timestamp};
use factum_testing::{SeededIds, VirtualClock};

const MINUTE: Duration = Duration::from_secs(60);

fn start() -> Timestamp {
    "2026-03-01T09:00:00Z".parse().unwrap()
}

#[tokio::test]
async fn sleepers_wake_when_their_moment_comes_and_not_before() {
    let clock = VirtualClock::new(start());
    let sleepers: Vec<_> = (1..=3)
        .map(|minutes| {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep(MINUTE * minutes).await })
        })
        .collect();
    clock.until_sleeping(3).await;
    clock.advance(MINUTE * 2 - Duration::from_micros(1));
    clock.advance(Duration::from_micros(1));
    let mut sleepers = sleepers.into_iter();
    sleepers.next().unwrap().await.unwrap();
    sleepers.next().unwrap().await.unwrap();
    let third = sleepers.next().unwrap();
    assert!(!third.is_finished(), "its minute has not come");
    clock.advance(MINUTE);
    third.await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_set_wakes_no_sleeper_and_passes_no_time() {
    let clock = VirtualClock::new(start());
    let sleeper = tokio::spawn({
        let clock = clock.clone();
        async move { clock.sleep(MINUTE).await }
    });
    clock.until_sleeping(1).await;
    let before = clock.monotonic();
    for set in [Timestamp::EPOCH, Timestamp::MAX] {
        clock.set(set);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished() && clock.now() == set);
    }
    assert_eq!(clock.monotonic(), before);
    sleeper.abort();
    assert!(sleeper.await.unwrap_err().is_cancelled());
    // A cancelled sleeper is not counted any more.
    let nobody = tokio::time::timeout(Duration::from_millis(20), clock.until_sleeping(1)).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn an_auto_advancing_clock_lets_nobody_wait() {
    let clock = VirtualClock::auto_advancing(start());
    clock.sleep(MINUTE * 60).await;
    clock.sleep(Duration::ZERO).await;
    assert_eq!(clock.now(), start().saturating_add(MINUTE * 60));
    assert_eq!(clock.monotonic().saturating_since(Monotonic::START), MINUTE * 60);
}

#[test]
fn seeded_ids_are_repeatable_unique_and_carry_their_time() {
    let draw = |seed| {
        let ids = SeededIds::new(seed);
        (0..10_000).map(|_| ids.uuid(start())).collect::<Vec<_>>()
    };
    let one = draw(1);
    let two = draw(2);
    assert_eq!(one, draw(1));
    let all: HashSet<_> = one.iter().chain(&two).collect();
    assert_eq!(all.len(), 20_000);
    assert!(all.iter().all(|id| EventId::new(**id).time() == Some(start())));
}

#[test]
fn seeded_jitter_is_repeatable_and_within_its_bound() {
    let draw = |seed| {
        let ids = SeededIds::new(seed);
        (0..1_000).map(|_| ids.jitter(MINUTE)).collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert!(draw(3).iter().all(|jitter| *jitter <= MINUTE));
    assert!(draw(3).iter().any(|jitter| *jitter > MINUTE / 2));
}
