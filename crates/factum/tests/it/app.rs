//! Opening an application, and the facade's own behaviour.

use std::sync::Arc;

use async_trait::async_trait;
use factum::{
    Aggregate, App, Context, ErrorKind, Event, OpenError, Position, ReadQuery, SendError,
    StoreError, TagKey, Verdict, Worker,
    aggregate::Clash,
    memory::MemoryStore,
    read::{Scope, SubscribeFrom},
    runtime::{CommandError, EntityError, WorkerState},
    store::{OpenContext, OpenStore, StoreErrorKind, StoreUrl, Stores},
};
use factum_testing::bank::{Account, AccountCommand, AccountRejection};

fn open(owner: &str, email: &str) -> AccountCommand {
    AccountCommand::Open { owner: owner.into(), email: email.into() }
}

/// A user's own kind of store.
#[derive(Debug)]
struct OwnKind;

#[async_trait]
impl OpenStore for OwnKind {
    fn scheme(&self) -> &'static str {
        "own"
    }

    async fn open(&self, _: &StoreUrl, _: &OpenContext) -> Result<Stores, StoreError> {
        let store = Arc::new(MemoryStore::new());
        Ok(Stores { events: store.clone(), documents: store })
    }
}

#[tokio::test]
async fn a_store_of_ones_own_kind_is_opened_by_its_scheme() {
    assert!(App::open("own:here").await.is_err());
    let app = App::builder().with_store_kind(OwnKind).open("own:here").await.unwrap();
    app.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
}

#[tokio::test]
async fn one_log_behind_every_door() {
    let app = App::open("memory:").await.unwrap();
    let done = app.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
    assert_eq!(done.position, Some(Position::new(1)));
    app.command::<Account>("bob", open("Bob", "bob@example.org")).await.unwrap();
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 100 }).await.unwrap();
    let transfer = app
        .transaction()
        .command::<Account>("ada", AccountCommand::Send { to: "bob".into(), cents: 40 })
        .command::<Account>("bob", AccountCommand::Receive { from: "ada".into(), cents: 40 });
    transfer.await.unwrap();
    assert_eq!(app.load::<Account>("bob").await.unwrap().state.balance_cents, 40);

    let mut read = app.read(ReadQuery::log());
    let mut live = app.subscribe(Scope::Log, SubscribeFrom::Start);
    for position in 1..=5 {
        assert_eq!(read.next().await.unwrap().unwrap().position().value(), position);
        assert_eq!(live.next().await.unwrap().unwrap().position().value(), position);
    }
    assert!(read.next().await.is_none());

    app.close().await.unwrap();
    let refused = app.command::<Account>("ada", AccountCommand::Deposit { cents: 1 }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn hashed_tags_hold_over_openings_of_one_store() {
    let store = Arc::new(MemoryStore::new());
    let stores = Stores { events: store.clone(), documents: store };
    let first = App::builder().open_stores(stores.clone()).await.unwrap();
    first.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
    let again = App::builder().open_stores(stores.clone()).await.unwrap();
    let taken = again.command::<Account>("bob", open("Bob", "ada@example.org")).await;
    assert!(matches!(taken, Err(SendError::Rejected(AccountRejection::EmailTaken))));
    let other = App::builder().with_tag_key(TagKey::new([9; 32])).open_stores(stores).await;
    assert!(other.unwrap_err().to_string().contains("another tag key"), "e-mails would be free");
}

#[tokio::test]
async fn a_store_stays_with_the_key_it_was_given() {
    let store = Arc::new(MemoryStore::new());
    let stores = Stores { events: store.clone(), documents: store };
    let with = |byte| App::builder().with_tag_key(TagKey::new([byte; 32]));
    with(9).open_stores(stores.clone()).await.unwrap();
    assert!(with(9).open_stores(stores.clone()).await.is_ok());
    assert!(with(8).open_stores(stores.clone()).await.is_err());
    let none = App::builder().open_stores(stores).await.unwrap();
    let refused = none.command::<Account>("ada", open("Ada", "ada@example.org")).await;
    let Err(SendError::Failed(CommandError::Entity(EntityError::Encode(_)))) = refused else {
        panic!("nothing is hashed without it: {refused:?}")
    };
}

mod other {
    #[derive(Debug, factum::Event)]
    pub(super) enum AccountEvent {
        Opened,
    }
}

#[tokio::test]
async fn two_event_types_of_one_name_do_not_open() {
    let both = App::builder().aggregate::<Account>().events::<other::AccountEvent>();
    let refused = both.open("memory:").await.unwrap_err();
    let OpenError::Clash(Clash::EventType(duplicate)) = &refused else { panic!("{refused}") };
    assert_eq!(duplicate.name.as_str(), "account.opened");
    assert_eq!(other::AccountEvent::Opened.event_type().schema_version, 1);
    let twice = App::builder().aggregate::<Account>().aggregate::<Account>();
    assert!(twice.open("memory:").await.is_ok(), "the same one twice is fine");
}

mod more {
    /// The same prefix as the other enum of this name, and no name of an event in common.
    #[derive(Debug, factum::Event)]
    pub(super) enum AccountEvent {
        Frozen,
    }
}

/// A reader of one took the other's events for unknown ones of its own, and parked their streams.
#[tokio::test]
async fn two_enums_with_one_prefix_do_not_open() {
    let both = App::builder().aggregate::<Account>().events::<more::AccountEvent>();
    let refused = both.open("memory:").await.unwrap_err();
    let OpenError::Clash(Clash::Prefix { prefix, first, second }) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(prefix, "account");
    assert!(first.contains("bank") && second.contains("more"), "{refused}");
    assert_eq!(more::AccountEvent::Frozen.event_type().name.as_str(), "account.frozen");
}

/// Another aggregate with the category of the accounts.
#[derive(Debug, Default)]
struct Ledger;

#[derive(Debug, factum::Event)]
enum LedgerEvent {
    Begun,
}

impl Aggregate for Ledger {
    const CATEGORY: &'static str = "account";
    type Command = ();
    type Event = LedgerEvent;
    type Rejection = std::fmt::Error;

    fn decide(&self, (): &(), _: &Context<'_>) -> Verdict<Self> {
        Ok([LedgerEvent::Begun].into())
    }

    fn evolve(&mut self, _: &LedgerEvent) {}
}

#[tokio::test]
async fn two_aggregates_of_one_category_do_not_open() {
    let both = App::builder().aggregate::<Account>().aggregate::<Ledger>();
    let refused = both.open("memory:").await.unwrap_err();
    assert!(refused.to_string().contains("category=account"), "{refused}");
}

#[tokio::test]
async fn a_store_that_can_not_be_is_one_sentence() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "no store").unwrap();
    let cases = [
        ("", "no store is named"),
        ("mongo://here", "no store of this program has this scheme: scheme=mongo"),
        ("memory", "a store's URL has a colon, say memory: or"),
        ("~/bank", "only a shell knows what ~ is"),
        ("memory:here", "a memory store has no path"),
        ("memory:?mode=read", "unknown option in the store URL: option=mode"),
        (file.path().to_str().unwrap(), "the file is no store that this program knows"),
    ];
    for (url, expected) in cases {
        let OpenError::Store(error) = App::open(url).await.unwrap_err() else { panic!("{url}") };
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[cfg(all(feature = "sqlite", feature = "journal"))]
#[tokio::test]
async fn a_bare_path_opens_what_is_there_whichever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (url, file) in [("sqlite:", "sq/events.db"), ("journal:", "jo")] {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let app = App::open(&format!("{url}{}", path.display())).await.unwrap();
        app.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
        app.close().await.unwrap();
        let bare = folder.path().join(&file[..2]);
        let app = App::open(bare.to_str().unwrap()).await.unwrap();
        let version = app.load::<Account>("ada").await.unwrap().version;
        assert_eq!(version.value(), 1, "{url}");
        app.close().await.unwrap();
    }
}

#[cfg(feature = "journal")]
#[tokio::test]
async fn a_bare_path_makes_a_journal_and_opens_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    for balance in [1, 2] {
        let app = App::open(path.to_str().unwrap()).await.unwrap();
        if balance == 1 {
            app.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
        }
        app.command::<Account>("ada", AccountCommand::Deposit { cents: 1 }).await.unwrap();
        assert_eq!(app.load::<Account>("ada").await.unwrap().state.balance_cents, balance);
        app.close().await.unwrap();
    }
}

#[tokio::test]
async fn entities_are_the_same_for_whoever_asks_and_end_with_the_application() {
    let app = App::open("memory:").await.unwrap();
    app.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
    let accounts = app.clone().aggregate::<Account>();
    app.command::<Account>("ada", AccountCommand::Deposit { cents: 5 }).await.unwrap();
    assert_eq!(accounts.state("ada").await.unwrap().state.balance_cents, 5);
    assert_eq!(accounts.stats().loads, 1, "one set of entities");
    app.close().await.unwrap();
    let late = app.command::<Account>("ada", AccountCommand::Deposit { cents: 5 }).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn workers_stop_before_the_entities_and_these_before_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop");
    let app = App::open(path.to_str().unwrap()).await.unwrap();
    app.command::<Account>("ada", open("Ada", "ada@example.org")).await.unwrap();
    let at_the_end = app.clone();
    let worker = Worker::new("interest", move |cx| {
        let app = at_the_end.clone();
        async move {
            cx.stopping().await;
            app.command::<Account>("ada", AccountCommand::Deposit { cents: 1 }).await?;
            // The entity finishes accepted commands before the store closes.
            let late = app.command::<Account>("ada", AccountCommand::Deposit { cents: 2 });
            let mut late = late.into_future();
            tokio::select! {
                biased;
                done = &mut late => drop(done?),
                () = std::future::ready(()) => {}
            }
            Ok(())
        }
    });
    app.supervisor().add(worker).unwrap();
    app.close().await.unwrap();
    let worker = &app.supervisor().health()[0];
    assert_eq!((worker.state, worker.cause.as_deref()), (WorkerState::Stopped, None));
    drop(app);
    let app = App::open(path.to_str().unwrap()).await.unwrap();
    assert_eq!(app.load::<Account>("ada").await.unwrap().state.balance_cents, 3);
}
