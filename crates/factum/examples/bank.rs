#![allow(missing_docs, clippy::print_stdout, reason = "the README shows the rest of this file")]

use factum::{Aggregate, App, Context, Decision, Event, SendError, Verdict, category};
use {AccountCommand::*, AccountEvent::*, AccountRejection::*};

#[derive(Debug, Event)]
enum AccountEvent {
    Opened { owner: String },
    Deposited { cents: u64 },
    Withdrawn { cents: u64 },
}

enum AccountCommand {
    Open { owner: String },
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
}

#[derive(Debug, thiserror::Error)]
enum AccountRejection {
    #[error("the account is not open")]
    NotOpen,
    #[error("there are only {balance} cents")]
    InsufficientFunds { balance: u64 },
}

#[derive(Debug, Default)]
struct Account {
    owner: Option<String>,
    balance: u64,
}

impl Aggregate for Account {
    const CATEGORY: &'static str = category!("account");
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = AccountRejection;

    fn decide(&self, command: &AccountCommand, _: &Context<'_>) -> Verdict<Self> {
        Ok(match *command {
            Open { .. } if self.owner.is_some() => Decision::nothing(),
            Open { ref owner } => [Opened { owner: owner.clone() }].into(),
            _ if self.owner.is_none() => return Err(NotOpen),
            Deposit { cents } => [Deposited { cents }].into(),
            Withdraw { cents } if cents <= self.balance => [Withdrawn { cents }].into(),
            Withdraw { .. } => return Err(InsufficientFunds { balance: self.balance }),
        })
    }

    fn evolve(&mut self, event: &AccountEvent) {
        match event {
            Opened { owner } => self.owner = Some(owner.clone()),
            Deposited { cents } => self.balance += cents,
            Withdrawn { cents } => self.balance -= cents,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = std::env::var("FACTUM_STORE").unwrap_or_else(|_| "./data".into());
    let app = App::open(&store).await?;
    app.command::<Account>("ada", Open { owner: "Ada".into() }).await?;
    app.command::<Account>("ada", Deposit { cents: 500 }).await?;
    match app.command::<Account>("ada", Withdraw { cents: 800 }).await {
        Err(SendError::Rejected(InsufficientFunds { balance })) => println!("only {balance}"),
        done => println!("done at version {}", done?.version),
    }
    Ok(())
}
