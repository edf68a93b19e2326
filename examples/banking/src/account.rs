//! The rules of an account.

use factum::{Aggregate, Command, Context, Decision, Event, Matching, Verdict, category};
use serde::{Deserialize, Serialize};

/// The state of an account, folded from its events.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) owner: Option<String>,
    pub(crate) cents: u64,
}

/// The commands of an account. Traces and metrics use their names, such as `account.deposit`.
#[derive(Debug, Clone, Serialize, Deserialize, Command)]
pub(crate) enum AccountCommand {
    Open { owner: String, email: String },
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
    Send { to: String, cents: u64 },
    Receive { from: String, cents: u64 },
}

/// The events of an account.
#[derive(Debug, Clone, PartialEq, Event)]
pub(crate) enum AccountEvent {
    Opened {
        owner: String,
        #[event(tag, hashed)]
        email: String,
    },
    Deposited {
        cents: u64,
    },
    Withdrawn {
        cents: u64,
    },
    Sent {
        to: String,
        cents: u64,
    },
    Received {
        from: String,
        cents: u64,
    },
}

/// The reasons for which an account rejects commands.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum AccountRejection {
    #[error("the account is not open")]
    NotOpen,
    #[error("another account has this e-mail address")]
    EmailTaken,
    #[error("there are only {cents} cents")]
    InsufficientFunds { cents: u64 },
}

impl Aggregate for Account {
    const CATEGORY: &'static str = category!("account");
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Verdict<Self> {
        let event = match command.clone() {
            // The account is open already, so nothing has to be done.
            AccountCommand::Open { .. } if self.owner.is_some() => return Ok(Decision::nothing()),
            AccountCommand::Open { owner, email } => {
                let taken = Matching::hashed_tag("email", &email);
                let opened = Decision::from([AccountEvent::Opened { owner, email }]);
                return Ok(opened.unless(taken, AccountRejection::EmailTaken));
            }
            _ if self.owner.is_none() => return Err(AccountRejection::NotOpen),
            AccountCommand::Deposit { cents } => AccountEvent::Deposited { cents },
            AccountCommand::Receive { from, cents } => AccountEvent::Received { from, cents },
            AccountCommand::Withdraw { cents } | AccountCommand::Send { cents, .. }
                if cents > self.cents =>
            {
                return Err(AccountRejection::InsufficientFunds { cents: self.cents });
            }
            AccountCommand::Withdraw { cents } => AccountEvent::Withdrawn { cents },
            AccountCommand::Send { to, cents } => AccountEvent::Sent { to, cents },
        };
        Ok([event].into())
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { owner, .. } => self.owner = Some(owner.clone()),
            AccountEvent::Deposited { cents } | AccountEvent::Received { cents, .. } => {
                self.cents += cents;
            }
            AccountEvent::Withdrawn { cents } | AccountEvent::Sent { cents, .. } => {
                self.cents -= cents;
            }
        }
    }

    // Adds the memory of the account's texts, so that the limit on entities in memory is exact.
    fn weight(&self) -> usize {
        size_of::<Self>() + self.owner.as_ref().map_or(0, String::capacity)
    }
}

#[cfg(test)]
mod tests {
    use factum_testing::given;

    use super::*;

    fn opened() -> AccountEvent {
        AccountEvent::Opened { owner: "Ada".into(), email: "ada@example.org".into() }
    }

    #[test]
    fn nobody_withdraws_more_than_there_is() {
        given::<Account>([opened(), AccountEvent::Deposited { cents: 500 }])
            .when(AccountCommand::Withdraw { cents: 200 })
            .then([AccountEvent::Withdrawn { cents: 200 }])
            .when(AccountCommand::Send { to: "bob".into(), cents: 301 })
            .rejected(AccountRejection::InsufficientFunds { cents: 300 });
    }

    #[test]
    fn an_address_belongs_to_one_account() {
        given::<Account>([])
            .when(AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() })
            .then([opened()])
            .guarded(Matching::hashed_tag("email", "ada@example.org"), AccountRejection::EmailTaken)
            .when(AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() })
            .then_nothing();
    }

    #[test]
    fn what_is_not_open_does_nothing() {
        given::<Account>([])
            .when(AccountCommand::Deposit { cents: 1 })
            .rejected(AccountRejection::NotOpen);
    }
}
