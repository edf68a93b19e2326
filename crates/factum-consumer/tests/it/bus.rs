//! The event bus: events from now on. A slow listener delays no other, and misses no event.

use factum_testing::bank::AccountEvent;

use crate::bench::Bench;

async fn cents(bus: &mut factum_consumer::EventBus<AccountEvent>) -> u64 {
    match bus.next().await {
        Ok((AccountEvent::Deposited { cents }, _)) => cents,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_listener_gets_new_events_in_order() {
    let bench = Bench::new();
    bench.open("ada").await;
    let mut first = bench.consumers.events::<AccountEvent>();
    bench.deposit("ada", 1).await;
    assert_eq!(cents(&mut first).await, 1);
    let mut second = bench.consumers.events::<AccountEvent>();
    for amount in 2..=20 {
        bench.deposit("ada", amount).await;
    }
    for amount in 2..=20 {
        assert_eq!(cents(&mut first).await, amount);
        assert_eq!(cents(&mut second).await, amount);
    }
}

#[tokio::test]
async fn a_slow_listener_falls_behind_and_misses_nothing() {
    let bench = Bench::new();
    bench.open("ada").await;
    let mut slow = bench.consumers.events::<AccountEvent>();
    let mut quick = bench.consumers.events::<AccountEvent>();
    bench.deposit("ada", 1).await;
    assert_eq!((cents(&mut slow).await, cents(&mut quick).await), (1, 1));
    // Each event is a page of its own, and the tail keeps sixty-four pages.
    for amount in 2..=200 {
        bench.deposit("ada", amount).await;
        assert_eq!(cents(&mut quick).await, amount);
    }
    assert_eq!((slow.lag(), quick.lag()), (199, 0));
    for amount in 2..=200 {
        assert_eq!(cents(&mut slow).await, amount);
    }
    assert_eq!(slow.lag(), 0);
}
