//! What came of a command, for layers to see.

use std::{any::Any, fmt};

use factum_kernel::{Aggregate, Position, StreamVersion};

use super::error::BoxError;
use crate::message::Outcome;

/// What came of a command. A no is an answer, not an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandResponse {
    /// It took effect, or there was nothing to do.
    Done(CommandDone),
    /// The domain says no: the aggregate's [`Rejection`](Aggregate::Rejection).
    Rejected(BoxError),
    /// A layer says no. The command came to no entity.
    Refused(BoxError),
}

impl CommandResponse {
    /// What kind of response it is.
    pub fn outcome(&self) -> CommandOutcome {
        match self {
            Self::Done(done) if done.replayed => CommandOutcome::Replayed,
            Self::Done(done) if done.position.is_none() => CommandOutcome::Unchanged,
            Self::Done(_) => CommandOutcome::Stored,
            Self::Rejected(_) => CommandOutcome::Rejected,
            Self::Refused(_) => CommandOutcome::Refused,
        }
    }
}

/// A command that was executed.
#[non_exhaustive]
pub struct CommandDone {
    /// The version behind the command.
    pub version: StreamVersion,
    /// The position of its last event; `None` if there was nothing to do.
    pub position: Option<Position>,
    /// It was stored before, and recognised by its id.
    pub replayed: bool,
    /// A `Vec<A::Event>`.
    events: Box<dyn Any + Send + Sync>,
}

impl CommandDone {
    pub(crate) fn new<A: Aggregate>(outcome: Outcome<A>) -> Self {
        let Outcome { version, position, replayed, events, reply: () } = outcome;
        Self { version, position, replayed, events: Box::new(events) }
    }

    /// Its events, if they are this aggregate's.
    pub fn events<A: Aggregate>(&self) -> Option<&[A::Event]> {
        self.events.downcast_ref::<Vec<A::Event>>().map(Vec::as_slice)
    }

    /// As the entity answered it; `None`: they are not this aggregate's events.
    pub(crate) fn into_outcome<A: Aggregate>(self) -> Option<Outcome<A>> {
        let Self { version, position, replayed, events } = self;
        let events = *events.downcast().ok()?;
        Some(Outcome { version, position, events, reply: (), replayed })
    }
}

impl fmt::Debug for CommandDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("CommandDone");
        out.field("version", &self.version).field("position", &self.position);
        out.field("replayed", &self.replayed).finish_non_exhaustive()
    }
}

/// The kinds of responses, as traces and metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommandOutcome {
    /// Its events are stored.
    Stored,
    /// There was nothing to do.
    Unchanged,
    /// It was stored before.
    Replayed,
    /// The domain says no.
    Rejected,
    /// A layer says no.
    Refused,
}

impl CommandOutcome {
    /// `stored`, `unchanged`, `replayed`, `rejected` or `refused`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unchanged => "unchanged",
            Self::Replayed => "replayed",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
        }
    }
}
