//! The handling of events, for every kind of consumer.

use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    marker::PhantomData,
};

use factum_kernel::{DecodeError, Event, EventName, RecordedEvent, decode_event};
use serde::{Deserialize, Serialize};

use crate::{error::HandleError, option::Unknown, target::Target};

/// The reason why an event was not handled.
#[derive(Debug)]
pub enum Failure {
    /// The handler failed; another attempt may succeed.
    Handler(HandleError),
    /// The event can't be decoded; another attempt changes nothing.
    Decode(Box<DecodeError>),
}

/// The handling of a consumer's events.
pub trait Work: Send + Sync + 'static {
    /// The target of the effects.
    type Target: Target;

    /// True if the consumer handles this event.
    fn wants(&self, event: &RecordedEvent) -> bool;

    /// True if the consumer handles the deletions of streams.
    fn wants_deletions(&self) -> bool;

    /// The names of the events that the consumer handles, to be stored.
    fn names(&self) -> EventNames;

    /// Handles one event.
    fn handle(
        &self,
        event: &RecordedEvent,
        tx: &mut <Self::Target as Target>::Tx,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// The names of events that a consumer handles, in the form in which they are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventNames {
    known: BTreeSet<String>,
    prefixes: BTreeSet<String>,
}

impl EventNames {
    /// True if an event of this name is handled.
    pub fn have(&self, name: &str) -> bool {
        self.known.contains(name)
            || prefix(name).is_some_and(|prefix| self.prefixes.contains(prefix))
    }
}

/// The names of events that belong to an enum.
#[derive(Debug)]
pub struct Names<E> {
    known: HashSet<String>,
    /// The prefixes of known names, up to and including the last dot. An unknown name with one of
    /// these prefixes is an error.
    prefixes: HashSet<String>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> Names<E> {
    /// The names of the enum `E`, with the action for unknown ones.
    pub fn new(unknown: Unknown) -> Self {
        let known: HashSet<_> = E::types().iter().map(|it| it.name.as_str().to_owned()).collect();
        let prefixes = match unknown {
            Unknown::Fail => known.iter().filter_map(|name| prefix(name)).map(Into::into).collect(),
            Unknown::Ignore => HashSet::new(),
        };
        Self { known, prefixes, event: PhantomData }
    }

    /// The names, to be stored.
    pub fn to_stored(&self) -> EventNames {
        let sorted = |names: &HashSet<String>| names.iter().cloned().collect();
        EventNames { known: sorted(&self.known), prefixes: sorted(&self.prefixes) }
    }

    /// True if the enum holds deletions: it is an [`OrDeleted`](factum_kernel::OrDeleted).
    pub fn want_deletions(&self) -> bool {
        self.wants(EventName::STREAM_DELETED.as_str())
    }

    /// True if an event of this name must be handled.
    pub fn wants(&self, name: &str) -> bool {
        // Ask the enum's own match first: it is quicker than a hash lookup, and usually succeeds.
        E::owns(name)
            || self.known.contains(name)
            || prefix(name).is_some_and(|prefix| self.prefixes.contains(prefix))
    }
}

fn prefix(name: &str) -> Option<&str> {
    name.rfind('.').map(|dot| &name[..=dot])
}

/// The current events that a stored event decodes to: usually one.
pub fn decode<E: Event>(event: &RecordedEvent) -> Result<(Option<E>, Vec<E>), Failure> {
    let mut first = None;
    let mut rest = Vec::new();
    let mut sink = |event| match first {
        None => first = Some(event),
        Some(_) => rest.push(event),
    };
    decode_event(event, &mut sink).map_err(|error| Failure::Decode(Box::new(error)))?;
    Ok((first, rest))
}
