//! Waiting for consumers and projections by name.

use std::{sync::Arc, time::Duration};

use factum_consumer::{Consumer, ConsumerOptions, StopReason, WaitError};
use factum_kernel::RecordedEvent;
use factum_projection::{Documents, ProjectionFn, Projections};
use factum_testing::bank::AccountEvent;

use crate::{
    bench::{Bench, Fails, LONG},
    ledger::{Gate, until},
};

const SOON: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_maintained_projection_is_waited_for_over_rebuilds_and_versions() {
    let bench = Bench::new();
    bench.open("ada").await;
    let first = bench.keep::<1>(&Gate::open()).await;
    let seen = async |cents: u64| {
        let position = bench.deposit("ada", cents).await;
        bench.consumers.wait_for("ledgers", position, LONG).await.unwrap();
        bench.ledgers().get("ada").await.unwrap().expect("it is there").cents
    };
    assert_eq!(seen(1).await, 1);
    first.rebuild().await.unwrap().done().await.unwrap();
    assert_eq!(seen(2).await, 3);
    // A build that lags delays no caller.
    let slow = Gate::after(0);
    let second = bench.keep::<2>(&slow).await;
    assert_eq!(seen(3).await, 6);
    let building = second.building().expect("it waits at the gate");
    slow.let_pass(u64::MAX);
    building.done().await.unwrap();
    assert_eq!(seen(4).await, 10);
}

#[tokio::test]
async fn started_consumers_and_projections_are_found_by_their_names_without_versions() {
    let bench = Bench::new();
    let counts = bench.count(&Fails::default()).await;
    let mails = Consumer::new("mails", |_: AccountEvent, _: RecordedEvent| async { Ok(()) });
    bench.consumers.start(mails).await.unwrap();
    bench.open("ada").await;
    let position = bench.deposit("ada", 7).await;
    for name in ["mails", "counts", "counts@1"] {
        bench.consumers.wait_for(name, position, LONG).await.unwrap();
    }
    assert_eq!(bench.counted().await["ada"].cents, [7]);
    counts.stop().await;
    let later = bench.deposit("ada", 8).await;
    let told = bench.consumers.wait_for("counts", later, LONG).await.unwrap_err();
    assert!(matches!(told, WaitError::Stopped { reason: StopReason::Asked, .. }), "{told}");
    // After a restart the name means the new handle.
    bench.count(&Fails::default()).await;
    bench.consumers.wait_for("counts", later, LONG).await.unwrap();
}

#[tokio::test]
async fn a_wait_that_times_out_reports_the_reached_position() {
    let bench = Bench::new();
    bench.open("ada").await;
    let gate = Gate::after(0);
    bench.keep::<1>(&gate).await;
    let position = bench.deposit("ada", 1).await;
    let told = bench.consumers.wait_for("ledgers", position, SOON).await.unwrap_err();
    assert!(matches!(told, WaitError::Behind { position: p, .. } if p == position), "{told}");
    gate.let_pass(u64::MAX);
    bench.consumers.wait_for("ledgers", position, LONG).await.unwrap();
}

#[tokio::test]
async fn documents_of_another_program_are_waited_for_by_their_stored_progress() {
    let bench = Bench::new();
    bench.open("ada").await;
    let ledgers = bench.keep::<1>(&Gate::open()).await;
    let in_memory = bench.count_in_memory(&Fails::default()).await;
    // Nothing is stored of it before it has begun.
    ledgers.wait_for(bench.head(), LONG).await.unwrap();
    let position = bench.deposit("ada", 1).await;
    let other = bench.again();
    other.consumers.wait_for("ledgers", position, LONG).await.unwrap();
    assert_eq!(bench.ledgers().get("ada").await.unwrap().expect("it is there").cents, 1);

    // Each program has its own model in memory, whatever another has stored of it.
    in_memory.wait_for(position, LONG).await.unwrap();
    bench.consumers.wait_for("counts-in-memory", position, LONG).await.unwrap();
    let told = other.consumers.can_wait_for("counts-in-memory").await.unwrap_err();
    assert!(matches!(told, WaitError::Unknown(_)), "{told}");
}

#[tokio::test]
async fn an_unknown_name_is_reported_at_once() {
    let bench = Bench::new();
    bench.count(&Fails::default()).await;
    for name in ["males", "count", "counts@2", "", "no name"] {
        let told = bench.consumers.wait_for(name, bench.head(), LONG).await.unwrap_err();
        assert!(matches!(&told, WaitError::Unknown(unknown) if unknown == name), "{told}");
        bench.consumers.can_wait_for(name).await.unwrap_err();
    }
    bench.consumers.can_wait_for("counts").await.unwrap();
    bench.consumers.close().await;
    let told = bench.consumers.wait_for("males", bench.head(), LONG).await.unwrap_err();
    assert!(matches!(told, WaitError::Stopped { .. }), "nothing is known any more: {told}");
}

/// The function that makes targets may hold an application, which holds these consumers.
#[tokio::test]
async fn closing_drops_the_function_that_makes_targets() {
    let bench = Bench::new();
    let held = Arc::new(());
    let seen = Arc::downgrade(&held);
    let kernel = bench.kernel.clone();
    let opened = ProjectionFn::<AccountEvent, Documents, _>::new("opened", 1, |_, _, _| Ok(()));
    let targets = move |_: &_| {
        let _ = &held;
        Documents::new(&kernel)
    };
    let opened =
        bench.consumers.maintain_fn(opened, targets, ConsumerOptions::new()).await.unwrap();
    bench.consumers.wait_for("opened", bench.head(), LONG).await.unwrap();
    bench.consumers.close().await;
    drop(opened);
    until(async || seen.upgrade().is_none()).await;
}
