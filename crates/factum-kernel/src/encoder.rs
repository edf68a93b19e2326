//! From a decision to an append. Only this module gives events their ids, tags and metadata, and
//! turns guards into conditions.

use crate::{
    aggregate::{Aggregate, Context, fold},
    decision::Decision,
    event::NewEvent,
    id::EventId,
    identity::COMMAND_TAG,
    kernel::Kernel,
    load::Loaded,
    metadata::Metadata,
    position::Position,
    query::{AppendCondition, Matching, Query},
    schema::{EncodeError, Event, encode_checked},
    tag::Tag,
    time::Timestamp,
    version::StreamVersion,
};

/// The encoder of one decision: the context for its rule, and the metadata for its events.
pub(crate) struct Encoder<'a> {
    /// The kernel, with the tag key and the source of ids.
    kernel: &'a Kernel,
    metadata: &'a Metadata,
    /// The time of the decision, for the rule and for the ids of the events.
    now: Timestamp,
    tag: Option<&'a Tag>,
}

impl<'a> Encoder<'a> {
    /// Makes an encoder for a decision at the present time. The state must be loaded before.
    pub(crate) fn new(kernel: &'a Kernel, metadata: &'a Metadata) -> Self {
        Self { kernel, metadata, now: kernel.clock().now(), tag: None }
    }

    /// Adds a tag to each event.
    pub(crate) fn with_tag(mut self, tag: Option<&'a Tag>) -> Self {
        self.tag = tag;
        self
    }

    /// The context for the rule.
    pub(crate) fn context(&self, key: &'a str, version: StreamVersion) -> Context<'a> {
        Context::new(key, version, self.now, self.metadata)
    }

    /// Encodes the decision of an aggregate.
    ///
    /// # Errors
    /// An event or a guard can't be encoded.
    pub(crate) fn encode<A: Aggregate>(
        &self,
        decision: Decision<A>,
    ) -> Result<Encoded<A>, EncodeError> {
        let Decision { events: decided, guards } = decision;
        let mut events = Vec::with_capacity(decided.len());
        let mut read = Vec::new();
        read.reserve_exact(decided.len());
        for event in &decided {
            let (new, as_read) = self.event(event)?;
            events.push(new);
            read.push(as_read);
        }
        let mut conditions = Vec::new();
        // Guards count only if there are events to store.
        for (guard, rejection) in guards.into_iter().filter(|_| !events.is_empty()) {
            let query = self.query(&guard)?;
            query.check_kinds(&events)?;
            let condition = AppendCondition { fail_if_events_match: query, after: Position::ZERO };
            conditions.push((condition, rejection));
        }
        Ok(Encoded { events, read, guards: conditions })
    }

    /// Encodes an event. Returns it as it is appended, and as a reader decodes it.
    ///
    /// # Errors
    /// The event can't be encoded, or can't be decoded again.
    pub(crate) fn event<E: Event>(&self, event: &E) -> Result<(NewEvent, E), EncodeError> {
        let id = EventId::new(self.kernel.ids().uuid(self.now));
        let (mut new, read) = encode_checked(event, id, self.metadata, self.kernel.tag_key())?;
        // An entry that came with the metadata of a cause would name the wrong command.
        new.metadata.extra.remove(COMMAND_TAG);
        new.tags.extend(self.tag.cloned());
        Ok((new, read))
    }

    /// Resolves the query of a guard or of a model.
    ///
    /// # Errors
    /// A tag is invalid, or the query can match no event.
    pub(crate) fn query(&self, matching: &Matching) -> Result<Query, EncodeError> {
        matching.resolve_guard(self.kernel.tag_key())
    }
}

/// The decision of an aggregate, as it is appended and as it will be read.
pub(crate) struct Encoded<A: Aggregate> {
    pub(crate) events: Vec<NewEvent>,
    /// The decoded events. The state folds these, because every later load folds the same.
    pub(crate) read: Vec<A::Event>,
    pub(crate) guards: Vec<(AppendCondition, A::Rejection)>,
}

impl<A: Aggregate> Encoded<A> {
    /// Folds the events into the state that they were decided on. This happens before they are
    /// stored, because an event on which `evolve` panics must not be stored.
    pub(crate) fn fold(&self, loaded: &mut Loaded<A>) {
        assert_eq!(self.events.len(), self.read.len(), "each stored event is folded");
        self.read.iter().for_each(|event| fold(&mut loaded.state, event));
        loaded.version = loaded.version.plus(self.read.len() as u64);
    }
}
