//! The command bus from outside: routing, the layers' view of requests, and tower's own layers.

use std::{future::Future, time::Duration};

use factum_kernel::{
    Aggregate, CommandId, EventStore, Metadata, ReadQuery, RecordedEvent, StreamVersion, Uuid,
    sentence,
};
use factum_runtime::{
    AdmissionLayer, BoxError, CommandError, CommandOutcome, CommandRequest, CommandResponse,
    CommandRouter, Commands, DispatchError, EntityError, IdempotencyLayer,
};
use factum_testing::{
    Fault,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
};
use tower::{Service, ServiceBuilder, load_shed, timeout, util::BoxCloneSyncService};

use crate::{
    bench::{Bench, DEPOSIT, millis, open, options},
    counter::{Counter, CounterCommand, CounterEvent, Sturdy},
};

/// The time that a test waits for an event that must not happen.
const NEVER: Duration = Duration::from_millis(30);

fn bus(bench: &Bench) -> Commands {
    let router = CommandRouter::new().with(bench.accounts());
    let router = router.with(bench.entities::<Counter>(options()));
    Commands::new(router, &bench.kernel)
}

fn id(n: u128) -> CommandId {
    CommandId::new(Uuid::from_u128(n))
}

async fn never<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(NEVER, future).await.is_err()
}

#[tokio::test]
async fn a_command_comes_to_its_aggregate_and_its_outcome_back() {
    let bench = Bench::new();
    let commands = bus(&bench);
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    let done = commands.dispatch::<Account>("ada", DEPOSIT).await.unwrap();
    assert_eq!(done.events, [AccountEvent::Deposited { cents: 1 }]);
    assert_eq!(
        (done.version.value(), done.position.unwrap().value(), done.replayed),
        (2, 2, false)
    );
    let added = commands.dispatch::<Counter>(String::from("one"), CounterCommand::Add).await;
    assert_eq!(added.unwrap().events, [CounterEvent::Added]);
    let rejected = commands.dispatch::<Account>("bob", DEPOSIT).await.unwrap_err();
    assert_eq!(rejected.rejection(), Some(&AccountRejection::NotOpen));
}

#[tokio::test]
async fn what_the_bus_does_not_know_is_a_clear_error() {
    let bench = Bench::new();
    let empty = Commands::new(CommandRouter::new(), &bench.kernel);
    let unknown = empty.dispatch::<Account>("ada", DEPOSIT).await.unwrap_err();
    assert!(matches!(unknown, DispatchError::Failed(CommandError::UnknownAggregate("account"))));
    assert!(unknown.to_string().ends_with("to the router: category=account"), "{unknown}");
    // Another aggregate with the same category.
    let wrong = bus(&bench).dispatch::<Sturdy>("one", CounterEvent::Added).await.unwrap_err();
    assert!(matches!(wrong, DispatchError::Failed(CommandError::WrongCommand { .. })), "{wrong}");
    let key = bus(&bench).dispatch::<Account>("", DEPOSIT).await.unwrap_err();
    let DispatchError::Failed(CommandError::Entity(EntityError::Load(_))) = key else {
        panic!("{key}");
    };
}

#[tokio::test]
async fn a_no_is_a_response_and_what_a_layer_sees() {
    let bench = Bench::new();
    let commands = bus(&bench);
    let mut sent = Vec::new();
    for command in [DEPOSIT, open("ada"), DEPOSIT] {
        let request = CommandRequest::new::<Account>(id(7), "ada", command);
        sent.push(commands.send(request).await.unwrap());
    }
    let outcomes: Vec<_> = sent.iter().map(CommandResponse::outcome).collect();
    use CommandOutcome::{Rejected, Stored, Unchanged};
    assert_eq!(outcomes, [Rejected, Stored, Stored]);
    let CommandResponse::Done(done) = &sent[2] else { panic!() };
    assert_eq!(done.events::<Account>().unwrap(), [AccountEvent::Deposited { cents: 1 }]);
    assert!(done.events::<Counter>().is_none());
    let nothing = CommandRequest::new::<Counter>(id(7), "one", CounterCommand::Nothing);
    assert_eq!(commands.send(nothing).await.unwrap().outcome(), Unchanged);
}

#[tokio::test]
async fn events_name_their_cause_and_conversation() {
    let bench = Bench::new();
    let commands = bus(&bench);
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    let cause = Uuid::from_u128(1);
    let talk = Uuid::from_u128(2);
    let given = Metadata::new().with_causation_id(cause).with_correlation_id(talk).with_user("ada");
    commands.dispatch_with::<Account>("ada", DEPOSIT, given.clone()).await.unwrap();
    let going_on = Metadata::new().with_correlation_id(talk);
    commands.dispatch_once::<Account>("ada", id(7), DEPOSIT, going_on).await.unwrap();
    let page = bench.store.read(ReadQuery::log()).await.unwrap();
    let metadata: Vec<_> = page.events.iter().map(RecordedEvent::metadata).collect();
    assert!(metadata[0].causation_id.is_some());
    assert_eq!(metadata[0].causation_id, metadata[0].correlation_id);
    assert_eq!(metadata[1], given);
    assert_eq!(metadata[2].causation_id, Some(id(7).as_uuid()));
    assert_eq!(metadata[2].correlation_id, Some(talk));
    // An id alone does not make repeats recognisable: only commands that were sent once have the
    // tag.
    assert_eq!(page.events.iter().map(|it| it.tags().count()).collect::<Vec<_>>(), [1, 0, 1]);
}

/// They wait together while another one is stored, and are decided as one burst.
#[tokio::test]
async fn a_command_for_another_version_is_answered_alone_and_its_burst_goes_on() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    let router = CommandRouter::new().with(accounts.clone());
    let commands = Commands::new(router, &bench.kernel);
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    let on = |version: Option<u64>| {
        let request = CommandRequest::new::<Account>(commands.id(), "ada", DEPOSIT);
        let request = match version {
            Some(version) => request.expecting(StreamVersion::new(version)),
            None => request,
        };
        commands.send(request.replying(|account: &Account| account.balance_cents))
    };
    bench.faulty.next_append(Fault::Delay(millis(1_000)));
    let all_wait = async {
        bench.clock.until_sleeping(1).await;
        while accounts.entity("ada").unwrap().unwrap().queued < 4 {
            tokio::task::yield_now().await;
        }
        bench.clock.advance(millis(1_000));
    };
    let (first, stale, on_it, early, plain, ()) =
        tokio::join!(on(None), on(Some(1)), on(Some(2)), on(Some(9)), on(None), all_wait);
    let versions = [first, on_it, plain].map(|it| {
        let CommandResponse::Done(done) = it.unwrap() else { panic!("it is done") };
        let outcome = done.into_outcome::<Account, u64>().unwrap();
        assert_eq!(outcome.reply, outcome.version.value() - 1, "of the state right after it");
        outcome.version.value()
    });
    assert_eq!(versions, [2, 3, 4]);
    for (told, actual) in [(stale, 2), (early, 3)] {
        let error = *told.unwrap_err().downcast().unwrap();
        let CommandError::Entity(EntityError::Conflict(conflict)) = error else {
            panic!("{error}")
        };
        assert_eq!(conflict.actual.value(), actual);
    }
    assert_eq!(bench.balance("ada").await, (3, 4));
}

#[tokio::test]
async fn a_clone_of_a_request_is_the_same_command() {
    let bench = Bench::new();
    let commands = bus(&bench);
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    let request = CommandRequest::new::<Account>(id(1), "ada", DEPOSIT);
    let request = request.named::<Account>().once(id(7));
    let first = commands.send(request.clone()).await.unwrap().outcome();
    let again = commands.send(request).await.unwrap().outcome();
    assert_eq!((first, again), (CommandOutcome::Stored, CommandOutcome::Replayed));
    let last = commands.dispatch_once::<Account>("ada", id(7), DEPOSIT, Metadata::new()).await;
    assert_eq!((last.unwrap().replayed, bench.balance("ada").await), (true, (1, 2)));
}

#[tokio::test]
async fn an_entry_of_the_metadata_makes_a_repeat_known() {
    let bench = Bench::new();
    let layer = IdempotencyLayer::new("idempotency-key");
    let commands = bus(&bench).named::<Account>().layer(layer);
    let sent = |key: &str| Metadata::new().with("idempotency-key", key);
    for key in ["ada", "bob"] {
        commands.dispatch::<Account>(key, open(key)).await.unwrap();
        for (entry, replayed) in [("x", false), ("x", true), ("y", false)] {
            let done = commands.dispatch_with::<Account>(key, DEPOSIT, sent(entry)).await.unwrap();
            assert_eq!(done.replayed, replayed, "key={key} entry={entry}");
        }
        // An id that the caller set has priority.
        let own_id = CommandId::derived(key, "deposit");
        let own = commands.dispatch_once::<Account>(key, own_id, DEPOSIT, sent("x")).await.unwrap();
        assert!(!own.replayed);
        for _ in 0..2 {
            assert!(!commands.dispatch::<Account>(key, DEPOSIT).await.unwrap().replayed);
        }
        assert_eq!(bench.balance(key).await, (5, 6));
    }
}

#[tokio::test]
async fn what_is_refused_comes_to_no_entity() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    let router = CommandRouter::new().with(accounts.clone());
    let router = router.with(bench.entities::<Counter>(options()));
    let positive = AdmissionLayer::of::<Account>(|key, command, metadata| match command {
        AccountCommand::Deposit { cents: 0 } => Err("nothing is no amount".into()),
        _ if metadata.user.as_deref().is_some_and(|user| user != key) => {
            Err(Box::new(AccountRejection::NotOpen))
        }
        _ => Ok(()),
    });
    let commands = Commands::new(router, &bench.kernel).layer(positive);
    let nothing = AccountCommand::Deposit { cents: 0 };
    let refused = commands.dispatch::<Account>("ada", nothing).await.unwrap_err();
    assert_eq!(sentence(&refused), "the command was refused: nothing is no amount");
    let stranger = Metadata::new().with_user("eve");
    let refused = commands.dispatch_with::<Account>("ada", DEPOSIT, stranger).await.unwrap_err();
    assert!(matches!(refused, DispatchError::Refused(_)), "{refused:?}");
    assert_eq!(accounts.stats().commands, 0);
    // The rule is called only for commands of its own aggregate.
    commands.dispatch::<Counter>("one", CounterCommand::Nothing).await.unwrap();
}

/// tower's timeout drops the future. The command had reached its entity, and takes effect.
#[tokio::test]
async fn a_timeout_takes_nothing_back_and_a_repeat_tells_what_is_so() {
    let bench = Bench::new();
    let commands = bus(&bench).layer(ServiceBuilder::new().timeout(NEVER));
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(10)));
    let sent = || commands.dispatch_once::<Account>("ada", id(7), DEPOSIT, Metadata::new());
    let late = sent().await.unwrap_err();
    let DispatchError::Layer(late) = late else { panic!("{late}") };
    assert!(late.is::<timeout::error::Elapsed>());
    bench.clock.advance(millis(10));
    let known = sent().await.unwrap();
    assert_eq!((known.version.value(), known.replayed), (2, true));
    assert_eq!(bench.balance("ada").await, (1, 2));
}

#[tokio::test]
async fn a_concurrency_limit_holds_up_and_load_shed_turns_away() {
    let bench = Bench::new();
    let held = bus(&bench).layer(ServiceBuilder::new().concurrency_limit(1));
    let shed = ServiceBuilder::new().load_shed();
    let shedding = held.clone().layer(shed);
    held.dispatch::<Account>("ada", open("ada")).await.unwrap();
    bench.faulty.next_append(Fault::Delay(millis(10)));
    let slow = tokio::spawn({
        let held = held.clone();
        async move { held.dispatch::<Account>("ada", DEPOSIT).await }
    });
    bench.clock.until_sleeping(1).await;
    assert!(never(held.dispatch::<Account>("bob", open("bob"))).await);
    let shed = shedding.dispatch::<Account>("bob", open("bob")).await.unwrap_err();
    let DispatchError::Layer(shed) = shed else { panic!("{shed}") };
    assert!(shed.is::<load_shed::error::Overloaded>());
    bench.clock.advance(millis(10));
    slow.await.unwrap().unwrap();
    // Neither command left an event.
    let opened = shedding.dispatch::<Account>("bob", open("bob")).await.unwrap();
    assert_eq!(opened.version.value(), 1);
}

#[tokio::test]
async fn a_rate_limit_behind_a_buffer_lets_so_many_pass() {
    let bench = Bench::new();
    let limit = ServiceBuilder::new().buffer(16).rate_limit(2, Duration::from_secs(3_600));
    let commands = bus(&bench).layer(limit);
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    // The entity's rejection passes all layers unchanged.
    let rejected = commands.dispatch::<Account>("bob", DEPOSIT).await.unwrap_err();
    assert_eq!(rejected.rejection(), Some(&AccountRejection::NotOpen));
    assert!(never(commands.dispatch::<Account>("ada", DEPOSIT)).await);
    assert_eq!(bench.balance("ada").await, (0, 1));
}

/// A failure keeps its type through layers that box it.
#[tokio::test]
async fn a_failure_keeps_its_type_through_the_layers() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    accounts.shutdown(millis(1)).await;
    let router = CommandRouter::new().with(accounts);
    let layers = ServiceBuilder::new().buffer(16).load_shed().timeout(Duration::from_secs(5));
    let commands = Commands::new(router, &bench.kernel).layer(layers);
    let closed = commands.dispatch::<Account>("ada", DEPOSIT).await.unwrap_err();
    let DispatchError::Failed(CommandError::Entity(EntityError::Closed(_))) = closed else {
        panic!("{closed:?}");
    };
}

/// The type of the bus can be written down, and the bus can be used from many tasks.
#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_share_one_bus() {
    type Bus = Commands<BoxCloneSyncService<CommandRequest, CommandResponse, BoxError>>;
    async fn deposit<S>(commands: Commands<S>)
    where
        S: Service<CommandRequest, Response = CommandResponse, Error = BoxError> + Clone,
    {
        commands.dispatch::<Account>("ada", DEPOSIT).await.unwrap();
    }

    let bench = Bench::new();
    let layers = ServiceBuilder::new().concurrency_limit(4).timeout(Duration::from_secs(60));
    let commands: Bus = bus(&bench).layer(layers).layer(BoxCloneSyncService::layer());
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..64 {
        tasks.spawn(deposit(commands.clone()));
    }
    tasks.join_all().await;
    assert_eq!(bench.balance("ada").await, (64, 65));
    assert_eq!(Account::CATEGORY, "account");
}
