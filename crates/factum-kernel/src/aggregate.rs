//! The rules of an aggregate: decide and evolve.

use crate::{
    decision::Verdict, metadata::Metadata, schema::Event, time::Timestamp, version::StreamVersion,
};

/// The context of a decision: everything that a rule may see in addition to state and command.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The aggregate's key. Empty for a decision over a query, which is not about one stream.
    pub key: &'a str,
    /// The number of events so far; 0 means that the aggregate never existed. After a deletion the
    /// number continues, with the default state.
    pub version: StreamVersion,
    /// The time of the decision.
    pub now: Timestamp,
    /// The metadata of the command: the user, the cause, and so on.
    pub metadata: &'a Metadata,
}

impl<'a> Context<'a> {
    /// Makes a context, for tests of rules.
    pub fn new(
        key: &'a str,
        version: StreamVersion,
        now: Timestamp,
        metadata: &'a Metadata,
    ) -> Self {
        Self { key, version, now, metadata }
    }
}

/// A consistency boundary: rules bound to a category of streams, one stream per key.
///
/// `decide` sees state, command and context; `evolve` sees state and event. Both are pure: no I/O,
/// no clock, no randomness.
///
/// The README shows a whole bank account. `factum-testing` tests rules with given, when, then.
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The category of its streams: letters, digits, `_` and `.`. Write it as
    /// [`category!("account")`](crate::category); then the compiler reports a wrong category at
    /// that line.
    const CATEGORY: &'static str;
    /// The commands that the aggregate decides.
    type Command: Send + Sync + 'static;
    /// The events that change the aggregate's state.
    type Event: Event;
    /// The reasons for which it rejects commands. A rejection is not a failure: it is neither
    /// logged nor retried.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// Decides a command: returns its events, or a rejection.
    ///
    /// # Errors
    /// A rejection by the domain.
    fn decide(&self, command: &Self::Command, cx: &Context<'_>) -> Verdict<Self>;

    /// Applies an event to the state. It can't fail, because the event has happened.
    fn evolve(&mut self, event: &Self::Event);

    /// The event that holds the whole state, so that older history may be erased. Its variant is
    /// marked `#[event(summary)]`. `None`, the default, means that this aggregate keeps its
    /// history.
    fn summary(&self) -> Option<Self::Event> {
        None
    }

    /// The memory that the state takes, in bytes. Runtimes that keep states in memory count it
    /// against their limit. The default is the type's own size; a state that owns large values
    /// should add them.
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// Folds an event into a state; the only code that calls `evolve`. Before a summary the state is
/// reset, so that the result is the same whether the history before the summary was folded or is
/// erased.
pub fn fold<A: Aggregate>(state: &mut A, event: &A::Event) {
    if event.is_summary() {
        *state = A::default();
    }
    state.evolve(event);
}
