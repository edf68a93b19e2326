//! The code of the chapter *Entities*.

use std::{error::Error, sync::Arc, time::Duration};

use factum::{
    AggregateOptions, App, At, CommandId, EntityOptions, ErrorKind, Metadata, SendError,
    SnapshotPolicy, TagKey, Worker,
    event::StreamVersion,
    memory::MemoryStore,
    runtime::{OtherWriters, Restart},
    sentence,
    store::{Stores, SystemClock},
};
use factum_testing::{
    Fault, FaultRates, FaultyStore,
    bank::{Account, AccountCommand, AccountRejection},
};

type Done = Result<(), Box<dyn Error>>;

async fn bank() -> Result<App, Box<dyn Error>> {
    let app = App::open("memory:").await?;
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.command::<Account>("ada", open).await?;
    Ok(app)
}

#[tokio::test]
async fn asking() -> Done {
    let app = bank().await?;
    let deposit = AccountCommand::Deposit { cents: 500 };
    let done = app.command::<Account>("ada", deposit).await?;
    println!("version {}, events {:?}", done.version, done.events);

    let withdraw = AccountCommand::Withdraw { cents: 200 };
    let done = app
        .command::<Account>("ada", withdraw)
        .with_metadata(Metadata::new().with_user("ada"))
        .expecting(done.version)
        .reply(|ada| ada.balance_cents)
        .await?;
    assert_eq!(done.reply, 300);

    let accounts = app.aggregate::<Account>();
    let ada = accounts.state("ada").await?;
    assert_eq!((ada.state.balance_cents, ada.version.value()), (300, 3));
    let balance = accounts.look("ada", |ada, _| ada.balance_cents).await?;
    assert_eq!(balance, 300);

    let was = accounts.load_at("ada", At::Version(StreamVersion::new(2))).await?;
    let entries = accounts.history("ada")?.collect().await?;
    assert_eq!((was.state.balance_cents, entries.len()), (500, 3));

    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn choosing() -> Done {
    let options = EntityOptions::new()
        .with_idle(Duration::from_secs(60))
        .with_weight_max(64 << 20)
        .with_mailbox_max(100)
        .with_deadline(Duration::from_secs(5))
        .with_restart(Restart::new().with_deaths_max(3, Duration::from_secs(60)));
    let app = App::builder().with_entities(options).open("memory:").await?;

    app.close().await?;

    let accounts = AggregateOptions::<Account>::new()
        .with_snapshots(SnapshotPolicy::production())?
        .with_entities(options.with_other_writers(OtherWriters::None));
    let app = App::builder().aggregate_with(accounts).open("memory:").await?;
    assert_eq!(app.aggregate::<Account>().state("ada").await?.version.value(), 0);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn asking_once() -> Done {
    let app = bank().await?;
    let id = CommandId::derived("order-17", "deposit");
    for replayed in [false, true] {
        let deposit = AccountCommand::Deposit { cents: 500 };
        let done = app.command::<Account>("ada", deposit).once(id).await?;
        assert_eq!((done.version.value(), done.replayed), (2, replayed));
    }
    Ok(())
}

#[tokio::test]
async fn asking_by_name() -> Done {
    let app = App::builder().commands::<Account>().open("memory:").await?;
    let open = r#"{"owner": "Ada", "email": "ada@example.org"}"#;
    let opened = app.command_json("account", "ada", "account.open", open).await?;
    assert_eq!((opened.version.value(), opened.events), (1, vec!["account.opened".into()]));
    Ok(())
}

#[tokio::test]
async fn seeing_what_went_wrong() -> Done {
    let app = bank().await?;
    match app.command::<Account>("ada", AccountCommand::Withdraw { cents: 800 }).await {
        Ok(done) => println!("done at version {}", done.version),
        // A rejection is a value of your domain: show it to the customer.
        Err(SendError::Rejected(AccountRejection::InsufficientFunds { balance_cents })) => {
            println!("there are only {balance_cents} cents");
        }
        Err(SendError::Rejected(no)) => println!("{no}"),
        // The command took no effect: send at a lower rate.
        Err(error) if error.kind() == ErrorKind::Unavailable => println!("try later"),
        // Every other error tells what is known about the outcome.
        Err(error) => println!("{}", sentence(&error)),
    }
    Ok(())
}

#[tokio::test]
async fn caring() -> Done {
    let app = bank().await?;
    let accounts = app.aggregate::<Account>();
    for dead in accounts.quarantined() {
        println!("{}: {}", dead.stream, dead.cause);
        accounts.release(dead.stream.key())?;
    }
    let stats = accounts.stats();
    println!("{} in memory, {} loads", stats.resident, stats.loads);
    if let Some(ada) = accounts.entity("ada")? {
        println!("{:?}, {} messages wait", ada.status, ada.queued);
    }
    assert_eq!((stats.resident, stats.quarantined), (1, 0));
    Ok(())
}

#[tokio::test]
async fn being_seen_by_other_processes() -> Done {
    let app = App::builder().with_stats_every(Duration::from_secs(5)).open("memory:").await?;
    let accounts = app.aggregate::<Account>();
    assert_eq!(accounts.state("ada").await?.version.value(), 0);
    assert_eq!(app.stats().total.resident, 1);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn working_beside() -> Done {
    let app = bank().await?;
    let bank = app.clone();
    app.supervisor().add(Worker::new("interest", move |cx| {
        let app = bank.clone();
        async move {
            let night = Duration::from_secs(86_400);
            while cx.until_stopping(cx.clock().sleep(night)).await.is_some() {
                app.command::<Account>("ada", AccountCommand::Deposit { cents: 1 }).await?;
            }
            Ok(())
        }
    }))?;
    assert_eq!(&*app.supervisor().health()[0].name, "interest");
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn a_lost_reply_is_repeated_and_the_deposit_is_there_once() -> Done {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SystemClock);
    let faulty = Arc::new(FaultyStore::new(store.clone(), 1, FaultRates::none(), clock));
    let stores = Stores { events: faulty.clone(), documents: store };
    let app = App::builder().with_tag_key(TagKey::new([1; 32])).open_stores(stores).await?;
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.command::<Account>("ada", open).await?;

    faulty.next_append(Fault::DropReply);
    let deposit = AccountCommand::Deposit { cents: 500 };
    let done = app.command::<Account>("ada", deposit).reply(|ada| ada.balance_cents).await?;
    assert_eq!((done.reply, done.version.value()), (500, 2));
    Ok(())
}
