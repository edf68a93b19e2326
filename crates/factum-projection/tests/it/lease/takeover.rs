//! A build that takes over while its program is suspended.

use std::{sync::Arc, time::Duration};

use factum_consumer::{ConsumerState, Consumers, FailurePolicy};
use factum_kernel::{Kernel, TagKey};
use factum_memory::MemoryStore;
use factum_projection::{Maintained, Projections};

use super::Silenced;
use crate::{
    bench::Bench,
    ledger::{Gate, HOUR, Ledgers, documents, swift, until},
    partition::shared_out,
};

/// A program is suspended while its build takes over, so long that the other program resumes the
/// serving build. Then the takeover must fail, or readers would lose events that they saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_takeover_that_was_suspended_for_too_long_fails_when_it_resumes() {
    let store = Arc::new(MemoryStore::new());
    let held = Arc::new(Silenced::new(store.clone()));
    let clock = Arc::new(swift());
    let program = |documents| {
        let kernel = Kernel::new(store.clone(), documents).with_clock(clock.clone());
        let kernel = kernel.with_tag_key(TagKey::new([1; 32]));
        let consumers = Consumers::new(kernel.clone()).with_lease(Duration::from_secs(10));
        Bench { consumers, ..Bench::on(kernel) }
    };
    let one = program(held.clone());
    let two = program(store.clone());
    for name in 0..8 {
        one.open(&format!("a{name}")).await;
    }
    let keep = async |bench: &Bench, gate: &Gate| {
        let options = shared_out().with_failure(FailurePolicy::new().with_timeout(HOUR));
        let targets = documents::<1>(&bench.kernel);
        bench.consumers.maintain(Ledgers::<1>(gate.clone()), targets, options).await.unwrap()
    };
    let gate = Gate::open();
    let first = keep(&one, &gate).await;
    let second = keep(&two, &Gate::open()).await;
    first.wait_for(one.head(), HOUR).await.unwrap();
    let works = |it: &Maintained<_>| it.consumer().is_some_and(|it| it.health().elsewhere == 2);
    until(|| async { works(&first) && works(&second) }).await;
    let serving = first.serving();
    gate.let_pass(0);
    let rebuild = first.rebuild().await.unwrap();
    held.is_held.send_replace(true);
    gate.let_pass(u64::MAX / 2);
    until(|| async { held.is_held.receiver_count() > 0 }).await;
    // The program is about to swap the builds, and is suspended.
    gate.let_pass(0);
    for name in 0..8 {
        one.deposit(&format!("a{name}"), 1).await;
    }
    let sum = async || {
        let mut sum = 0;
        for name in 0..8 {
            let ledger = one.ledgers().get(&format!("a{name}")).await.unwrap();
            sum += ledger.map_or(0, |ledger| ledger.cents);
        }
        sum
    };
    until(|| async { sum().await > 0 }).await;
    held.is_held.send_replace(false);
    let stands_still = |it: &Maintained<_>| {
        let parts = it.consumer().map(|it| it.partitions()).unwrap_or_default();
        parts.iter().any(|(_, it)| it.state == ConsumerState::Paused)
    };
    until(|| async { first.serving() != serving || !stands_still(&first) }).await;
    assert_eq!(first.serving(), serving, "it took over");
    assert!(sum().await > 0);
    gate.let_pass(u64::MAX / 2);
    rebuild.done().await.unwrap();
    first.wait_for(one.head(), HOUR).await.unwrap();
    assert_eq!(sum().await, 8);
}
