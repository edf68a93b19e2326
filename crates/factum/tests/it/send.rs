//! The one way to send a command: layers, commands that take effect once, and expected versions.

use std::{
    collections::HashSet,
    error::Error,
    future::{IntoFuture, poll_fn, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use factum::{
    App, AppBuilder, CommandId, ErrorKind, Metadata, ReadQuery, SendError,
    event::{Cause, StreamVersion},
    journal::{JournalOptions, JournalStore},
    memory::MemoryStore,
    runtime::{
        AdmissionLayer, BoxError, CommandError, CommandFuture, CommandRequest, CommandService,
        EntityError, RequestKind,
    },
    sentence,
    store::Stores,
};
use factum_testing::bank::{Account, AccountCommand, AccountRejection};
use tower::{
    ServiceExt,
    layer::layer_fn,
    service_fn,
    util::{MapFutureLayer, MapRequestLayer},
};

use crate::tally::{Count, Tally};

pub(crate) const DEPOSIT: AccountCommand = AccountCommand::Deposit { cents: 1 };

pub(crate) fn open(owner: &str) -> AccountCommand {
    AccountCommand::Open { owner: owner.into(), email: format!("{owner}@example.org") }
}

pub(crate) fn in_memory() -> Stores {
    let store = Arc::new(MemoryStore::new());
    Stores { events: store.clone(), documents: store }
}

pub(crate) async fn events(app: &App) -> usize {
    let mut log = app.read(ReadQuery::log());
    let mut count = 0;
    while let Some(event) = log.next().await {
        event.unwrap();
        count += 1;
    }
    count
}

fn closed() -> AppBuilder {
    App::builder()
        .commands::<Account>()
        .layer(AdmissionLayer::new(|_| Err("nothing is let through".into())))
}

/// Sends by every method of an application.
#[tokio::test]
async fn nothing_that_an_application_sends_passes_by_its_layers() {
    let stores = in_memory();
    let before = App::builder().open_stores(stores.clone()).await.unwrap();
    before.command::<Account>("ada", open("ada")).await.unwrap();
    let app = closed().open_stores(stores).await.unwrap();
    let id = CommandId::derived("x", "deposit");
    let command = || app.command::<Account>("ada", DEPOSIT);
    let refused = [
        command().await.map(drop),
        command().once(id).await.map(drop),
        command().with_metadata(Metadata::new().with_user("ada")).await.map(drop),
        command().expecting(StreamVersion::new(1)).await.map(drop),
        command().reply(|account| account.balance_cents).await.map(drop),
        command().once(id).reply(|account| account.balance_cents).await.map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
    }
    let by_name = || app.command_json("account", "ada", "account.deposit", r#"{"cents": 1}"#);
    for by_name in [by_name(), by_name().once(id), by_name().expecting(StreamVersion::new(1))] {
        let refused = by_name.await;
        assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
    }
    let transaction = || app.transaction().command::<Account>("ada", DEPOSIT);
    for transaction in [transaction(), transaction().once(id), transaction().decide::<Tally>(Count)]
    {
        let refused = transaction.await;
        assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
    }
    for decision in [app.decide::<Tally>(Count), app.decide::<Tally>(Count).once(id)] {
        let refused = decision.await;
        assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
    }
    let refused = command().await.unwrap_err();
    assert_eq!(sentence(&refused), "a layer refused the command: nothing is let through");
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    assert_eq!(events(&app).await, 1, "nothing was stored");
    assert_eq!(app.aggregate::<Account>().stats().loads, 0, "nothing was loaded");
}

/// The parts of a request that a layer saw.
type Seen = Arc<Mutex<Vec<String>>>;

#[tokio::test]
async fn layers_see_every_step_in_the_order_in_which_they_were_added() {
    let seen = Seen::default();
    let noting = |name| {
        let seen: Seen = seen.clone();
        MapRequestLayer::new(move |request: CommandRequest| {
            let steps = request.steps().iter().map(|it| format!("{}/{}", it.key(), it.name()));
            let steps: Vec<_> = steps.collect();
            let text = format!("{name} {:?} {}", request.kind(), steps.join(" "));
            seen.lock().unwrap().push(text);
            request
        })
    };
    let app = App::builder().commands::<Account>().layer(noting("first")).layer(noting("second"));
    let app = app.open("memory:").await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    let together = app.transaction().command::<Account>("ada", DEPOSIT).decide::<Tally>(Count);
    together.await.unwrap();
    app.decide::<Tally>(Count).await.unwrap();
    let expected =
        ["Command ada/account.open", "Transaction ada/account.deposit /Count", "Decision /Count"];
    let expected: Vec<_> =
        expected.iter().flat_map(|it| [format!("first {it}"), format!("second {it}")]).collect();
    assert_eq!(*seen.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_layer_that_sends_a_clone_again_has_the_effect_once_where_there_is_an_id() {
    let twice = layer_fn(|service: CommandService| {
        service_fn(move |request: CommandRequest| {
            let service = service.clone();
            async move {
                drop(service.clone().oneshot(request.clone()).await);
                service.oneshot(request).await
            }
        })
    });
    let app = App::builder().layer(twice).open("memory:").await.unwrap();
    app.command::<Account>("ada", open("ada")).once(CommandId::derived("0", "open")).await.unwrap();
    let id = CommandId::derived("1", "deposit");
    let done = app.command::<Account>("ada", DEPOSIT).once(id).reply(|it| it.balance_cents).await;
    let done = done.unwrap();
    assert_eq!((done.replayed, done.version.value(), done.reply), (true, 2, 1));
    let id = CommandId::derived("2", "deposit");
    let both = app.transaction().command::<Account>("ada", DEPOSIT).once(id).await.unwrap();
    assert_eq!(
        (both.replayed, both.version::<Account>("ada")),
        (true, Some(StreamVersion::new(3)))
    );
    let decided = app.decide::<Tally>(Count).once(CommandId::derived("3", "count")).await.unwrap();
    assert_eq!((decided.replayed, decided.model.0), (true, 1));
    // Without an id, the request is two commands.
    let done = app.command::<Account>("ada", DEPOSIT).await.unwrap();
    assert_eq!(done.version.value(), 5);
}

#[tokio::test]
async fn a_command_that_is_dropped_takes_effect_once_or_not_at_all() {
    let app = App::open("memory:").await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    drop(app.command::<Account>("ada", DEPOSIT));
    drop(app.command::<Account>("ada", DEPOSIT).into_future());
    let accounts = app.aggregate::<Account>();
    assert_eq!(accounts.state("ada").await.unwrap().version.value(), 1, "it was never sent");
    let id = CommandId::derived("1", "deposit");
    let mut under_way = app.command::<Account>("ada", DEPOSIT).once(id).into_future();
    tokio::select! {
        biased;
        done = &mut under_way => drop(done.unwrap()),
        () = ready(()) => {}
    }
    drop(under_way);
    let again = app.command::<Account>("ada", DEPOSIT).once(id).await.unwrap();
    assert_eq!((again.replayed, again.version.value()), (true, 2), "it had come to its entity");
}

#[tokio::test]
async fn what_a_layer_gave_up_is_sent_again_with_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(JournalStore::open(JournalOptions::new(folder.path())).await.unwrap());
    let stores = Stores { events: store.clone(), documents: store };
    let patience = Arc::new(AtomicUsize::new(1));
    let given = patience.clone();
    // Without patience it gives up if the answer is not there at the first poll, as a timeout does.
    let impatient = MapFutureLayer::new(move |mut response: CommandFuture<BoxError>| {
        let patience = given.clone();
        poll_fn(move |cx| match response.as_mut().poll(cx) {
            Poll::Pending if patience.load(Ordering::SeqCst) == 0 => {
                Poll::Ready(Err("the time is over".into()))
            }
            polled => polled,
        })
    });
    let app = App::builder().layer(impatient).open_stores(stores).await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    let id = |what: &str| CommandId::derived("1", what);
    let command = || app.command::<Account>("ada", DEPOSIT).once(id("command"));
    let both = || app.transaction().command::<Account>("ada", DEPOSIT).once(id("both"));
    patience.store(0, Ordering::SeqCst);
    let given_up = command().await.unwrap_err();
    assert!(matches!(given_up, SendError::Layer(_)), "{given_up:?}");
    let given_up = both().await.unwrap_err();
    assert!(matches!(given_up, SendError::Layer(_)), "{given_up:?}");
    patience.store(1, Ordering::SeqCst);
    for _ in 0..2 {
        command().await.unwrap();
        both().await.unwrap();
    }
    let ada = app.load::<Account>("ada").await.unwrap();
    assert_eq!((ada.state.balance_cents, ada.version.value()), (2, 3), "each once");
    app.close().await.unwrap();
}

#[tokio::test]
async fn a_command_for_another_version_fails_alone() {
    let app = App::open("memory:").await.unwrap();
    app.command::<Account>("ada", open("ada")).expecting(StreamVersion::ZERO).await.unwrap();
    let on =
        |version| app.command::<Account>("ada", DEPOSIT).expecting(StreamVersion::new(version));
    let (first, stale, second, other) = tokio::join!(
        app.command::<Account>("ada", DEPOSIT).into_future(),
        on(1).into_future(),
        on(2).into_future(),
        app.command::<Account>("ada", DEPOSIT).into_future(),
    );
    let versions = [first, second, other].map(|it| it.unwrap().version.value());
    assert_eq!(versions, [2, 3, 4], "the others are not touched");
    let stale = stale.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let SendError::Failed(CommandError::Entity(EntityError::Conflict(conflict))) = stale else {
        panic!("{stale:?}")
    };
    assert_eq!(conflict.actual.value(), 2);
    // A repeat is answered with the stored outcome, whatever the version is then.
    let id = CommandId::derived("1", "deposit");
    for replayed in [false, true] {
        let done = on(4).once(id).await.unwrap();
        assert_eq!((done.version.value(), done.replayed), (5, replayed));
    }
    // A command without events was decided on that version too.
    let nothing = app.command::<Account>("ada", open("ada"));
    assert_eq!(
        nothing.expecting(StreamVersion::new(4)).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
}

/// Two applications on one store, each with entities of its own.
async fn two(stores: &Stores) -> [App; 2] {
    let one = App::builder().open_stores(stores.clone()).await.unwrap();
    let other = App::builder().open_stores(stores.clone()).await.unwrap();
    [one, other]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_each_change_the_version_that_they_saw() {
    const WRITERS: usize = 6;
    const EACH: usize = 10;
    let apps = two(&in_memory()).await;
    apps[0].command::<Account>("ada", open("ada")).await.unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let app = apps[writer % 2].clone();
            tokio::spawn(async move {
                let mut won = Vec::new();
                while won.len() < EACH {
                    let seen = app.load::<Account>("ada").await.unwrap();
                    let sent = app.command::<Account>("ada", DEPOSIT).expecting(seen.version);
                    match sent.reply(|account| account.balance_cents).await {
                        Ok(done) => {
                            assert_eq!(done.version, seen.version.next());
                            assert_eq!(done.reply, seen.state.balance_cents + 1);
                            won.push(done.version.value());
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut versions = HashSet::new();
    for writer in writers {
        versions.extend(writer.await.unwrap());
    }
    assert_eq!(versions.len(), WRITERS * EACH, "each version has one writer");
    let ada = apps[1].load::<Account>("ada").await.unwrap();
    assert_eq!(ada.state.balance_cents, (WRITERS * EACH) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reply_is_of_the_state_right_after_its_command() {
    let apps = two(&in_memory()).await;
    apps[0].command::<Account>("ada", open("ada")).await.unwrap();
    let sent: Vec<_> = (0..64)
        .map(|at| {
            let app = apps[at % 2].clone();
            tokio::spawn(async move {
                let deposit = app.command::<Account>("ada", DEPOSIT);
                deposit.reply(|account| account.balance_cents).await.unwrap()
            })
        })
        .collect();
    for sent in sent {
        let done = sent.await.unwrap();
        assert_eq!(done.reply, done.version.value() - 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_sent_twice_through_two_applications_takes_effect_once() {
    let apps = two(&in_memory()).await;
    for key in ["ada", "bob"] {
        apps[0].command::<Account>(key, open(key)).await.unwrap();
    }
    apps[0].command::<Account>("ada", AccountCommand::Deposit { cents: 1_000 }).await.unwrap();
    let stored = Arc::new(AtomicUsize::new(0));
    let mut sent = Vec::new();
    for round in 0..10_u32 {
        for app in apps.iter().chain(&apps) {
            let app = app.clone();
            let stored = stored.clone();
            sent.push(tokio::spawn(async move {
                let id = |what: &str| CommandId::derived(round.to_be_bytes(), what);
                let one = app.command::<Account>("ada", DEPOSIT).once(id("one")).await.unwrap();
                let two = app
                    .transaction()
                    .command::<Account>("ada", AccountCommand::Send { to: "bob".into(), cents: 10 })
                    .command::<Account>(
                        "bob",
                        AccountCommand::Receive { from: "ada".into(), cents: 10 },
                    )
                    .once(id("two"))
                    .await
                    .unwrap();
                let three = app.decide::<Tally>(Count).once(id("three")).await.unwrap();
                let new = [one.replayed, two.replayed, three.replayed];
                stored.fetch_add(new.iter().filter(|it| !**it).count(), Ordering::SeqCst);
            }));
        }
    }
    for sent in sent {
        sent.await.unwrap();
    }
    assert_eq!(stored.load(Ordering::SeqCst), 30, "each was new to one of its senders");
    let ada = apps[0].load::<Account>("ada").await.unwrap().state.balance_cents;
    let bob = apps[1].load::<Account>("bob").await.unwrap().state.balance_cents;
    assert_eq!((ada, bob), (1_000 + 10 - 100, 100));
    assert_eq!(apps[0].decide::<Tally>(Count).await.unwrap().model.0, 11);
}

/// An application that closes while commands are under way: a command that was answered with
/// success is stored, and a command that was answered with `Closed` is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_that_meets_the_end_is_done_or_was_never_begun() {
    let folder = tempfile::tempdir().unwrap();
    let opened = || async {
        let store = JournalStore::open(JournalOptions::new(folder.path())).await.unwrap();
        let store = Arc::new(store);
        App::builder()
            .open_stores(Stores { events: store.clone(), documents: store })
            .await
            .unwrap()
    };
    let app = opened().await;
    for key in ["ada", "bob"] {
        app.command::<Account>(key, open(key)).await.unwrap();
    }
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move {
                let mut done = 0;
                loop {
                    match app.command::<Account>("ada", DEPOSIT).await {
                        Ok(_) => done += 1,
                        Err(error) => return (done, error.kind()),
                    }
                }
            })
        })
        .collect();
    while app.load::<Account>("ada").await.unwrap().version.value() < 20 {
        tokio::task::yield_now().await;
    }
    app.close().await.unwrap();
    let mut done = 0;
    for writer in writers {
        let (stored, end) = writer.await.unwrap();
        assert_eq!(end, ErrorKind::Closed);
        done += stored;
    }
    drop(app);
    let app = opened().await;
    assert_eq!(app.load::<Account>("ada").await.unwrap().state.balance_cents, done);
    app.close().await.unwrap();
}

#[tokio::test]
async fn a_rejection_is_a_value_whatever_it_passed() {
    let app = App::builder()
        .layer(AdmissionLayer::new(|request| match request.kind() {
            RequestKind::Command | RequestKind::Transaction => Ok(()),
            _ => Err("no decisions today".into()),
        }))
        .open("memory:")
        .await
        .unwrap();
    let no = app.command::<Account>("ada", DEPOSIT).await.unwrap_err();
    assert_eq!(no.rejection(), Some(&AccountRejection::NotOpen));
    let no = app.transaction().command::<Account>("ada", DEPOSIT).await.unwrap_err();
    let step = no.rejection().unwrap();
    assert_eq!((step.step, step.downcast_ref()), (0, Some(&AccountRejection::NotOpen)));
    let no = app.decide::<Tally>(Count).await.unwrap_err();
    assert!(matches!(no, SendError::Refused(_)));
}

/// The text of an error leaves out that of its source, so that a chain says everything once.
#[tokio::test]
async fn an_error_of_what_was_sent_says_nothing_twice() {
    let app = App::builder()
        .commands::<Account>()
        .layer(AdmissionLayer::of::<Account>(|key, _, _| match key {
            "eve" => Err("not eve".into()),
            _ => Ok(()),
        }))
        .open("memory:")
        .await
        .unwrap();
    let command = |key: &str| app.command::<Account>(key, DEPOSIT);
    let told = [
        command("ada").await.unwrap_err(),
        command("eve").await.unwrap_err(),
        command("").await.unwrap_err(),
        command("ada").seen_by("nobody").await.unwrap_err(),
        command("ada").expecting(StreamVersion::new(7)).await.unwrap_err(),
    ];
    let by_name = app.command_json("account", "ada", "account.depose", "{}").await.unwrap_err();
    let step = app.transaction().command::<Account>("ada", DEPOSIT).await.unwrap_err();
    let mut chains: Vec<&dyn Error> = told.iter().map(|it| it as &dyn Error).collect();
    chains.extend([&by_name as &dyn Error, &step]);
    for error in chains {
        let mut next = error.source();
        let mut said = error.to_string();
        while let Some(source) = next.filter(|it| !it.is::<Cause>()) {
            let text = source.to_string();
            assert!(!said.contains(&text), "{said:?} repeats its source {text:?}");
            (said, next) = (text, source.source());
        }
    }
}
