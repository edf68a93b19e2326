//! Products.

use factum::{Aggregate, Context, Decision, Event, Verdict, category};

/// The state of a product that its rules need.
#[derive(Debug, Default)]
pub(crate) struct Product {
    cents: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) enum ProductCommand {
    List { title: String, shelf: String, cents: u64 },
    Reprice { cents: u64 },
}

#[derive(Debug, Event)]
pub(crate) enum ProductEvent {
    Listed { title: String, shelf: String, cents: u64 },
    Repriced { cents: u64 },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProductRejection {
    #[error("there is no such product")]
    NotListed,
}

impl Aggregate for Product {
    const CATEGORY: &'static str = category!("product");
    type Command = ProductCommand;
    type Event = ProductEvent;
    type Rejection = ProductRejection;

    fn decide(&self, command: &ProductCommand, _: &Context<'_>) -> Verdict<Self> {
        match command.clone() {
            // The product is listed already. This is no error, so that the program can be run
            // again.
            ProductCommand::List { .. } if self.cents.is_some() => Ok(Decision::nothing()),
            ProductCommand::List { title, shelf, cents } => {
                Ok([ProductEvent::Listed { title, shelf, cents }].into())
            }
            ProductCommand::Reprice { .. } if self.cents.is_none() => {
                Err(ProductRejection::NotListed)
            }
            ProductCommand::Reprice { cents } if self.cents == Some(cents) => {
                Ok(Decision::nothing())
            }
            ProductCommand::Reprice { cents } => Ok([ProductEvent::Repriced { cents }].into()),
        }
    }

    fn evolve(&mut self, event: &ProductEvent) {
        match event {
            ProductEvent::Listed { cents, .. } | ProductEvent::Repriced { cents } => {
                self.cents = Some(*cents);
            }
        }
    }
}
