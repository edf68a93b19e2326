//! Consumers whose store panics: restarted after a pause, given up by the supervisor's rule, and
//! stopped at once. A panic in the background shows in the health.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use factum_consumer::{
    Consumer, ConsumerHandle, ConsumerHealth, ConsumerOptions, ConsumerState, FailurePolicy,
    Partitions, StopReason,
};
use factum_kernel::{DocumentStore, Position, Revision, WriteBatch, WriteError, sentence};
use factum_testing::{ForwardDocuments, Forwarding, bank::AccountEvent};
use tokio::time::timeout;

use crate::bench::{Bench, LONG, quick};

/// The number of failures after which a supervisor gives a worker up.
const FAILURES_MAX: usize = 10;

/// Documents whose writes under one key panic a number of times.
#[derive(Debug)]
struct Panicking {
    documents: Arc<dyn DocumentStore>,
    key: &'static str,
    left: Arc<AtomicUsize>,
}

#[async_trait]
impl ForwardDocuments for Panicking {
    fn documents(&self) -> Arc<dyn DocumentStore> {
        self.documents.clone()
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        let holds = |key: &[u8]| String::from_utf8_lossy(key).contains(self.key);
        if batch.entries().iter().any(|entry| holds(&entry.key)) {
            let left = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            assert!(left.is_err(), "a defect of the store");
        }
        self.documents.write(batch).await
    }
}

/// A bench, and the number of panics that are left.
fn bench(key: &'static str, panics: usize) -> (Bench, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(panics));
    let panicking = |documents| {
        let left = left.clone();
        Arc::new(Forwarding(Panicking { documents, key, left })) as Arc<dyn DocumentStore>
    };
    (Bench::with_documents(panicking), left)
}

/// A consumer that notes the events that it has handled, with this pause before a restart.
async fn start(bench: &Bench, pause: Duration, partitions: usize) -> (ConsumerHandle, Seen) {
    let seen = Seen::default();
    let notes = seen.clone();
    let mails = Consumer::new("mails", move |_: AccountEvent, recorded| {
        notes.0.lock().unwrap().push(recorded.position());
        async { Ok(()) }
    });
    let failure = FailurePolicy::new().with_pause(pause, pause);
    let options = ConsumerOptions::new().with_failure(failure);
    let options = options.with_partitions(Partitions::by_stream(partitions));
    (bench.consumers.start(mails.with_options(options)).await.unwrap(), seen)
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Position>>>);

const SHORT: Duration = Duration::from_millis(1);
/// Longer than any test.
const ENDLESS: Duration = Duration::from_secs(36_000);

fn is_broken(state: &ConsumerState) -> bool {
    matches!(state, ConsumerState::Stopped(StopReason::Broken(_)))
}

fn is_retrying(state: &ConsumerState) -> bool {
    matches!(state, ConsumerState::Retrying { position: None, .. })
}

#[tokio::test]
async fn a_consumer_whose_store_panics_is_restarted_and_misses_no_event() {
    let (bench, left) = bench("mails", FAILURES_MAX - 1);
    bench.open("ada").await;
    let (mails, seen) = start(&bench, SHORT, 1).await;
    mails.wait_for(bench.head(), LONG).await.unwrap();
    assert_eq!(left.load(SeqCst), 0, "every panic was survived");
    bench.deposit("ada", 1).await;
    mails.wait_for(bench.head(), LONG).await.unwrap();
    let mut seen = seen.0.lock().unwrap().clone();
    seen.dedup();
    assert_eq!(seen, [Position::new(1), Position::new(2)]);
}

#[tokio::test]
async fn a_consumer_whose_store_keeps_panicking_is_given_up_by_the_rule_of_the_supervisor() {
    let (bench, left) = bench("mails", 1_000);
    bench.open("ada").await;
    let (mails, _) = start(&bench, SHORT, 1).await;
    let told = sentence(&mails.wait_for(bench.head(), LONG).await.unwrap_err());
    assert!(told.contains("the store panicked: a defect of the store"), "{told}");
    assert!(is_broken(&mails.health().state));
    assert_eq!(1_000 - left.load(SeqCst), FAILURES_MAX);
    // The name can be used again.
    left.store(0, SeqCst);
    let (mails, _) = start(&bench, SHORT, 1).await;
    mails.wait_for(bench.head(), LONG).await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_the_pause_before_a_restart() {
    let (bench, _) = bench("mails", 1);
    let (mails, _) = start(&bench, ENDLESS, 1).await;
    mails.watch().wait_for(|it| is_retrying(&it.state)).await.unwrap();
    let ConsumerState::Retrying { attempts, error, .. } = mails.health().state else {
        panic!("it waits")
    };
    assert_eq!(attempts, 1);
    assert!(error.contains("a defect of the store"), "{error}");
    assert_eq!(timeout(LONG, mails.stop()).await.unwrap(), StopReason::Asked);
    timeout(LONG, bench.consumers.close()).await.unwrap();
}

#[tokio::test]
async fn a_partition_that_is_given_up_stops_the_whole_consumer() {
    let (bench, left) = bench("mails#1", 1_000);
    bench.open("ada").await;
    let (mails, _) = start(&bench, SHORT, 3).await;
    timeout(LONG, mails.watch().wait_for(|it| is_broken(&it.state))).await.unwrap().unwrap();
    let parts: Vec<_> = mails.partitions().into_iter().map(|(_, health)| health.state).collect();
    let asked = ConsumerState::Stopped(StopReason::Asked);
    assert_eq!((&parts[0], is_broken(&parts[1]), &parts[2]), (&asked, true, &asked));
    assert_eq!(1_000 - left.load(SeqCst), FAILURES_MAX);
}

#[tokio::test]
async fn a_consumer_without_a_handle_stops_in_the_pause_before_a_restart() {
    let (bench, _) = bench("mails", 1);
    let (mails, seen) = start(&bench, ENDLESS, 1).await;
    let mut health = mails.watch();
    health.wait_for(|it| is_retrying(&it.state)).await.unwrap();
    drop((mails, bench));
    // Its handler is dropped with it.
    let ended = async { while health.changed().await.is_ok() {} };
    timeout(LONG, ended).await.unwrap();
    assert_eq!(Arc::strong_count(&seen.0), 1);
}

#[tokio::test]
async fn a_heartbeat_that_fails_shows_in_the_health_until_it_is_stored() {
    let (mut bench, left) = bench("$lease/member", usize::MAX);
    bench.consumers = bench.consumers.with_lease(Duration::from_millis(50));
    bench.open("ada").await;
    let (mails, _) = start(&bench, SHORT, 2).await;
    let fails = |it: &ConsumerHealth| {
        it.heartbeat_error.as_ref().is_some_and(|error| error.contains("a defect of the store"))
    };
    let mut health = mails.watch();
    timeout(LONG, health.wait_for(fails)).await.unwrap().unwrap();
    assert_eq!(mails.health().state, ConsumerState::StandingBy);
    assert!(mails.partitions().iter().all(|(_, health)| fails(health)));
    left.store(0, SeqCst);
    timeout(LONG, health.wait_for(|it| it.heartbeat_error.is_none())).await.unwrap().unwrap();
    mails.wait_for(bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
}

/// A value of a handler whose destructor has a defect.
struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a defect of the destructor");
    }
}

#[tokio::test]
async fn a_consumer_whose_handler_panics_when_it_is_dropped_stays_stopped() {
    let bench = Bench::new();
    bench.open("ada").await;
    let dropped = Dropped;
    let mails = Consumer::new("mails", move |_: AccountEvent, _| {
        let _ = &dropped;
        async { Err("thirteen".into()) }
    });
    let failure = FailurePolicy::new().with_retries_max(0).then_stop();
    let mails = mails.with_options(quick().with_failure(failure));
    let mails = bench.consumers.start(mails).await.unwrap();
    mails.wait_for(bench.head(), LONG).await.unwrap_err();
    let reason = timeout(LONG, mails.stop()).await.unwrap();
    assert!(matches!(reason, StopReason::Failed { .. }), "{reason:?}");
    assert_eq!(mails.health().state, ConsumerState::Stopped(reason));
}
