//! The messages to an entity, and the return of the answers.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use factum_kernel::{
    Aggregate, Appended, Draft, Drafted, ExecuteError, Metadata, Once, Position, Repository,
    StreamVersion,
};
use tokio::sync::oneshot;

use crate::{
    cell::Answer,
    command::{AnyReply, EntityCommand},
    entity::Entity,
    error::{AskError, EntityError},
};

/// The outcome of a command that was executed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome<A: Aggregate, R = ()> {
    /// The version after the command.
    pub version: StreamVersion,
    /// The position of the command's last event; `None` if there was no event. A read model that
    /// has reached this position contains the command's effects.
    pub position: Option<Position>,
    /// The command's events.
    pub events: Vec<A::Event>,
    /// The reply that was computed from the state after the command.
    pub reply: R,
    /// True if an earlier attempt stored the command under this id: see
    /// [`ask_once`](crate::Entities::ask_once).
    pub replayed: bool,
}

impl<A: Aggregate, R> Outcome<A, R> {
    /// The same outcome, with another reply.
    pub fn map<T>(self, to: impl FnOnce(R) -> T) -> Outcome<A, T> {
        let Self { version, position, events, reply, replayed } = self;
        Outcome { version, position, events, reply: to(reply), replayed }
    }
}

/// The outcome of a command with options.
pub(crate) type Done<A> = Outcome<A, Option<AnyReply>>;

/// The result for a caller who sent a command or read the state.
pub(crate) type Reply<A, R> = Result<R, AskError<<A as Aggregate>::Rejection>>;

/// The receiver of the result.
pub(crate) type Answering<A, R> = oneshot::Receiver<Reply<A, R>>;

/// A message to an entity: a command, or a read of its state.
pub(crate) struct Message<A: Aggregate> {
    request: Request<A>,
    noted: Option<Noted<A>>,
    caller: Option<Box<dyn Caller<A>>>,
}

enum Request<A: Aggregate> {
    Command(A::Command, Metadata),
    WithOptions(Box<EntityCommand<A>>),
    Look,
}

/// The last decision on a message. A new decision replaces it.
enum Noted<A: Aggregate> {
    Taken {
        version: StreamVersion,
        end: usize,
        events: Vec<A::Event>,
    },
    Refused(AskError<A::Rejection>),
    /// Found in the log.
    Stored(Found<A>),
}

/// The events that a command stored, as found in the log.
pub(crate) struct Found<A: Aggregate> {
    pub(crate) version: StreamVersion,
    pub(crate) position: Position,
    pub(crate) events: Vec<A::Event>,
}

/// The result of an attempt to decide a message.
#[derive(Debug)]
pub(crate) enum Decision {
    Made,
    PutOff,
    /// The caller's closure panicked, which computes the reply from the state.
    Broken(Box<dyn Any + Send>),
}

impl<A: Aggregate> Message<A> {
    /// A command. The receiver gets its outcome.
    pub(crate) fn ask<R: Send + 'static>(
        command: A::Command,
        metadata: Metadata,
        reply: impl Fn(&A) -> R + Send + 'static,
    ) -> (Box<Self>, Answering<A, Outcome<A, R>>) {
        let (to, answer) = oneshot::channel();
        let caller: Box<dyn Caller<A>> = Box::new(Asker { reply, computed: None, to });
        let request = Request::Command(command, metadata);
        (Box::new(Self { request, noted: None, caller: Some(caller) }), answer)
    }

    /// A command with options. The receiver gets its outcome.
    pub(crate) fn with_options(command: EntityCommand<A>) -> (Box<Self>, Answering<A, Done<A>>) {
        let (to, answer) = oneshot::channel();
        let compute = command.reply.clone();
        let reply = move |state: &A| compute.as_ref().map(|compute| compute(state));
        let caller: Box<dyn Caller<A>> = Box::new(Asker { reply, computed: None, to });
        let request = Request::WithOptions(Box::new(command));
        (Box::new(Self { request, noted: None, caller: Some(caller) }), answer)
    }

    /// A command whose outcome is not sent to a caller.
    pub(crate) fn tell(command: A::Command, metadata: Metadata) -> Box<Self> {
        let request = Request::Command(command, metadata);
        Box::new(Self { request, noted: None, caller: None })
    }

    /// A read of the state.
    pub(crate) fn look<R: Send + 'static>(
        look: impl Fn(&Draft<A>) -> R + Send + 'static,
    ) -> (Box<Self>, Answering<A, R>) {
        let (to, answer) = oneshot::channel();
        let caller: Box<dyn Caller<A>> = Box::new(Looker { look, seen: None, to });
        let request = Request::Look;
        (Box::new(Self { request, noted: None, caller: Some(caller) }), answer)
    }

    /// Decides the message on the state that the messages before it lead to, and notes the answer.
    ///
    /// # Panics
    /// If the aggregate's rules panic.
    pub(crate) fn decide(&mut self, draft: &mut Draft<A>, on: &Repository<A>) -> Decision {
        if let Some(Noted::Stored(_)) = self.noted {
            return self.repeat(draft);
        }
        let (command, metadata, once) = match &self.request {
            Request::Command(command, metadata) => (command, metadata, None),
            Request::WithOptions(command) => {
                if let Some(expected) = command.expected.filter(|it| *it != draft.version()) {
                    return self.conflict(draft, expected);
                }
                (&*command.command, &command.metadata, command.once.as_ref())
            }
            Request::Look => return self.see(draft),
        };
        let noted = match draft.decide_once(on, command, metadata, once) {
            Ok(Drafted::PutOff) => return Decision::PutOff,
            Ok(Drafted::Taken(events)) => {
                Noted::Taken { version: draft.version(), end: draft.event_count(), events }
            }
            Err(error) => Noted::Refused(error.into()),
        };
        let is_taken = matches!(noted, Noted::Taken { .. });
        self.noted = Some(noted);
        if is_taken { self.note(draft) } else { Decision::Made }
    }

    /// Notes a version conflict: the aggregate does not have the expected version. As for any other
    /// message, the answer is based on the state that the messages before it lead to.
    fn conflict(&mut self, draft: &mut Draft<A>, expected: StreamVersion) -> Decision {
        let Some(draft) = draft.look() else { return Decision::PutOff };
        let conflict = draft.conflict(expected).expect("another version is expected");
        self.noted = Some(Noted::Refused(EntityError::Conflict(conflict).into()));
        Decision::Made
    }

    /// Lets the caller compute its reply from the state.
    fn note(&mut self, draft: &Draft<A>) -> Decision {
        let Some(caller) = &mut self.caller else { return Decision::Made };
        match catch_unwind(AssertUnwindSafe(|| caller.note(draft))) {
            Ok(()) => Decision::Made,
            Err(panic) => Decision::Broken(panic),
        }
    }

    fn see(&mut self, draft: &mut Draft<A>) -> Decision {
        let version = draft.version();
        let Some(draft) = draft.look() else { return Decision::PutOff };
        self.noted = Some(Noted::Taken { version, end: 0, events: Vec::new() });
        self.note(draft)
    }

    /// Answers a command that is stored already. It appends nothing, and is answered in its turn.
    fn repeat(&mut self, draft: &mut Draft<A>) -> Decision {
        let Some(draft) = draft.look() else { return Decision::PutOff };
        self.note(draft)
    }

    /// The id of the command, if it has one, with what it names.
    pub(crate) fn once(&self) -> Option<&Once> {
        if let Request::WithOptions(command) = &self.request { command.once.as_ref() } else { None }
    }

    /// Notes the events that the log holds of this command.
    pub(crate) fn look_found(&mut self, stored: Option<Found<A>>) {
        self.noted = stored.map(Noted::Stored);
    }

    /// True if the log holds the events of this command.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.noted, Some(Noted::Stored(_)))
    }

    /// True if the decision has events that are not stored yet.
    pub(crate) fn has_events(&self) -> bool {
        matches!(&self.noted, Some(Noted::Taken { events, .. }) if !events.is_empty())
    }

    /// True if the domain rejected the command.
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self.noted, Some(Noted::Refused(AskError::Rejected(_))))
    }

    /// True if the message was decided, but its events can't be encoded.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.noted, Some(Noted::Refused(AskError::Failed(_))))
    }

    pub(crate) fn is_command(&self) -> bool {
        !matches!(self.request, Request::Look)
    }

    /// Answers the message. `appended` is the result of the burst's append.
    pub(crate) fn answer(self, answer: Answer<Entity<A>>, appended: Option<&Appended>) {
        let Self { caller, noted, .. } = self;
        let Some(caller) = caller else { return };
        caller.send(match (answer, noted) {
            (Answer::Failed(failure), _) => Err(failure.into()),
            (Answer::Refused(rejection), _) => Err(AskError::Rejected(rejection)),
            (Answer::Decided, Some(Noted::Refused(error))) => Err(error),
            (Answer::Decided, Some(Noted::Taken { version, end, events })) => {
                let first = appended.filter(|_| !events.is_empty()).map(|it| it.first);
                let position = first.map(|first| first.plus(end.saturating_sub(1) as u64));
                Ok(Outcome { version, position, events, reply: (), replayed: false })
            }
            (Answer::Decided, Some(Noted::Stored(found))) => {
                let Found { version, position, events } = found;
                let position = Some(position);
                Ok(Outcome { version, position, events, reply: (), replayed: true })
            }
            (Answer::Decided, None) => unreachable!("an answer by decision has a decision"),
        });
    }
}

/// The receiver of an answer, with the code that computes the reply.
trait Caller<A: Aggregate>: Send {
    /// Computes what the answer needs from the state.
    fn note(&mut self, draft: &Draft<A>);

    fn send(self: Box<Self>, answer: Reply<A, Outcome<A>>);
}

struct Asker<A: Aggregate, R, F> {
    reply: F,
    computed: Option<R>,
    to: oneshot::Sender<Reply<A, Outcome<A, R>>>,
}

impl<A: Aggregate, R: Send, F: Fn(&A) -> R + Send> Caller<A> for Asker<A, R, F> {
    fn note(&mut self, draft: &Draft<A>) {
        self.computed = Some((self.reply)(draft.state()));
    }

    fn send(self: Box<Self>, answer: Reply<A, Outcome<A>>) {
        let Self { computed, to, .. } = *self;
        let answer = answer.map(|outcome| {
            outcome.map(|()| computed.expect("the reply is computed with the decision"))
        });
        // The caller may be gone. The command took effect nevertheless.
        let _ = to.send(answer);
    }
}

struct Looker<A: Aggregate, R, F> {
    look: F,
    seen: Option<R>,
    to: oneshot::Sender<Reply<A, R>>,
}

impl<A: Aggregate, R: Send, F: Fn(&Draft<A>) -> R + Send> Caller<A> for Looker<A, R, F> {
    fn note(&mut self, draft: &Draft<A>) {
        self.seen = Some((self.look)(draft));
    }

    fn send(self: Box<Self>, answer: Reply<A, Outcome<A>>) {
        let Self { seen, to, .. } = *self;
        let _ = to.send(answer.map(|_| seen.expect("the value is computed with the decision")));
    }
}

/// Splits the error of an append into a rejection or a failure, for the cell.
pub(crate) fn failure_of<R: std::error::Error>(error: ExecuteError<R>) -> Result<R, EntityError> {
    match AskError::from(error) {
        AskError::Rejected(rejection) => Ok(rejection),
        AskError::Failed(failure) => Err(failure),
    }
}
