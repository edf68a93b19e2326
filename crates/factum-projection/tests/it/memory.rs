//! Models in memory: folds whose function panics, never ends or ends the process; releases of
//! parked events.

use std::sync::atomic::Ordering;

use factum_consumer::{
    ConsumerState, Release, ReleaseError, StartFrom, StopReason, WaitError, order_release,
};
use factum_kernel::{
    AppendBatch, Clock, Content, EventId, EventName, ExpectedVersion, NewEvent, RecordedEvent,
    SystemClock,
};
use factum_projection::{Fold, Projections};
use factum_testing::bank::AccountEvent;
use tokio::time::timeout;

use crate::bench::{Bench, Fails, LONG, ada, counts_in_memory, is_parked, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_tears_the_model_is_parked_at_once_and_other_events_are_folded() {
    for how in ["panics", "spins"] {
        let bench = Bench::new();
        bench.thirteen().await;
        let fails = Fails::default();
        let (fails_so, error) = match how {
            "panics" => (&fails.panics, "the fold panicked: thirteen is too much"),
            _ => (&fails.spins, "not folded within"),
        };
        fails_so.store(true, Ordering::SeqCst);
        let counts = bench.count_in_memory(&fails).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        is_parked(&counts, 1, error).await;
        let mut expected = bench.fold().await;
        expected.get_mut("ada").unwrap().cents.truncate(1);
        assert_eq!(*counts.read().await.unwrap(), expected, "no half of it");
        if how == "panics" {
            // While it still fails, it stays parked.
            assert!(counts.retry(&ada()).await.unwrap_err().to_string().contains(error));
            is_parked(&counts, 2, error).await;
            assert_eq!(*counts.read().await.unwrap(), expected);
        }
        // After the cause is removed it is folded with all events that waited, in order.
        fails_so.store(false, Ordering::SeqCst);
        counts.retry(&ada()).await.unwrap();
        let position = bench.deposit("ada", 4).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(*counts.read().await.unwrap(), bench.fold().await);
        assert_eq!(counts.health().parked, 0);
    }
}

/// The model is restored from the snapshot that was taken when the event was parked.
#[tokio::test]
async fn a_release_that_tears_the_model_keeps_earlier_events_and_the_stream_waits() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.panics.store(true, Ordering::SeqCst);
    let counts = bench.count_in_memory(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    bench.deposit("ada", 13).await;
    let position = bench.deposit("ada", 5).await;
    counts.wait_for(position, LONG).await.unwrap();
    let told = counts.discard(&ada()).await.unwrap_err();
    assert!(told.to_string().contains("thirteen"), "{told}");
    let [letter] = &counts.dead_letters().await[..] else { panic!("one is parked") };
    assert_eq!((letter.version.value(), letter.attempts), (6, 1));
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [1, 2, 3]);
    counts.discard(&ada()).await.unwrap();
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [1, 2, 3, 5]);
    // A released event stays released.
    counts.stop().await;
    let again = bench.again().count_in_memory(&fails).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(again.read().await.unwrap()["ada"].cents, [1, 2, 3, 5]);
    assert_eq!(again.health().parked, 0);
}

/// Readers would wait for the model until a caller resumes it.
#[tokio::test]
async fn a_paused_model_that_is_torn_is_restored_and_its_release_answered() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.panics.store(true, Ordering::SeqCst);
    let counts = bench.count_in_memory(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.pause().await;
    let told = timeout(LONG, counts.retry(&ada())).await.expect("it answers").unwrap_err();
    assert!(told.to_string().contains("thirteen"), "{told}");
    let read = timeout(LONG, counts.read()).await.expect("it is there").unwrap();
    assert_eq!(read["ada"].cents, [1]);
    drop(read);
    counts.watch().wait_for(|it| it.state == ConsumerState::Paused).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_cannot_be_read_waits_and_the_model_is_not_restored() {
    let bench = Bench::new();
    bench.thirteen().await;
    let counts = bench.count_in_memory(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let before = counts.health().handled;
    for payload in ["no", r#"{"cents":7}"#] {
        let id = EventId::derived(SystemClock.now(), payload.as_bytes());
        let name = EventName::from_static("account.deposited");
        let event = NewEvent::new(id, name, Content::Json, payload);
        let batch = AppendBatch::new().write(ada(), ExpectedVersion::Any, [event]);
        bench.kernel.events().append(batch).await.unwrap();
    }
    bench.deposit("bob", 8).await;
    let told = counts.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(matches!(told, WaitError::Unread { .. }), "{told}");
    assert_eq!(counts.health().handled, before + 1);
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [1, 13, 2, 3]);
    counts.discard(&ada()).await.unwrap();
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [1, 13, 2, 3, 7]);
}

#[tokio::test]
async fn a_model_that_is_to_stop_at_a_failure_is_read_as_it_was_before() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.panics.store(true, Ordering::SeqCst);
    let mut strict = options();
    strict.failure = strict.failure.then_stop();
    let counts = bench.consumers.fold(counts_in_memory(&fails).with_options(strict)).await.unwrap();
    let told = counts.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(factum_kernel::sentence(&told).contains("thirteen"), "{told}");
    let ConsumerState::Stopped(StopReason::Failed { position, .. }) = counts.health().state else {
        panic!("{:?}", counts.health().state)
    };
    assert_eq!(position.value(), 5);
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [1]);
    fails.panics.store(false, Ordering::SeqCst);
    let counts = bench.count_in_memory(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(*counts.read().await.unwrap(), bench.fold().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_fold_that_never_ends_keeps_a_stop_no_longer_than_its_time() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 13).await;
    let fails = Fails::default();
    fails.spins.store(true, Ordering::SeqCst);
    let counts = bench.count_in_memory(&fails).await;
    // Each one costs a thread until it ends.
    let stopped = timeout(LONG, counts.stop()).await;
    let again = bench.again();
    again.count_in_memory(&fails).await;
    let closed = timeout(LONG, again.consumers.close()).await;
    fails.spins.store(false, Ordering::SeqCst);
    assert_eq!(stopped.expect("it stops"), StopReason::Asked);
    closed.expect("it closes");
    let counts = bench.again().count_in_memory(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let released = counts.dead_letters().await;
    for letter in &released {
        counts.retry(&letter.stream).await.unwrap();
    }
    assert_eq!(*counts.read().await.unwrap(), bench.fold().await);
}

#[tokio::test]
async fn a_model_knows_its_beginning_after_a_restart() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let sum = || {
        let add = |sum: &mut u64, event, _: &_| {
            if let AccountEvent::Deposited { cents } = event {
                *sum += cents;
            }
        };
        Fold::new("sum", 1, add).with_options(options().from(StartFrom::Now))
    };
    let first = bench.consumers.fold(sum()).await.unwrap();
    first.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    // The process dies, and no event was folded.
    drop(first);
    let position = bench.deposit("ada", 20).await;
    let again = bench.again().consumers.fold(sum()).await.unwrap();
    again.wait_for(position, LONG).await.unwrap();
    assert_eq!(*again.read().await.unwrap(), 20);
}

fn sum(version: u32) -> Fold<u64, AccountEvent, fn(&mut u64, AccountEvent, &RecordedEvent)> {
    fn add(sum: &mut u64, event: AccountEvent, _: &RecordedEvent) {
        if let AccountEvent::Deposited { cents } = event {
            assert_ne!(cents, 13, "thirteen");
            *sum += cents;
        }
    }
    let add: fn(&mut u64, AccountEvent, &RecordedEvent) = add;
    Fold::new("bank.sum", version, add).with_options(options().from(StartFrom::Now))
}

/// Its snapshot used to be taken for one of an earlier version, and removed.
#[tokio::test]
async fn a_larger_version_begins_where_the_first_one_did_and_keeps_its_snapshot() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.deposit("ada", 1).await;
    let first = bench.again().consumers.fold(sum(1)).await.unwrap();
    first.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    let position = bench.deposit("ada", 20).await;
    first.wait_for(position, LONG).await.unwrap();
    first.stop().await;
    bench.deposit("ada", 300).await;
    for handled in [2, 0] {
        let second = bench.again().consumers.fold(sum(2)).await.unwrap();
        second.wait_for(bench.head(), LONG).await.unwrap();
        second.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
        assert_eq!((*second.read().await.unwrap(), second.health().handled), (320, handled));
        second.stop().await;
    }
}

/// It used to be made from the head at that moment.
#[tokio::test]
async fn a_model_that_began_with_an_empty_log_keeps_the_events_before_it_was_torn() {
    let bench = Bench::new();
    let model = bench.consumers.fold(sum(1)).await.unwrap();
    model.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    bench.open("ada").await;
    let position = bench.deposit("ada", 7).await;
    model.wait_for(position, LONG).await.unwrap();
    let position = bench.deposit("ada", 13).await;
    model.wait_for(position, LONG).await.unwrap();
    assert_eq!((*model.read().await.unwrap(), model.health().parked), (7, 1));
}

#[tokio::test]
async fn the_name_of_a_projection_into_documents_is_refused() {
    let bench = Bench::new();
    bench.open("ada").await;
    bench.count(&Fails::default()).await.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    let fold = Fold::new("counts", 1, |_: &mut u64, _: AccountEvent, _: &_| {});
    let model = bench.again().consumers.fold(fold).await.unwrap();
    let told = model.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(factum_kernel::sentence(&told).contains("choose another"), "{told}");
    assert!(model.read().await.is_err(), "there is no model");
}

/// A wrong name must not make a caller wait for the store.
#[tokio::test]
async fn a_stream_that_is_not_parked_is_reported_at_once() {
    let bench = Bench::new();
    bench.open("ada").await;
    let model = bench.count_in_memory(&Fails::default()).await;
    model.wait_for(bench.head(), LONG).await.unwrap();
    let told = model.retry(&ada()).await.unwrap_err();
    assert_eq!(told, ReleaseError::NothingParked(ada()));
    let key = b"$consumer/counts-in-memory@1/snapshot";
    assert!(bench.kernel.documents().get(key).await.unwrap().is_none(), "nothing was stored");
}

#[tokio::test]
async fn an_order_for_an_event_that_is_not_parked_any_more_does_nothing() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.panics.store(true, Ordering::SeqCst);
    let first = bench.again();
    let counts = first.count_in_memory(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    for _ in 0..2 {
        let name = counts.name().as_str();
        order_release(&bench.kernel, name, &ada(), Release::Discard).await.unwrap();
    }
    first.consumers.close().await;
    let counts = bench.count_in_memory(&fails).await;
    let mut health = counts.watch();
    health.wait_for(|it| it.parked == 0 && it.position >= bench.head()).await.unwrap();
    assert_eq!(counts.read().await.unwrap()["ada"].cents, [1, 2, 3]);
}
