//! The code of the chapter *Entities*.

use std::{error::Error, sync::Arc, time::Duration};

use factum::{
    App, AskError, At, CommandId, Entities, EntityError, EntityOptions, MemoryStore, Metadata,
    OtherWriters, Restart, SnapshotPolicy, Stores, SystemClock, TagKey, Worker,
};
use factum_testing::{
    Fault, FaultRates, FaultyStore,
    bank::{Account, AccountCommand, AccountRejection},
};

type Done = Result<(), Box<dyn Error>>;

async fn bank() -> Result<App, Box<dyn Error>> {
    let app = App::open("memory:").await?;
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    app.entities::<Account>().ask("ada", open).await?;
    Ok(app)
}

#[tokio::test]
async fn asking() -> Done {
    let app = bank().await?;
    let accounts = app.entities::<Account>();
    let done = accounts.ask("ada", AccountCommand::Deposit { cents: 500 }).await?;
    println!("version {}, events {:?}", done.version, done.events);

    let withdraw = AccountCommand::Withdraw { cents: 200 };
    let done = accounts.ask_for("ada", withdraw, |ada| ada.balance_cents).await?;
    assert_eq!(done.reply, 300);

    accounts.tell("ada", AccountCommand::Deposit { cents: 1 })?;
    let ada = accounts.state("ada").await?;
    assert_eq!((ada.state.balance_cents, ada.version.value()), (301, 4));
    let balance = accounts.look("ada", |ada, _| ada.balance_cents).await?;
    assert_eq!(balance, 301);

    let was = accounts.state_at("ada", At::Version(done.version)).await?;
    let entries = accounts.history("ada")?.collect().await?;
    assert_eq!((was.state.balance_cents, entries.len()), (300, 4));

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

    let accounts = app.aggregate::<Account>().with_snapshots(SnapshotPolicy::production())?;
    let accounts = Entities::new(accounts, options.with_other_writers(OtherWriters::None));
    assert_eq!(accounts.state("ada").await?.version.value(), 0);
    app.consumers().close().await;
    accounts.shutdown(Duration::from_secs(30)).await;
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn asking_once() -> Done {
    let app = bank().await?;
    let accounts = app.entities::<Account>();
    let id = CommandId::derived(b"ada/order-17");
    for replayed in [false, true] {
        let deposit = AccountCommand::Deposit { cents: 500 };
        let done = accounts.ask_once("ada", id, deposit, Metadata::new()).await?;
        assert_eq!((done.version.value(), done.replayed), (2, replayed));
    }
    Ok(())
}

#[tokio::test]
async fn seeing_what_went_wrong() -> Done {
    let app = bank().await?;
    let accounts = app.entities::<Account>();
    match accounts.ask("ada", AccountCommand::Withdraw { cents: 800 }).await {
        Ok(done) => println!("done at version {}", done.version),
        // A value of your domain: tell the customer.
        Err(AskError::Rejected(AccountRejection::InsufficientFunds { balance_cents })) => {
            println!("there are only {balance_cents} cents");
        }
        Err(AskError::Rejected(no)) => println!("{no}"),
        // Nothing happened: slow down.
        Err(AskError::Failed(EntityError::Busy(_))) => println!("try later"),
        // Every other sentence says what is known of the outcome.
        Err(AskError::Failed(error)) => println!("{error}"),
    }
    Ok(())
}

#[tokio::test]
async fn caring() -> Done {
    let app = bank().await?;
    let accounts = app.entities::<Account>();
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
    let accounts = app.entities::<Account>();
    assert_eq!(accounts.state("ada").await?.version.value(), 0);
    assert_eq!(app.stats().total.resident, 1);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn working_beside() -> Done {
    let app = bank().await?;
    let accounts = app.entities::<Account>();
    app.supervisor().add(Worker::new("interest", move |cx| {
        let accounts = accounts.clone();
        async move {
            let night = Duration::from_secs(86_400);
            while cx.until_stopping(cx.clock().sleep(night)).await.is_some() {
                accounts.ask("ada", AccountCommand::Deposit { cents: 1 }).await?;
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
    let accounts = app.entities::<Account>();
    let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    accounts.ask("ada", open).await?;

    faulty.next_append(Fault::DropReply);
    let deposit = AccountCommand::Deposit { cents: 500 };
    let done = accounts.ask_for("ada", deposit, |ada| ada.balance_cents).await?;
    assert_eq!((done.reply, done.version.value()), (500, 2));
    Ok(())
}
