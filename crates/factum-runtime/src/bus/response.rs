//! Responses, as layers see them.

use std::{any::Any, fmt};

use factum_kernel::{Aggregate, Committed, Position, StreamVersion};

use super::error::BoxError;
use crate::{
    command::AnyReply,
    message::{Done, Outcome},
};

/// The response to a request. A rejection or a refusal is a response, not an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommandResponse {
    /// The request took effect, or there was nothing to do.
    Done(CommandDone),
    /// The domain rejected the command, with the aggregate's [`Rejection`](Aggregate::Rejection).
    Rejected(BoxError),
    /// A layer refused the request. It reached no entity.
    Refused(BoxError),
}

impl CommandResponse {
    /// The kind of the response.
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

/// The result of a request that was executed.
#[non_exhaustive]
pub struct CommandDone {
    /// The version after the command; `None` for a transaction or a decision, which may write
    /// several streams.
    pub version: Option<StreamVersion>,
    /// The position of the request's last event; `None` if there was no event.
    pub position: Option<Position>,
    /// True if an earlier attempt stored the request, which was recognised by its id.
    pub replayed: bool,
    /// A `Vec<A::Event>`, or a `Committed`.
    what: Box<dyn Any + Send + Sync>,
    /// The reply that the request asked for.
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

    /// The command's events, if they are of this aggregate.
    pub fn events<A: Aggregate>(&self) -> Option<&[A::Event]> {
        self.what.downcast_ref::<Vec<A::Event>>().map(Vec::as_slice)
    }

    /// The typed outcome, with the reply that
    /// [`CommandRequest::replying`](super::CommandRequest::replying) asked for, or `()` if it asked
    /// for none. `None` if the response is of another aggregate or has a reply of another type.
    pub fn into_outcome<A: Aggregate, R: 'static>(self) -> Option<Outcome<A, R>> {
        let Self { version, position, replayed, what, reply } = self;
        let version = version?;
        let events = *what.downcast().ok()?;
        let reply: Box<dyn Any> = reply.map_or_else(|| Box::new(()) as _, |reply| reply as _);
        let reply = *reply.downcast().ok()?;
        Some(Outcome { version, position, events, reply, replayed })
    }

    /// The result of a transaction or a decision; `None` if the request was a command.
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
    /// The events are stored.
    Stored,
    /// There was nothing to do.
    Unchanged,
    /// An earlier attempt stored the events.
    Replayed,
    /// The domain rejected the command.
    Rejected,
    /// A layer refused the request.
    Refused,
}

impl CommandOutcome {
    /// Returns `stored`, `unchanged`, `replayed`, `rejected` or `refused`.
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
