//! Orders.

use factum::{Aggregate, Context, Decision, Event, Verdict, category};

/// The state of an order that its rules need.
#[derive(Debug, Default)]
pub(crate) struct Order {
    state: State,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    None,
    Placed,
    Shipped,
    Cancelled,
}

#[derive(Debug, Clone)]
pub(crate) enum OrderCommand {
    Place { day: String, customer: String, product: String, pieces: u64, cents: u64 },
    Ship,
    Cancel,
}

#[derive(Debug, PartialEq, Event)]
pub(crate) enum OrderEvent {
    Placed { day: String, customer: String, product: String, pieces: u64, cents: u64 },
    Shipped,
    Cancelled,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum OrderRejection {
    #[error("there is no such order")]
    NotPlaced,
    #[error("the order is on its way")]
    OnItsWay,
    #[error("the order is cancelled")]
    Cancelled,
}

impl Aggregate for Order {
    const CATEGORY: &'static str = category!("order");
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Rejection = OrderRejection;

    fn decide(&self, command: &OrderCommand, _: &Context<'_>) -> Verdict<Self> {
        match (command.clone(), &self.state) {
            (OrderCommand::Place { day, customer, product, pieces, cents }, State::None) => {
                Ok([OrderEvent::Placed { day, customer, product, pieces, cents }].into())
            }
            (_, State::None) => Err(OrderRejection::NotPlaced),
            (OrderCommand::Ship, State::Placed) => Ok([OrderEvent::Shipped].into()),
            (OrderCommand::Cancel, State::Placed) => Ok([OrderEvent::Cancelled].into()),
            (OrderCommand::Ship, State::Cancelled) => Err(OrderRejection::Cancelled),
            (OrderCommand::Cancel, State::Shipped) => Err(OrderRejection::OnItsWay),
            // The order is in that state already.
            _ => Ok(Decision::nothing()),
        }
    }

    fn evolve(&mut self, event: &OrderEvent) {
        self.state = match event {
            OrderEvent::Placed { .. } => State::Placed,
            OrderEvent::Shipped => State::Shipped,
            OrderEvent::Cancelled => State::Cancelled,
        };
    }
}

#[cfg(test)]
mod tests {
    use factum_testing::given;

    use super::*;

    fn placed() -> OrderEvent {
        OrderEvent::Placed {
            day: "2026-03-02".into(),
            customer: "ada".into(),
            product: "assam".into(),
            pieces: 2,
            cents: 1_780,
        }
    }

    #[test]
    fn an_order_is_cancelled_only_before_it_is_shipped() {
        given::<Order>([placed()]).when(OrderCommand::Cancel).then([OrderEvent::Cancelled]);
        given::<Order>([placed(), OrderEvent::Shipped])
            .when(OrderCommand::Cancel)
            .rejected(OrderRejection::OnItsWay);
        given::<Order>([placed(), OrderEvent::Cancelled])
            .when(OrderCommand::Ship)
            .rejected(OrderRejection::Cancelled);
    }

    #[test]
    fn nothing_happens_to_what_was_never_placed() {
        given::<Order>([]).when(OrderCommand::Ship).rejected(OrderRejection::NotPlaced);
        given::<Order>([placed(), OrderEvent::Shipped]).when(OrderCommand::Ship).then_nothing();
    }
}
