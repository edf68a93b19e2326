//! Commands by their names and JSON.

use factum::{
    App, CommandId, ErrorKind, Metadata, SendError, aggregate::UnreadableCommand,
    event::StreamVersion, sentence,
};
use factum_testing::bank::{Account, AccountCommand, AccountRejection};

use crate::send::{events, open};

async fn bank() -> App {
    let app = App::builder().commands::<Account>().open("memory:").await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    app
}

const DEPOSIT: &str = r#"{"cents": 5}"#;

#[tokio::test]
async fn a_command_by_name_is_the_command() {
    let app = bank().await;
    let id = CommandId::derived("1", "deposit");
    let deposit = || app.command_json("account", "ada", "account.deposit", DEPOSIT).once(id);
    let done = deposit().with_metadata(Metadata::new().with_user("ada")).await.unwrap();
    assert_eq!((done.version.value(), done.position.unwrap().value()), (2, 2));
    assert_eq!((done.events, done.replayed), (vec!["account.deposited".to_owned()], false));
    let history = app.aggregate::<Account>().history("ada").unwrap().collect().await.unwrap();
    assert_eq!(history[1].recorded.metadata().user.as_deref(), Some("ada"));
    // An id identifies one command, whichever way it is sent.
    let typed = app.command::<Account>("ada", AccountCommand::Deposit { cents: 5 }).once(id).await;
    assert!(typed.unwrap().replayed);
    assert!(deposit().await.unwrap().replayed);
    let stale = app.command_json("account", "ada", "account.deposit", DEPOSIT);
    let stale = stale.expecting(StreamVersion::new(1)).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let unknown = app.command_json("account", "ada", "account.deposit", DEPOSIT);
    assert!(matches!(unknown.seen_by("males").await, Err(SendError::NotSent(_))));
    let no = app.command_json("account", "bob", "account.deposit", DEPOSIT).await.unwrap_err();
    let no = no.rejection().unwrap();
    assert_eq!(no.downcast_ref(), Some(&AccountRejection::NotOpen));
    assert_eq!(no.to_string(), AccountRejection::NotOpen.to_string());
}

#[tokio::test]
async fn what_is_no_command_is_one_sentence_with_its_remedy() {
    let app = bank().await;
    let told = |category: &'static str, name: &'static str, json: &'static str| {
        let app = app.clone();
        async move {
            let told = app.command_json(category, "ada", name, json).await.unwrap_err();
            assert_eq!(told.kind(), ErrorKind::Invalid);
            let text = sentence(&told);
            let SendError::Unreadable(error) = told else { panic!("{told:?}") };
            (error, text)
        }
    };
    let (error, text) = told("acount", "account.deposit", DEPOSIT).await;
    assert_eq!(error, UnreadableCommand::UnknownCategory("acount".into()));
    assert_eq!(
        text,
        "no aggregate of this category takes commands by name, name it with \
         AppBuilder::commands: category=\"acount\""
    );
    let (error, text) = told("account", "account.depose", DEPOSIT).await;
    assert!(matches!(error, UnreadableCommand::UnknownName { .. }));
    assert_eq!(
        text,
        "the aggregate has no such command, use one of account.open, account.deposit, \
         account.withdraw, account.send, account.receive: category=account name=\"account.depose\""
    );
    for (json, reason) in [
        ("{}", "missing field `cents`"),
        ("", "missing field `cents`"),
        ("{\"cents\": -5}", "invalid value: integer `-5`, expected u64"),
        ("{\"cents\": 5} x", "trailing characters"),
        ("cents", "expected value"),
        ("5", "invalid type: integer `5`, expected the fields of account.deposit"),
        ("[5]", "invalid type: sequence, expected the fields of account.deposit"),
        (r#"{"cents": 5, "currency": "USD"}"#, "unknown field `currency`, expected `cents`"),
    ] {
        let (error, text) = told("account", "account.deposit", json).await;
        assert!(matches!(error, UnreadableCommand::Malformed { .. }));
        let begin =
            format!("the JSON does not match the fields of the command, correct it: {reason}");
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.ends_with("name=account.deposit"), "{text}");
    }
    assert_eq!(events(&app).await, 1);
    // The entity refuses an invalid key.
    let key = app.command_json("account", "", "account.deposit", DEPOSIT).await.unwrap_err();
    assert_eq!(key.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn only_aggregates_whose_commands_are_named_take_them_by_name() {
    let app = App::builder().aggregate::<Account>().open("memory:").await.unwrap();
    let told = app.command_json("account", "ada", "account.deposit", DEPOSIT).await;
    assert!(matches!(told, Err(SendError::Unreadable(UnreadableCommand::UnknownCategory(_)))));
}
