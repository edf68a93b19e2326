//! Inputs and outputs of a cell.

use std::{collections::VecDeque, time::Duration};

use super::{Blame, Restart};

/// The types that a cell works with. The cell itself doesn't look into them.
pub(crate) trait Parts {
    /// A message, with its answer as far as it is known.
    type Message;
    /// The entity's state in memory.
    type State;
    /// The reason why a burst can't be answered.
    type Failure: Clone;
    /// A rejection that only the store can find, when a guard does not hold.
    type Rejection;

    /// The failure for messages to an entity that is quarantined for this cause.
    fn quarantined(cause: &Self::Failure) -> Self::Failure;
}

/// An input of a cell.
pub(crate) enum Input<P: Parts> {
    /// The work has begun.
    Begin,
    /// A pause is over.
    Resumed,
    /// The snapshot was stored, if one was due.
    Tended(P::State),
    /// A load has ended.
    Loaded(Result<P::State, (P::Failure, Blame)>),
    /// A burst was decided.
    Decided(Decided<P>),
    /// The state was compared with the log, and now equals it; or that failed.
    CaughtUp(Result<(P::State, CatchUp), (P::Failure, Blame)>),
    /// An append has ended.
    Appended(Appending<P>),
}

/// The result of comparing the state with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatchUp {
    Empty,
    Folded,
}

/// The result of deciding a burst.
pub(crate) struct Decided<P: Parts> {
    pub(crate) envelopes: VecDeque<Envelope<P>>,
    pub(crate) verdict: Verdict<P>,
}

pub(crate) enum Verdict<P: Parts> {
    /// The first `count` messages are decided, at least one. The others wait for the next burst.
    Done { state: P::State, count: usize, effect: Effect },
    /// The message at `at` panicked, in the entity's rules or in the caller's code. The state can't
    /// be used any more.
    Panicked { at: usize, failure: P::Failure, blame: Blame },
}

/// The events to store, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Events,
    Nothing,
}

pub(crate) enum Appending<P: Parts> {
    /// The whole burst is stored.
    Stored(P::State),
    /// Another writer was first. Nothing is stored.
    Overtaken,
    /// The store refused the guard of the last message. No other message of the burst has events.
    Refused(P::Rejection),
    /// Nothing is stored, because the store can't accept this batch. One of its messages is at
    /// fault.
    Invalid(P::Failure),
    /// Nothing is stored, or the outcome is unknown.
    Failed(P::Failure, Blame),
}

/// A message, with a failure if its answer is already settled.
pub(crate) struct Envelope<P: Parts> {
    pub(crate) message: P::Message,
    pub(crate) settled: Option<P::Failure>,
}

/// The answer to a message.
pub(crate) enum Answer<P: Parts> {
    /// The last decision on it.
    Decided,
    /// A rejection by the store.
    Refused(P::Rejection),
    /// A failure.
    Failed(P::Failure),
}

/// Messages and their answers, in the order in which the messages came.
pub(crate) type Answers<P> = Vec<(<P as Parts>::Message, Answer<P>)>;

/// The next step of a cell.
pub(crate) struct Step<P: Parts> {
    /// The answers to give first, in this order.
    pub(crate) answers: Answers<P>,
    pub(crate) next: Next<P>,
}

pub(crate) enum Next<P: Parts> {
    /// Wait about this long, then `Resumed`.
    Pause(Duration),
    /// Load the state, then `Loaded`.
    Load,
    /// Decide these messages in order, except for the settled ones; then `Decided`.
    Decide { state: P::State, envelopes: VecDeque<Envelope<P>> },
    /// Compare the state with the log, then `CaughtUp`.
    CatchUp(P::State),
    /// Append the decided events, then `Appended`.
    Append(P::State),
    /// Store a snapshot of the state if one is due, then `Tended`.
    Tend(P::State),
    /// The work ends.
    Rest,
}

/// The result of queueing a message.
pub(crate) enum Queued<P: Parts> {
    /// The message is queued, and the cell must be driven.
    Begin,
    /// The message is queued; the cell is being driven already.
    Joined,
    /// The mailbox is full.
    Full(P::Message),
    /// The entity is quarantined.
    Quarantined(P::Message, P::Failure),
}

/// The need to compare the state with the log before an answer that appends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Compare: there may be other writers.
    Checked,
    /// Don't compare: there is no other writer.
    Owned,
}

/// The work after a burst was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tending {
    /// Store snapshots.
    Snapshots,
    /// No further work.
    Nothing,
}

/// The settings of all cells of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) mailbox_max: usize,
    pub(crate) burst_max: usize,
    pub(crate) freshness: Freshness,
    pub(crate) tending: Tending,
    pub(crate) restart: Restart,
}
