//! The unit of retry: one event, if its effect is outside of the target's transaction.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerOptions, ConsumerState, FailurePolicy, HandleError,
    StopReason,
};
use factum_kernel::RecordedEvent;
use factum_testing::bank::AccountEvent;
use tokio::sync::Notify;

use crate::bench::{Bench, LONG};

/// The letters that a consumer has sent, by the position of their events.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<u64>>>);

impl Sent {
    fn send(&self, event: &RecordedEvent) {
        self.0.lock().unwrap().push(event.position().value());
    }

    fn all(&self) -> Vec<u64> {
        self.0.lock().unwrap().clone()
    }
}

fn options() -> ConsumerOptions {
    let pause = Duration::from_millis(1);
    ConsumerOptions::new()
        .with_failure(FailurePolicy::new().with_retries_max(2).with_pause(pause, pause))
}

async fn three_hundred_events(bench: &Bench) {
    bench.open("ada").await;
    for cents in 1..300 {
        bench.deposit("ada", cents).await;
    }
}

/// Starts a consumer that sends a letter for each event, and fails once at the event at `at`.
async fn start_failing_once(bench: &Bench, sent: &Sent, at: u64, panics: bool) -> ConsumerHandle {
    let has_failed = Arc::new(AtomicBool::new(false));
    let sent = sent.clone();
    let letters = Consumer::new("letters", move |_: AccountEvent, event: RecordedEvent| {
        let sent = sent.clone();
        let has_failed = has_failed.clone();
        async move {
            if event.position().value() == at && !has_failed.swap(true, Ordering::SeqCst) {
                assert!(!panics, "the printer jams");
                return Err(HandleError::from("the printer jams"));
            }
            sent.send(&event);
            Ok(())
        }
    });
    bench.consumers.start(letters.with_options(options())).await.unwrap()
}

/// Without any crash, 299 letters were sent twice.
#[tokio::test]
async fn a_failure_late_in_a_batch_repeats_only_its_own_event() {
    for panics in [false, true] {
        let bench = Bench::new();
        three_hundred_events(&bench).await;
        let sent = Sent::default();
        let letters = start_failing_once(&bench, &sent, 300, panics).await;
        letters.wait_for(bench.head(), LONG).await.unwrap();
        assert_eq!(sent.all(), (1..=300).collect::<Vec<_>>(), "panics={panics}");
        assert_eq!(letters.dead_letters().await, []);
    }
}

#[tokio::test]
async fn an_outage_in_the_middle_of_a_batch_repeats_only_its_own_event() {
    let mut bench = Bench::new();
    bench.consumers =
        bench.consumers.clone().with_outages(|error| error.to_string() == "the printer jams");
    three_hundred_events(&bench).await;
    let sent = Sent::default();
    let letters = start_failing_once(&bench, &sent, 150, false).await;
    letters.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(sent.all(), (1..=300).collect::<Vec<_>>());
}

/// Starts a consumer that waits for `gate` before its second event.
async fn start_gated(
    bench: &Bench,
    sent: &Sent,
    gate: &Arc<Notify>,
) -> (ConsumerHandle, Arc<Notify>) {
    let sent = sent.clone();
    let gate = gate.clone();
    let arrived = Arc::new(Notify::new());
    let arrives = arrived.clone();
    let letters = Consumer::new("letters", move |_: AccountEvent, event: RecordedEvent| {
        let sent = sent.clone();
        let gate = gate.clone();
        let arrives = arrives.clone();
        async move {
            if event.position().value() == 2 {
                arrives.notify_one();
                gate.notified().await;
            }
            sent.send(&event);
            Ok(())
        }
    });
    (bench.consumers.start(letters.with_options(options())).await.unwrap(), arrived)
}

/// The whole batch was handled first, for as long as that took.
#[tokio::test]
async fn a_consumer_that_closes_stops_after_its_current_event_and_repeats_none() {
    let bench = Bench::new();
    three_hundred_events(&bench).await;
    let sent = Sent::default();
    let gate = Arc::new(Notify::new());
    let (letters, arrived) = start_gated(&bench, &sent, &gate).await;
    arrived.notified().await;
    // One thread runs all tasks in turn: the consumer gets the order before the gate opens.
    let mut closing = pin!(letters.stop());
    tokio::select! {
        biased;
        reason = &mut closing => panic!("an event is still being handled: {reason:?}"),
        () = std::future::ready(()) => gate.notify_one(),
    }
    assert_eq!(closing.await, StopReason::Asked);
    assert_eq!(sent.all(), [1, 2]);
    gate.notify_one();
    let (again, _) = start_gated(&bench, &sent, &gate).await;
    again.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(sent.all(), (1..=300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pause_begins_after_the_current_event_and_the_letters_are_answered_before_it() {
    let bench = Bench::new();
    three_hundred_events(&bench).await;
    let sent = Sent::default();
    let gate = Arc::new(Notify::new());
    let (letters, arrived) = start_gated(&bench, &sent, &gate).await;
    arrived.notified().await;
    assert_eq!(letters.dead_letters().await, [], "answered while an event is handled");
    letters.pause().await;
    gate.notify_one();
    letters.watch().wait_for(|health| health.state == ConsumerState::Paused).await.unwrap();
    assert_eq!(sent.all(), [1, 2]);
    letters.resume().await;
    letters.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(sent.all(), (1..=300).collect::<Vec<_>>());
}
