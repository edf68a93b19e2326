//! The caller drives the entity, but the entity never depends on the caller.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use factum_kernel::{Clock, Monotonic, SystemClock, Timestamp};
use factum_runtime::{AskError, EntityError};
use factum_testing::{Fault, bank::Account};
use tokio::time::timeout;

use crate::bench::{Bench, DEPOSIT, millis, open, options};

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Polls a future once. It must not end.
async fn begin<T>(future: &mut Pin<Box<impl Future<Output = T>>>) {
    let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
    assert!(polled.is_pending());
}

#[tokio::test]
async fn an_ask_that_nobody_polls_holds_up_nobody_else() {
    for is_told in [false, true] {
        let bench = Bench::new();
        let accounts = bench.accounts();
        accounts.ask("ada", open("ada")).await.unwrap();
        bench.faulty.next_append(Fault::Delay(millis(10)));
        let mut held = Box::pin(accounts.ask("ada", DEPOSIT));
        begin(&mut held).await;
        bench.clock.until_sleeping(1).await;
        bench.clock.advance(millis(10));
        if is_told {
            accounts.tell("ada", DEPOSIT).unwrap();
        }
        let after = accounts.ask_for("ada", DEPOSIT, |ada| ada.balance_cents);
        let after = timeout(SOON, after).await.expect("it needs nobody else").unwrap();
        assert_eq!(after.reply, 2 + u64::from(is_told));
        assert_eq!(held.await.unwrap().version.value(), 2);
    }
}

#[tokio::test]
async fn an_ask_that_nobody_polls_does_not_hold_up_the_end() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(10)));
    let mut held = Box::pin(accounts.ask("ada", DEPOSIT));
    begin(&mut held).await;
    bench.clock.until_sleeping(1).await;
    bench.clock.advance(millis(10));
    let left = timeout(SOON, accounts.shutdown(millis(60_000))).await.expect("it ends");
    assert_eq!((left.unfinished.len(), left.refused), (0, 0));
    assert_eq!(held.await.unwrap().version.value(), 2);
}

#[test]
fn an_ask_that_is_dropped_outside_of_any_runtime_takes_effect() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let bench = Bench::new();
    let accounts = bench.accounts();
    let mut held = Box::pin(accounts.ask("ada", DEPOSIT));
    runtime.block_on(async {
        accounts.ask("ada", open("ada")).await.unwrap();
        bench.faulty.next_append(Fault::Delay(millis(10)));
        begin(&mut held).await;
        bench.clock.until_sleeping(1).await;
    });
    drop(held);
    bench.clock.advance(millis(10));
    runtime.block_on(async {
        let taking_effect = async {
            while bench.balance("ada").await != (1, 2) {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, taking_effect).await.expect("it takes effect");
    });
}

/// A clock that panics at the n-th call from now.
#[derive(Debug, Default)]
struct Broken(AtomicUsize);

impl Broken {
    fn count(&self) {
        let left = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        assert!(left != Ok(1), "the clock is broken");
    }
}

#[async_trait]
impl Clock for Broken {
    fn now(&self) -> Timestamp {
        self.count();
        // The store's own clock, because the store refuses ids that are far ahead of its clock.
        crate::bench::morning()
    }

    fn monotonic(&self) -> Monotonic {
        self.count();
        SystemClock.monotonic()
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

#[tokio::test]
async fn a_panic_in_the_work_is_not_the_callers() {
    let mut lost = 0;
    // The first call is the caller's own.
    for calls in 2..8 {
        let bench = Bench::new();
        let clock = Arc::new(Broken::default());
        let kernel = bench.kernel.clone().with_clock(clock.clone());
        let accounts = factum_runtime::Entities::<Account>::new(
            factum_kernel::Repository::new(kernel),
            options(),
        );
        accounts.ask("ada", open("ada")).await.unwrap();
        clock.0.store(calls, Ordering::Relaxed);
        let asked = accounts.ask("ada", DEPOSIT).await;
        clock.0.store(0, Ordering::Relaxed);
        let is_lost = matches!(asked, Err(AskError::Failed(EntityError::Lost(_))));
        lost += u32::from(is_lost);
        // The entity continues, and knows the stored events.
        let version = accounts.look("ada", |_, version| version.value()).await.unwrap();
        let expected = 1 + u64::from(asked.is_ok() || is_lost);
        assert_eq!((version, accounts.stats().active), (expected, 0), "calls={calls} {asked:?}");
    }
    assert!(lost > 0, "no panic was where it was meant to be");
}
