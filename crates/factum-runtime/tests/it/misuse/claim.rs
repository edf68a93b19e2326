//! Rules of an aggregate and of a model that decide as the test says.

use factum_kernel::{
    Aggregate, Context, Decision, DecisionModel, Matching, ModelDecision, Verdict,
};
use factum_macros::Event;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

use crate::entry::Keyed;

pub(super) const ADDRESS: &str = "ada@example.org";

/// An event to be stored unless another matches.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) event: ClaimEvent,
    pub(super) guard: Matching,
}

#[derive(Debug, Clone, Event)]
#[event(crate = factum_kernel)]
pub(super) enum ClaimEvent {
    Hashed {
        #[event(tag, hashed)]
        email: String,
    },
    Plain {
        #[event(tag)]
        email: String,
    },
    /// Is as large as its text.
    Noted { text: String },
    /// Does not read back.
    Unread { field: OneWay },
    /// `evolve` panics on it.
    Poisoned {
        #[event(tag, hashed)]
        email: String,
    },
}

pub(super) fn hashed() -> ClaimEvent {
    ClaimEvent::Hashed { email: ADDRESS.into() }
}

pub(super) fn plain() -> ClaimEvent {
    ClaimEvent::Plain { email: ADDRESS.into() }
}

pub(super) fn poisoned() -> ClaimEvent {
    ClaimEvent::Poisoned { email: ADDRESS.into() }
}

/// Is written and never read.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OneWay;

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("it goes one way"))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the address is taken")]
pub(super) struct Taken;

/// The aggregate.
#[derive(Debug, Default)]
pub(super) struct Claims;

impl Aggregate for Claims {
    const CATEGORY: &'static str = "claim";
    type Command = Claim;
    type Event = ClaimEvent;
    type Rejection = Taken;

    fn decide(&self, claim: &Claim, _: &Context<'_>) -> Verdict<Self> {
        Ok(Decision::from([claim.event.clone()]).unless(claim.guard.clone(), Taken))
    }

    fn evolve(&mut self, event: &ClaimEvent) {
        assert!(!matches!(event, ClaimEvent::Poisoned { .. }), "poisoned");
    }
}

/// The model, which reads what the aggregate guards against. It remembers whether there is any.
#[derive(Debug, Default)]
pub(super) struct Found(bool);

impl DecisionModel for Found {
    type Command = Keyed<Claim>;
    type Event = ClaimEvent;
    type Rejection = Taken;

    fn query(Keyed { command, .. }: &Keyed<Claim>) -> Matching {
        command.guard.clone()
    }

    fn evolve(&mut self, event: &ClaimEvent, _: &str) {
        assert!(!matches!(event, ClaimEvent::Poisoned { .. }), "poisoned");
        self.0 = true;
    }

    fn decide(
        &self,
        Keyed { key, command }: &Keyed<Claim>,
        _: &Context<'_>,
    ) -> Result<ModelDecision<ClaimEvent>, Taken> {
        match self.0 {
            false => Ok(ModelDecision::event(Claims::CATEGORY, key, command.event.clone())),
            true => Err(Taken),
        }
    }
}
