//! The code of the chapter *Consistency*.

use std::{error::Error, time::Duration};

use factum::{
    App, CommandId, Consumer, Documents, Fold, ProjectionFn, ReadModel, RecordedEvent, SendError,
    projection::{Freshness, Stale},
    runtime::{CommandError, EntityError},
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};

type Done = Result<(), Box<dyn Error>>;

fn open(owner: &str) -> AccountCommand {
    AccountCommand::Open { owner: owner.into(), email: format!("{owner}@example.org") }
}

#[tokio::test]
async fn reading_what_one_has_written() -> Done {
    let app = App::open("memory:").await?;
    let owners =
        ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, owners| match event {
            AccountEvent::Opened { owner, .. } => owners.put(recorded.stream().key(), &owner),
            _ => Ok(()),
        });
    let owners = app.project_fn(owners).await?;

    let opened = app.command::<Account>("a1", open("ada")).await?;
    let position = opened.position.expect("it was not open before");
    owners.wait_for(position, Duration::from_secs(5)).await?;
    assert_eq!(owners.read_model::<String>().get("a1").await?.as_deref(), Some("ada"));

    // In any process, only the name is needed.
    let owners = ReadModel::<String>::new(app.kernel(), "owners")?;
    let wait = Duration::from_secs(1);
    match owners.wait_for(position, wait, Stale::Serve).await? {
        Freshness::Fresh => println!("{:?}", owners.get("a1").await?),
        Freshness::Stale => println!("{:?}, perhaps not the last", owners.get("a1").await?),
    }
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn an_answer_that_read_models_have_seen() -> Done {
    let app = App::open("memory:").await?;
    let owners =
        ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, owners| match event {
            AccountEvent::Opened { owner, .. } => owners.put(recorded.stream().key(), &owner),
            _ => Ok(()),
        });
    let owners = app.project_fn(owners).await?;
    let total = Fold::new("total", 1, |total: &mut u64, event, _| {
        if let AccountEvent::Deposited { cents } = event {
            *total += cents;
        }
    });
    let total = app.fold(total).await?;

    let opened = app.command::<Account>("a1", open("ada")).seen_by("owners").await?;
    assert_eq!(opened.version.value(), 1);
    assert_eq!(owners.read_model::<String>().get("a1").await?.as_deref(), Some("ada"));

    let deposit = AccountCommand::Deposit { cents: 500 };
    let wait = Duration::from_secs(2);
    match app
        .command::<Account>("a1", deposit)
        .seen_by("owners")
        .seen_by("total")
        .within(wait)
        .await
    {
        Ok(_) => println!("the page shows {}", *total.read().await?),
        Err(SendError::Unseen { position, error }) => {
            println!("stored at {position:?}, and the page follows: {error}");
        }
        Err(error) => return Err(error.into()),
    }
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn a_command_for_each_event_takes_effect_once() -> Done {
    let app = App::open("memory:").await?;
    let bonus = Consumer::new("bonus", {
        let app = app.clone();
        move |event: AccountEvent, recorded: RecordedEvent| {
            let app = app.clone();
            async move {
                if let AccountEvent::Opened { .. } = event {
                    let id = CommandId::derived(recorded.id(), "welcome-bonus");
                    let deposit = AccountCommand::Deposit { cents: 10 };
                    let key = recorded.stream().key();
                    app.command::<Account>(key, deposit).once(id).await?;
                }
                Ok(())
            }
        }
    });
    // Another policy reacts to the same event, with a command for the same account.
    let gift = Consumer::new("gift", {
        let app = app.clone();
        move |event: AccountEvent, recorded: RecordedEvent| {
            let app = app.clone();
            async move {
                if let AccountEvent::Opened { .. } = event {
                    let id = CommandId::derived(recorded.id(), "gift-of-the-month");
                    let deposit = AccountCommand::Deposit { cents: 5 };
                    let key = recorded.stream().key();
                    app.command::<Account>(key, deposit).once(id).await?;
                }
                Ok(())
            }
        }
    });
    let bonus = app.consumers().start(bonus).await?;
    let gift = app.consumers().start(gift).await?;

    let opened = app.command::<Account>("ada", open("ada")).await?;
    let wait = Duration::from_secs(60);
    for policy in [bonus, gift] {
        policy.wait_for(opened.position.unwrap_or_default(), wait).await?;
    }
    assert_eq!(app.load::<Account>("ada").await?.state.balance_cents, 15);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn an_id_names_one_command() -> Done {
    let app = App::open("memory:").await?;
    app.command::<Account>("ada", open("ada")).await?;
    let id = CommandId::derived("order-17", "deposit");
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 5 }).once(id).await?;

    let other = AccountCommand::Withdraw { cents: 5 };
    let refused = app.command::<Account>("ada", other).once(id).await;
    let Err(SendError::Failed(CommandError::Entity(EntityError::IdTaken(taken)))) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(taken.stored[0].to_string(), "account.deposit on account-ada");
    assert_eq!(taken.sent[0].to_string(), "account.withdraw on account-ada");
    Ok(())
}
