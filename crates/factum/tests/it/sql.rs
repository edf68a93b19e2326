//! Handlers that use a SQL database of their own.

use std::{fs, time::Duration};

use factum::{
    App, Consumer, ConsumerOptions, HandleError, RecordedEvent,
    consumer::{ConsumerHealth, ConsumerState, FailurePolicy},
    projection::SqliteTarget,
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

/// A consumer's target tells nothing of it here: only the driver's error does.
#[tokio::test]
async fn an_outage_of_a_database_of_the_handlers_own_is_no_attempt() {
    let app = App::open("memory:").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mails.db");
    let mails = SqliteTarget::new(&path);
    let mails = Consumer::new("mails", move |_: AccountEvent, _: RecordedEvent| {
        let opened = mails.reader().map(drop);
        async move { Ok::<(), HandleError>(opened?) }
    });
    let pause = Duration::from_millis(1);
    let failure = FailurePolicy::new().with_retries_max(0).with_pause(pause, pause);
    let mails = mails.with_options(ConsumerOptions::new().with_failure(failure));
    let mails = app.consumers().start(mails).await.unwrap();

    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    let opened = app.command::<Account>("ada", open).await.unwrap().position.unwrap();
    let is_over = |it: &ConsumerHealth| match it.state {
        ConsumerState::Retrying { position: None, attempts, .. } => attempts >= 5,
        // It has given the event up, which the caller sees.
        _ => it.parked > 0,
    };
    mails.watch().wait_for(is_over).await.unwrap();
    fs::write(&path, "").unwrap();
    mails.wait_for(opened, Duration::from_secs(60)).await.unwrap();
    assert_eq!(mails.dead_letters().await, []);
    app.close().await.unwrap();
}
