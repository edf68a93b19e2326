use factum_kernel::{Aggregate, Context, Verdict, category};
use factum_macros::Event;

#[derive(Event)]
#[event(crate = factum_kernel)]
enum AccountEvent {
    Opened,
}

/// Nothing uses it: it is the line that is at fault.
#[derive(Default)]
struct Account;

impl Aggregate for Account {
    const CATEGORY: &'static str = category!("savings account");
    type Command = ();
    type Event = AccountEvent;
    type Rejection = std::fmt::Error;

    fn decide(&self, _: &(), _: &Context<'_>) -> Verdict<Self> {
        Ok([AccountEvent::Opened].into())
    }

    fn evolve(&mut self, _: &AccountEvent) {}
}

const GOOD: &str = category!("Savings_2.account");
const DASHED: &str = category!("savings-account");
const EMPTY: &str = category!("");

fn main() {
    println!("{GOOD} {DASHED} {EMPTY}");
}
