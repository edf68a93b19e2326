//! Rules that note what they see, of an aggregate and of a model.

use std::convert::Infallible;

use factum_kernel::{Aggregate, Context, DecisionModel, Matching, ModelDecision, Verdict};
use factum_macros::Event;

use crate::entry::Keyed;

pub(super) const OWNER: &str = "ada";
pub(super) const CATEGORY: &str = "note";

/// To take so many notes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Take(pub(super) u64);

#[derive(Debug, Clone, PartialEq, Event)]
#[event(crate = factum_kernel)]
pub(super) enum NoteEvent {
    Taken {
        /// How many had been taken before.
        number: u64,
        /// What the rule saw of the clock, in milliseconds.
        at: u64,
        #[event(tag, hashed)]
        owner: String,
    },
}

fn take(Take(count): Take, so_far: u64, cx: &Context<'_>) -> Vec<NoteEvent> {
    let note = |number| {
        let at = cx.now.as_millis();
        NoteEvent::Taken { number, at, owner: OWNER.into() }
    };
    (so_far..so_far + count).map(note).collect()
}

/// The aggregate.
#[derive(Debug, Default)]
pub(super) struct Notes(u64);

impl Aggregate for Notes {
    const CATEGORY: &'static str = CATEGORY;
    type Command = Take;
    type Event = NoteEvent;
    type Rejection = Infallible;

    fn decide(&self, command: &Take, cx: &Context<'_>) -> Verdict<Self> {
        Ok(take(*command, self.0, cx).into())
    }

    fn evolve(&mut self, _: &NoteEvent) {
        self.0 += 1;
    }
}

/// The model, which reads what the aggregate wrote.
#[derive(Debug, Default)]
pub(super) struct NotesRead(u64);

impl DecisionModel for NotesRead {
    type Command = Keyed<Take>;
    type Event = NoteEvent;
    type Rejection = Infallible;

    fn query(_: &Keyed<Take>) -> Matching {
        Matching::hashed_tag("owner", OWNER)
    }

    fn evolve(&mut self, _: &NoteEvent, _: &str) {
        self.0 += 1;
    }

    fn decide(
        &self,
        Keyed { key, command }: &Keyed<Take>,
        cx: &Context<'_>,
    ) -> Result<ModelDecision<NoteEvent>, Infallible> {
        let events = take(*command, self.0, cx).into_iter();
        Ok(events.fold(ModelDecision::nothing(), |all, event| all.and(CATEGORY, key, event)))
    }
}
