//! The code of the chapter *Projections*.

use std::{error::Error, time::Duration};

use factum::{
    Aggregate, App, Consumer, ConsumerOptions, Documents, DocumentsTx, Fold, HandleError, Index,
    IndexRange, Matching, ModelQuery, Position, Projection, ProjectionFn, RecordedEvent,
    consumer::{Partitions, StartFrom},
    projection::{LiveState, ModelChange},
};
use factum_testing::bank::{Account, AccountCommand, AccountEvent};
use serde::{Deserialize, Serialize};

type Done = Result<(), Box<dyn Error>>;

const WAIT: Duration = Duration::from_secs(30);

/// An account in the list of accounts.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Row {
    owner: String,
    cents: u64,
}

struct AccountList;

impl Projection for AccountList {
    const NAME: &'static str = "account-list";
    const CATEGORIES: &[&str] = &[Account::CATEGORY];
    type Event = AccountEvent;
    type Target = Documents;

    fn declare(&self, documents: Documents) -> Documents {
        documents
            .with_index(Index::new("owner", |row: &Row| [row.owner.as_str().into()]))
            .with_index(Index::new("balance", |row: &Row| [row.cents.into()]))
            .with_index(Index::new("rich", |row: &Row| [(row.owner.as_str(), row.cents).into()]))
    }

    async fn project(
        &self,
        event: AccountEvent,
        recorded: &RecordedEvent,
        rows: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        let change = |row: &mut Row| match event {
            AccountEvent::Opened { owner, .. } => row.owner = owner,
            AccountEvent::Deposited { cents } | AccountEvent::Received { cents, .. } => {
                row.cents += cents;
            }
            AccountEvent::Withdrawn { cents } | AccountEvent::Sent { cents, .. } => {
                row.cents -= cents;
            }
            AccountEvent::Summarised { owner, balance_cents, .. } => {
                *row = Row { owner, cents: balance_cents };
            }
        };
        rows.update(recorded.stream().key(), change).await
    }

    async fn forget(
        &self,
        deletion: &RecordedEvent,
        rows: &mut DocumentsTx,
    ) -> Result<(), HandleError> {
        rows.remove(deletion.stream().key());
        Ok(())
    }
}

/// Opens accounts with these balances. Returns the last position.
async fn open(app: &App, accounts: &[(&str, u64)]) -> Result<Position, Box<dyn Error>> {
    let mut last = Position::ZERO;
    for (owner, cents) in accounts {
        let email = format!("{owner}@example.org");
        let open = AccountCommand::Open { owner: (*owner).into(), email };
        app.command::<Account>(owner, open).await?;
        let deposit = AccountCommand::Deposit { cents: *cents };
        let done = app.command::<Account>(owner, deposit).await?;
        last = done.position.expect("a deposit is an event");
    }
    Ok(last)
}

#[tokio::test]
async fn a_closure_is_enough() -> Done {
    let app = App::open("memory:").await?;
    let total = Fold::new("total", 1, |total: &mut u64, event, _| {
        if let AccountEvent::Deposited { cents } = event {
            *total += cents;
        }
    });
    let total = app.fold(total).await?;

    let deposited = open(&app, &[("ada", 500)]).await?;
    total.wait_for(deposited, Duration::from_secs(5)).await?;
    assert_eq!(*total.read().await?, 500);

    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn querying() -> Done {
    let app = App::open("memory:").await?;
    let accounts = app.project(AccountList).await?;
    let last = open(&app, &[("ada", 500), ("bob", 70), ("eve", 900)]).await?;
    accounts.wait_for(last, WAIT).await?;

    let rows = accounts.read_model::<Row>();
    let ada = rows.get("ada").await?.expect("she has an account");
    assert_eq!((ada.owner.as_str(), ada.cents), ("ada", 500));

    let adas = ModelQuery::index("owner", IndexRange::equal("ada"));
    assert_eq!(rows.list(adas).await?.documents.len(), 1);
    let rich = ModelQuery::index("balance", IndexRange::within(100_u64..)).backward();
    let keys: Vec<_> = rows.list(rich).await?.documents.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["eve", "ada"]);

    let rich_adas = ModelQuery::index("rich", IndexRange::within(100_u64..).under("ada"));
    assert_eq!(rows.list(rich_adas).await?.documents.len(), 1);
    let with_a = ModelQuery::index("owner", IndexRange::beginning("a"));
    assert_eq!(rows.list(with_a).await?.documents.len(), 1);

    let mut found = Vec::new();
    let mut query = Some(ModelQuery::all().with_documents_max(2));
    while let Some(page) = query {
        let page = rows.list(page).await?;
        found.extend(page.documents.into_iter().map(|(key, _)| key));
        query = page.next.map(|next| ModelQuery::all().with_documents_max(2).then(next));
    }
    assert_eq!(found, ["ada", "bob", "eve"]);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn following() -> Done {
    let app = App::open("memory:").await?;
    let accounts = app.project(AccountList).await?;
    let last = open(&app, &[("ada", 500)]).await?;
    accounts.wait_for(last, WAIT).await?;

    let mut changes = accounts.changes::<Row>();
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 1 }).await?;
    match changes.next().await {
        Some(Ok(ModelChange::Put { key, value })) => println!("{key} has {}", value.cents),
        Some(Ok(ModelChange::Removed { key })) => println!("{key} is gone"),
        // The listener was too slow, or the read model was rebuilt: read it again.
        other => println!("{other:?}"),
    }

    let mut events = app.events::<AccountEvent>();
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 2 }).await?;
    let (event, recorded) = events.next().await?;
    println!("{}: {event:?}, {} behind", recorded.stream(), events.lag());
    assert_eq!(event, AccountEvent::Deposited { cents: 2 });
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn rebuilding() -> Done {
    let app = App::open("memory:").await?;
    let accounts = app.project(AccountList).await?;
    let last = open(&app, &[("ada", 500)]).await?;
    accounts.wait_for(last, WAIT).await?;

    let rebuild = accounts.rebuild().await?;
    if let Some(progress) = rebuild.progress() {
        println!("at {} of {}, {:?} left", progress.position, progress.head, progress.remaining);
    }
    rebuild.done().await?;
    assert_eq!(accounts.serving().to_string(), "1.1");

    accounts.roll_back().await?;
    assert_eq!(accounts.serving().to_string(), "1");
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn handling() -> Done {
    let app = App::open("memory:").await?;
    let welcome = Consumer::new("welcome", |event: AccountEvent, _: RecordedEvent| async move {
        if let AccountEvent::Opened { owner, email } = event {
            println!("a letter to {owner} at {email}");
        }
        Ok(())
    });
    let options = ConsumerOptions::new().from(StartFrom::Now);
    let welcome = app.consumers().start(welcome.with_options(options)).await?;

    let last = open(&app, &[("ada", 500)]).await?;
    welcome.wait_for(last, WAIT).await?;
    let health = welcome.health();
    println!("{:?}, at {}, {:?} behind", health.state, health.position, health.lag_events());
    for consumer in app.consumers().list() {
        println!("{}: {:?}", consumer.name(), consumer.health().state);
    }
    assert_eq!(health.parked, 0);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn folding() -> Done {
    let app = App::open("memory:").await?;
    open(&app, &[("ada", 500), ("bob", 70)]).await?;
    let deposited = LiveState::of(Matching::events::<AccountEvent>())
        .fold(app.kernel(), 0, |sum, event, _| {
            if let AccountEvent::Deposited { cents } = event {
                *sum += cents;
            }
        })
        .await?;
    assert_eq!(deposited.state, 570);
    app.close().await?;
    Ok(())
}

#[tokio::test]
async fn in_parallel() -> Done {
    let app = App::open("memory:").await?;
    let options = ConsumerOptions::new().with_partitions(Partitions::by_stream(8));
    let accounts = app.project(AccountList).with_options(options).await?;
    let last = open(&app, &[("ada", 500), ("bob", 70), ("eve", 900)]).await?;
    accounts.wait_for(last, WAIT).await?;
    for (name, health) in accounts.consumer().expect("it runs here").partitions() {
        println!("{name}: {:?}, {} handled", health.state, health.handled);
    }
    assert_eq!(accounts.read_model::<Row>().list(ModelQuery::all()).await?.documents.len(), 3);
    app.close().await?;
    Ok(())
}

#[cfg(feature = "projection-sqlite")]
#[tokio::test]
async fn in_tables() -> Done {
    use factum::{
        Projections,
        projection::{SqliteTarget, SqliteTx},
    };

    let app = App::open("memory:").await?;
    let temporary = tempfile::tempdir()?;
    let folder = temporary.path().join("models");
    let owners = ProjectionFn::new("owners", 1, |event, _, tx: &mut SqliteTx| {
        if let AccountEvent::Opened { owner, .. } = event {
            tx.execute("INSERT INTO owners VALUES (?1)", [owner])?;
        }
        Ok(())
    });
    let targets = move |build: &_| {
        SqliteTarget::of_build(&folder, build)
            .with_setup("CREATE TABLE IF NOT EXISTS owners (owner TEXT)")
    };
    let owners = app.consumers().maintain_fn(owners, targets, ConsumerOptions::new()).await?;

    let last = open(&app, &[("ada", 500), ("bob", 70)]).await?;
    owners.wait_for(last, WAIT).await?;
    owners.rebuild().await?.done().await?;

    let reader = owners.reader().await?;
    let count = "SELECT count(*) FROM owners";
    assert_eq!(reader.query_row(count, [], |row| row.get::<_, i64>(0))?, 2);
    app.close().await?;
    Ok(())
}
