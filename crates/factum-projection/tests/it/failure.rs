//! Events that can't be handled are retried, parked and released, while other events are handled.

use std::sync::{Arc, atomic::Ordering};

use factum_consumer::{ConsumerState, StopReason, Target, WaitError};
use factum_kernel::{
    AppendBatch, Clock, Content, EventId, EventName, ExpectedVersion, IdSource, Kernel, NewEvent,
    StreamChange, StreamVersion, SystemClock, SystemIds, TagKey,
};
use factum_memory::MemoryStore;
use factum_projection::{Documents, Projections};
use factum_testing::{Fault, FaultRates, FaultyDocuments, deletion};

use crate::bench::{Bench, Counts, Fails, LONG, ada, is_parked, options};

#[tokio::test]
async fn an_event_that_fails_is_parked_with_its_stream_and_other_events_are_handled() {
    for (how, error) in [(0, "thirteen"), (1, "thirteen is too much"), (2, "not handled within")] {
        let bench = Bench::new();
        bench.thirteen().await;
        let fails = Fails::default();
        let how = [&fails.errs, &fails.panics, &fails.hangs][how];
        how.store(true, Ordering::SeqCst);
        let counts = bench.count(&fails).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        is_parked(&counts, 3, error).await;
        let documents = bench.counted().await;
        assert_eq!(documents["ada"].cents, [1]);
        assert_eq!(documents["bob"].cents, [101, 113, 102, 103]);

        // While it still fails it stays parked. After the cause is removed it is handled with all
        // events that waited, in order.
        assert!(counts.retry(&ada()).await.unwrap_err().to_string().contains(error));
        how.store(false, Ordering::SeqCst);
        counts.retry(&ada()).await.unwrap();
        let position = bench.deposit("ada", 4).await;
        counts.wait_for(position, LONG).await.unwrap();
        assert_eq!(bench.counted().await["ada"].cents, [1, 13, 2, 3, 4]);
        assert_eq!(counts.health().parked, 0);
    }
}

#[tokio::test]
async fn a_discarded_event_is_skipped_and_the_events_after_it_are_handled() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.discard(&ada()).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1, 2, 3]);
    assert!(counts.discard(&ada()).await.is_err());
}

#[tokio::test]
async fn a_parked_event_stays_parked_after_a_restart() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let again = bench.again();
        let counts = again.count(&fails).await;
        let in_memory = again.count_in_memory(&fails).await;
        // A fold is not retried.
        for (consumer, attempts) in [(counts.consumer(), 3), (in_memory.consumer(), 1)] {
            consumer.wait_for(bench.head(), LONG).await.unwrap();
            is_parked(consumer, attempts, "thirteen").await;
        }
        again.consumers.close().await;
    }
}

#[tokio::test]
async fn the_policy_may_stop_the_consumer() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let mut options = options();
    options.failure = options.failure.then_stop();
    let target = Documents::new(&bench.kernel);
    let counts =
        bench.consumers.start_projection(Counts(fails.clone()), target, options).await.unwrap();
    let told = counts.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(factum_kernel::sentence(&told).contains("thirteen"), "{told}");
    let ConsumerState::Stopped(StopReason::Failed { position, .. }) = counts.health().state else {
        panic!("{:?}", counts.health().state)
    };
    assert_eq!(position.value(), 5);
    assert_eq!(bench.counted().await["ada"].cents, [1]);
    // After the cause is removed and a restart, it continues.
    fails.errs.store(false, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1, 13, 2, 3]);
}

/// Appends an event with this payload.
async fn append(bench: &Bench, name: &str, payload: &'static str) {
    let id = EventId::new(SystemIds.uuid(SystemClock.now()));
    let event = NewEvent::new(id, EventName::parse(name).unwrap(), Content::Json, payload);
    let batch = AppendBatch::new().write(ada(), ExpectedVersion::Any, [event]);
    bench.kernel.events().append(batch).await.unwrap();
}

#[tokio::test]
async fn events_that_are_unknown_or_make_no_sense_wait_for_a_program_that_can_read_them() {
    for (name, payload) in [("account.deposited", "nonsense"), ("account.frozen", "{}")] {
        let bench = Bench::new();
        bench.open("ada").await;
        append(&bench, name, payload).await;
        append(&bench, "account.deposited", r#"{"cents":2}"#).await;
        let counts = bench.count(&Fails::default()).await;
        let told = counts.wait_for(bench.head(), LONG).await.unwrap_err();
        assert!(matches!(told, WaitError::Unread { .. }), "{told}");
        let [letter] = &counts.dead_letters().await[..] else { panic!("one") };
        assert_eq!((letter.event.as_str(), letter.attempts), (name, 0), "{letter:?}");
        assert_eq!((counts.health().parked, counts.health().waiting), (0, 1));
        counts.discard(&ada()).await.unwrap();
        assert_eq!(bench.counted().await["ada"].cents, [2]);
    }
    let bench = Bench::new();
    bench.open("ada").await;
    append(&bench, "account.frozen", "{}").await;
    let target = Documents::new(&bench.kernel);
    let options = options().ignoring_unknown();
    let counts =
        bench.consumers.start_projection(Counts(Fails::default()), target, options).await.unwrap();
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!((counts.health().parked, counts.health().waiting), (0, 0));
}

/// Each further attempt used to cost another thread, until none was left.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_keeps_its_thread_is_given_up_at_once_and_other_events_are_handled() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.spins.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    let letters = counts.dead_letters().await;
    assert_eq!(bench.counted().await["bob"].cents, [101, 113, 102, 103]);
    fails.spins.store(false, Ordering::SeqCst);
    let [letter] = &letters[..] else { panic!("one") };
    assert!(letter.error.contains("keeps its thread"), "{}", letter.error);
    assert_eq!(letter.attempts, 1);
    counts.retry(&ada()).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1, 13, 2, 3]);
}

#[tokio::test]
async fn an_erased_event_is_not_mistaken_for_the_one_after_it() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    // The parked event is discarded, and no other event in its place.
    let change = StreamChange::TruncateBefore(StreamVersion::new(4));
    bench.kernel.events().change(&ada(), change).await.unwrap();
    counts.discard(&ada()).await.unwrap();
    assert_eq!(bench.counted().await["ada"].cents, [1, 2, 3]);

    let bench = Bench::new();
    bench.thirteen().await;
    let counts = bench.count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    bench.kernel.events().append(deletion(ada())).await.unwrap();
    counts.retry(&ada()).await.unwrap();
    assert_eq!(counts.health().parked, 0);
}

#[tokio::test]
async fn a_consumer_that_waits_before_a_retry_takes_orders() {
    let bench = Bench::new();
    bench.thirteen().await;
    let fails = Fails::default();
    fails.errs.store(true, Ordering::SeqCst);
    let mut options = options();
    options.failure = options.failure.with_pause(LONG, LONG);
    let target = Documents::new(&bench.kernel);
    let counts = bench
        .consumers
        .start_projection(Counts(fails.clone()), target, options.clone())
        .await
        .unwrap();
    let mut health = counts.watch();
    health.wait_for(|it| matches!(it.state, ConsumerState::Retrying { .. })).await.unwrap();
    // The effects before it can be read, and no half of the failed one.
    assert_eq!(bench.counted().await["ada"].cents, [1]);
    assert!(counts.dead_letters().await.is_empty());
    assert!(counts.retry(&ada()).await.unwrap_err().to_string().contains("thirteen"));
    assert_eq!(counts.stop().await, StopReason::Asked);
    // The half was not stored either.
    fails.errs.store(false, Ordering::SeqCst);
    let counts = bench.again().count(&fails).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
}

#[tokio::test]
async fn documents_that_cannot_be_reached_park_nothing() {
    let store = Arc::new(MemoryStore::new());
    let none = FaultRates::none();
    let documents = Arc::new(FaultyDocuments::new(store.clone(), 1, none, Arc::new(SystemClock)));
    let kernel = Kernel::new(store, documents.clone()).with_tag_key(TagKey::new([1; 32]));
    let bench = Bench::on(kernel);
    bench.open("ada").await;
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    for _ in 0..20 {
        documents.next_read(Fault::FailBefore);
    }
    let position = bench.deposit("ada", 1).await;
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!((counts.health().parked, bench.counted().await["ada"].cents.len()), (0, 1));
}

#[tokio::test]
async fn the_later_of_two_processes_continues_and_the_earlier_is_fenced() {
    let bench = Bench::new();
    bench.open("ada").await;
    let first = bench.count(&Fails::default()).await;
    first.wait_for(bench.head(), LONG).await.unwrap();
    let other = bench.again();
    let second = other.count(&Fails::default()).await;
    second.wait_for(bench.head(), LONG).await.unwrap();
    for cents in 1..=20 {
        bench.deposit("ada", cents).await;
    }
    second.wait_for(bench.head(), LONG).await.unwrap();
    let told = first.wait_for(bench.head(), LONG).await.unwrap_err();
    assert!(told.to_string().contains("another process"), "{told}");
    assert_eq!(first.health().state, ConsumerState::Stopped(StopReason::Fenced));
    assert_eq!(bench.counted().await, bench.fold().await);
}

#[tokio::test]
async fn a_store_that_is_closed_stops_a_live_consumer() {
    let bench = Bench::new();
    bench.open("ada").await;
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    counts.watch().wait_for(|it| it.state == ConsumerState::Live).await.unwrap();
    bench.kernel.events().close().await.unwrap();
    let told = counts.wait_for(bench.head().next(), LONG).await.unwrap_err();
    assert!(factum_kernel::sentence(&told).contains("closed"), "{told}");
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_finished_by_the_next_start() {
    for cut in 0..3 {
        let store = Arc::new(MemoryStore::new());
        let none = FaultRates::none();
        let documents =
            Arc::new(FaultyDocuments::new(store.clone(), 1, none, Arc::new(SystemClock)));
        let kernel = Kernel::new(store, documents.clone()).with_tag_key(TagKey::new([1; 32]));
        let bench = Bench::on(kernel);
        bench.thirteen().await;
        let fails = Fails::default();
        fails.errs.store(true, Ordering::SeqCst);
        let counts = bench.count(&fails).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!((counts.stop().await, counts.health().parked), (StopReason::Asked, 1));
        for _ in 0..=cut {
            documents.next_write_succeeds();
        }
        documents.next_write(Fault::FailBefore);
        let target = Documents::new(&bench.kernel);
        target.clear(counts.name()).await.unwrap_err();
        fails.errs.store(false, Ordering::SeqCst);
        let counts = bench.count(&fails).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!(bench.counted().await, bench.fold().await, "cut off after {cut}");
    }
}

#[tokio::test]
async fn a_consumer_whose_read_model_is_removed_while_it_runs_stops() {
    let bench = Bench::new();
    bench.thirteen().await;
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(bench.head(), LONG).await.unwrap();
    Documents::new(&bench.kernel).clear(counts.name()).await.unwrap();
    let position = bench.deposit("ada", 5).await;
    let told = counts.wait_for(position, LONG).await.unwrap_err();
    assert!(told.to_string().contains("another process"), "{told}");
    assert!(bench.counted().await.is_empty(), "the program that removed it starts it again");
    let counts = bench.count(&Fails::default()).await;
    counts.wait_for(position, LONG).await.unwrap();
    assert_eq!(bench.counted().await, bench.fold().await);
}
