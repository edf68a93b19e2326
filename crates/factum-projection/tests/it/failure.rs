//! Events that can't be handled: tried again, parked, released; others flow.

use std::sync::atomic::Ordering;

use factum_core::StreamId;
use factum_projection::{
    ConsumerHandle, ConsumerState, Documents, Release, StopReason, order_release, stored_consumers,
};

use crate::bench::{Bench, Counts, Fails, LONG, options};

fn ada() -> StreamId {
    StreamId::new("account", "ada").unwrap()
}

/// Ada's second deposit is of thirteen cents; Bob has none such.
async fn deposits(bench: &Bench) {
    for key in ["ada", "bob"] {
        bench.open(key).await;
    }
    for cents in [1, 13, 2, 3] {
        bench.deposit("ada", cents).await;
        bench.deposit("bob", cents + 100).await;
    }
}

async fn is_parked(consumer: &ConsumerHandle, error: &str) {
    let [letter] = &consumer.dead_letters().await[..] else { panic!("one") };
    assert_eq!((letter.stream.clone(), letter.version.value()), (ada(), 3));
    assert!(letter.error.contains(error), "{}", letter.error);
    assert_eq!(letter.attempts, 3);
    assert_eq!(consumer.health().parked, 1);
}

#[tokio::test]
async fn what_fails_is_parked_with_what_is_behind_it_and_the_rest_flows() {
    for (how, error) in [(0, "thirteen"), (1, "thirteen is too much"), (2, "not handled within")] {
        let bench = Bench::new();
        deposits(&bench).await;
        let fails = Fails::default();
        let how = [&fails.errs, &fails.panics, &fails.hangs][how];
        how.store(true, Ordering::SeqCst);
        let counts = bench.count(&fails);
        let in_memory = bench.count_in_memory(&fails);
        for consumer in [counts.consumer(), in_memory.consumer()] {
            consumer.wait_for(bench.head(), LONG).await.unwrap();
            is_parked(consumer, error).await;
        }
        let documents = bench.counted().await;
        assert_eq!(documents["ada"].cents, [1]);
        assert_eq!(documents["bob"].cents, [101, 113, 102, 103]);
        assert_eq!(*in_memory.target().read().await, documents);

        // Still wrong, it stays; mended, it comes with all that waited, in order.
        assert!(counts.retry(&ada()).await.unwrap_err().contains(error));
        how.store(false, Ordering::SeqCst);
        counts.retry(&ada()).await.unwrap();
        in_memory.retry(&ada()).await.unwrap();
        let position = bench.deposit("ada", 4).await;
        counts.wait_for(position, LONG).await.unwrap();
        in_memory.wait_for(position, LONG).await.unwrap();
        let documents = bench.counted().await;
        assert_eq!(documents["ada"].cents, [1, 13, 2, 3, 4]);
        assert_eq!(*in_memory.target().read().await, documents);
        assert_eq!(counts.health().parked, 0);
    }
}

#[tokio::test]
async fn a_discarded_event_is_left_out_and_what_is_behind_it_comes() {
    let bench = Bench::new();
    deposits(&bench).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails);
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.discard(&ada()).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1, 2, 3]);
    assert!(counts.discard(&ada()).await.is_err());
}

#[tokio::test]
async fn what_is_parked_stays_parked_over_a_restart() {
    let bench = Bench::new();
    deposits(&bench).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let again = bench.again();
        let counts = again.count(&fails);
        let in_memory = again.count_in_memory(&fails);
        for consumer in [counts.consumer(), in_memory.consumer()] {
            consumer.wait_for(bench.head(), LONG).await.unwrap();
            is_parked(consumer, "thirteen").await;
        }
        again.consumers.close().await;
    }
}

#[tokio::test]
async fn the_policy_may_say_to_stop() {
    let bench = Bench::new();
    deposits(&bench).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let mut options = options();
    options.failure = options.failure.then_stop();
    let target = Documents::new(&bench.kernel);
    let counts = bench.consumers.project(Counts(fails.clone()), target, options).unwrap();
    let told = counts.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(told.to_string().contains("thirteen"), "{told}");
    let ConsumerState::Stopped(StopReason::Failed { position, .. }) = counts.health().state else {
        panic!("{:?}", counts.health().state)
    };
    assert_eq!(position.value(), 5);
    assert_eq!(bench.counted().await["ada"].cents, [1]);
    // Mended and started again, it goes on.
    fails.errs.store(false, Ordering::SeqCst);
    let counts = bench.count(&fails);
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1, 13, 2, 3]);
}

#[tokio::test]
async fn what_operators_order_while_nobody_runs_is_done_at_the_next_start() {
    let bench = Bench::new();
    deposits(&bench).await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let first = bench.again();
    first.count(&fails).wait_for(bench.head(), LONG).await.unwrap();
    first.count_in_memory(&fails).wait_for(bench.head(), LONG).await.unwrap();
    first.consumers.close().await;

    let documents = &**bench.kernel.documents();
    let found = stored_consumers(documents).await.unwrap();
    let names: Vec<&str> = found.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["counts-in-memory@1", "counts@1"]);
    for consumer in &found {
        assert!(!consumer.is_at_work);
        assert_eq!(consumer.checkpoint.map(|it| it.position), Some(bench.head()));
        assert_eq!(consumer.dead_letters[0].stream, ada());
    }
    for (consumer, release) in
        [("counts@1", Release::Retry), ("counts-in-memory@1", Release::Discard)]
    {
        order_release(&bench.kernel, consumer, &ada(), release).await.unwrap();
    }
    let bob = StreamId::new("account", "bob").unwrap();
    assert!(order_release(&bench.kernel, "counts@1", &bob, Release::Retry).await.is_err());

    fails.errs.store(false, Ordering::SeqCst);
    let position = bench.deposit("ada", 4).await;
    let (counts, in_memory) = (bench.count(&fails), bench.count_in_memory(&fails));
    for consumer in [counts.consumer(), in_memory.consumer()] {
        let mut health = consumer.watch();
        health.wait_for(|it| it.parked == 0 && it.position >= position).await.unwrap();
    }
    assert_eq!(bench.counted().await["ada"].cents, [1, 13, 2, 3, 4]);
    assert_eq!(in_memory.target().read().await["ada"].cents, [1, 2, 3, 4]);
    assert!(stored_consumers(documents).await.unwrap().iter().all(|it| it.orders == 0));
}
