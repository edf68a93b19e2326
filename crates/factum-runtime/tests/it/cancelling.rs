//! An `ask` that is dropped at any of its awaits loses nothing, and stores once or never.

use std::{future::Future, pin::pin, task::Poll};

use factum_runtime::{AskError, EntityError};
use factum_testing::{Fault, bank::Account};

use crate::bench::{Bench, DEPOSIT, millis, open, options};

/// Polls a future so often, letting everybody else run between, and drops it. Whether it ended.
async fn poll_times<T>(future: impl Future<Output = T>, times: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if polled.is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn dropped_while_it_waits_for_the_answer_it_stores_once() {
    for times in 0..12 {
        for fault in [None, Some(Fault::Delay(millis(5))), Some(Fault::DropReply)] {
            let bench = Bench::rough(1, factum_testing::FaultRates::none());
            let accounts = bench.accounts();
            accounts.ask("ada", open("ada")).await.unwrap();
            fault.into_iter().for_each(|fault| bench.faulty.next_append(fault));
            poll_times(accounts.ask("ada", DEPOSIT), times).await;
            // Behind whatever the dropped one has left.
            let after = accounts.ask_for("ada", DEPOSIT, |ada| ada.balance_cents).await.unwrap();
            let expected = if times == 0 { 1 } else { 2 };
            assert_eq!(after.reply, expected, "times={times} fault={fault:?}");
            assert_eq!(bench.balance("ada").await, (expected, expected + 1));
            bench.history.check_store(&*bench.store).await.unwrap();
        }
    }
}

#[tokio::test]
async fn dropped_while_it_waits_for_room_nothing_happens() {
    for times in 1..6 {
        let bench = Bench::new();
        let options = options().with_mailbox_max(1);
        let accounts = bench.entities::<Account>(options);
        accounts.ask("ada", open("ada")).await.unwrap();
        bench.faulty.next_append(Fault::Delay(millis(10)));
        accounts.tell("ada", DEPOSIT).unwrap();
        bench.clock.until_sleeping(1).await;
        accounts.tell("ada", DEPOSIT).unwrap();
        assert!(!poll_times(accounts.ask("ada", DEPOSIT), times).await);
        bench.clock.advance(millis(10));
        assert_eq!(accounts.state("ada").await.unwrap().state.balance_cents, 2, "times={times}");
    }
}

#[test]
fn a_runtime_that_goes_away_tells_nobody_that_it_is_done() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bench = Bench::new();
    let accounts = bench.accounts();
    let (first, second) = (runtime(), runtime());
    first.block_on(async {
        accounts.ask("ada", open("ada")).await.unwrap();
        bench.faulty.next_append(Fault::Delay(millis(10)));
        accounts.tell("ada", DEPOSIT).unwrap();
        bench.clock.until_sleeping(1).await;
    });
    second.block_on(async {
        let waiting = tokio::spawn({
            let accounts = accounts.clone();
            async move { accounts.ask("ada", DEPOSIT).await }
        });
        while accounts.entity("ada").unwrap().is_none_or(|it| it.queued == 0) {
            tokio::task::yield_now().await;
        }
        // The entity's task goes with the runtime that it ran on.
        first.shutdown_background();
        let lost = waiting.await.unwrap();
        assert!(matches!(lost, Err(AskError::Failed(EntityError::Lost(_)))), "{lost:?}");
        // The entity is not stuck: its next message finds it cold.
        let version = accounts.look("ada", |_, version| version.value()).await.unwrap();
        assert_eq!((version, accounts.stats().active), (1, 0));
    });
}
