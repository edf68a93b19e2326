//! What goes into a cell and what comes out of it.

use std::{collections::VecDeque, time::Duration};

use super::{Blame, Restart};

/// What a cell is about; the machine looks into none of it.
pub(crate) trait Parts {
    /// What one message wants, and its answer as far as it is known.
    type Message;
    /// The entity in memory.
    type State;
    /// Why a burst can't be answered.
    type Failure: Clone;
    /// The domain's no to a message of which only the store could tell.
    type Rejection;

    /// What those are told who find the entity quarantined for this cause.
    fn quarantined(cause: &Self::Failure) -> Self::Failure;
}

/// What happened.
pub(crate) enum Input<P: Parts> {
    /// The task has begun.
    Begin,
    /// A pause is over.
    Resumed,
    /// A stored state was looked after.
    Tended(P::State),
    /// A load has ended.
    Loaded(Result<P::State, (P::Failure, Blame)>),
    /// A burst was decided.
    Decided(Decided<P>),
    /// The state was compared with the log, and is as the log is.
    CaughtUp(Result<(P::State, Tail), (P::Failure, Blame)>),
    /// An append has ended.
    Appended(Appending<P>),
}

/// Whether the state had to change to be as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    Empty,
    Folded,
}

/// What became of the messages of a burst.
pub(crate) struct Decided<P: Parts> {
    pub(crate) letters: VecDeque<Letter<P>>,
    pub(crate) verdict: Verdict<P>,
}

pub(crate) enum Verdict<P: Parts> {
    /// So many of them are decided, at least one; the others are put off to the next burst.
    Done { state: P::State, count: usize, effect: Effect },
    /// This one panicked: the entity's rules, or the code of the message. The state is not to be
    /// trusted.
    Panicked { at: usize, failure: P::Failure, blame: Blame },
}

/// Whether there is something to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Events,
    Nothing,
}

pub(crate) enum Appending<P: Parts> {
    /// All of it is stored.
    Stored(P::State),
    /// Others were first. Nothing is stored.
    Overtaken,
    /// The store refused the last message of the burst, as the domain would: no other had events.
    Refused(P::Rejection),
    /// Nothing is stored: the batch can never be. One of its messages is at fault.
    Invalid(P::Failure),
    /// Nothing is stored, or that is unknown.
    Failed(P::Failure, Blame),
}

/// A message, and its answer if no decision will change it.
pub(crate) struct Letter<P: Parts> {
    pub(crate) message: P::Message,
    pub(crate) settled: Option<P::Failure>,
}

/// What a message is answered.
pub(crate) enum Answer<P: Parts> {
    /// What was decided last.
    Decided,
    /// A rejection by the store.
    Refused(P::Rejection),
    /// A failure.
    Failed(P::Failure),
}

/// Messages and what they are answered, in the order in which they came.
pub(crate) type Answers<P> = Vec<(<P as Parts>::Message, Answer<P>)>;

/// What to do.
pub(crate) struct Step<P: Parts> {
    /// To be given first, in this order.
    pub(crate) answers: Answers<P>,
    pub(crate) next: Next<P>,
}

pub(crate) enum Next<P: Parts> {
    /// Wait about so long, then `Resumed`.
    Pause(Duration),
    /// Load the state, then `Loaded`.
    Load,
    /// Decide these messages in order, but for the settled ones; then `Decided`.
    Decide { state: P::State, letters: VecDeque<Letter<P>> },
    /// Compare the state with the log, then `CaughtUp`.
    CatchUp(P::State),
    /// Store what was decided, then `Appended`.
    Append(P::State),
    /// Look after a state that has just been stored, then `Tended`.
    Tend(P::State),
    /// The task ends.
    Rest,
}

/// What became of a message that wants to be queued.
pub(crate) enum Queued<P: Parts> {
    /// It is queued, and there is a task to begin.
    Begin,
    /// It is queued.
    Joined,
    /// There is no room.
    Full(P::Message),
    /// The entity is quarantined.
    Quarantined(P::Message, P::Failure),
}

/// Whether answers that append nothing are compared with the log first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Others may write.
    Checked,
    /// Nobody else writes.
    Owned,
}

/// Whether a stored state needs looking after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tending {
    /// Snapshots are kept of it.
    Snapshots,
    /// No.
    Nothing,
}

/// What is the same for all cells of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) mailbox_max: usize,
    pub(crate) burst_max: usize,
    pub(crate) freshness: Freshness,
    pub(crate) tending: Tending,
    pub(crate) restart: Restart,
}
