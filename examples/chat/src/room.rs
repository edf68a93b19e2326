//! The rules of a room: only its members speak, and each message has a number.

use std::collections::BTreeSet;

use factum::{Aggregate, Context, Decision, Event, Verdict, category};

/// The state of a room, folded from its events.
#[derive(Debug, Default)]
pub(crate) struct Room {
    members: BTreeSet<String>,
    /// The number of the last message.
    pub(crate) last: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum RoomCommand {
    Join { who: String },
    Say { who: String, text: String },
    Read { who: String, through: u64 },
}

#[derive(Debug, Clone, PartialEq, Event)]
pub(crate) enum RoomEvent {
    Joined { who: String },
    Said { who: String, number: u64, text: String },
    Read { who: String, through: u64 },
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum RoomRejection {
    #[error("{who} is not a member of this room")]
    NotHere { who: String },
    #[error("there is no message to read")]
    Empty,
}

impl Aggregate for Room {
    const CATEGORY: &'static str = category!("room");
    type Command = RoomCommand;
    type Event = RoomEvent;
    type Rejection = RoomRejection;

    fn decide(&self, command: &RoomCommand, _: &Context<'_>) -> Verdict<Self> {
        match command.clone() {
            RoomCommand::Join { who } if self.members.contains(&who) => Ok(Decision::nothing()),
            RoomCommand::Join { who } => Ok([RoomEvent::Joined { who }].into()),
            RoomCommand::Say { who, .. } | RoomCommand::Read { who, .. }
                if !self.members.contains(&who) =>
            {
                Err(RoomRejection::NotHere { who })
            }
            RoomCommand::Say { text, .. } if text.is_empty() => Err(RoomRejection::Empty),
            RoomCommand::Say { who, text } => {
                Ok([RoomEvent::Said { who, number: self.last + 1, text }].into())
            }
            RoomCommand::Read { who, through } => {
                Ok([RoomEvent::Read { who, through: through.min(self.last) }].into())
            }
        }
    }

    fn evolve(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Joined { who } => drop(self.members.insert(who.clone())),
            RoomEvent::Said { number, .. } => self.last = *number,
            RoomEvent::Read { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use factum_testing::given;

    use super::*;

    #[test]
    fn who_is_in_a_room_speaks_and_messages_are_numbered() {
        let say = |who: &str, text: &str| RoomCommand::Say { who: who.into(), text: text.into() };
        let said =
            |number, text: &str| RoomEvent::Said { who: "ada".into(), number, text: text.into() };
        given::<Room>([RoomEvent::Joined { who: "ada".into() }])
            .when(say("ada", "hello"))
            .then([said(1, "hello")])
            .when(say("ada", "anybody?"))
            .then([said(2, "anybody?")])
            .when(say("bob", "me"))
            .rejected(RoomRejection::NotHere { who: "bob".into() });
    }

    #[test]
    fn who_says_nothing_is_told() {
        let nothing = RoomCommand::Say { who: "ada".into(), text: String::new() };
        given::<Room>([RoomEvent::Joined { who: "ada".into() }])
            .when(nothing)
            .rejected(RoomRejection::Empty);
    }

    #[test]
    fn nobody_reads_what_is_not_said_yet() {
        given::<Room>([RoomEvent::Joined { who: "ada".into() }])
            .when(RoomCommand::Read { who: "ada".into(), through: 9 })
            .then([RoomEvent::Read { who: "ada".into(), through: 0 }]);
    }
}
