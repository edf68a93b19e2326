//! From what a rule decided to what is appended: the one place that gives events their ids, tags
//! and metadata, and turns guards into conditions.

use crate::{
    aggregate::{Aggregate, Context, fold},
    decision::Decision,
    event::NewEvent,
    id::EventId,
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

/// One decision: what its rule sees, and what its events get.
pub(crate) struct Encoder<'a> {
    /// Its tag key hashes, its source of ids names.
    kernel: &'a Kernel,
    metadata: &'a Metadata,
    /// The moment of the decision: the rule sees it, and the events' ids hold it.
    now: Timestamp,
    tag: Option<&'a Tag>,
}

impl<'a> Encoder<'a> {
    /// A decision that is made now. What it is made on is loaded before.
    pub(crate) fn new(kernel: &'a Kernel, metadata: &'a Metadata) -> Self {
        Self { kernel, metadata, now: kernel.clock().now(), tag: None }
    }

    /// Puts one more tag on each event.
    pub(crate) fn with_tag(mut self, tag: Option<&'a Tag>) -> Self {
        self.tag = tag;
        self
    }

    /// What the rule sees.
    pub(crate) fn context(&self, key: &'a str, version: StreamVersion) -> Context<'a> {
        Context::new(key, version, self.now, self.metadata)
    }

    /// A decision of an aggregate.
    ///
    /// # Errors
    /// An event or a guard that can't be written down.
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
        // Where nothing is stored, nothing is guarded.
        for (guard, rejection) in guards.into_iter().filter(|_| !events.is_empty()) {
            let query = self.query(&guard)?;
            query.check_kinds(&events)?;
            let condition = AppendCondition { fail_if_events_match: query, after: Position::ZERO };
            conditions.push((condition, rejection));
        }
        Ok(Encoded { events, read, guards: conditions })
    }

    /// An event as it is appended, and as it will be read.
    ///
    /// # Errors
    /// An event that can't be written down, or not be read.
    pub(crate) fn event<E: Event>(&self, event: &E) -> Result<(NewEvent, E), EncodeError> {
        let id = EventId::new(self.kernel.ids().uuid(self.now));
        let (mut new, read) = encode_checked(event, id, self.metadata, self.kernel.tag_key())?;
        new.tags.extend(self.tag.cloned());
        Ok((new, read))
    }

    /// What a guard names, or a model reads.
    ///
    /// # Errors
    /// A bad tag, or a query that matches nothing.
    pub(crate) fn query(&self, matching: &Matching) -> Result<Query, EncodeError> {
        matching.resolve_guard(self.kernel.tag_key())
    }
}

/// A decision of an aggregate, as it is appended and as it will be read.
pub(crate) struct Encoded<A: Aggregate> {
    pub(crate) events: Vec<NewEvent>,
    /// The same events: what is folded now is what every later load folds.
    pub(crate) read: Vec<A::Event>,
    pub(crate) guards: Vec<(AppendCondition, A::Rejection)>,
}

impl<A: Aggregate> Encoded<A> {
    /// Takes its events into the state that they were decided on. That comes before they are
    /// stored: an event that `evolve` panics on must not be.
    pub(crate) fn fold(&self, loaded: &mut Loaded<A>) {
        assert_eq!(self.events.len(), self.read.len(), "what is stored is what is folded");
        self.read.iter().for_each(|event| fold(&mut loaded.state, event));
        loaded.version = loaded.version.plus(self.read.len() as u64);
    }
}
