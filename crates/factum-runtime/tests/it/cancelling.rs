//! An `ask` that is dropped at any of its await points loses nothing, and stores once or never.

use factum_runtime::{AskError, EntityError};
use factum_testing::{Fault, FaultRates, bank::Account};

use crate::{
    bench::{Bench, DEPOSIT, millis, open, options},
    polling::poll_times,
};

/// The entity's state when the caller leaves.
#[derive(Debug, Clone, Copy)]
enum Found {
    InMemory,
    Passivated,
    /// In memory, and another writer has appended since.
    Overtaken,
}

/// Asks for a deposit and leaves after this many polls. Returns true if the answer came before.
async fn leave(found: Found, fault: Option<Fault>, times: usize) -> bool {
    let bench = Bench::rough(1, FaultRates::none());
    let weight_max = if matches!(found, Found::Passivated) { 0 } else { usize::MAX };
    let accounts = bench.entities::<Account>(options().with_weight_max(weight_max));
    accounts.ask("ada", open("ada")).await.unwrap();
    let mut expected = u64::from(times > 0);
    if matches!(found, Found::Overtaken) {
        accounts.repository().execute("ada", &DEPOSIT).await.unwrap();
        expected += 1;
    }
    if let Some(fault) = fault {
        bench.faulty.next_append(fault);
        bench.faulty.next_read(fault);
    }
    let ended = poll_times(accounts.ask("ada", DEPOSIT), times).await;
    // After the work that the caller who left had begun.
    let after = accounts.ask_for("ada", DEPOSIT, |ada| ada.balance_cents).await.unwrap();
    assert_eq!(after.reply, expected + 1, "{found:?} {fault:?} times={times}");
    assert_eq!(bench.balance("ada").await, (expected + 1, expected + 2));
    bench.history.check_store(&*bench.store).await.unwrap();
    ended
}

#[tokio::test]
async fn dropped_at_any_await_it_stores_once_unless_it_was_never_polled() {
    let faults = [
        None,
        Some(Fault::Delay(millis(5))),
        Some(Fault::FailBefore),
        Some(Fault::DropRequest),
        Some(Fault::DropReply),
    ];
    for found in [Found::InMemory, Found::Passivated, Found::Overtaken] {
        for fault in faults {
            let mut times = 0;
            // Until the future needs no more polls: then each await point was left once.
            while !leave(found, fault, times).await {
                times += 1;
                assert!(times < 1_000, "it never ends: {found:?} {fault:?}");
            }
            assert!(times > 1 || fault.is_none(), "it does wait: {found:?} {fault:?}");
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
    let first = runtime();
    let second = runtime();
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
        // The entity's task ends with its runtime.
        first.shutdown_background();
        let lost = waiting.await.unwrap();
        assert!(matches!(lost, Err(AskError::Failed(EntityError::Lost(_)))), "{lost:?}");
        // The entity is not stuck: its next message loads it again.
        let version = accounts.look("ada", |_, version| version.value()).await.unwrap();
        assert_eq!((version, accounts.stats().active), (1, 0));
    });
}
