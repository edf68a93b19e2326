//! What a consumer does with events, whatever kind of consumer it is.

use std::{collections::HashSet, future::Future, marker::PhantomData};

use factum_kernel::{DecodeError, Event, RecordedEvent, decode_event};

use crate::{error::HandleError, option::Unknown, target::Target};

/// Why an event was not handled.
#[derive(Debug)]
pub enum Failure {
    /// It may be handled another time.
    Handler(HandleError),
    /// It will never be.
    Decode(Box<DecodeError>),
}

/// What a consumer does with events.
pub trait Work: Send + Sync + 'static {
    /// Where its effects are kept.
    type Target: Target;

    /// Whether the event is its business.
    fn wants(&self, event: &RecordedEvent) -> bool;

    /// Handles one event.
    fn handle(
        &self,
        event: &RecordedEvent,
        tx: &mut <Self::Target as Target>::Tx,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Which events belong to an enum.
#[derive(Debug)]
pub struct Names<E> {
    known: HashSet<String>,
    /// Up to and with the dot; names that begin so should be known.
    prefixes: HashSet<String>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> Names<E> {
    /// Those of an enum, and what is done with unknown ones.
    pub fn new(unknown: Unknown) -> Self {
        let known: HashSet<_> = E::types().iter().map(|it| it.name.as_str().to_owned()).collect();
        let prefixes = match unknown {
            Unknown::Fail => known.iter().filter_map(|name| prefix(name)).map(Into::into).collect(),
            Unknown::Ignore => HashSet::new(),
        };
        Self { known, prefixes, event: PhantomData }
    }

    /// Whether an event of this name is to be handled.
    pub fn wants(&self, name: &str) -> bool {
        // Its own match of names first: it is quicker than a hash, and usually right.
        E::owns(name)
            || self.known.contains(name)
            || prefix(name).is_some_and(|prefix| self.prefixes.contains(prefix))
    }
}

fn prefix(name: &str) -> Option<&str> {
    name.rfind('.').map(|dot| &name[..=dot])
}

/// The events that a stored one is now: usually one.
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
