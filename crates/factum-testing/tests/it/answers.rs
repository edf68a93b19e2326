//! The checker of answers: for each way in which an answer can be wrong, a wrong answer.

use std::sync::Arc;

use factum_kernel::{Kernel, Position, Repository, StreamVersion, SystemClock, TagKey};
use factum_testing::{
    Answer, AnswerSummary, Answers,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
    conformance::{Setup, Subject},
};

use crate::toy::{Flaw, ToySubject};

/// An account with an opening and deposits of 1, 2 and 3 cents: versions and positions 1 to 4.
async fn bank() -> (Repository<Account>, Answers<Account>) {
    let setup = Setup::new(Arc::new(SystemClock));
    let stores = ToySubject::new(Flaw::None).open(&setup).await.unwrap();
    let answers = Answers::new(stores.events.clone());
    let kernel = Kernel::new(stores.events, stores.documents).with_tag_key(TagKey::new([1; 32]));
    let accounts = Repository::new(kernel);
    accounts.execute("ada", &open()).await.unwrap();
    for cents in 1..=3 {
        accounts.execute("ada", &AccountCommand::Deposit { cents }).await.unwrap();
    }
    (accounts, answers)
}

fn open() -> AccountCommand {
    AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() }
}

fn ada(balance_cents: u64) -> Account {
    Account { owner: "Ada".into(), email: "ada@example.org".into(), balance_cents }
}

/// The answer to a deposit of this amount: by default it is entirely right for a fifth event.
fn deposited(cents: u64, version: u64, position: u64, balance: u64) -> Answer<Account> {
    Answer::Done {
        command: AccountCommand::Deposit { cents },
        version: StreamVersion::new(version),
        position: Some(Position::new(position)),
        events: vec![AccountEvent::Deposited { cents }],
        state: ada(balance),
    }
}

fn rejected(cents: u64, balance_cents: u64) -> Answer<Account> {
    let rejection = AccountRejection::InsufficientFunds { balance_cents };
    Answer::Rejected { command: AccountCommand::Withdraw { cents }, rejection }
}

fn seen(version: u64, balance_cents: u64) -> Answer<Account> {
    Answer::Seen { version: StreamVersion::new(version), state: ada(balance_cents) }
}

/// The check's result for answers to a call during which four cents are deposited: version 5, ten
/// cents.
async fn check(given: impl IntoIterator<Item = Answer<Account>>) -> Result<AnswerSummary, String> {
    let (accounts, answers) = bank().await;
    for (count, answer) in given.into_iter().enumerate() {
        let call = answers.call("ada").await.unwrap();
        if count == 0 {
            accounts.execute("ada", &AccountCommand::Deposit { cents: 4 }).await.unwrap();
        }
        answers.answered(call, answer).await.unwrap();
    }
    answers.check().await.map_err(|contradiction| contradiction.to_string())
}

async fn refused(answer: Answer<Account>, text: &str) {
    let said = check([answer]).await.unwrap_err();
    assert!(said.starts_with(text) && said.contains("stream=account-ada"), "{said}");
}

#[tokio::test]
async fn right_answers_are_summed_up() {
    let taken = Answer::Rejected { command: open(), rejection: AccountRejection::AlreadyOpen };
    let all = [deposited(4, 5, 5, 10), taken, rejected(11, 10), seen(5, 10)];
    let mut wanted = AnswerSummary::default();
    (wanted.stored, wanted.events, wanted.rejected) = (1, 1, 2);
    (wanted.seen, wanted.untold) = (1, 4);
    assert_eq!(check(all).await, Ok(wanted));
    // Either end of the time between call and answer is right.
    for answer in [rejected(7, 6), rejected(11, 10), seen(4, 6), seen(5, 10)] {
        check([answer]).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_told_to_be_stored_must_be_there() {
    refused(deposited(4, 5, 4, 10), "not stored as told: its position").await;
    let mut other = deposited(4, 5, 5, 10);
    let Answer::Done { events, .. } = &mut other else { unreachable!() };
    events[0] = AccountEvent::Deposited { cents: 5 };
    refused(other, "not stored as told: its events").await;
    refused(deposited(4, 6, 6, 10), "too early: version 6 was told, only 5").await;
    refused(deposited(4, 5, 5, 11), "another state").await;
    // It is stored, but before the call.
    refused(deposited(3, 4, 4, 6), "stale: version 3 was told, 4 was stored before").await;
}

#[tokio::test]
async fn one_event_is_told_to_one_caller() {
    let (accounts, answers) = bank().await;
    let calls = [answers.call("ada").await.unwrap(), answers.call("ada").await.unwrap()];
    accounts.execute("ada", &AccountCommand::Deposit { cents: 4 }).await.unwrap();
    for call in calls {
        answers.answered(call, deposited(4, 5, 5, 10)).await.unwrap();
    }
    let said = answers.check().await.unwrap_err().to_string();
    assert_eq!(said, "told twice: two callers have one event: stream=account-ada version=5");
}

#[tokio::test]
async fn events_must_follow_from_the_state_before_them() {
    let mut other = deposited(4, 5, 5, 10);
    let Answer::Done { command, .. } = &mut other else { unreachable!() };
    *command = AccountCommand::Withdraw { cents: 4 };
    refused(other, "unfounded: no version from 4 to 4 leads to its events").await;
}

#[tokio::test]
async fn a_state_is_neither_older_than_the_call_nor_newer_than_the_log() {
    refused(seen(3, 3), "stale: version 3 was told, 4 was stored before the call").await;
    refused(seen(6, 11), "too early: version 6 was told, only 5 was stored").await;
    refused(seen(4, 10), "another state").await;
}

#[tokio::test]
async fn a_rejection_must_have_been_right_at_some_moment() {
    refused(rejected(4, 3), "unfounded: no version from 4 to 5 leads to the rejection").await;
    refused(rejected(5, 10), "unfounded").await;
    // By a guard, so the rules can't confirm it.
    let (_, answers) = bank().await;
    let call = answers.call("bob").await.unwrap();
    let taken = Answer::Rejected { command: open(), rejection: AccountRejection::EmailTaken };
    answers.answered(call, taken).await.unwrap();
    assert_eq!(answers.check().await.unwrap().guarded, 1);
}

#[tokio::test]
async fn nothing_to_do_must_have_been_nothing_to_do() {
    let nothing = |command, position: Option<u64>| Answer::Done {
        command,
        version: StreamVersion::new(5),
        position: position.map(Position::new),
        events: vec![],
        state: ada(10),
    };
    let deposit = AccountCommand::Deposit { cents: 4 };
    refused(nothing(deposit.clone(), None), "unfounded: no version from 5 to 5 leads").await;
    refused(nothing(deposit, Some(5)), "not stored as told: its position").await;
}
