//! The comparison of the events that consumers got with the log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use factum_kernel::{Position, RecordedEvent, Scope, StreamId};

use super::Violation;
use crate::scope::in_scope;

/// The guarantee of a consumer's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// An event may come again after a crash or a failure. The first deliveries of each stream are
    /// in order.
    AtLeastOnce,
    /// The effect of an event is there once, in the order of its stream.
    Once,
}

/// A consumer that was announced to a [`History`](crate::History).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub(super) name: Arc<str>,
    pub(super) delivery: Delivery,
    pub(super) scope: Scope,
    pub(super) names: BTreeSet<String>,
    pub(super) at: usize,
}

impl Recipient {
    fn wants(&self, event: &RecordedEvent) -> bool {
        in_scope(&self.scope, event) && self.names.contains(event.name())
    }

    /// Checks that all its events came, as often as the guarantee allows, each stream in order.
    pub(super) fn check<'a>(
        &self,
        given: &[RecordedEvent],
        log: impl Iterator<Item = &'a RecordedEvent>,
    ) -> Result<(), Violation> {
        let consumer = || self.name.to_string();
        let mut seen: BTreeMap<Position, &RecordedEvent> = BTreeMap::new();
        let mut last_of: HashMap<StreamId, Position> = HashMap::new();
        for event in given {
            let stream = event.stream().to_stream_id();
            let position = event.position();
            let id = event.id();
            if seen.insert(position, event).is_some() {
                if self.delivery == Delivery::AtLeastOnce {
                    continue;
                }
                return Err(Violation::ConsumerTwice {
                    consumer: consumer(),
                    stream,
                    position,
                    id,
                });
            }
            let last = last_of.insert(stream.clone(), position).unwrap_or(Position::ZERO);
            if last >= position {
                let next = position;
                return Err(Violation::ConsumerOutOfOrder {
                    consumer: consumer(),
                    stream,
                    last,
                    next,
                });
            }
        }
        for event in log.filter(|event| self.wants(event)) {
            if seen.remove(&event.position()) != Some(event) {
                return Err(Violation::ConsumerMissed {
                    consumer: consumer(),
                    stream: event.stream().to_stream_id(),
                    position: event.position(),
                    id: event.id(),
                });
            }
        }
        // The remaining events are no longer in the log, if the consumer wanted them at all.
        match seen.values().find(|event| !self.wants(event)) {
            None => Ok(()),
            Some(event) => Err(Violation::ConsumerSawOther {
                consumer: consumer(),
                stream: event.stream().to_stream_id(),
                position: event.position(),
            }),
        }
    }
}
