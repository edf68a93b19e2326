//! What is sent to an entity, and how its answer goes back.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use factum_kernel::{
    Aggregate, Appended, Draft, Drafted, ExecuteError, Metadata, Position, Repository,
    StreamVersion, VersionConflict,
};
use tokio::sync::oneshot;

use crate::{
    cell::Answer,
    entity::Entity,
    error::{AskError, EntityError},
    order::{AnyReply, Once, Order},
};

/// What came of a command.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome<A: Aggregate, R = ()> {
    /// The version behind the command.
    pub version: StreamVersion,
    /// The position of its last event; `None` if there was nothing to do. A read that has seen
    /// this position sees what the command did.
    pub position: Option<Position>,
    /// Its events.
    pub events: Vec<A::Event>,
    /// What was computed from the state behind it.
    pub reply: R,
    /// It was stored before, under this command's id: see [`ask_once`](crate::Entities::ask_once).
    pub replayed: bool,
}

impl<A: Aggregate, R> Outcome<A, R> {
    /// The same outcome, with another reply.
    pub fn map<T>(self, to: impl FnOnce(R) -> T) -> Outcome<A, T> {
        let Self { version, position, events, reply, replayed } = self;
        Outcome { version, position, events, reply: to(reply), replayed }
    }
}

/// What came of a command with all that can be said of it.
pub(crate) type Done<A> = Outcome<A, Option<AnyReply>>;

/// What a caller gets of a command, or of a look at the state.
pub(crate) type Reply<A, R> = Result<R, AskError<<A as Aggregate>::Rejection>>;

/// Where a caller gets it.
pub(crate) type Answering<A, R> = oneshot::Receiver<Reply<A, R>>;

/// A message to an entity: a command, or a look at its state.
pub(crate) struct Message<A: Aggregate> {
    request: Request<A>,
    noted: Option<Noted<A>>,
    caller: Option<Box<dyn Caller<A>>>,
}

enum Request<A: Aggregate> {
    Command(A::Command, Metadata),
    Order(Box<Order<A>>),
    Look,
}

/// What was decided last; decided again, it is replaced.
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

/// What a command stored, as the log has it.
pub(crate) struct Found<A: Aggregate> {
    pub(crate) version: StreamVersion,
    pub(crate) position: Position,
    pub(crate) events: Vec<A::Event>,
}

/// Whether a message is decided.
#[derive(Debug)]
pub(crate) enum Decision {
    Made,
    PutOff,
    /// The caller's code has panicked, which takes its reply from the state.
    Broken(Box<dyn Any + Send>),
}

impl<A: Aggregate> Message<A> {
    /// A command whose outcome goes to the receiver.
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

    /// A command with all that can be said of it, whose outcome goes to the receiver.
    pub(crate) fn order(order: Order<A>) -> (Box<Self>, Answering<A, Done<A>>) {
        let (to, answer) = oneshot::channel();
        let compute = order.reply.clone();
        let reply = move |state: &A| compute.as_ref().map(|compute| compute(state));
        let caller: Box<dyn Caller<A>> = Box::new(Asker { reply, computed: None, to });
        let request = Request::Order(Box::new(order));
        (Box::new(Self { request, noted: None, caller: Some(caller) }), answer)
    }

    /// A command whose outcome nobody waits for.
    pub(crate) fn tell(command: A::Command, metadata: Metadata) -> Box<Self> {
        let request = Request::Command(command, metadata);
        Box::new(Self { request, noted: None, caller: None })
    }

    /// A look at the state.
    pub(crate) fn look<R: Send + 'static>(
        look: impl Fn(&Draft<A>) -> R + Send + 'static,
    ) -> (Box<Self>, Answering<A, R>) {
        let (to, answer) = oneshot::channel();
        let caller: Box<dyn Caller<A>> = Box::new(Looker { look, seen: None, to });
        let request = Request::Look;
        (Box::new(Self { request, noted: None, caller: Some(caller) }), answer)
    }

    /// Decides it on the state as it would be, and notes the answer.
    ///
    /// # Panics
    /// If the rules do.
    pub(crate) fn decide(&mut self, draft: &mut Draft<A>, on: &Repository<A>) -> Decision {
        if let Some(Noted::Stored(_)) = self.noted {
            return self.repeat(draft);
        }
        let (command, metadata, tag) = match &self.request {
            Request::Command(command, metadata) => (command, metadata, None),
            Request::Order(order) => {
                if let Some(expected) = order.expected.filter(|it| *it != draft.version()) {
                    return self.conflict(draft, expected);
                }
                (&*order.command, &order.metadata, order.tag())
            }
            Request::Look => return self.see(draft),
        };
        let noted = match draft.decide_tagged(on, command, metadata, tag) {
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

    /// Another version than the one that the command is for. The answer rests on the state as it
    /// would be, as that of any other message does.
    fn conflict(&mut self, draft: &mut Draft<A>, expected: StreamVersion) -> Decision {
        let Some(draft) = draft.look() else { return Decision::PutOff };
        let stream = draft.stream().clone();
        let conflict =
            VersionConflict { stream, expected: expected.into(), actual: draft.version() };
        self.noted = Some(Noted::Refused(EntityError::Conflict(conflict).into()));
        Decision::Made
    }

    /// Lets the caller take its reply from the state.
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

    /// A command that is stored already changes nothing. Its answer keeps its turn.
    fn repeat(&mut self, draft: &mut Draft<A>) -> Decision {
        let Some(draft) = draft.look() else { return Decision::PutOff };
        self.note(draft)
    }

    /// By what its repeats are recognised, if they are.
    pub(crate) fn once(&self) -> Option<&Once> {
        if let Request::Order(order) = &self.request { order.once.as_ref() } else { None }
    }

    /// Takes note of what the log holds of it.
    pub(crate) fn look_found(&mut self, stored: Option<Found<A>>) {
        self.noted = stored.map(Noted::Stored);
    }

    /// Whether events were decided for it that are not stored yet.
    pub(crate) fn has_events(&self) -> bool {
        matches!(&self.noted, Some(Noted::Taken { events, .. }) if !events.is_empty())
    }

    /// Whether it is a command, and the domain said no.
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self.noted, Some(Noted::Refused(AskError::Rejected(_))))
    }

    /// Whether it was decided, and its events can't be written down.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.noted, Some(Noted::Refused(AskError::Failed(_))))
    }

    pub(crate) fn is_command(&self) -> bool {
        !matches!(self.request, Request::Look)
    }

    /// Answers it. `appended` is what the burst stored.
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
            (Answer::Decided, None) => unreachable!("what is answered as decided was decided"),
        });
    }
}

/// Where an answer goes.
trait Caller<A: Aggregate>: Send {
    /// Takes from the state what the answer needs.
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
        let answer = answer
            .map(|outcome| outcome.map(|()| computed.expect("what was decided was replied to")));
        // Who asked may be gone; the command took effect all the same.
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
        let _ = to.send(answer.map(|_| seen.expect("what was looked at was seen")));
    }
}

/// A failed append as the cell is told of it.
pub(crate) fn failure_of<R: std::error::Error>(error: ExecuteError<R>) -> Result<R, EntityError> {
    match AskError::from(error) {
        AskError::Rejected(rejection) => Ok(rejection),
        AskError::Failed(failure) => Err(failure),
    }
}
