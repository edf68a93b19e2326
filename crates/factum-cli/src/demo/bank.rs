//! The bank at work: turns wishes into commands on accounts, and counts rejections by kind.

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use factum::{
    AggregateOptions, Aggregates, App, AppBuilder, EntityOptions, ErrorKind, Position, ReadQuery,
    SendError, SnapshotPolicy,
    aggregate::StepRejected,
    event::{EventName, Timestamp},
    read::Query,
    store::{Clock, Stores, SystemClock},
};
use factum_testing::bank::{Account, AccountCommand, AccountRejection};

use crate::{
    demo::{
        clock::BankClock,
        conflict::Conflicts,
        customer,
        plan::{Order, Wish},
    },
    effect::Effect,
    exit::{Exit, Failure},
    place::Place,
};

const OPENED: EventName = EventName::from_static("account.opened");
/// The time before now at which the month of a new bank begins.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// An open bank. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    pub(crate) app: App,
    /// The accounts, as they run and as they are stored.
    pub(crate) accounts: Aggregates<Account>,
    clock: Arc<BankClock>,
    conflicts: Conflicts,
}

/// The state in which an earlier run left the bank.
#[derive(Debug)]
pub(crate) struct Found {
    /// The last position of the log.
    pub(crate) head: Position,
    /// The accounts of its customers.
    pub(crate) known: Vec<Arc<str>>,
    /// The first number that no customer has.
    pub(crate) next_number: u64,
    /// The time at which the bank continues.
    pub(crate) start: Timestamp,
}

/// The outcomes of commands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) commands: u64,
    pub(crate) events: u64,
    /// The number of rejections by kind.
    pub(crate) rejections: BTreeMap<&'static str, u64>,
    /// The commands that were given up after too many conflicts.
    pub(crate) given_up: u64,
}

impl Tally {
    /// Adds the outcomes of another tally.
    pub(crate) fn merge(&mut self, other: Self) {
        self.commands += other.commands;
        self.events += other.events;
        self.given_up += other.given_up;
        for (kind, count) in other.rejections {
            *self.rejections.entry(kind).or_default() += count;
        }
    }

    /// The number of all rejections.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejections.values().sum()
    }
}

impl Bank {
    /// Opens the bank; founds it if it does not exist and the effect allows it.
    pub(crate) async fn open(place: &Place, effect: Effect) -> Result<Self, Failure> {
        let clock = Arc::new(BankClock::new(SystemClock.now().saturating_sub(MONTH)));
        let stores = place.open(effect, clock.clone()).await?;
        Self::on(stores, clock, App::builder()).await
    }

    /// The bank on an open store. `builder` may set the application's other options.
    pub(super) async fn on(
        Stores { events, documents }: Stores,
        clock: Arc<BankClock>,
        builder: AppBuilder,
    ) -> Result<Self, Failure> {
        let conflicts = Conflicts::default();
        let stores = Stores { events: conflicts.of(events), documents };
        // The favourite accounts have long histories. Snapshots keep the cost of loading flat.
        let accounts = AggregateOptions::<Account>::new();
        let accounts = accounts.with_snapshots(SnapshotPolicy::production());
        let accounts = accounts.expect("the preset makes sense");
        // No deadline: the bank's clock leaps while commands wait.
        let accounts = accounts.with_entities(EntityOptions::new().with_deadline(None));
        let builder = builder.with_clock(clock.clone()).aggregate_with(accounts);
        let app = builder.open_stores(stores).await?;
        Ok(Self { accounts: app.aggregate(), app, clock, conflicts })
    }

    /// Finishes the accepted work and leaves the store in order.
    pub(crate) async fn close(&self) -> Result<(), Failure> {
        self.app.close().await?;
        match self.accounts.stats().active {
            0 => Ok(()),
            count => {
                let text = format!("accounts were still at work when closing: count={count}");
                Err(Failure::new(Exit::Unavailable, text))
            }
        }
    }

    /// Reads the state of the bank, and sets the clock to the time at which it continues.
    pub(crate) async fn look(&self) -> Result<Found, Failure> {
        let last = ReadQuery::log().backward().with_events_max(1);
        let last = self.app.kernel().events().read(last).await?;
        if let Some(event) = last.events.first() {
            self.clock.advance_to(event.recorded_at());
        }
        let mut known = Vec::new();
        let mut opened = self.app.read(ReadQuery::matching(Query::types([OPENED])));
        while let Some(event) = opened.next().await {
            let event = event?;
            let key = event.stream().key();
            // Accounts that other programs opened are not touched.
            known.extend(customer::number(key).map(|number| (number, Arc::from(key))));
        }
        let next_number = known.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
        let known = known.into_iter().map(|(_, key)| key).collect();
        Ok(Found { head: last.head, known, next_number, start: self.clock.now() })
    }

    /// The number of conflicts so far.
    pub(crate) fn conflicts(&self) -> u64 {
        self.conflicts.count()
    }

    /// Executes an order and counts its outcome.
    pub(crate) async fn carry_out(&self, order: Order, tally: &mut Tally) -> Result<(), Failure> {
        self.clock.advance_to(order.at);
        let outcome = match order.wish {
            Wish::Open { key, owner, email } => {
                self.send(&key, AccountCommand::Open { owner, email }).await
            }
            Wish::Deposit { key, cents } => {
                self.send(&key, AccountCommand::Deposit { cents }).await
            }
            Wish::Withdraw { key, cents } => {
                self.send(&key, AccountCommand::Withdraw { cents }).await
            }
            Wish::Transfer { from, to, cents } => self.transfer(&from, &to, cents).await,
        };
        tally.commands += 1;
        match outcome {
            Ok(events) => tally.events += events as u64,
            Err(Refusal::Rejected(kind)) => *tally.rejections.entry(kind).or_default() += 1,
            Err(Refusal::GivenUp) => tally.given_up += 1,
            Err(Refusal::Failed(failure)) => return Err(failure),
        }
        Ok(())
    }

    async fn send(&self, key: &str, command: AccountCommand) -> Result<usize, Refusal> {
        let outcome = self.app.command::<Account>(key, command).await;
        let no = |no: &AccountRejection| kind(no);
        outcome.map(|outcome| outcome.events.len()).map_err(|error| Refusal::of(error, no))
    }

    /// Transfers money in one transaction over two accounts, whose events share a correlation id.
    /// For the running accounts the transaction is another writer.
    async fn transfer(&self, from: &str, to: &str, cents: u64) -> Result<usize, Refusal> {
        let send = AccountCommand::Send { to: to.into(), cents };
        let receive = AccountCommand::Receive { from: from.into(), cents };
        let transfer = self.app.transaction();
        let transfer = transfer.command::<Account>(from, send).command::<Account>(to, receive);
        let no = |no: &StepRejected| no.downcast_ref().map_or("other", kind);
        transfer.await.map(|done| done.events).map_err(|error| Refusal::of(error, no))
    }
}

/// The reason why a command had no effect.
enum Refusal {
    /// The domain rejected the command.
    Rejected(&'static str),
    /// There were too many conflicts.
    GivenUp,
    /// A failure.
    Failed(Failure),
}

impl Refusal {
    fn of<R: Error + 'static>(error: SendError<R>, kind: impl Fn(&R) -> &'static str) -> Self {
        match error {
            SendError::Rejected(no) => Self::Rejected(kind(&no)),
            error if error.kind() == ErrorKind::Conflict => Self::GivenUp,
            error => Self::Failed(error.into()),
        }
    }
}

/// The kind of a rejection, as JSON names it.
fn kind(rejection: &AccountRejection) -> &'static str {
    match rejection {
        AccountRejection::InsufficientFunds { .. } => "overdraft",
        AccountRejection::EmailTaken => "email_taken",
        AccountRejection::AlreadyOpen => "already_open",
        AccountRejection::NotOpen => "not_open",
        AccountRejection::InvalidAmount { .. } => "invalid_amount",
    }
}
