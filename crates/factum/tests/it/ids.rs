//! An id names one command: a repeat with another target, name or content is refused, whichever way
//! it is sent.

use std::{
    fmt,
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use factum::{
    Aggregate, App, Command, CommandId, Context, Decision, DecisionModel, ErrorKind, Event,
    EventStore, ExpectedVersion, Matching, Metadata, ModelDecision, ReadQuery, SendError,
    StoreError, Verdict,
    aggregate::{COMMAND_TAG, IdTaken, TransactionError},
    event::{EventId, StreamId, StreamVersion, Tag, encode_event},
    read::{Page, Scope},
    runtime::{AdmissionLayer, CommandError, EntityError, IdempotencyLayer},
    store::{AppendBatch, Stores},
};
use factum_testing::{
    ForwardEvents, Forwarding,
    bank::{Account, AccountCommand, AccountEvent, AccountRejection},
};
use serde::{Deserialize, Serialize};

use crate::send::{DEPOSIT, events, in_memory, open};

/// A decision about one account.
#[derive(Debug, Default)]
struct Teller;

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
enum TellerCommand {
    PayIn { key: String, cents: u64 },
    PayOut { key: String, cents: u64 },
}

impl DecisionModel for Teller {
    type Command = TellerCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn query(_: &TellerCommand) -> Matching {
        Matching::tag("teller", "none")
    }

    fn evolve(&mut self, _: &AccountEvent, _: &str) {}

    fn decide(
        &self,
        command: &TellerCommand,
        _: &Context<'_>,
    ) -> Result<ModelDecision<AccountEvent>, AccountRejection> {
        let (key, event) = match command.clone() {
            TellerCommand::PayIn { key, cents } => (key, AccountEvent::Deposited { cents }),
            TellerCommand::PayOut { key, cents } => (key, AccountEvent::Withdrawn { cents }),
        };
        Ok(ModelDecision::event("account", &key, event))
    }
}

/// A way to send a command with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Command,
    Json,
    Layer,
    Transaction,
    Decision,
}

/// A command that is sent with an id.
#[derive(Debug, Clone, Copy)]
enum Sent {
    In(&'static str, u64),
    Out(&'static str, u64),
}

impl Entry {
    const ALL: [Self; 5] =
        [Self::Command, Self::Json, Self::Layer, Self::Transaction, Self::Decision];

    /// Sends the command, and returns whether it was replayed.
    async fn send(self, app: &App, sent: Sent) -> Result<bool, IdTaken> {
        let id = CommandId::derived("order-17", "pay");
        let (key, name, cents) = match sent {
            Sent::In(key, cents) => (key, "account.deposit", cents),
            Sent::Out(key, cents) => (key, "account.withdraw", cents),
        };
        let command = match sent {
            Sent::In(..) => AccountCommand::Deposit { cents },
            Sent::Out(..) => AccountCommand::Withdraw { cents },
        };
        match self {
            Self::Command => {
                let sent = app.command::<Account>(key, command).once(id).await;
                sent.map(|it| it.replayed).map_err(taken)
            }
            Self::Json => {
                let json = format!(r#"{{"cents": {cents}}}"#);
                let sent = app.command_json("account", key, name, json).once(id).await;
                sent.map(|it| it.replayed).map_err(taken)
            }
            Self::Layer => {
                let slip = Metadata::new().with("slip", "17");
                let sent = app.command::<Account>(key, command).with_metadata(slip).await;
                sent.map(|it| it.replayed).map_err(taken)
            }
            Self::Transaction => {
                let both = app.transaction().command::<Account>(key, command);
                let sent = both.command::<Account>("eve", DEPOSIT).once(id).await;
                sent.map(|it| it.replayed).map_err(taken)
            }
            Self::Decision => {
                let key = key.to_owned();
                let command = match sent {
                    Sent::In(..) => TellerCommand::PayIn { key, cents },
                    Sent::Out(..) => TellerCommand::PayOut { key, cents },
                };
                let sent = app.decide::<Teller>(command).once(id).await;
                sent.map(|it| it.replayed).map_err(taken)
            }
        }
    }
}

fn taken<R: std::error::Error>(error: SendError<R>) -> IdTaken {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    match error {
        SendError::Failed(CommandError::Entity(EntityError::IdTaken(taken))) => *taken,
        SendError::Failed(CommandError::Transaction(TransactionError::IdTaken(taken))) => taken,
        other => panic!("{other:?}"),
    }
}

/// A bank with ada, bob and eve, who have 100 each.
async fn bank() -> App {
    let app = App::builder().commands::<Account>().layer(IdempotencyLayer::new("slip"));
    let app = app.open("memory:").await.unwrap();
    for key in ["ada", "bob", "eve"] {
        app.command::<Account>(key, open(key)).await.unwrap();
        app.command::<Account>(key, AccountCommand::Deposit { cents: 100 }).await.unwrap();
    }
    app
}

#[tokio::test]
async fn an_id_that_names_another_command_is_refused_whichever_way_it_is_sent() {
    for entry in Entry::ALL {
        let app = bank().await;
        let deposit = Sent::In("ada", 5);
        assert_eq!(entry.send(&app, deposit).await, Ok(false), "{entry:?}");
        assert_eq!(entry.send(&app, deposit).await, Ok(true), "{entry:?}");
        let before = events(&app).await;
        for other in [Sent::In("bob", 5), Sent::Out("ada", 5), Sent::In("ada", 6)] {
            let sent = entry.send(&app, other).await;
            if let (Entry::Layer, Sent::In("bob", _)) = (entry, other) {
                // The layer's ids contain the target, so this is another id.
                assert_eq!(sent, Ok(false));
                continue;
            }
            let taken = sent.unwrap_err();
            let of = |commands: &[factum::aggregate::NamedCommand]| {
                commands.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            let first = match entry {
                Entry::Decision => "teller.pay-in on $decision",
                _ => "account.deposit on account-ada",
            };
            assert_eq!(of(&taken.stored)[0], first, "{entry:?} {other:?}");
            let target = match (entry, other) {
                (Entry::Decision, _) => "$decision",
                (_, Sent::In(key, _) | Sent::Out(key, _)) => &format!("account-{key}"),
            };
            assert_eq!(taken.sent[0].target(), target, "{entry:?} {other:?}");
        }
        let stored = events(&app).await - before;
        assert_eq!(stored, usize::from(entry == Entry::Layer), "{entry:?}");
        assert_eq!(entry.send(&app, deposit).await, Ok(true), "{entry:?}");
    }
}

#[tokio::test]
async fn an_id_is_unique_in_the_log_over_all_ways_to_send() {
    let by_id = [Entry::Command, Entry::Transaction, Entry::Decision];
    for first in by_id {
        for second in by_id.into_iter().filter(|it| *it != first) {
            let app = bank().await;
            assert_eq!(first.send(&app, Sent::In("ada", 5)).await, Ok(false));
            let before = events(&app).await;
            let taken = second.send(&app, Sent::In("ada", 5)).await;
            assert!(taken.is_err(), "{first:?} {second:?}");
            assert_eq!(events(&app).await, before);
            assert_eq!(first.send(&app, Sent::In("ada", 5)).await, Ok(true));
        }
    }
    // One command is one command, typed or by its name.
    let app = bank().await;
    assert_eq!(Entry::Command.send(&app, Sent::In("ada", 5)).await, Ok(false));
    assert_eq!(Entry::Json.send(&app, Sent::In("ada", 5)).await, Ok(true));
    // So is one that is the only step of a transaction.
    let alone = app.transaction().command::<Account>("ada", AccountCommand::Deposit { cents: 5 });
    assert!(alone.once(CommandId::derived("order-17", "pay")).await.unwrap().replayed);
}

#[tokio::test]
async fn the_targets_of_a_transaction_are_part_of_what_its_id_names() {
    let app = bank().await;
    let id = CommandId::derived("order-17", "pay");
    let deposits = |keys: &[&str]| {
        let all =
            keys.iter().fold(app.transaction(), |all, key| all.command::<Account>(key, DEPOSIT));
        all.once(id)
    };
    assert_eq!(deposits(&["ada", "bob"]).await.unwrap().events, 2);
    let before = events(&app).await;
    for others in [&["ada", "eve"][..], &["bob", "ada"], &["ada"], &["ada", "bob", "eve"]] {
        let taken = taken(deposits(others).await.unwrap_err());
        assert_eq!((taken.stored.len(), taken.sent.len()), (2, others.len()));
        assert_eq!(taken.id, id);
    }
    assert_eq!(events(&app).await, before);
    assert!(deposits(&["ada", "bob"]).await.unwrap().replayed);
}

/// An event as earlier versions of Factum stored it: it has the tag, and does not name the command.
async fn stored_before(app: &App, key: &str, tag: &str, id: CommandId) {
    let event = AccountEvent::Deposited { cents: 5 };
    let event_id = EventId::new(app.kernel().ids().uuid(app.kernel().clock().now()));
    let new = encode_event(&event, event_id, &Metadata::new(), None).unwrap();
    let new = new.with_tag(Tag::new(tag, id).unwrap());
    let stream = StreamId::new("account", key).unwrap();
    let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, [new]);
    app.kernel().events().append(batch).await.unwrap();
}

#[tokio::test]
async fn events_of_earlier_versions_are_recognised_as_before() {
    let app = bank().await;
    let id = CommandId::derived("order-17", "pay");
    stored_before(&app, "ada", COMMAND_TAG, id).await;
    assert_eq!(Entry::Command.send(&app, Sent::In("ada", 5)).await, Ok(true));
    // An id was valid for one aggregate.
    assert_eq!(Entry::Command.send(&app, Sent::In("bob", 5)).await, Ok(false));
    assert_eq!(Entry::Command.send(&app, Sent::In("ada", 5)).await, Ok(true));
    let app = bank().await;
    stored_before(&app, "ada", "$transaction", id).await;
    assert_eq!(Entry::Transaction.send(&app, Sent::In("ada", 5)).await, Ok(true));
    assert_eq!(Entry::Decision.send(&app, Sent::In("ada", 5)).await, Ok(true));
    // A command did not see the ids of transactions.
    assert_eq!(Entry::Command.send(&app, Sent::In("ada", 5)).await, Ok(false));
}

/// A policy may pass the metadata of its cause on. The new events don't name the command of the
/// cause.
#[tokio::test]
async fn metadata_of_a_cause_names_no_command() {
    let app = bank().await;
    assert_eq!(Entry::Command.send(&app, Sent::In("ada", 5)).await, Ok(false));
    let head = *app.kernel().events().head().borrow();
    let mut log = app.read(ReadQuery::log());
    let mut cause = None;
    while let Some(event) = log.next().await {
        cause = Some(event.unwrap());
    }
    let cause = cause.unwrap();
    assert_eq!(cause.position(), head);
    assert!(cause.metadata().extra.contains_key(COMMAND_TAG));
    let passed_on = cause.metadata();
    app.command::<Account>("bob", DEPOSIT).with_metadata(passed_on.clone()).await.unwrap();
    let both = app.transaction().command::<Account>("bob", DEPOSIT).with_metadata(passed_on);
    both.await.unwrap();
    let bob = app.aggregate::<Account>().history("bob").unwrap().collect().await.unwrap();
    for entry in &bob[2..] {
        assert!(!entry.recorded.metadata().extra.contains_key(COMMAND_TAG));
    }
}

#[derive(Debug, Event)]
#[event(prefix = "lamp")]
enum LampEvent {
    Lit,
}

/// A lamp whose command has no stored name.
#[derive(Debug, Default)]
struct Lamp;

struct Light;

impl Aggregate for Lamp {
    const CATEGORY: &'static str = "lamp";
    type Command = Light;
    type Event = LampEvent;
    type Rejection = fmt::Error;

    fn decide(&self, _: &Light, _: &Context<'_>) -> Verdict<Self> {
        Ok([LampEvent::Lit].into())
    }

    fn evolve(&mut self, LampEvent::Lit: &LampEvent) {}
}

#[tokio::test]
async fn the_idempotency_layer_gives_no_id_to_a_command_without_a_name() {
    let app = App::builder().layer(IdempotencyLayer::new("slip")).open("memory:").await.unwrap();
    let light = || app.command::<Lamp>("hall", Light);
    let unnamed = light().with_metadata(Metadata::new().with("slip", "17")).await.unwrap_err();
    let SendError::Failed(CommandError::Unnamed { category, command }) = unnamed else {
        panic!("{unnamed:?}")
    };
    assert_eq!((category, command), ("lamp", "Light"));
    assert_eq!(events(&app).await, 0);
    light().await.unwrap();
}

/// A refund that is made once, and then has nothing to do.
#[derive(Debug, Default)]
struct Refund {
    is_made: bool,
}

#[derive(Debug, Event)]
enum RefundEvent {
    Made,
}

#[derive(Serialize, Deserialize, Command)]
struct MakeRefund {}

impl Aggregate for Refund {
    const CATEGORY: &'static str = "refund";
    type Command = MakeRefund;
    type Event = RefundEvent;
    type Rejection = fmt::Error;

    fn decide(&self, _: &MakeRefund, _: &Context<'_>) -> Verdict<Self> {
        Ok(if self.is_made { Decision::nothing() } else { [RefundEvent::Made].into() })
    }

    fn evolve(&mut self, RefundEvent::Made: &RefundEvent) {
        self.is_made = true;
    }
}

#[tokio::test]
async fn a_refund_that_is_made_is_not_paid_again() {
    let app = bank().await;
    let refund = |order: &str| {
        let refund = app.transaction().command::<Refund>(order, MakeRefund {});
        refund.command::<Account>("ada", DEPOSIT)
    };
    let balance = async || app.load::<Account>("ada").await.unwrap().state.balance_cents;
    assert_eq!(refund("17").await.unwrap().events, 2);
    let again = refund("17").await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Rejected);
    let SendError::Failed(CommandError::Transaction(TransactionError::Unchanged { step })) = again
    else {
        panic!("{again:?}")
    };
    assert_eq!((step, balance().await), (0, 101));
    // A repeat with its id is no second attempt.
    let id = CommandId::derived("18", "refund");
    for replayed in [false, true] {
        let done = refund("18").once(id).await.unwrap();
        assert_eq!((done.replayed, balance().await), (replayed, 102));
    }
    // If no step has an effect, there is nothing to do.
    let made = || app.transaction().command::<Refund>("17", MakeRefund {});
    let nothing = made().command::<Refund>("18", MakeRefund {}).await.unwrap();
    assert_eq!((nothing.position, nothing.events), (None, 0));
    // The caller may say that the steps don't depend on each other.
    assert_eq!(refund("17").allowing_unchanged().await.unwrap().events, 1);
    assert_eq!(balance().await, 103);
}

/// Its first event has no room for the names of all commands.
#[tokio::test]
async fn a_long_transaction_is_known_by_its_id() {
    let app = App::open("memory:").await.unwrap();
    let refunds = |orders: std::ops::Range<u32>| {
        let all = orders.fold(app.transaction(), |all, order| {
            all.command::<Refund>(order.to_string(), MakeRefund {})
        });
        all.once(CommandId::derived("branch", "refund all")).into_future()
    };
    assert!(!refunds(0..300).await.unwrap().replayed);
    assert!(refunds(0..300).await.unwrap().replayed);
    for others in [0..299, 0..301, 1..301] {
        let sent = others.len();
        assert_eq!(taken(refunds(others).await.unwrap_err()).sent.len(), sent);
    }
}

#[tokio::test]
async fn a_layer_sees_every_aggregate_that_a_transaction_names() {
    let keys = AdmissionLayer::steps(|step, _| match step.key() {
        "eve" => Err(format!("not eve: {:?}", step.expected()).into()),
        _ => Ok(()),
    });
    let app = App::builder().layer(keys).open("memory:").await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    let on = |key: &'static str, version| {
        let deposit = app.transaction().command::<Account>("ada", DEPOSIT);
        deposit.expecting::<Account>(key, StreamVersion::new(version))
    };
    for version in [0, 1] {
        let refused = on("eve", version).await.unwrap_err();
        let SendError::Refused(no) = refused else { panic!("{refused:?}") };
        assert_eq!(no.to_string(), format!("not eve: Some(StreamVersion({version}))"));
    }
    on("ada", 1).await.unwrap();
    on("bob", 0).await.unwrap();
}

#[tokio::test]
async fn a_repeat_whose_reply_panics_is_told_that_the_command_holds() {
    let app = bank().await;
    let id = CommandId::derived("order-17", "pay");
    let deposit = || app.command::<Account>("ada", DEPOSIT).once(id);
    let panics = |_: &Account| -> u64 { panic!("no reply") };
    // The first attempt takes no effect.
    let first = deposit().reply(panics).await.unwrap_err();
    let SendError::Failed(CommandError::Entity(EntityError::Panicked { .. })) = first else {
        panic!("{first:?}")
    };
    assert!(!deposit().await.unwrap().replayed);
    let again = deposit().reply(panics).await.unwrap_err();
    let SendError::Failed(CommandError::Entity(EntityError::ReplyPanicked { message, .. })) = again
    else {
        panic!("{again:?}")
    };
    assert_eq!(&*message, "no reply");
    let answered = deposit().reply(|account| account.balance_cents).await.unwrap();
    assert_eq!((answered.replayed, answered.reply), (true, 101));
}

/// A log that counts the reads by tag.
struct Counting {
    log: Arc<dyn EventStore>,
    searches: Arc<AtomicUsize>,
}

impl fmt::Debug for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counting").finish_non_exhaustive()
    }
}

#[async_trait]
impl ForwardEvents for Counting {
    fn events(&self) -> Arc<dyn EventStore> {
        self.log.clone()
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        if let Scope::Query(_) = &query.scope {
            self.searches.fetch_add(1, Ordering::SeqCst);
        }
        self.log.read(query).await
    }
}

#[tokio::test]
async fn a_transaction_with_an_id_is_searched_for_once() {
    let Stores { events, documents } = in_memory();
    let searches = Arc::new(AtomicUsize::new(0));
    let counting = Counting { log: events, searches: searches.clone() };
    let stores = Stores { events: Arc::new(Forwarding(counting)), documents };
    let app = App::builder().open_stores(stores).await.unwrap();
    app.command::<Account>("ada", open("ada")).await.unwrap();
    let deposit = || app.transaction().command::<Account>("ada", DEPOSIT);
    let id = CommandId::derived("order-17", "pay");
    deposit().await.unwrap();
    assert_eq!(searches.load(Ordering::SeqCst), 0);
    deposit().once(id).await.unwrap();
    assert_eq!(searches.load(Ordering::SeqCst), 1);
    assert!(deposit().once(id).await.unwrap().replayed);
    assert_eq!(searches.load(Ordering::SeqCst), 2);
}
