//! The bank: accounts that run, and layers before everything that is sent to them.

use std::{sync::Arc, time::Duration};

use factum::{
    AdmissionLayer, App, BoxError, CommandRequest, CommandStep, EntityError, EntityOptions,
    IdempotencyLayer, Metadata, MetricsLayer, OpenError, Outcome, RequestKind, SendError,
    StepRejected, SystemClock, TracingLayer,
};
use tower::ServiceBuilder;

use crate::account::{Account, AccountCommand, AccountRejection};

/// So many commands are under way at once; more are turned away.
const COMMANDS_MAX: usize = 64;
/// Nobody pays in or out more than this at once.
const CENTS_MAX: u64 = 1_000_000;
/// The entry of a command's metadata by which it is recognised when it is sent again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An open bank. Clones are the same bank.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    pub(crate) app: App,
}

/// What came of a customer's wish.
pub(crate) type Done = Result<Outcome<Account>, SendError<AccountRejection>>;

impl Bank {
    /// Opens the bank in a store, and founds it if it is not there.
    pub(crate) async fn open(store: &str) -> Result<Self, OpenError> {
        let limits = ServiceBuilder::new()
            .load_shed()
            .concurrency_limit(COMMANDS_MAX)
            .timeout(Duration::from_secs(5));
        let app = App::builder()
            .with_entities(EntityOptions::new().with_mailbox_max(256))
            .commands::<Account>()
            .layer(TracingLayer::new())
            .layer(MetricsLayer::new(Arc::new(SystemClock)))
            .layer(AdmissionLayer::steps(authorize))
            .layer(AdmissionLayer::new(whole_transfers))
            .layer(AdmissionLayer::of::<Account>(validate))
            .layer(IdempotencyLayer::new(IDEMPOTENCY_KEY))
            .layer(limits)
            .open(store)
            .await?;
        Ok(Self { app })
    }

    /// What a customer wishes of an account.
    pub(crate) async fn wish(&self, user: &str, account: &str, command: AccountCommand) -> Done {
        let metadata = Metadata::new().with_user(user);
        self.app.command::<Account>(account, command).with_metadata(metadata).await
    }

    /// The same, by a slip with a number: presented again, it is not carried out again.
    pub(crate) async fn wish_once(
        &self,
        user: &str,
        slip: &str,
        account: &str,
        command: AccountCommand,
    ) -> Done {
        let metadata = Metadata::new().with_user(user).with(IDEMPOTENCY_KEY, slip);
        self.app.command::<Account>(account, command).with_metadata(metadata).await
    }

    /// Money goes from one account to another, in both or in none. The layers see both steps, and
    /// the entities notice what was stored.
    pub(crate) async fn transfer(
        &self,
        from: &str,
        to: &str,
        cents: u64,
    ) -> Result<(), SendError<StepRejected>> {
        self.app
            .transaction()
            .command::<Account>(from, AccountCommand::Send { to: to.into(), cents })
            .command::<Account>(to, AccountCommand::Receive { from: from.into(), cents })
            .with_metadata(Metadata::new().with_user(from))
            .await?;
        Ok(())
    }

    /// What is on an account, in cents.
    pub(crate) async fn cents(&self, account: &str) -> Result<u64, EntityError> {
        self.app.aggregate::<Account>().look(account, |account, _| account.cents).await
    }
}

/// Everybody sees to an account of their own, and pays into others from it.
fn authorize(step: &CommandStep, metadata: &Metadata) -> Result<(), BoxError> {
    let account = match step.command::<Account>() {
        Some(AccountCommand::Receive { from, .. }) => from,
        _ => step.key(),
    };
    match metadata.user.as_deref() {
        Some(user) if user == account => Ok(()),
        Some(user) => Err(format!("{user} has no say over the account {account}").into()),
        None => Err("log in first".into()),
    }
}

/// A transfer is a transaction.
fn whole_transfers(request: &CommandRequest) -> Result<(), BoxError> {
    let is_half = |command: &AccountCommand| {
        matches!(command, AccountCommand::Send { .. } | AccountCommand::Receive { .. })
    };
    let is_alone = request.kind() == RequestKind::Command;
    if is_alone && request.commands::<Account>().any(|(_, command)| is_half(command)) {
        return Err("half a transfer is none".into());
    }
    Ok(())
}

/// What can be said of a command without looking at the account.
fn validate(_: &str, command: &AccountCommand, _: &Metadata) -> Result<(), BoxError> {
    match command {
        AccountCommand::Open { email, .. } if !email.contains('@') => {
            Err(format!("{email:?} is no e-mail address").into())
        }
        AccountCommand::Deposit { cents } | AccountCommand::Withdraw { cents }
            if !(1..=CENTS_MAX).contains(cents) =>
        {
            Err(format!("{cents} cents can't be paid in or out at once").into())
        }
        _ => Ok(()),
    }
}
