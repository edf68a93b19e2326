//! Orders at any time: while idle, in a batch, during a release; and a consumer that writers
//! outrun.

use std::sync::atomic::Ordering;

use factum_consumer::{ConsumerState, StopReason};
use factum_projection::{Documents, ProjectionHandle, Projections};

use crate::{
    bench::{Bench, Counts, Fails, LONG, ada, options},
    ledger::Gate,
};

/// Counts each deposit as soon as the gate lets it through. The first failure parks it.
async fn gated(bench: &Bench, fails: &Fails) -> ProjectionHandle<Counts> {
    let work = Counts(fails.clone());
    let mut options = options();
    options.failure = options.failure.with_timeout(LONG).with_retries_max(0);
    bench.consumers.start_projection(work, Documents::new(&bench.kernel), options).await.unwrap()
}

#[tokio::test]
async fn a_release_that_a_stop_interrupts_continues_later() {
    let bench = Bench::new();
    bench.open("ada").await;
    for cents in [13, 2, 3, 4] {
        bench.deposit("ada", cents).await;
    }
    let fails = Fails { gate: Gate::after(1), ..Fails::default() };
    fails.errs.store(true, Ordering::SeqCst);
    let counts = gated(&bench, &fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(counts.health().parked, 1);
    fails.errs.store(false, Ordering::SeqCst);
    let releasing = counts.clone();
    let released = tokio::spawn(async move { releasing.retry(&ada()).await });
    fails.gate.let_pass(1);
    while bench.counted().await.is_empty() {
        tokio::task::yield_now().await;
    }
    // The second event is being handled: it is finished, and the third does not begin.
    let stopping = counts.clone();
    let stopped = tokio::spawn(async move { stopping.stop().await });
    tokio::task::yield_now().await;
    fails.gate.let_pass(1);
    assert_eq!(stopped.await.unwrap(), StopReason::Asked);
    assert!(released.await.unwrap().unwrap_err().to_string().contains("interrupted"));
    assert_eq!(bench.counted().await["ada"].cents, [13, 2]);

    fails.gate.let_pass(9);
    let counts = gated(&bench, &fails).await;
    counts.retry(&ada()).await.unwrap();
    let position = bench.deposit("ada", 5).await;
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [13, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_paused_consumer_handles_nothing_but_what_it_is_asked_to_release() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 13).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.pause().await;
    counts.watch().wait_for(|it| it.state == ConsumerState::Paused).await.unwrap();
    let before = counts.health().position;
    let position = bench.deposit("ada", 2).await;
    assert_eq!(counts.dead_letters().await.len(), 1);
    fails.errs.store(false, Ordering::SeqCst);
    counts.retry(&ada()).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [13]);
    assert_eq!((counts.health().position, counts.health().state), (before, ConsumerState::Paused));
    counts.resume().await;
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [13, 2]);
}

#[tokio::test]
async fn a_handler_that_hangs_keeps_a_stop_no_longer_than_its_time() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 13).await;
    let fails = Fails::default();
    fails.hangs.store(true, Ordering::SeqCst);
    for stop in [true, false] {
        let again = bench.again();
        let counts = again.count(&fails).await;
        if stop {
            assert_eq!(counts.stop().await, StopReason::Asked);
        } else {
            again.consumers.close().await;
        }
    }
    fails.hangs.store(false, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
}

/// While one batch is handled, more pages are appended than the tail keeps.
#[tokio::test]
async fn a_consumer_that_the_tail_outruns_misses_nothing() {
    let bench = Bench::new();
    bench.open("ada").await;
    let fails = Fails { gate: Gate::after(0), ..Fails::default() };
    let slow = gated(&bench, &fails).await;
    let quick = bench.count_in_memory(&fails).await;
    slow.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    for cents in 1..=200 {
        let position = bench.deposit("ada", cents).await;
        // Each append is a page of its own.
        quick.wait_for(position, LONG).await.unwrap();
    }
    fails.gate.let_pass(1_000);
    slow.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
    let mut health = slow.watch();
    health.wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
}
