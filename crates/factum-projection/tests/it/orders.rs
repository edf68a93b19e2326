//! Orders at any time: while idle, in a batch, during a release; and a consumer that writers
//! outrun.

use std::sync::{Arc, atomic::Ordering};

use factum_consumer::{ConsumerState, HandleError, StopReason};
use factum_kernel::{RecordedEvent, StreamId};
use factum_projection::{Documents, DocumentsTx, Projection, ProjectionHandle, Projections};
use factum_testing::bank::AccountEvent;
use tokio::sync::Semaphore;

use crate::bench::{Bench, Count, Fails, LONG, options};

/// Counts each deposit when it is let through. Thirteen cents fail while the failure is switched
/// on.
struct Gated(Arc<Semaphore>, Fails);

impl Projection for Gated {
    const NAME: &'static str = "counts";
    const CATEGORIES: &[&str] = &["account"];
    type Event = AccountEvent;
    type Target = Documents;

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        tx: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let AccountEvent::Deposited { cents } = event else { return Ok(()) };
        self.0.acquire().await?.forget();
        if cents == 13 && self.1.errs.load(Ordering::SeqCst) {
            return Err("thirteen".into());
        }
        tx.update(recorded.stream().key(), |count: &mut Count| count.cents.push(cents)).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        documents: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        documents.remove(deletion.stream().key());
        Ok(())
    }
}

fn gated(bench: &Bench, gate: &Arc<Semaphore>, fails: &Fails) -> ProjectionHandle<Gated> {
    let work = Gated(gate.clone(), fails.clone());
    let mut options = options();
    options.failure = options.failure.with_timeout(LONG).with_retries_max(0);
    bench.consumers.start_projection(work, Documents::new(&bench.kernel), options).unwrap()
}

fn ada() -> StreamId {
    StreamId::new("account", "ada").unwrap()
}

#[tokio::test]
async fn a_release_that_a_stop_interrupts_continues_later() {
    let bench = Bench::new();
    bench.open("ada").await;
    for cents in [13, 2, 3, 4] {
        bench.deposit("ada", cents).await;
    }
    let gate = Arc::new(Semaphore::new(1));
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = gated(&bench, &gate, &fails);
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(counts.health().parked, 1);
    fails.errs.store(false, Ordering::SeqCst);
    let releasing = counts.clone();
    let released = tokio::spawn(async move { releasing.retry(&ada()).await });
    gate.add_permits(1);
    while bench.counted().await.is_empty() {
        tokio::task::yield_now().await;
    }
    // The second event is being handled: it is finished, and the third does not begin.
    let stopping = counts.clone();
    let stopped = tokio::spawn(async move { stopping.stop().await });
    tokio::task::yield_now().await;
    gate.add_permits(1);
    assert_eq!(stopped.await.unwrap(), StopReason::Asked);
    assert!(released.await.unwrap().unwrap_err().to_string().contains("interrupted"));
    assert_eq!(bench.counted().await["ada"].cents, [13, 2]);

    gate.add_permits(9);
    let counts = gated(&bench, &gate, &fails);
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
    let counts = bench.count(&fails);
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
        let counts = again.count(&fails);
        if stop {
            assert_eq!(counts.stop().await, StopReason::Asked);
        } else {
            again.consumers.close().await;
        }
    }
    fails.hangs.store(false, Ordering::SeqCst);
    let counts = bench.count(&fails);
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
}

/// While one batch is handled, more pages are appended than the tail keeps.
#[tokio::test]
async fn a_consumer_that_the_tail_outruns_misses_nothing() {
    let bench = Bench::new();
    bench.open("ada").await;
    let gate = Arc::new(Semaphore::new(0));
    let fails = Fails::default();
    let slow = gated(&bench, &gate, &fails);
    let quick = bench.count_in_memory(&fails);
    slow.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    for cents in 1..=200 {
        let position = bench.deposit("ada", cents).await;
        // Each append is a page of its own.
        quick.wait_for(position, LONG).await.unwrap();
    }
    gate.add_permits(1_000);
    slow.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
    let mut health = slow.watch();
    health.wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
}
