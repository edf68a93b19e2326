//! The smallest Factum program: one running aggregate. Every door of a house counts the people who
//! come in.
//!
//! `cargo run -p counter` counts in memory, `cargo run -p counter /tmp/doors` in a folder; a second
//! run continues there.
#![expect(clippy::print_stdout, reason = "an example speaks by printing")]

use std::{convert::Infallible, env, error::Error};

use factum::{Aggregate, App, Context, Decision, Event, Verdict, category};

/// The state of a counter, folded from its events.
#[derive(Debug, Default)]
struct Counter {
    count: u64,
}

/// The commands of a counter.
#[derive(Debug)]
enum CounterCommand {
    Add(u64),
    Reset,
}

/// The events of a counter.
#[derive(Debug, PartialEq, Event)]
enum CounterEvent {
    Added { more: u64 },
    Reset,
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = category!("counter");
    type Command = CounterCommand;
    type Event = CounterEvent;
    // It rejects no command.
    type Rejection = Infallible;

    fn decide(&self, command: &CounterCommand, _: &Context<'_>) -> Verdict<Self> {
        Ok(match command {
            CounterCommand::Add(more) => [CounterEvent::Added { more: *more }].into(),
            CounterCommand::Reset if self.count == 0 => Decision::nothing(),
            CounterCommand::Reset => [CounterEvent::Reset].into(),
        })
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added { more } => self.count += more,
            CounterEvent::Reset => self.count = 0,
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let store = env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let app = App::open(&store).await?;

    for (door, people) in [("north", 2), ("south", 1), ("north", 3)] {
        let add = CounterCommand::Add(people);
        let added = app.command::<Counter>(door, add).reply(|it| it.count).await?;
        println!("{door}: {people} came in, {} so far, version {}", added.reply, added.version);
    }
    let reset = app.command::<Counter>("south", CounterCommand::Reset).await?;
    println!("south: reset, version {}", reset.version);
    let doors = app.aggregate::<Counter>();
    let (count, version) = doors.look("north", |it, version| (it.count, version)).await?;
    println!("north: {count} at version {version}");

    app.close().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use factum_testing::given;

    use super::*;

    #[test]
    fn it_adds_and_begins_anew() {
        given::<Counter>([CounterEvent::Added { more: 2 }])
            .when(CounterCommand::Add(3))
            .then([CounterEvent::Added { more: 3 }])
            .state(|counter| assert_eq!(counter.count, 5))
            .when(CounterCommand::Reset)
            .then([CounterEvent::Reset]);
    }

    #[test]
    fn a_counter_at_zero_has_nothing_to_reset() {
        given::<Counter>([]).when(CounterCommand::Reset).then_nothing();
    }
}
