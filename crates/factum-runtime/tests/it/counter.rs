//! An aggregate whose rules panic on request.

use std::convert::Infallible;

use factum_kernel::{Aggregate, Context, Decision, Verdict};
use factum_macros::{Command, Event};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Counter {
    pub(crate) count: u64,
    /// The weight in bytes that it reports.
    pub(crate) weight: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
#[command(crate = factum_kernel)]
pub(crate) enum CounterCommand {
    Add,
    Nothing,
    /// Panics in `decide`.
    Panic,
    /// Panics in `evolve`, after the decision.
    Poison,
    Grow(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(crate = factum_kernel)]
pub(crate) enum CounterEvent {
    Added,
    Poisoned,
    Grown { bytes: u64 },
}

impl Aggregate for Counter {
    const CATEGORY: &'static str = "counter";
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Rejection = Infallible;

    fn decide(&self, command: &CounterCommand, _: &Context<'_>) -> Verdict<Self> {
        Ok(match command {
            CounterCommand::Add => Decision::from([CounterEvent::Added]),
            CounterCommand::Nothing => Decision::nothing(),
            CounterCommand::Panic => panic!("asked to"),
            CounterCommand::Poison => [CounterEvent::Poisoned].into(),
            CounterCommand::Grow(bytes) => [CounterEvent::Grown { bytes: *bytes as u64 }].into(),
        })
    }

    fn evolve(&mut self, event: &CounterEvent) {
        match event {
            CounterEvent::Added => self.count += 1,
            CounterEvent::Poisoned => panic!("poisoned"),
            CounterEvent::Grown { bytes } => self.weight += *bytes as usize,
        }
    }

    fn weight(&self) -> usize {
        self.weight
    }
}

/// The same stream in a program whose rules don't panic on its events.
#[derive(Debug, Default)]
pub(crate) struct Sturdy;

impl Aggregate for Sturdy {
    const CATEGORY: &'static str = "counter";
    type Command = CounterEvent;
    type Event = CounterEvent;
    type Rejection = Infallible;

    fn decide(&self, command: &CounterEvent, _: &Context<'_>) -> Verdict<Self> {
        Ok([command.clone()].into())
    }

    fn evolve(&mut self, _: &CounterEvent) {}
}
