//! A command with an id whose stored events can't be read any more.

use std::{cell::Cell, convert::Infallible};

use factum_kernel::{Aggregate, CommandId, Context, Metadata, Uuid, Verdict};
use factum_macros::{Command, Event};
use factum_runtime::{AskError, EntityError};
use factum_testing::Fault;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::bench::{Bench, millis, options};

fn id(n: u128) -> CommandId {
    CommandId::new(Uuid::from_u128(n))
}

/// The fault of a reader, which begins after the events were stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    Nothing,
    /// Its events fail to decode.
    Fails,
    /// Its decoder panics.
    Panics,
}

thread_local! {
    static UNREADABLE: Cell<Unreadable> = const { Cell::new(Unreadable::Nothing) };
}

/// A number that some readers can't read.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Brittle(u64);

impl<'de> Deserialize<'de> for Brittle {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        match UNREADABLE.get() {
            Unreadable::Nothing => Ok(Self(u64::deserialize(reader)?)),
            Unreadable::Fails => Err(D::Error::custom("it can't be read")),
            Unreadable::Panics => panic!("its decoder panics"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel)]
enum ShelfEvent {
    Put { thing: Brittle },
    Dusted,
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
#[command(crate = factum_kernel)]
enum ShelfCommand {
    Put,
    Dust,
}

#[derive(Debug, Default)]
struct Shelf;

impl Aggregate for Shelf {
    const CATEGORY: &'static str = "shelf";
    type Command = ShelfCommand;
    type Event = ShelfEvent;
    type Rejection = Infallible;

    fn decide(&self, command: &ShelfCommand, _: &Context<'_>) -> Verdict<Self> {
        Ok(match command {
            ShelfCommand::Put => [ShelfEvent::Put { thing: Brittle(1) }].into(),
            ShelfCommand::Dust => [ShelfEvent::Dusted].into(),
        })
    }

    fn evolve(&mut self, _: &ShelfEvent) {}
}

/// Once all commands of the burst failed with it.
#[tokio::test]
async fn stored_events_that_can_not_be_read_fail_the_repeat_of_their_own_command_alone() {
    for unreadable in [Unreadable::Fails, Unreadable::Panics] {
        UNREADABLE.set(Unreadable::Nothing);
        let bench = Bench::new();
        let shelves = bench.entities::<Shelf>(options());
        let put = ShelfCommand::Put;
        shelves.ask_once("one", id(7), put, Metadata::new()).await.unwrap();
        bench.faulty.next_append(Fault::Delay(millis(10)));
        shelves.tell("one", ShelfCommand::Dust).unwrap();
        bench.clock.until_sleeping(1).await;
        UNREADABLE.set(unreadable);
        let ask = |n, command| {
            let shelves = shelves.clone();
            let asking =
                async move { shelves.ask_once("one", id(n), command, Metadata::new()).await };
            tokio::spawn(asking)
        };
        let asks = [ask(8, ShelfCommand::Dust), ask(7, ShelfCommand::Put)];
        while shelves.entity("one").unwrap().unwrap().queued < 2 {
            tokio::task::yield_now().await;
        }
        bench.clock.advance(millis(10));
        let [new, repeat] = asks;
        let new = new.await.unwrap().unwrap();
        assert_eq!((new.version.value(), new.replayed), (3, false), "{unreadable:?}");
        let repeat = repeat.await.unwrap().unwrap_err();
        let is_its_own = match unreadable {
            Unreadable::Panics => {
                matches!(repeat, AskError::Failed(EntityError::Panicked { .. }))
            }
            _ => matches!(repeat, AskError::Failed(EntityError::Load(_))),
        };
        assert!(is_its_own, "{unreadable:?}: {repeat:?}");
    }
}
