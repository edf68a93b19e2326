//! The bank: accounts that run, behind a command bus with layers.

use std::time::Duration;

use factum::{
    AdmissionLayer, App, BoxError, CommandRequest, CommandResponse, Commands, DispatchError,
    Entities, EntityOptions, ExecuteError, IdempotencyLayer, Metadata, MetricsLayer, OpenError,
    Outcome, StepRejected, TracingLayer,
};
use tower::{ServiceBuilder, util::BoxCloneSyncService};

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
    pub(crate) accounts: Entities<Account>,
    commands: Commands<Layered>,
}

/// The layers' types in one short name.
type Layered = BoxCloneSyncService<CommandRequest, CommandResponse, BoxError>;

/// What came of a customer's wish.
pub(crate) type Done = Result<Outcome<Account>, DispatchError<AccountRejection>>;

impl Bank {
    /// Opens the bank in a store, and founds it if it is not there.
    pub(crate) async fn open(store: &str) -> Result<Self, OpenError> {
        let entities = EntityOptions::new().with_mailbox_max(256);
        let app = App::builder().with_entities(entities).aggregate::<Account>();
        let app = app.open(store).await?;
        let layers = ServiceBuilder::new()
            .layer(BoxCloneSyncService::layer())
            .layer(TracingLayer::new())
            .layer(MetricsLayer::new(app.kernel().clock().clone()))
            .layer(AdmissionLayer::new(authorize))
            .layer(AdmissionLayer::of::<Account>(validate))
            .layer(IdempotencyLayer::new(IDEMPOTENCY_KEY))
            .load_shed()
            .concurrency_limit(COMMANDS_MAX)
            .timeout(Duration::from_secs(5));
        let commands = app.commands().named::<Account>().layer(layers);
        Ok(Self { accounts: app.entities(), app, commands })
    }

    /// What a customer wishes of an account.
    pub(crate) async fn wish(&self, user: &str, account: &str, command: AccountCommand) -> Done {
        let metadata = Metadata::new().with_user(user);
        self.commands.dispatch_with::<Account>(account, command, metadata).await
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
        self.commands.dispatch_with::<Account>(account, command, metadata).await
    }

    /// Money goes from one account to another, in both or in none. A transaction passes by the
    /// bus and the entities; they notice what it stored.
    pub(crate) async fn transfer(
        &self,
        from: &str,
        to: &str,
        cents: u64,
    ) -> Result<(), ExecuteError<StepRejected>> {
        let accounts = self.accounts.repository();
        let transfer = self.app.transaction();
        transfer
            .execute(accounts, from, AccountCommand::Send { to: to.into(), cents })
            .execute(accounts, to, AccountCommand::Receive { from: from.into(), cents })
            .commit(&Metadata::new().with_user(from))
            .await?;
        Ok(())
    }

    /// What is on an account, in cents.
    pub(crate) async fn cents(&self, account: &str) -> Result<u64, factum::EntityError> {
        self.accounts.look(account, |account, _| account.cents).await
    }
}

/// Everybody sees to an account of their own.
fn authorize(request: &CommandRequest) -> Result<(), BoxError> {
    match request.metadata.user.as_deref() {
        Some(user) if user == request.key() => Ok(()),
        Some(user) => Err(format!("{user} has no say over the account {}", request.key()).into()),
        None => Err("log in first".into()),
    }
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
        AccountCommand::Send { .. } | AccountCommand::Receive { .. } => {
            Err("half a transfer is none".into())
        }
        _ => Ok(()),
    }
}
