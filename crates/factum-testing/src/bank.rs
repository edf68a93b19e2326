//! The sample domain of all documentation and tests: bank accounts.
//!
//! An e-mail address is unique over all accounts, by a guard on a hashed tag. A transfer is one
//! transaction over two accounts: [`AccountCommand::Send`] on one, [`AccountCommand::Receive`] on
//! the other.
//!
//! ```
//! use factum_testing::{bank::{Account, AccountCommand, AccountEvent, AccountRejection}, given};
//!
//! let opened = AccountEvent::Opened { owner: "Ada".into(), email: "ada@example.org".into() };
//! given::<Account>([opened, AccountEvent::Deposited { cents: 500 }])
//!     .when(AccountCommand::Withdraw { cents: 700 })
//!     .rejected(AccountRejection::InsufficientFunds { balance_cents: 500 });
//! ```

use factum_kernel::{Aggregate, Context, Decision, Matching, Verdict, category};
use factum_macros::{Command, Event};
use serde::{Deserialize, Serialize};

/// The state of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The owner; empty before the account is opened.
    pub owner: String,
    /// The owner's e-mail address, which no other account has.
    pub email: String,
    /// The balance in cents.
    pub balance_cents: u64,
}

/// The commands of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Command)]
#[command(crate = factum_kernel)]
pub enum AccountCommand {
    /// Open the account.
    Open {
        /// The owner.
        owner: String,
        /// The owner's e-mail address.
        email: String,
    },
    /// Deposit money.
    Deposit {
        /// The amount in cents.
        cents: u64,
    },
    /// Withdraw money.
    Withdraw {
        /// The amount in cents.
        cents: u64,
    },
    /// Send money to another account: the first half of a transfer.
    Send {
        /// The key of the other account.
        to: String,
        /// The amount in cents.
        cents: u64,
    },
    /// Receive money from another account: the second half of a transfer.
    Receive {
        /// The key of the other account.
        from: String,
        /// The amount in cents.
        cents: u64,
    },
}

/// The events of an account.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(crate = factum_kernel)]
pub enum AccountEvent {
    /// The account was opened.
    Opened {
        /// The owner.
        owner: String,
        /// The owner's e-mail address.
        #[event(tag, hashed)]
        email: String,
    },
    /// Money was deposited.
    Deposited {
        /// The amount in cents.
        cents: u64,
    },
    /// Money was withdrawn.
    Withdrawn {
        /// The amount in cents.
        cents: u64,
    },
    /// Money was sent to another account.
    Sent {
        /// The key of the other account.
        #[event(tag = "peer")]
        to: String,
        /// The amount in cents.
        cents: u64,
    },
    /// Money was received from another account.
    Received {
        /// The key of the other account.
        #[event(tag = "peer")]
        from: String,
        /// The amount in cents.
        cents: u64,
    },
    /// A summary of all earlier events, so that older history may be deleted.
    #[event(summary)]
    Summarised {
        /// The owner.
        owner: String,
        /// The owner's e-mail address. It is tagged again, because the first event with it may be
        /// deleted and the address is still taken.
        #[event(tag, hashed)]
        email: String,
        /// The balance in cents.
        balance_cents: u64,
    },
}

/// The rejections of an account's commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AccountRejection {
    /// An account can be opened only once.
    #[error("the account is open already")]
    AlreadyOpen,
    /// The account was never opened.
    #[error("the account is not open")]
    NotOpen,
    /// Another account has the address.
    #[error("another account has this e-mail address")]
    EmailTaken,
    /// The balance is too low.
    #[error("insufficient funds: balance_cents={balance_cents}")]
    InsufficientFunds {
        /// The balance in cents.
        balance_cents: u64,
    },
    /// The amount is zero, or more than an account can hold.
    #[error("invalid amount: cents={cents}")]
    InvalidAmount {
        /// The amount in cents.
        cents: u64,
    },
}

impl Aggregate for Account {
    const CATEGORY: &'static str = category!("account");
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Verdict<Self> {
        // No tag has an empty value, so an open account has an address.
        let exists = !self.email.is_empty();
        match command.clone() {
            AccountCommand::Open { .. } if exists => Err(AccountRejection::AlreadyOpen),
            AccountCommand::Open { owner, email } => {
                let taken = Matching::hashed_tag("email", &email);
                let opened = Decision::from([AccountEvent::Opened { owner, email }]);
                Ok(opened.unless(taken, AccountRejection::EmailTaken))
            }
            _ if !exists => Err(AccountRejection::NotOpen),
            AccountCommand::Deposit { cents } => {
                self.holds_more(cents).map(|()| [AccountEvent::Deposited { cents }].into())
            }
            AccountCommand::Withdraw { cents } => {
                self.covers(cents).map(|()| [AccountEvent::Withdrawn { cents }].into())
            }
            AccountCommand::Send { to, cents } => {
                self.covers(cents).map(|()| [AccountEvent::Sent { to, cents }].into())
            }
            AccountCommand::Receive { from, cents } => {
                self.holds_more(cents).map(|()| [AccountEvent::Received { from, cents }].into())
            }
        }
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner, email } => {
                (self.owner, self.email) = (owner.clone(), email.clone());
            }
            AccountEvent::Deposited { cents } | AccountEvent::Received { cents, .. } => {
                self.balance_cents += cents;
            }
            AccountEvent::Withdrawn { cents } | AccountEvent::Sent { cents, .. } => {
                self.balance_cents -= cents;
            }
            AccountEvent::Summarised { owner, email, balance_cents } => {
                let owner = owner.clone();
                let email = email.clone();
                *self = Self { owner, email, balance_cents: *balance_cents };
            }
        }
    }

    fn summary(&self) -> Option<AccountEvent> {
        let Self { owner, email, balance_cents } = self.clone();
        Some(AccountEvent::Summarised { owner, email, balance_cents })
    }
}

impl Account {
    fn holds_more(&self, cents: u64) -> Result<(), AccountRejection> {
        match self.balance_cents.checked_add(cents) {
            Some(_) if cents > 0 => Ok(()),
            _ => Err(AccountRejection::InvalidAmount { cents }),
        }
    }

    fn covers(&self, cents: u64) -> Result<(), AccountRejection> {
        match cents {
            0 => Err(AccountRejection::InvalidAmount { cents }),
            _ if cents > self.balance_cents => {
                let balance_cents = self.balance_cents;
                Err(AccountRejection::InsufficientFunds { balance_cents })
            }
            _ => Ok(()),
        }
    }
}
