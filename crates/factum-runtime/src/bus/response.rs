//! What came of a command, for layers to see.

use std::{any::Any, fmt};

use factum_kernel::{Aggregate, Committed, Position, StreamVersion};

use super::error::BoxError;
use crate::{
    message::{Done, Outcome},
    order::AnyReply,
};

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
    /// The version after the command; `None` for a transaction or a decision, which may have
    /// written several streams.
    pub version: Option<StreamVersion>,
    /// The position of its last event; `None` if there was nothing to do.
    pub position: Option<Position>,
    /// It was stored before, and recognised by its id.
    pub replayed: bool,
    /// A `Vec<A::Event>`, or a `Committed`.
    what: Box<dyn Any + Send + Sync>,
    /// What the request asked to be computed.
    reply: Option<AnyReply>,
}

impl CommandDone {
    pub(crate) fn new<A: Aggregate>(outcome: Done<A>) -> Self {
        let Outcome { version, position, replayed, events, reply } = outcome;
        let what = Box::new(events);
        Self { version: Some(version), position, replayed, what, reply }
    }

    pub(crate) fn together(committed: Committed) -> Self {
        let Committed { position, replayed, .. } = committed;
        Self { version: None, position, replayed, what: Box::new(committed), reply: None }
    }

    /// Its events, if they are this aggregate's.
    pub fn events<A: Aggregate>(&self) -> Option<&[A::Event]> {
        self.what.downcast_ref::<Vec<A::Event>>().map(Vec::as_slice)
    }

    /// As the entity answered it, with the reply that
    /// [`CommandRequest::replying`](super::CommandRequest::replying) asked for, `()` where it asked
    /// for none. `None`: it is of another aggregate, or holds another reply.
    pub fn into_outcome<A: Aggregate, R: 'static>(self) -> Option<Outcome<A, R>> {
        let Self { version, position, replayed, what, reply } = self;
        let version = version?;
        let events = *what.downcast().ok()?;
        let reply: Box<dyn Any> = reply.map_or_else(|| Box::new(()) as _, |reply| reply as _);
        let reply = *reply.downcast().ok()?;
        Some(Outcome { version, position, events, reply, replayed })
    }

    /// What came of a transaction or a decision; `None`: it is of a command.
    pub fn into_committed(self) -> Option<Committed> {
        Some(*self.what.downcast().ok()?)
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
