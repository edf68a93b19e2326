//! Every event is delivered once and in order: live, while catching up, and after a restart.

use std::{
    future::{Ready, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use factum_consumer::{
    Consumer, ConsumerOptions, ConsumerState, HandleError, Partitions, StartFrom, StopReason,
};
use factum_kernel::RecordedEvent;
use factum_projection::{Fold, Projections};
use factum_testing::bank::AccountEvent;
use tokio::runtime::{Builder, Runtime};

use crate::bench::{Bench, Fails, LONG, options};

#[tokio::test]
async fn old_and_new_events_are_projected_once() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let counts = bench.count(&Fails::default()).await;
    let in_memory = bench.count_in_memory(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    for cents in 2..=50 {
        let position = bench.deposit("ada", cents).await;
        counts.wait_for(position, LONG).await.unwrap();
        in_memory.wait_for(position, LONG).await.unwrap();
        let expected: Vec<u64> = (1..=cents).collect();
        assert_eq!(bench.counted().await["ada"].cents, expected);
        assert_eq!(in_memory.read().await.unwrap()["ada"].cents, expected);
    }
    assert_eq!(counts.health().parked, 0);
    assert_eq!(counts.health().handled, 51);
}

#[tokio::test]
async fn a_stopped_projection_continues_at_its_checkpoint() {
    let bench = Bench::new();
    bench.open("ada").await;
    for round in 1..=5 {
        let again = bench.again();
        let counts = again.count(&Fails::default()).await;
        let in_memory = again.count_in_memory(&Fails::default()).await;
        let position = bench.deposit("ada", round).await;
        counts.wait_for(position, LONG).await.unwrap();
        in_memory.wait_for(position, LONG).await.unwrap();
        let expected: Vec<u64> = (1..=round).collect();
        assert_eq!(again.counted().await["ada"].cents, expected);
        assert_eq!(in_memory.read().await.unwrap()["ada"].cents, expected);
        again.consumers.close().await;
        assert_eq!(counts.health().state, ConsumerState::Stopped(StopReason::Asked));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_and_four_consumers_agree_on_every_position() {
    let bench = Arc::new(Bench::new());
    let seen: Vec<Arc<Mutex<Vec<u64>>>> = (0..4).map(|_| Arc::default()).collect();
    let mut consumers = Vec::new();
    for (n, seen) in seen.iter().enumerate() {
        let seen = seen.clone();
        let note = move |_: AccountEvent, recorded: RecordedEvent| {
            seen.lock().unwrap().push(recorded.position().value());
            async { Ok::<(), HandleError>(()) }
        };
        let consumer = Consumer::new(&format!("seen-{n}"), note);
        consumers.push(bench.consumers.start(consumer.with_options(options())).await.unwrap());
    }
    let writers = (0..16).map(|writer| {
        let bench = bench.clone();
        tokio::spawn(async move {
            let key = format!("w{writer}");
            bench.open(&key).await;
            for cents in 1..=100 {
                bench.deposit(&key, cents).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let all: Vec<u64> = (1..=16 * 101).collect();
    for (consumer, seen) in consumers.iter().zip(&seen) {
        consumer.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), all);
    }
}

/// A handler that adds up the deposits.
fn add_to(
    sum: &Arc<AtomicU64>,
) -> impl Fn(AccountEvent, RecordedEvent) -> Ready<Result<(), HandleError>> + Send + Sync + 'static
{
    let sum = sum.clone();
    move |event, _| {
        if let AccountEvent::Deposited { cents } = event {
            sum.fetch_add(cents, Ordering::SeqCst);
        }
        ready(Ok(()))
    }
}

#[tokio::test]
async fn a_consumer_that_starts_from_now_sees_later_events_also_after_a_restart() {
    let bench = Bench::new();
    bench.open("ada").await;
    let sum = Arc::new(AtomicU64::new(0));
    let consumer = || {
        let options = ConsumerOptions::new().from(StartFrom::Now);
        Consumer::new("sum", add_to(&sum)).with_options(options)
    };
    bench.deposit("ada", 1).await;
    let first = bench.consumers.start(consumer()).await.unwrap();
    first.wait_for(bench.head(), LONG).await.unwrap();
    first.stop().await;
    let position = bench.deposit("ada", 20).await;
    let second = bench.again().consumers.start(consumer()).await.unwrap();
    second.wait_for(position, LONG).await.unwrap();
    assert_eq!(sum.load(Ordering::SeqCst), 20);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// The process ends before the consumer has done anything: what was stored between the call and the
/// first read of its loop was lost, and `wait_for` said that it was handled.
#[test]
fn a_consumer_that_starts_from_now_sees_all_that_is_stored_after_the_call() {
    let bench = Bench::new();
    let sum = Arc::new(AtomicU64::new(0));
    let consumer = || {
        let options = ConsumerOptions::new().from(StartFrom::Now);
        let options = options.with_partitions(Partitions::by_stream(3));
        Consumer::new("sum", add_to(&sum)).with_options(options)
    };
    runtime().block_on(async {
        bench.open("ada").await;
        bench.deposit("ada", 1).await;
        bench.consumers.start(consumer()).await.unwrap();
    });
    runtime().block_on(async {
        let position = bench.deposit("ada", 20).await;
        let again = bench.again().consumers.start(consumer()).await.unwrap();
        again.wait_for(position, LONG).await.unwrap();
    });
    assert_eq!(sum.load(Ordering::SeqCst), 20);
}

#[test]
fn a_model_that_starts_from_now_sees_all_that_is_stored_after_the_call() {
    let bench = Bench::new();
    let sum = || {
        let add = |sum: &mut u64, event: AccountEvent, _: &RecordedEvent| {
            if let AccountEvent::Deposited { cents } = event {
                *sum += cents;
            }
        };
        let options = ConsumerOptions::new().from(StartFrom::Now);
        Fold::new("sum", 1, add).with_options(options)
    };
    runtime().block_on(async {
        bench.open("ada").await;
        bench.deposit("ada", 1).await;
        bench.consumers.fold(sum()).await.unwrap();
    });
    runtime().block_on(async {
        let position = bench.deposit("ada", 20).await;
        let again = bench.again().consumers.fold(sum()).await.unwrap();
        again.wait_for(position, LONG).await.unwrap();
        assert_eq!(*again.read().await.unwrap(), 20);
    });
}
