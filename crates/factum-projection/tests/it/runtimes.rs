//! Consumers and projections whose runtime ends, while others continue.

use std::{sync::atomic::Ordering, time::Duration};

use factum_consumer::{ConsumerHandle, ConsumerState, StopReason, WaitError};
use factum_kernel::{KeyRange, Revision, ScanQuery};
use factum_projection::BuildError;
use factum_testing::bank::AccountEvent;
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    bench::{Bench, Fails, LONG},
    ledger::{Gate, until},
};

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

/// Checks that the health says that it has stopped, the reason, and the remedy.
fn has_lost_its_runtime(consumer: &ConsumerHandle) {
    let ConsumerState::Stopped(StopReason::Broken(told)) = consumer.health().state else {
        panic!("{:?}", consumer.health().state)
    };
    let told = told.to_string();
    assert!(told.contains("runtime") && told.contains("start the consumer again"), "{told}");
}

#[test]
fn consumers_say_that_their_runtime_has_ended_and_start_again_on_another() {
    for bench in [Bench::new(), Bench::new().another()] {
        let first = runtime();
        let counts = first.block_on(async {
            bench.open("ada").await;
            let counts = bench.count(&Fails::default()).await;
            counts.wait_for(bench.head(), LONG).await.unwrap();
            counts
        });
        drop(first);
        has_lost_its_runtime(counts.consumer());
        runtime().block_on(async {
            let head = bench.deposit("ada", 1).await;
            let told = timeout(LONG, counts.wait_for(head, LONG * 100)).await.unwrap();
            assert!(matches!(told, Err(WaitError::Stopped { .. })), "{told:?}");
            bench.count(&Fails::default()).await.wait_for(head, LONG).await.unwrap();
            assert_eq!(bench.counted().await, bench.fold().await);
            timeout(LONG, bench.consumers.close()).await.expect("it closes");
            assert_eq!(stored(&bench, "$lease/").await, []);
        });
    }
}

#[test]
fn a_consumer_that_an_ended_runtime_refuses_has_stopped_and_starts_on_another() {
    for bench in [Bench::new(), Bench::new().another()] {
        let ended = runtime();
        let handle = ended.handle().clone();
        drop(ended);
        let counts = handle.block_on(bench.count(&Fails::default()));
        has_lost_its_runtime(counts.consumer());
        runtime().block_on(async {
            timeout(LONG, counts.consumer().stop()).await.expect("it has stopped");
            bench.open("ada").await;
            bench.count(&Fails::default()).await.wait_for(bench.head(), LONG).await.unwrap();
            timeout(LONG, bench.consumers.close()).await.expect("it closes");
        });
    }
}

#[test]
fn a_member_lives_on_when_the_runtime_of_its_first_consumer_has_ended() {
    let bench = Bench::new().another();
    let first = runtime();
    let second = runtime();
    first.block_on(async {
        bench.open("ada").await;
        let other = factum_consumer::Consumer::new("first", |_: AccountEvent, _| async { Ok(()) });
        let other = bench.consumers.start(other).await.unwrap();
        other.wait_for(bench.head(), LONG).await.unwrap();
    });
    let counts = second.block_on(async {
        let counts = bench.count(&Fails::default()).await;
        counts.wait_for(bench.head(), LONG).await.unwrap();
        counts
    });
    drop(first);
    second.block_on(async {
        let before = stored(&bench, "$lease/").await;
        // Its heartbeat is written again and again.
        for _ in 0..2 {
            let seen = stored(&bench, "$lease/").await;
            until(|| async { stored(&bench, "$lease/").await != seen }).await;
        }
        assert_ne!(stored(&bench, "$lease/").await, before);
        let head = bench.deposit("ada", 1).await;
        counts.wait_for(head, LONG).await.unwrap();
        timeout(LONG, bench.consumers.close()).await.expect("it closes");
        assert_eq!(stored(&bench, "$lease/").await, []);
    });
}

/// The keys and revisions under a prefix.
async fn stored(bench: &Bench, prefix: &'static str) -> Vec<(Vec<u8>, Revision)> {
    let query = ScanQuery::new(KeyRange::prefix(prefix));
    let page = bench.kernel.documents().scan(query).await.unwrap();
    page.documents.iter().map(|it| (it.key.to_vec(), it.revision)).collect()
}

#[test]
fn a_projection_whose_runtime_has_ended_says_so_and_is_maintained_again_on_another() {
    let bench = Bench::new();
    let first = runtime();
    let ledgers = first.block_on(async {
        bench.open("ada").await;
        let ledgers = bench.keep::<2>(&Gate::open()).await;
        ledgers.wait_for(bench.head(), LONG).await.unwrap();
        ledgers
    });
    drop(first);
    runtime().block_on(async {
        let head = bench.deposit("ada", 1).await;
        let asked = timeout(LONG, ledgers.rebuild()).await.unwrap().unwrap_err();
        assert!(matches!(asked, BuildError::RuntimeEnded(_)), "{asked}");
        let told = timeout(LONG, ledgers.wait_for(head, LONG * 100)).await.unwrap();
        let Err(WaitError::Stopped { reason: StopReason::Broken(told), .. }) = told else {
            panic!("{told:?}")
        };
        assert!(told.to_string().contains("runtime"), "{told}");
        let again = bench.keep::<2>(&Gate::open()).await;
        again.wait_for(head, LONG).await.unwrap();
        again.rebuild().await.unwrap().done().await.unwrap();
        timeout(LONG, bench.consumers.close()).await.expect("it closes");
        let asked = again.rebuild().await.unwrap_err();
        assert!(matches!(asked, BuildError::Closed(_)), "{asked}");
    });
}

#[test]
fn a_rebuild_whose_runtime_ends_is_not_waited_for() {
    let bench = Bench::new();
    let gate = Gate::open();
    let first = runtime();
    let rebuild = first.block_on(async {
        bench.open("ada").await;
        let ledgers = bench.keep::<2>(&gate).await;
        ledgers.wait_for(bench.head(), LONG).await.unwrap();
        gate.let_pass(0);
        ledgers.rebuild().await.unwrap()
    });
    drop(first);
    let ended = runtime().block_on(async { timeout(LONG, rebuild.done()).await });
    let ended = ended.expect("it ends").unwrap_err();
    assert!(matches!(ended, BuildError::Stopped { .. } | BuildError::RuntimeEnded(_)), "{ended}");
    assert!(factum_kernel::sentence(&ended).contains("runtime"), "{ended:?}");
}

#[test]
fn a_reader_of_a_model_whose_runtime_ends_in_the_middle_of_an_event_gets_an_error() {
    let bench = Bench::new();
    let fails = Fails::default();
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let first = first.unwrap();
    let model = first.block_on(async {
        bench.open("ada").await;
        let model = bench.count_in_memory(&fails).await;
        model.wait_for(bench.head(), LONG).await.unwrap();
        fails.spins.store(true, Ordering::SeqCst);
        bench.deposit("ada", 13).await;
        // In the middle of an event the model can't be read.
        while timeout(Duration::ZERO, model.read()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        model
    });
    first.shutdown_background();
    let told = runtime().block_on(async { timeout(LONG, model.read()).await.map(Result::err) });
    fails.spins.store(false, Ordering::SeqCst);
    let told = told.expect("it answers").expect("there is no model");
    assert!(factum_kernel::sentence(&told).contains("runtime"), "{told}");
}
