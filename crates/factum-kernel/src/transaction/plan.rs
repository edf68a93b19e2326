//! The plan of a transaction: the decisions of its steps so far.

use std::{any::Any, collections::HashMap};

use super::{Committed, StepRejected, Stored};
use crate::{
    aggregate::{Aggregate, fold},
    encoder::Encoder,
    error::StoreError,
    event::NewEvent,
    execution::TransactionError,
    kernel::Kernel,
    load::{LoadError, Loaded},
    metadata::Metadata,
    model::DecisionModel,
    page::StreamBounds,
    position::Position,
    proposal::Proposal,
    query::{AppendCondition, Query},
    schema::{DecodeError, EncodedEvent, Event},
    stream::StreamId,
    tag::Tag,
    version::{ExpectedVersion, StreamVersion},
};

/// An aggregate of a transaction, of any type: a `Loaded<A>` into which the plan's events of its
/// stream are folded.
pub(super) trait Held: Send + Sync {
    /// Folds an event that another step decided.
    fn take(&mut self, event: &NewEvent) -> Result<(), DecodeError>;

    fn as_any(&self) -> &dyn Any;

    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<A: Aggregate> Held for Loaded<A> {
    fn take(&mut self, event: &NewEvent) -> Result<(), DecodeError> {
        let state = &mut self.state;
        let mut sink = |event: A::Event| fold(state, &event);
        A::Event::decode(EncodedEvent::of_new(event), &mut sink)?;
        self.version = self.version.next();
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A decision model of a transaction, into which the plan's events that match it are folded.
pub(super) trait HeldModel: Send + Sync {
    /// Folds an event that another step decided for the stream with this key, if the model's query
    /// matches it.
    fn take(&mut self, event: &NewEvent, key: &str) -> Result<(), DecodeError>;

    fn as_any(&self) -> &dyn Any;

    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// A model and the query that it reads.
pub(super) struct Read<M> {
    pub(super) model: M,
    pub(super) query: Query,
}

impl<M: DecisionModel> Read<M> {
    /// True if the query matches a new event and the model's enum knows the event's name.
    pub(super) fn is_read(&self, event: &NewEvent) -> bool {
        let name = event.name.as_str();
        self.query.matches(name, event.tags.iter().map(Tag::as_str)) && M::Event::owns(name)
    }
}

impl<M: DecisionModel> HeldModel for Read<M> {
    fn take(&mut self, event: &NewEvent, key: &str) -> Result<(), DecodeError> {
        if !self.is_read(event) {
            return Ok(());
        }
        let model = &mut self.model;
        M::Event::decode(EncodedEvent::of_new(event), &mut |event| model.evolve(&event, key))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A stream of the proposal.
#[derive(Default)]
struct Place {
    /// The bounds of the stream before the transaction. `None`: no step has read the stream.
    before: Option<StreamBounds>,
    /// The state. `None`: no step has loaded the stream.
    held: Option<Box<dyn Held>>,
}

/// The decisions of the steps so far.
pub(super) struct Plan<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) metadata: &'a Metadata,
    tag: Option<&'a Tag>,
    pub(super) proposal: Proposal<StepRejected>,
    /// By the number of the proposal's stream.
    places: Vec<Place>,
    index: HashMap<StreamId, usize>,
    /// The versions that the caller expects.
    expected: HashMap<StreamId, StreamVersion>,
    /// The models, in the order of their steps.
    models: Vec<Box<dyn HeldModel>>,
    rests_on: Position,
}

impl<'a> Plan<'a> {
    pub(super) fn new(kernel: &'a Kernel, metadata: &'a Metadata, tag: Option<&'a Tag>) -> Self {
        Self {
            kernel,
            metadata,
            tag,
            proposal: Proposal::new(),
            places: Vec::new(),
            index: HashMap::new(),
            expected: HashMap::new(),
            models: Vec::new(),
            rests_on: Position::ZERO,
        }
    }

    /// An encoder for a decision, with the tag key of the kernel that loaded its state.
    pub(super) fn encoder<'e>(&self, kernel: &'e Kernel) -> Encoder<'e>
    where
        'a: 'e,
    {
        Encoder::new(kernel, self.metadata).with_tag(self.tag)
    }

    /// Adds a guard. It must hold for the events of earlier steps as well as for stored events.
    pub(super) fn guard(
        &mut self,
        condition: AppendCondition,
        rejected: StepRejected,
    ) -> Result<(), TransactionError> {
        let query = &condition.fail_if_events_match;
        let is_meant = |event: &NewEvent| {
            query.matches(event.name.as_str(), event.tags.iter().map(Tag::as_str))
        };
        if self.proposal.events().any(is_meant) {
            return Err(TransactionError::Rejected(rejected));
        }
        self.proposal.guard(condition, rejected);
        Ok(())
    }

    /// Adds a version that the caller expects, before any step is decided.
    pub(super) fn expect(
        &mut self,
        stream: StreamId,
        version: StreamVersion,
        actual: StreamBounds,
    ) -> Result<(), TransactionError> {
        if let Some(conflict) = actual.conflict(&stream, version.into()) {
            return Err(TransactionError::Conflict(conflict));
        }
        if self.expected.contains_key(&stream) {
            return Ok(());
        }
        let index = self.proposal.demand(stream.clone(), version.into());
        self.place(stream.clone(), index, Place { before: Some(actual), held: None });
        self.expected.insert(stream, version);
        Ok(())
    }

    fn place(&mut self, stream: StreamId, index: usize, place: Place) {
        assert_eq!(index, self.places.len(), "each stream of the proposal has a place");
        self.places.push(place);
        self.index.insert(stream, index);
    }

    /// True if the stream's aggregate is loaded.
    pub(super) fn holds(&self, stream: &StreamId) -> bool {
        self.index.get(stream).is_some_and(|at| self.places[*at].held.is_some())
    }

    /// Notes a position that the answer is based on.
    pub(super) fn rests_on(&mut self, position: Position) {
        self.rests_on = self.rests_on.max(position);
    }

    /// Adds a loaded aggregate.
    pub(super) fn add<A: Aggregate>(
        &mut self,
        stream: StreamId,
        loaded: Loaded<A>,
    ) -> Result<(), TransactionError> {
        self.rests_on(loaded.position);
        let version = loaded.version;
        let before = loaded.bounds();
        let expected = self.expected.get(&stream);
        if let Some(conflict) = expected.and_then(|it| before.conflict(&stream, (*it).into())) {
            return Err(TransactionError::Conflict(conflict));
        }
        let place = Place { before: Some(before), held: Some(Box::new(loaded)) };
        let Some(index) = self.index.get(&stream).copied() else {
            let index = self.proposal.stream(stream.clone(), version.into());
            self.place(stream, index, place);
            return Ok(());
        };
        if self.proposal.has_events_of(&stream) {
            let message = format!(
                "a decision of the transaction writes the stream of a later command, put the \
                 command before the decision: stream={stream}"
            );
            return Err(StoreError::invalid(message).into());
        }
        self.places[index] = place;
        // The command depends on this version, not only on what an earlier decision expects.
        match self.proposal.read_ruled(index, version) {
            Some(rule) => meets(before, &stream, rule),
            None => Ok(()),
        }
    }

    /// The number of an aggregate's stream, and its state.
    pub(super) fn held<A: Aggregate>(
        &mut self,
        stream: &StreamId,
    ) -> Result<(usize, &mut Loaded<A>), StoreError> {
        let index = self.index[stream];
        let held = self.places[index].held.as_mut().and_then(|it| it.as_any_mut().downcast_mut());
        let loaded = held.ok_or_else(|| {
            StoreError::invalid(format!(
                "two kinds of aggregate share a stream in one transaction: stream={stream}"
            ))
        })?;
        Ok((index, loaded))
    }

    /// Adds a model's expectation of a stream, as it is before the transaction.
    pub(super) fn rule(
        &mut self,
        stream: StreamId,
        expected: ExpectedVersion,
    ) -> Result<(), TransactionError> {
        if expected == ExpectedVersion::Any {
            return Ok(());
        }
        let Some(index) = self.index.get(&stream).copied() else {
            let index = self.proposal.rule(stream.clone(), expected);
            self.place(stream, index, Place::default());
            return Ok(());
        };
        let ruled = self.proposal.expected_of(index);
        match self.places[index].before {
            // The stream keeps the version at which an earlier step has read it.
            Some(before) => meets(before, &stream, expected),
            None if ruled == expected => Ok(()),
            None => {
                let message = format!(
                    "an earlier decision of the transaction does not expect the same of the \
                     stream: stream={stream} expected={expected} before={ruled}"
                );
                Err(StoreError::invalid(message).into())
            }
        }
    }

    /// Adds an event that a model writes to a stream.
    pub(super) fn write(
        &mut self,
        stream: StreamId,
        event: NewEvent,
    ) -> Result<(), TransactionError> {
        let index = match self.index.get(&stream) {
            Some(index) => *index,
            None => {
                let index = self.proposal.stream(stream.clone(), ExpectedVersion::Any);
                self.place(stream, index, Place::default());
                index
            }
        };
        if let Some(held) = &mut self.places[index].held {
            held.take(&event).map_err(LoadError::from)?;
        }
        self.add_events(index, vec![event])
    }

    /// Adds decided events to a stream of the proposal, and to the models that read them.
    pub(super) fn add_events(
        &mut self,
        index: usize,
        events: Vec<NewEvent>,
    ) -> Result<(), TransactionError> {
        let key = self.proposal.stream_of(index).key();
        for event in &events {
            for model in &mut self.models {
                model.take(event, key).map_err(LoadError::from)?;
            }
        }
        self.proposal.add(index, events);
        Ok(())
    }

    /// Takes out the model that was added last.
    pub(super) fn take_model<M: DecisionModel>(&mut self) -> Box<Read<M>> {
        let last = self.models.pop().expect("the model was loaded for this step");
        last.into_any().downcast().expect("the model is of this step's type")
    }

    /// Adds a model.
    pub(super) fn add_model<M: DecisionModel>(&mut self, read: Read<M>) {
        self.models.push(Box::new(read));
    }

    /// Takes out the proposal. The states stay.
    pub(super) fn take_proposal(&mut self) -> Proposal<StepRejected> {
        std::mem::replace(&mut self.proposal, Proposal::new())
    }

    /// The outcome of the transaction, from the states, the models and the result of the append.
    pub(super) fn into_committed(self, stored: Stored) -> Committed {
        let Stored { position, events, versions } = stored;
        let Self { mut places, index, models, rests_on, .. } = self;
        let held = index.into_iter().filter_map(|(id, at)| Some((id, places[at].held.take()?)));
        Committed {
            position,
            events,
            versions,
            replayed: false,
            rests_on: position.unwrap_or(rests_on),
            states: held.collect(),
            models,
        }
    }
}

/// Compares a stream as a step has read it with what a model expects of it.
fn meets(
    before: StreamBounds,
    stream: &StreamId,
    expected: ExpectedVersion,
) -> Result<(), TransactionError> {
    before.conflict(stream, expected).map_or(Ok(()), |it| Err(TransactionError::Conflict(it)))
}
