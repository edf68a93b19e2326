//! Panics and failing stores: the callers that get an error, those that don't, and quarantine.

use factum_kernel::{Clock, Repository, Timestamp};
use factum_runtime::{AskError, Entities, EntityError, EntityStatus, Restart};
use factum_testing::{Fault, FaultRates};

use crate::{
    bench::{Bench, millis, options},
    counter::{Counter, CounterCommand, CounterEvent, Sturdy},
};

async fn count(counters: &Entities<Counter>, key: &str) -> u64 {
    counters.look(key, |counter, _| counter.count).await.unwrap()
}

#[tokio::test]
async fn a_panic_fails_its_own_command_and_nobody_elses() {
    let bench = Bench::rough(1, FaultRates::none());
    let counters = bench.entities::<Counter>(options());
    for panic in [CounterCommand::Panic, CounterCommand::Poison] {
        let key = format!("{panic:?}");
        let (before, dead, after) = tokio::join!(
            counters.ask(&key, CounterCommand::Add),
            counters.ask(&key, panic),
            counters.ask(&key, CounterCommand::Add),
        );
        assert_eq!((before.unwrap().version.value(), after.unwrap().version.value()), (1, 2));
        let Err(AskError::Failed(EntityError::Panicked { message, .. })) = dead else {
            panic!("{dead:?}")
        };
        assert!(["asked to", "poisoned"].contains(&&*message), "{message}");
        assert_eq!(count(&counters, &key).await, 2);
    }
    assert_eq!(counters.stats().deaths, 2);
    assert_eq!(bench.history.check_store(&*bench.store).await.unwrap().events, 4);
}

#[tokio::test]
async fn one_that_keeps_dying_is_quarantined_and_its_siblings_never_notice() {
    let bench = Bench::rough(1, FaultRates::none());
    let restart = Restart::new().with_deaths_max(3, millis(1_000_000));
    let counters = bench.entities::<Counter>(options().with_restart(restart));
    counters.ask("well", CounterCommand::Add).await.unwrap();
    // Stored by a program whose rules don't panic on it. Here no load succeeds.
    let sturdy = Repository::<Sturdy>::new(bench.kernel.clone());
    sturdy.execute("ill", &CounterEvent::Poisoned).await.unwrap();
    for _ in 0..3 {
        let dead = counters.ask("ill", CounterCommand::Add).await;
        assert!(matches!(dead, Err(AskError::Failed(EntityError::Panicked { .. }))), "{dead:?}");
        assert_eq!(count(&counters, "well").await, 1);
    }
    let refused = counters.ask("ill", CounterCommand::Add).await;
    assert!(
        matches!(refused, Err(AskError::Failed(EntityError::Quarantined { .. }))),
        "{refused:?}"
    );
    assert!(counters.tell("ill", CounterCommand::Add).is_err());
    let [listed] = &counters.quarantined()[..] else { panic!("one") };
    assert_eq!(listed.stream.key(), "ill");
    assert_eq!(counters.entity("ill").unwrap().unwrap().status, EntityStatus::Quarantined);
    assert_eq!(counters.stats().quarantined, 1);

    let stream = factum_kernel::ExpectedVersion::Any;
    sturdy.delete("ill", stream).await.unwrap();
    assert!(counters.release("ill").unwrap() && !counters.release("ill").unwrap());
    counters.ask("ill", CounterCommand::Add).await.unwrap();
    assert_eq!(count(&counters, "ill").await, 1);
}

#[tokio::test]
async fn a_reply_that_panics_fails_its_own_command_and_never_the_entity() {
    let bench = Bench::rough(1, FaultRates::none());
    let restart = Restart::new().with_deaths_max(2, millis(1_000_000));
    let counters = bench.entities::<Counter>(options().with_restart(restart));
    for round in 1..=5 {
        let reply = |_: &Counter| -> u64 { panic!("a defect of the caller's") };
        let (before, broken, seen, after) = tokio::join!(
            counters.ask("one", CounterCommand::Add),
            counters.ask_for("one", CounterCommand::Add, reply),
            counters.look("one", move |counter, _| reply(counter)),
            counters.ask("one", CounterCommand::Add),
        );
        let versions = (before.unwrap().version.value(), after.unwrap().version.value());
        assert_eq!(versions, (2 * round - 1, 2 * round), "the command took no effect");
        for told in [broken.map(drop), seen.map(drop).map_err(AskError::from)] {
            let Err(AskError::Failed(EntityError::Panicked { message, .. })) = told else {
                panic!("{told:?}")
            };
            assert_eq!(&*message, "a defect of the caller's");
        }
    }
    let stats = counters.stats();
    assert_eq!((stats.deaths, stats.quarantined), (0, 0));
    assert_eq!(count(&counters, "one").await, 10);
}

#[tokio::test]
async fn deaths_are_counted_within_their_time_whatever_the_clock_is_set_to() {
    let restart =
        Restart::new().with_deaths_max(3, millis(60_000)).with_pauses(millis(0), millis(0));
    let dies_thrice = async |apart, shown: fn(Timestamp) -> Timestamp| {
        let bench = Bench::new();
        let counters = bench.entities::<Counter>(options().with_restart(restart));
        for _ in 0..3 {
            bench.clock.advance(apart);
            let now = bench.clock.now();
            bench.clock.set(shown(now));
            counters.ask("ill", CounterCommand::Panic).await.unwrap_err();
        }
        counters.quarantined().len()
    };
    let far_apart = dies_thrice(millis(60_000), |now| now.saturating_sub(millis(60_000))).await;
    assert_eq!(far_apart, 0, "however near the clock shows them");
    let near = dies_thrice(millis(1), |now| now.saturating_add(millis(3_600_000))).await;
    assert_eq!(near, 1, "however far apart the clock shows them");
}

#[tokio::test]
async fn a_store_that_is_down_is_told_and_the_entity_is_well_afterwards() {
    let bench = Bench::rough(1, FaultRates::none());
    let counters = bench.entities::<Counter>(options());
    counters.ask("one", CounterCommand::Add).await.unwrap();
    // One attempt more than the repeats of an execution.
    (0..9).for_each(|_| bench.faulty.next_append(Fault::FailBefore));
    let failed = counters.ask("one", CounterCommand::Add).await;
    assert!(matches!(failed, Err(AskError::Failed(EntityError::Store(_)))), "{failed:?}");
    (0..9).for_each(|_| bench.faulty.next_append(Fault::DropReply));
    let unknown = counters.ask("one", CounterCommand::Add).await;
    assert!(matches!(unknown, Err(AskError::Failed(EntityError::Indeterminate(_)))), "{unknown:?}");
    assert_eq!(count(&counters, "one").await, 2, "it was stored, and is seen");
    (0..20).for_each(|_| bench.faulty.next_read(Fault::FailBefore));
    let unread = counters.look("one", |counter, _| counter.count).await;
    assert!(matches!(unread, Err(EntityError::Load(_))), "{unread:?}");
    let stats = counters.stats();
    assert_eq!((stats.deaths, stats.quarantined), (0, 0));
}

#[tokio::test]
async fn a_comparison_with_the_log_waits_for_a_store_that_is_down_for_a_moment() {
    let bench = Bench::rough(1, FaultRates::none());
    let counters = bench.entities::<Counter>(options());
    counters.ask("one", CounterCommand::Add).await.unwrap();
    (0..3).for_each(|_| bench.faulty.next_read(Fault::FailBefore));
    assert_eq!(count(&counters, "one").await, 1);
    assert_eq!(counters.stats().loads, 1);
}
