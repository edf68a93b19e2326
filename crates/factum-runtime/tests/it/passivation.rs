//! Idle entities are passivated, and load with the same state.

use factum_kernel::Clock;
use factum_runtime::{ENTITY_BYTES, EntityInfo, EntityStatus};

use crate::{
    bench::{Bench, millis, options},
    counter::{Counter, CounterCommand},
};

#[tokio::test]
async fn one_that_nobody_uses_is_passivated_and_comes_back() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options().with_idle(millis(1_000)));
    for key in ["old", "new"] {
        counters.ask(key, CounterCommand::Add).await.unwrap();
    }
    assert_eq!(counters.entity("old").unwrap().unwrap().status, EntityStatus::Idle);
    for _ in 0..3 {
        bench.clock.until_sleeping(1).await;
        bench.clock.advance(millis(400));
        counters.ask("new", CounterCommand::Add).await.unwrap();
    }
    while counters.entity("old").unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    let stats = counters.stats();
    assert_eq!((stats.passivated, stats.resident, stats.loads), (1, 1, 2));
    let back = counters.ask_for("old", CounterCommand::Add, |old| old.count).await.unwrap();
    assert_eq!((back.reply, counters.stats().loads), (2, 3));
}

#[tokio::test]
async fn the_sweeper_ends_when_nothing_is_left_and_comes_back_with_the_next() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options().with_idle(millis(1_000)));
    for _ in 0..2 {
        counters.ask("one", CounterCommand::Nothing).await.unwrap();
        for _ in 0..5 {
            bench.clock.until_sleeping(1).await;
            bench.clock.advance(millis(250));
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if counters.entity("one").unwrap().is_none() {
                break;
            }
        }
        assert!(counters.entity("one").unwrap().is_none());
    }
    assert_eq!(counters.stats().passivated, 2);
}

#[tokio::test]
async fn one_is_passivated_in_its_time_whatever_the_clock_is_set_to() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options().with_idle(millis(1_000)));
    let morning = bench.clock.now();
    let year = millis(1_000) * 31_536_000;
    let wrong = [morning.saturating_add(year), morning.saturating_sub(year)];
    for (n, wrong) in (0..).zip(wrong) {
        // Used while the clock is wrong for a moment, and not before.
        bench.clock.set(wrong);
        counters.ask("one", CounterCommand::Add).await.unwrap();
        bench.clock.set(morning);
        let used_at = counters.entity("one").unwrap().unwrap().used_at;
        assert_eq!(used_at, morning, "by the clock as it is now");
        let mut waited = millis(0);
        while counters.entity("one").unwrap().is_some() {
            assert!(waited <= millis(1_250), "it is kept");
            assert_eq!(counters.stats().passivated, n);
            bench.clock.until_sleeping(1).await;
            bench.clock.advance(millis(250));
            waited += millis(250);
            settle().await;
        }
        assert!(waited >= millis(1_000), "it left too soon");
    }
}

/// Lets the sweeper run, which is the only other task.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_weighs_too_much_goes_the_least_recently_used_first() {
    let bench = Bench::new();
    // Every shard has room for two entities of a thousand bytes.
    let room = 2 * (ENTITY_BYTES + 1_000);
    let counters = bench.entities::<Counter>(options().with_weight_max(64 * room));
    let keys: Vec<_> = (0..640).map(|n| n.to_string()).collect();
    for key in &keys {
        counters.ask(key, CounterCommand::Grow(1_000)).await.unwrap();
    }
    let stats = counters.stats();
    assert!(stats.resident_bytes <= 64 * room && stats.resident > 64, "{stats:?}");
    assert_eq!(stats.resident as u64 + stats.passivated, 640);
    assert!(counters.entity(&keys[639]).unwrap().is_some(), "the last used is there");
    assert!(counters.entity(&keys[0]).unwrap().is_none(), "the first used is gone");
    for key in &keys {
        assert_eq!(counters.look(key, |counter, _| counter.weight).await.unwrap(), 1_000);
    }
}

#[tokio::test]
async fn one_that_is_heavier_than_the_budget_works_all_the_same() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options().with_weight_max(0));
    for n in 1..=3 {
        let done = counters.ask_for("one", CounterCommand::Add, |one| one.count).await.unwrap();
        assert_eq!(done.reply, n);
    }
    assert_eq!((counters.stats().resident, counters.stats().passivated), (0, 3));
}

#[tokio::test]
async fn the_last_used_and_the_heaviest_are_listed_up_to_a_number() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options());
    for n in 0..40 {
        bench.clock.advance(millis(1));
        // In an order that is neither that of the keys nor that of the use.
        counters.ask(n.to_string(), CounterCommand::Grow(n * 7 % 40)).await.unwrap();
    }
    let keys = |listed: Vec<EntityInfo>| -> Vec<String> {
        listed.iter().map(|it| it.stream.key().to_owned()).collect()
    };
    assert_eq!(keys(counters.recent(3)), ["39", "38", "37"]);
    assert_eq!(counters.recent(1_000).len(), 40);
    let heaviest = counters.heaviest(3);
    let weights: Vec<_> = heaviest.iter().map(|it| it.weight).collect();
    assert_eq!(weights, [Some(39), Some(38), Some(37)]);
    assert_eq!(keys(heaviest), ["17", "34", "11"]);
    assert!(counters.heaviest(0).is_empty());
}
