//! The bank: running accounts, and the layers that every command passes.

use std::{sync::Arc, time::Duration};

use factum::{
    App, EntityOptions, Metadata, OpenError, Outcome, SendError,
    aggregate::StepRejected,
    runtime::{
        AdmissionLayer, BoxError, CommandRequest, CommandStep, EntityError, IdempotencyLayer,
        MetricsLayer, RequestKind, TracingLayer,
    },
    store::SystemClock,
};
use tower::ServiceBuilder;

use crate::account::{Account, AccountCommand, AccountRejection};

/// The most commands under way at the same time. Further commands are refused.
const COMMANDS_MAX: usize = 64;
/// The largest amount of one deposit or withdrawal.
const CENTS_MAX: u64 = 1_000_000;
/// The entry in a command's metadata by which a repeat is recognised.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An open bank. A clone is the same bank.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    pub(crate) app: App,
}

/// The result of a customer's request.
pub(crate) type Done = Result<Outcome<Account>, SendError<AccountRejection>>;

impl Bank {
    /// Opens the bank in a store.
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

    /// Carries out a customer's request on an account.
    pub(crate) async fn wish(&self, user: &str, account: &str, command: AccountCommand) -> Done {
        let metadata = Metadata::new().with_user(user);
        self.app.command::<Account>(account, command).with_metadata(metadata).await
    }

    /// The same with a numbered slip: a slip that is presented again has no second effect.
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

    /// Moves money from one account to another, on both or on none. The layers see both steps, and
    /// the entities notice the stored events.
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

    /// The balance of an account, in cents.
    pub(crate) async fn cents(&self, account: &str) -> Result<u64, EntityError> {
        self.app.aggregate::<Account>().look(account, |account, _| account.cents).await
    }
}

/// Customers may use their own accounts, and pay from them into others.
fn authorize(step: &CommandStep, metadata: &Metadata) -> Result<(), BoxError> {
    let account = match step.command::<Account>() {
        Some(AccountCommand::Receive { from, .. }) => from,
        _ => step.key(),
    };
    match metadata.user.as_deref() {
        Some(user) if user == account => Ok(()),
        Some(user) => Err(format!("{user} may not use the account {account}").into()),
        None => Err("log in first".into()),
    }
}

/// Send and receive are allowed only together, in a transaction.
fn whole_transfers(request: &CommandRequest) -> Result<(), BoxError> {
    let is_half = |command: &AccountCommand| {
        matches!(command, AccountCommand::Send { .. } | AccountCommand::Receive { .. })
    };
    let is_alone = request.kind() == RequestKind::Command;
    if is_alone && request.commands::<Account>().any(|(_, command)| is_half(command)) {
        return Err("send and receive belong in one transaction".into());
    }
    Ok(())
}

/// Checks a command without the account's state.
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
