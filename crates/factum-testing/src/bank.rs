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

/// An account as its events make it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Whose it is; empty before it is opened.
    pub owner: String,
    /// Where its owner is reached; no other account has it.
    pub email: String,
    /// What is on it, in cents.
    pub balance_cents: u64,
}

/// What can be asked of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Command)]
#[command(crate = factum_kernel)]
pub enum AccountCommand {
    /// Open it.
    Open {
        /// Whose it will be.
        owner: String,
        /// Where its owner is reached.
        email: String,
    },
    /// Put money on it.
    Deposit {
        /// How much.
        cents: u64,
    },
    /// Take money from it.
    Withdraw {
        /// How much.
        cents: u64,
    },
    /// The near half of a transfer: money goes to another account.
    Send {
        /// The key of the other account.
        to: String,
        /// How much.
        cents: u64,
    },
    /// The far half of a transfer: money comes from another account.
    Receive {
        /// The key of the other account.
        from: String,
        /// How much.
        cents: u64,
    },
}

/// What can happen to an account.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(crate = factum_kernel)]
pub enum AccountEvent {
    /// It was opened.
    Opened {
        /// Whose it is.
        owner: String,
        /// Where its owner is reached.
        #[event(tag, hashed)]
        email: String,
    },
    /// Money was put on it.
    Deposited {
        /// How much.
        cents: u64,
    },
    /// Money was taken from it.
    Withdrawn {
        /// How much.
        cents: u64,
    },
    /// Money went to another account.
    Sent {
        /// The key of the other account.
        #[event(tag = "peer")]
        to: String,
        /// How much.
        cents: u64,
    },
    /// Money came from another account.
    Received {
        /// The key of the other account.
        #[event(tag = "peer")]
        from: String,
        /// How much.
        cents: u64,
    },
    /// All that happened so far, so that older history may go.
    #[event(summary)]
    Summarised {
        /// Whose it is.
        owner: String,
        /// Where its owner is reached. Tagged again: the first event with it may be gone, and the
        /// address is still taken.
        #[event(tag, hashed)]
        email: String,
        /// What is on it, in cents.
        balance_cents: u64,
    },
}

/// What an account says no with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AccountRejection {
    /// It can be opened once only.
    #[error("the account is open already")]
    AlreadyOpen,
    /// There is no such account.
    #[error("the account is not open")]
    NotOpen,
    /// Another account has the address.
    #[error("another account has this e-mail address")]
    EmailTaken,
    /// There is too little on it.
    #[error("insufficient funds: balance_cents={balance_cents}")]
    InsufficientFunds {
        /// What is on it, in cents.
        balance_cents: u64,
    },
    /// Nothing, or more than an account can hold.
    #[error("invalid amount: cents={cents}")]
    InvalidAmount {
        /// The amount.
        cents: u64,
    },
}

impl Aggregate for Account {
    const CATEGORY: &'static str = category!("account");
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Verdict<Self> {
        // No tag has an empty value, so an account that is open has an address.
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
