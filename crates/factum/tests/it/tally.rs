//! A decision model that counts its own decisions and sees the accounts.

use factum::{Command, Context, DecisionModel, Event, Matching, ModelDecision};
use serde::{Deserialize, Serialize};

#[derive(Debug, Event)]
#[event(prefix = "tally")]
pub(crate) enum TallyEvent {
    Counted,
}

/// The number of counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally(pub(crate) u64);

/// Counts once more, up to a hundred.
#[derive(Serialize, Deserialize, Command)]
pub(crate) struct Count;

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("that is enough")]
pub(crate) struct Enough;

impl DecisionModel for Tally {
    type Command = Count;
    type Event = TallyEvent;
    type Rejection = Enough;

    fn query(_: &Count) -> Matching {
        Matching::events::<TallyEvent>()
    }

    fn evolve(&mut self, TallyEvent::Counted: &TallyEvent, _: &str) {
        self.0 += 1;
    }

    fn decide(&self, _: &Count, _: &Context<'_>) -> Result<ModelDecision<TallyEvent>, Enough> {
        match self.0 {
            0..100 => Ok(ModelDecision::event("tally", "all", TallyEvent::Counted)),
            _ => Err(Enough),
        }
    }
}
