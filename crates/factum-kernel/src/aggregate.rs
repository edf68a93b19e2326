//! The rules: what decides, and what folds.

use crate::{
    decision::Verdict, metadata::Metadata, schema::Event, time::Timestamp, version::StreamVersion,
};

/// What a rule may see beside state and command.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context<'a> {
    /// The aggregate's key.
    pub key: &'a str,
    /// How many events it has had. 0: it never existed. A deleted one counts on, with the default
    /// state.
    pub version: StreamVersion,
    /// The moment of the decision.
    pub now: Timestamp,
    /// Who asks, and why.
    pub metadata: &'a Metadata,
}

impl<'a> Context<'a> {
    /// What a rule may see; for tests of rules.
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
/// `decide` sees state, command and context; `evolve` sees state and event. Neither does anything
/// else: no I/O, no clock, no randomness.
///
/// The README holds a whole bank account; `factum-testing` tests rules with given, when, then.
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The category of its streams: letters, digits, `_` and `.`. Write it as
    /// [`category!("account")`](crate::category): a wrong one is told at its line then.
    const CATEGORY: &'static str;
    /// What can be asked of it.
    type Command: Send + Sync + 'static;
    /// What can happen to it.
    type Event: Event;
    /// What it can say no with. Not a failure: nothing is logged or retried.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// The events that a command leads to, or the reason why not.
    ///
    /// # Errors
    /// The domain says no.
    fn decide(&self, command: &Self::Command, cx: &Context<'_>) -> Verdict<Self>;

    /// Takes an event into the state. Can't fail: it has happened.
    fn evolve(&mut self, event: &Self::Event);

    /// An event that holds the whole state, so that older history may go; its variant is marked
    /// `#[event(summary)]`. `None`, the default: this aggregate keeps its history.
    fn summary(&self) -> Option<Self::Event> {
        None
    }

    /// How much memory the state takes, in bytes, for whoever keeps states in memory within a
    /// budget. The default counts the type's own size; a state that owns a lot adds what it owns.
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// Takes an event into a state: the one place that evolves. Before a summary the state begins
/// anew, so that it is the same whether the history before the summary was folded or is gone.
pub fn fold<A: Aggregate>(state: &mut A, event: &A::Event) {
    if event.is_summary() {
        *state = A::default();
    }
    state.evolve(event);
}
