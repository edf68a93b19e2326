//! A clock that is set ahead or back: durations are measured by the monotonic reading.

use std::{sync::Arc, time::Duration};

use factum_consumer::{ConsumerState, WaitError};
use factum_kernel::{Clock, Timestamp};
use factum_projection::ReadModel;
use factum_testing::VirtualClock;

use crate::{
    bench::{Bench, Fails, LEASE, LONG},
    ledger::{Gate, reader, swift, until},
    rebuild::{build, kept},
};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// More than a year ago, because a store refuses events from far ahead of its own clock.
fn morning() -> Timestamp {
    "2024-03-01T08:00:00Z".parse().unwrap()
}

/// The wrong times that a clock may show for a moment.
fn wrong() -> [Timestamp; 4] {
    let hour = Duration::from_secs(3_600);
    let ahead = [hour, YEAR].map(|by| morning().saturating_add(by));
    let back = [hour, YEAR].map(|by| morning().saturating_sub(by));
    [ahead[0], back[0], ahead[1], back[1]]
}

#[tokio::test]
async fn a_read_model_does_not_answer_from_a_cleared_build_after_the_clock_went_back() {
    after_a_rebuild_elsewhere(|clock| {
        // A minute has passed, and the clock is set to what it showed at the first read.
        clock.advance(Duration::from_secs(60));
        clock.set(morning().saturating_add(Duration::from_millis(1)));
    })
    .await;
}

#[tokio::test]
async fn a_read_model_does_not_answer_from_a_cleared_build_after_the_machine_slept() {
    // The monotonic reading did not move meanwhile.
    after_a_rebuild_elsewhere(|clock| clock.set(morning().saturating_add(YEAR))).await;
}

/// Reads a model, and reads it again after the build was cleared and time has passed.
async fn after_a_rebuild_elsewhere(pass: impl Fn(&VirtualClock)) {
    let bench = Bench::on(Bench::new().kernel.with_clock(Arc::new(swift())));
    bench.open("ada").await;
    bench.deposit("ada", 5).await;
    let ledgers = bench.keep::<2>(&Gate::open()).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();

    let clock = VirtualClock::new(morning());
    let elsewhere = bench.kernel.clone().with_clock(Arc::new(clock.clone()));
    let read = reader(ReadModel::new(&elsewhere, "ledgers").unwrap());
    assert_eq!(read.get("ada").await.unwrap().unwrap().cents, 5);
    ledgers.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(ledgers.discard_old().await.unwrap(), build(2, 0));
    until(|| async { kept(&bench).await == ["ledgers@2.1"] }).await;
    pass(&clock);
    let found = read.get("ada").await.unwrap();
    assert_eq!(found.map(|ledger| ledger.cents), Some(5), "it is read where it is");
}

#[tokio::test]
async fn a_wait_ends_after_its_time_whatever_the_clock_is_set_to() {
    let clock = VirtualClock::new(morning());
    let bench = Bench::on(Bench::new().kernel.with_clock(Arc::new(clock.clone())));
    bench.open("ada").await;
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let waiting = tokio::spawn({
        let counts = counts.consumer().clone();
        let head = bench.head();
        async move { counts.wait_for(head.next(), LONG).await }
    });
    clock.until_sleeping(1).await;
    for wrong in wrong() {
        clock.set(wrong);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "its time has not passed");
    }
    clock.advance(LONG);
    assert!(matches!(waiting.await.unwrap(), Err(WaitError::Behind { .. })));
}

#[tokio::test]
async fn members_live_and_events_take_effect_once_whatever_their_clocks_are_set_to() {
    let clocks = [swift(), swift()];
    let [one, two] = clocks.clone().map(Arc::new);
    let one = Bench::new().kernel.with_clock(one);
    let two = Bench::among_others(one.clone().with_clock(two));
    let one = Bench::among_others(one);
    one.open("ada").await;
    let first = one.count(&Fails::default()).await;
    first.wait_for(one.head(), LONG * 100).await.unwrap();
    let second = two.count(&Fails::default()).await;
    let mut health = second.watch();
    health.wait_for(|it| it.state == ConsumerState::StandingBy).await.unwrap();
    for wrong in wrong() {
        clocks.iter().for_each(|clock| clock.set(wrong));
        let begun = clocks[1].monotonic();
        // Long enough for several heartbeats of a member.
        until(|| async { clocks[1].monotonic().saturating_since(begun) > LEASE * 4 }).await;
        one.deposit("ada", 7).await;
        first.wait_for(one.head(), LONG * 100).await.unwrap();
        assert_eq!(second.health().state, ConsumerState::StandingBy, "the other one lives");
    }
    assert_eq!(one.counted().await, one.fold().await);
}

#[tokio::test]
async fn the_rate_of_a_rebuild_is_measured_by_what_has_passed() {
    let clock = VirtualClock::new(morning());
    let bench = Bench::on(Bench::new().kernel.with_clock(Arc::new(clock.clone())));
    bench.open("ada").await;
    bench.deposits("ada", 20).await;
    let gate = Gate::open();
    let ledgers = bench.keep::<2>(&gate).await;
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    gate.let_pass(0);
    let rebuild = ledgers.rebuild().await.unwrap();
    let has_begun = || rebuild.consumer().is_some_and(|it| it.health().head.value() > 0);
    until(|| async { has_begun() }).await;
    clock.advance(Duration::from_secs(2));
    clock.set(morning().saturating_sub(YEAR));
    gate.let_pass(14);
    until(|| async { rebuild.progress().unwrap().position.value() == 14 }).await;
    assert_eq!(rebuild.progress().unwrap().rate, Some(7.0));
}
