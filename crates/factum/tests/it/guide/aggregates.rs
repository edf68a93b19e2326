//! The code of the chapter *Aggregates*.

use std::{convert::Infallible, error::Error};

use factum::{
    Aggregate, AggregateOptions, App, At, Context, Event, ExpectedVersion, Matching, Metadata,
    OldEvent, ReadQuery, RetryPolicy, SendError, SnapshotPolicy, Upcast, Verdict,
    event::StreamVersion,
};
use factum_testing::{
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
    given,
};

fn open(name: &str) -> AccountCommand {
    AccountCommand::Open { owner: name.into(), email: format!("{name}@example.org") }
}

type Done = Result<(), Box<dyn Error>>;

async fn bank() -> Result<App, Box<dyn Error>> {
    let app = App::open("memory:").await?;
    for name in ["ada", "bob"] {
        app.command::<Account>(name, open(name)).await?;
    }
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 500 }).await?;
    Ok(app)
}

#[tokio::test]
async fn executing() -> Done {
    let app = bank().await?;
    let withdraw = AccountCommand::Withdraw { cents: 200 };
    let done = app.command::<Account>("ada", withdraw).await?;
    assert_eq!(done.events, [AccountEvent::Withdrawn { cents: 200 }]);
    assert_eq!(done.version, StreamVersion::new(3));

    match app.command::<Account>("ada", AccountCommand::Withdraw { cents: 900 }).await {
        Ok(done) => println!("done at version {}", done.version),
        Err(SendError::Rejected(no)) => println!("{no}"),
        Err(error) => eprintln!("later: {error}"),
    }
    Ok(())
}

#[tokio::test]
async fn transferring() -> Done {
    let app = bank().await?;
    let transferred = app
        .transaction()
        .command::<Account>("ada", AccountCommand::Send { to: "bob".into(), cents: 100 })
        .command::<Account>("bob", AccountCommand::Receive { from: "ada".into(), cents: 100 })
        .with_metadata(Metadata::new().with_user("ada"))
        .await?;
    assert_eq!(
        (transferred.events, transferred.version::<Account>("ada")),
        (2, Some(StreamVersion::new(3)))
    );
    let bob = transferred.state::<Account>("bob").expect("it is a step");
    assert_eq!(bob.balance_cents, 100);

    let much = AccountCommand::Send { to: "bob".into(), cents: 9_000 };
    let refused = app.transaction().command::<Account>("ada", much).await;
    let Err(SendError::Rejected(no)) = refused else { panic!("{refused:?}") };
    let no: &AccountRejection = no.downcast_ref().expect("the step was an account's");
    assert_eq!(*no, AccountRejection::InsufficientFunds { balance_cents: 400 });
    Ok(())
}

#[tokio::test]
async fn looking_back() -> Done {
    let app = bank().await?;
    let accounts = app.aggregate::<Account>();
    let was = accounts.load_at("ada", At::Version(StreamVersion::new(1))).await?;
    assert_eq!(was.state.balance_cents, 0);

    let mut history = accounts.history("ada")?;
    while let Some(entry) = history.next().await {
        let entry = entry?;
        println!("{} {:?}", entry.recorded.recorded_at(), entry.events);
    }
    Ok(())
}

#[tokio::test]
async fn choosing() -> Done {
    let options = AggregateOptions::<Account>::new();
    let app = App::builder()
        .with_retry(RetryPolicy::new().with_conflicts_max(100))
        .aggregate_with(options.with_snapshots(SnapshotPolicy::production())?)
        .open("memory:")
        .await?;
    let accounts = app.aggregate::<Account>();
    for name in ["ada", "bob"] {
        app.command::<Account>(name, open(name)).await?;
    }

    accounts.summarise("ada", &Metadata::new()).await?;
    accounts.delete("bob", ExpectedVersion::Any).await?;
    assert_eq!(accounts.load("ada").await?.state.owner, "ada");
    Ok(())
}

#[derive(Debug, PartialEq, Event)]
enum OrderEvent {
    #[event(schema_version = 2, upcast(from = 1, with = name_the_currency))]
    Placed { cents: u64, currency: String },
}

/// Version 1 had only euros.
fn name_the_currency(mut old: OldEvent) -> Result<Upcast, String> {
    old.set("currency", "EUR");
    Ok(old.next())
}

/// The order events of the earlier program.
mod before {
    use super::{Aggregate, Context, Infallible, Verdict};

    #[derive(Debug, factum::Event)]
    pub(super) enum OrderEvent {
        Placed { cents: u64 },
    }

    #[derive(Debug, Default)]
    pub(super) struct Order;

    impl Aggregate for Order {
        const CATEGORY: &'static str = "order";
        type Command = u64;
        type Event = OrderEvent;
        type Rejection = Infallible;

        fn decide(&self, cents: &u64, _: &Context<'_>) -> Verdict<Self> {
            Ok([OrderEvent::Placed { cents: *cents }].into())
        }

        fn evolve(&mut self, _: &OrderEvent) {}
    }
}

#[tokio::test]
async fn an_old_event_is_read_as_the_new_one() -> Done {
    let app = App::open("memory:").await?;
    app.command::<before::Order>("17", 5).await?;
    let placed = app.read(ReadQuery::log()).next().await.expect("it was placed")?;
    let placed = placed.decode::<OrderEvent>()?;
    assert_eq!(placed, [OrderEvent::Placed { cents: 5, currency: "EUR".into() }]);
    Ok(())
}

#[test]
fn rules() {
    let opened = AccountEvent::Opened { owner: "Ada".into(), email: "ada@example.org".into() };
    given::<Account>([opened])
        .when(AccountCommand::Deposit { cents: 500 })
        .then([AccountEvent::Deposited { cents: 500 }])
        .state(|ada| assert_eq!(ada.balance_cents, 500))
        .when(AccountCommand::Withdraw { cents: 700 })
        .rejected(AccountRejection::InsufficientFunds { balance_cents: 500 });
}

#[test]
fn guards() {
    let taken = Matching::hashed_tag("email", "ada@example.org");
    given::<Account>([])
        .when(open("ada"))
        .then([AccountEvent::Opened { owner: "ada".into(), email: "ada@example.org".into() }])
        .guarded(taken, AccountRejection::EmailTaken);
}
