//! Outcomes, replies, order and limits.

use factum_kernel::{Clock, Metadata, Position};
use factum_runtime::{AskError, EntityError, EntityOptions};
use factum_testing::{
    Fault,
    bank::{AccountCommand, AccountRejection},
};

use crate::{
    bench::{Bench, DEPOSIT, millis, open, options},
    counter::{Counter, CounterCommand},
};

#[tokio::test]
async fn an_outcome_tells_version_position_events_and_reply() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    let opened = accounts.ask("ada", open("ada")).await.unwrap();
    assert_eq!((opened.version.value(), opened.position), (1, Some(Position::new(1))));
    let metadata = Metadata::new().with_user("ada");
    accounts.ask_with("ada", DEPOSIT, metadata.clone()).await.unwrap();
    let done = accounts.ask_for("ada", DEPOSIT, |ada| ada.balance_cents).await.unwrap();
    assert_eq!((done.version.value(), done.reply, done.events.len()), (3, 2, 1));

    let entries = accounts.history("ada").unwrap().collect().await.unwrap();
    assert_eq!((entries.len(), entries[1].recorded.metadata()), (3, metadata));
}

#[tokio::test]
async fn a_rejection_is_a_value_and_so_is_a_guard_that_fails() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    let refused = accounts.ask("ada", AccountCommand::Withdraw { cents: 1 }).await.unwrap_err();
    let poor = AccountRejection::InsufficientFunds { balance_cents: 0 };
    assert_eq!(refused.rejection(), Some(&poor));

    let taken = AccountCommand::Open { owner: "Bob".into(), email: "ada@example.org".into() };
    let refused = accounts.ask("bob", taken).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&AccountRejection::EmailTaken));
    // The effect that the refused command would have had on the account is forgotten.
    let refused = accounts.ask("bob", DEPOSIT).await.unwrap_err();
    assert_eq!(refused.rejection(), Some(&AccountRejection::NotOpen));
    let stats = accounts.stats();
    assert_eq!((stats.commands, stats.rejected, stats.failed), (4, 3, 0));
}

/// A withdrawal after a refused opening was once decided on the account that the opening would have
/// made.
#[tokio::test]
async fn what_waits_behind_a_guard_is_decided_when_the_guard_is_known() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.ask("ada", open("ada")).await.unwrap();
    let taken = AccountCommand::Open { owner: "Bob".into(), email: "ada@example.org".into() };
    let (first, second, third, fourth) = tokio::join!(
        accounts.look("bob", |_, version| version.value()),
        accounts.ask("bob", taken),
        accounts.ask("bob", AccountCommand::Withdraw { cents: 1 }),
        accounts.look("bob", |bob, _| bob.owner.clone()),
    );
    assert_eq!(first.unwrap(), 0);
    assert_eq!(second.unwrap_err().rejection(), Some(&AccountRejection::EmailTaken));
    assert_eq!(third.unwrap_err().rejection(), Some(&AccountRejection::NotOpen));
    assert_eq!(fourth.unwrap(), "");
}

#[tokio::test]
async fn commands_that_wait_share_an_append_and_keep_their_order() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options());
    // The first append lasts until all messages are queued, so that its speed does not matter.
    bench.faulty.next_append(Fault::Delay(millis(1)));
    let asks: Vec<_> = (0..100)
        .map(|_| {
            let counters = counters.clone();
            tokio::spawn(async move {
                counters.ask_for("one", CounterCommand::Add, |counter| counter.count).await.unwrap()
            })
        })
        .collect();
    bench.clock.until_sleeping(1).await;
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    bench.clock.advance(millis(1));
    let mut replies = Vec::new();
    for ask in asks {
        let done = ask.await.unwrap();
        assert_eq!(done.position, Some(Position::new(done.reply)), "each its own position");
        replies.push(done.reply);
    }
    assert_eq!(replies, (1..=100).collect::<Vec<_>>());
    let summary = bench.history.check_store(&*bench.store).await.unwrap();
    assert_eq!(summary.events, 100);
    assert!(summary.acknowledged <= 2, "{} appends", summary.acknowledged);
}

#[tokio::test]
async fn a_full_mailbox_refuses_tells_and_makes_asks_wait_for_room_or_the_deadline() {
    let bench = Bench::new();
    let options = EntityOptions::new().with_mailbox_max(2).with_idle(None);
    let accounts = bench.entities::<factum_testing::bank::Account>(options);
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(40_000)));
    accounts.tell("ada", DEPOSIT).unwrap();
    bench.clock.until_sleeping(1).await;
    accounts.tell("ada", DEPOSIT).unwrap();
    accounts.tell("ada", DEPOSIT).unwrap();
    assert!(matches!(accounts.tell("ada", DEPOSIT), Err(EntityError::Busy(_))));

    let waiting = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.ask("ada", DEPOSIT).await }
    });
    bench.clock.until_sleeping(2).await;
    bench.clock.advance(millis(30_000));
    let late = waiting.await.unwrap();
    assert!(matches!(late, Err(AskError::Failed(EntityError::Busy(_)))), "{late:?}");
    assert_eq!(bench.balance("ada").await, (0, 1), "nothing of it happened");

    let waiting = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.ask_for("ada", DEPOSIT, |ada| ada.balance_cents).await }
    });
    bench.clock.until_sleeping(2).await;
    // A change of the clock's time does not count as waiting.
    bench.clock.set(bench.clock.now().saturating_add(millis(3_600_000)));
    // The append for which the mailbox filled up goes through, and there is room.
    bench.clock.advance(millis(10_000));
    assert_eq!(waiting.await.unwrap().unwrap().reply, 4);
    assert_eq!(accounts.stats().mailbox_high_water, 2);
}

#[tokio::test]
async fn a_deadline_that_passes_behind_the_mailbox_leaves_the_command_to_take_effect_once() {
    let bench = Bench::new();
    let options = EntityOptions::new().with_deadline(millis(1_000)).with_idle(None);
    let accounts = bench.entities::<factum_testing::bank::Account>(options);
    accounts.ask("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(5_000)));
    let waiting = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.ask("ada", DEPOSIT).await }
    });
    bench.clock.until_sleeping(2).await;
    bench.clock.advance(millis(1_000));
    let late = waiting.await.unwrap();
    assert!(matches!(late, Err(AskError::Failed(EntityError::Deadline(_)))), "{late:?}");
    bench.clock.until_sleeping(1).await;
    bench.clock.advance(millis(4_000));
    assert_eq!(accounts.state("ada").await.unwrap().state.balance_cents, 1);
    assert_eq!(bench.balance("ada").await, (1, 2));
}

#[tokio::test]
async fn a_key_that_no_stream_can_have_is_an_error() {
    let accounts = Bench::new().accounts();
    let refused = accounts.ask("", DEPOSIT).await;
    assert!(matches!(refused, Err(AskError::Failed(EntityError::Load(_)))), "{refused:?}");
}
