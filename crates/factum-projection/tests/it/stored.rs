//! Stored consumers, as other programs read them and give them orders.

use std::{sync::atomic::Ordering, time::Duration};

use factum_consumer::{ConsumerState, Release, order_release, stored_consumers};
use factum_kernel::{ExpectedRevision, StreamId, WriteBatch};
use tokio::time::timeout;

use crate::bench::{Bench, Fails, LONG, ada};

/// Lets an earlier program fail at thirteen cents, in documents and in memory.
async fn failed_before(bench: &Bench) -> Fails {
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let first = bench.again();
    first.count(&fails).await.wait_for(bench.head(), LONG).await.unwrap();
    first.count_in_memory(&fails).await.wait_for(bench.head(), LONG).await.unwrap();
    first.consumers.close().await;
    fails
}

#[tokio::test]
async fn an_order_to_a_consumer_that_does_not_run_is_executed_at_the_next_start() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = failed_before(&bench).await;

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
    let counts = bench.count(&fails).await;
    let in_memory = bench.count_in_memory(&fails).await;
    for consumer in [counts.consumer(), in_memory.consumer()] {
        let mut health = consumer.watch();
        health.wait_for(|it| it.parked == 0 && it.position >= position).await.unwrap();
    }
    assert_eq!(bench.counted().await["ada"].cents, [1, 13, 2, 3, 4]);
    assert_eq!(in_memory.read().await.unwrap()["ada"].cents, [1, 2, 3, 4]);
    assert!(stored_consumers(documents).await.unwrap().iter().all(|it| it.orders == 0));
}

/// A consumer looks for orders by itself once a minute.
#[tokio::test]
async fn a_consumer_notices_an_order_from_another_process_long_before_its_next_look() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.another().count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    fails.errs.store(false, Ordering::SeqCst);
    let mut health = counts.consumer().watch();
    health.wait_for(|it| it.state == ConsumerState::Live && it.parked == 1).await.unwrap();
    order_release(&bench.kernel, "counts@1", &ada(), Release::Retry).await.unwrap();
    let released = health.wait_for(|it| it.parked == 0);
    timeout(Duration::from_secs(50), released).await.expect("it is heard of").unwrap();
}

#[tokio::test]
async fn an_order_that_cannot_be_read_is_kept_for_operators() {
    let bench = Bench::new();
    bench.thirteen().await;
    let key = "$consumer/counts@1/order/from-a-newer-program";
    let order = WriteBatch::new().put(key, ExpectedRevision::Absent, "nonsense");
    bench.kernel.documents().write(order).await.unwrap();
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.stop().await;
    let [consumer] = &stored_consumers(&**bench.kernel.documents()).await.unwrap()[..] else {
        panic!("one")
    };
    assert_eq!(consumer.orders, 1);
}

/// Partitions store parked events under the consumer's name with their number.
#[tokio::test]
async fn the_partition_that_has_the_parked_event_gets_the_order() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    bench.count(&fails).await.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    let documents = &**bench.kernel.documents();
    let letter = "$consumer/counts@1/letter/account-ada";
    let letter = documents.get(letter.as_bytes()).await.unwrap().expect("it is parked").value;
    for key in ["mails#1/letter/account-ada", "mails#2/letter/account-bob", "mails-2/progress"] {
        let value = if key.ends_with("progress") { progress(&bench).await } else { letter.clone() };
        let left =
            WriteBatch::new().put(format!("$consumer/{key}"), ExpectedRevision::Absent, value);
        documents.write(left).await.unwrap();
    }

    order_release(&bench.kernel, "mails", &ada(), Release::Retry).await.unwrap();
    order_release(&bench.kernel, "mails#1", &ada(), Release::Discard).await.unwrap();
    for other in ["mails#2", "mail", "mails#", "mails-2"] {
        let told = order_release(&bench.kernel, other, &ada(), Release::Retry).await.unwrap_err();
        assert!(told.to_string().starts_with("nothing of this stream is parked"), "{told}");
    }
    let found = stored_consumers(documents).await.unwrap();
    let orders: Vec<_> = found.iter().map(|it| (&*it.name, it.orders, it.is_of("mails"))).collect();
    assert_eq!(
        orders,
        [("counts@1", 0, false), ("mails#1", 2, true), ("mails#2", 0, true), ("mails-2", 0, false)]
    );
}

/// The stored progress of the counts.
async fn progress(bench: &Bench) -> bytes::Bytes {
    let found = bench.kernel.documents().get(b"$consumer/counts@1/progress").await.unwrap();
    found.expect("it has begun").value
}

/// The order used to be executed again in each life, without a pause and without an end.
#[tokio::test]
async fn a_retry_that_fails_again_is_done_once() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = failed_before(&bench).await;
    for consumer in ["counts@1", "counts-in-memory@1"] {
        order_release(&bench.kernel, consumer, &ada(), Release::Retry).await.unwrap();
    }
    let counts = bench.count(&fails).await;
    let in_memory = bench.count_in_memory(&fails).await;
    let position = bench.deposit("bob", 5).await;
    for consumer in [counts.consumer(), in_memory.consumer()] {
        consumer.wait_for(position, LONG).await.unwrap();
        let [letter] = &consumer.dead_letters().await[..] else { panic!("one is parked") };
        let is_fold = consumer.name().as_str().contains("memory");
        let attempts = letter.attempts;
        let error = letter.error.as_str();
        let expected = if is_fold { (2, "the fold panicked: thirteen") } else { (4, "thirteen") };
        assert_eq!((attempts, error), expected);
    }
    let stored = stored_consumers(&**bench.kernel.documents()).await.unwrap();
    assert!(stored.iter().all(|it| it.orders == 0));
}
