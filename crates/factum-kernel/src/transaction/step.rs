//! The steps of a transaction.

use std::sync::Arc;

use async_trait::async_trait;

use super::{StepRejected, plan::Plan};
use crate::{
    aggregate::Aggregate,
    event::NewEvent,
    execution::TransactionError,
    load::LoadError,
    model::{DecisionModel, read_model},
    query::{AppendCondition, Query},
    read::ReadQuery,
    repository::Repository,
    retry::Attempts,
    schema::{EncodeError, EncodedEvent, Event},
    store::EventStore,
    stream::StreamId,
    tag::Tag,
    version::StreamVersion,
};

/// A step of a transaction.
#[async_trait]
pub(super) trait Step: Send + Sync {
    /// The log of the step's repository, if it has one.
    fn store(&self) -> Option<&Arc<dyn EventStore>>;

    /// True if the step decides nothing and does not count as a step for the caller.
    fn is_silent(&self) -> bool {
        false
    }

    /// Reads the state that the step decides on.
    async fn load(
        &self,
        plan: &mut Plan<'_>,
        attempts: &mut Attempts,
    ) -> Result<(), TransactionError>;

    /// Decides the step, on the state that was read and the decisions of earlier steps.
    fn decide(&self, number: usize, plan: &mut Plan<'_>) -> Result<(), TransactionError>;
}

/// A command on an aggregate.
pub(super) struct On<A: Aggregate> {
    pub(super) repository: Repository<A>,
    pub(super) key: Box<str>,
    pub(super) command: Arc<A::Command>,
}

#[async_trait]
impl<A: Aggregate> Step for On<A> {
    fn store(&self) -> Option<&Arc<dyn EventStore>> {
        Some(self.repository.kernel().events())
    }

    async fn load(
        &self,
        plan: &mut Plan<'_>,
        attempts: &mut Attempts,
    ) -> Result<(), TransactionError> {
        let stream = self.repository.stream(&self.key)?;
        if plan.holds(&stream) {
            return Ok(());
        }
        let loaded = self.repository.load_for(&stream, attempts).await?;
        plan.add(stream, loaded)
    }

    fn decide(&self, number: usize, plan: &mut Plan<'_>) -> Result<(), TransactionError> {
        let rejected = |no: A::Rejection| StepRejected::new(number, no);
        let stream = self.repository.stream(&self.key)?;
        let encoder = plan.encoder(self.repository.kernel());
        let (index, loaded) = plan.held::<A>(&stream)?;
        let cx = encoder.context(stream.key(), loaded.version);
        let decision = loaded.state.decide(&self.command, &cx);
        let decision = decision.map_err(|no| TransactionError::Rejected(rejected(no)))?;
        let encoded = encoder.encode(decision)?;
        encoded.fold(loaded);
        for (condition, rejection) in encoded.guards {
            plan.guard(condition, rejected(rejection))?;
        }
        plan.proposal.add(index, encoded.events);
        Ok(())
    }
}

/// The version of an aggregate that the caller expects.
pub(super) struct Expect<A: Aggregate> {
    pub(super) repository: Repository<A>,
    pub(super) key: Box<str>,
    pub(super) version: StreamVersion,
}

#[async_trait]
impl<A: Aggregate> Step for Expect<A> {
    fn store(&self) -> Option<&Arc<dyn EventStore>> {
        Some(self.repository.kernel().events())
    }

    fn is_silent(&self) -> bool {
        true
    }

    async fn load(
        &self,
        plan: &mut Plan<'_>,
        attempts: &mut Attempts,
    ) -> Result<(), TransactionError> {
        let stream = self.repository.stream(&self.key)?;
        let query = ReadQuery::stream(stream.clone()).with_events_max(1);
        let kernel = self.repository.kernel();
        let read = || kernel.events().read(query.clone());
        let page = kernel.patiently(attempts, |error| Some(error), read).await?;
        plan.expect(stream, self.version, page.bounds.unwrap_or_default().version)
    }

    fn decide(&self, _: usize, _: &mut Plan<'_>) -> Result<(), TransactionError> {
        Ok(())
    }
}

/// A decision over a query.
pub(super) struct Over<M: DecisionModel>(pub(super) Arc<M::Command>);

#[async_trait]
impl<M: DecisionModel> Step for Over<M> {
    fn store(&self) -> Option<&Arc<dyn EventStore>> {
        None
    }

    async fn load(
        &self,
        plan: &mut Plan<'_>,
        attempts: &mut Attempts,
    ) -> Result<(), TransactionError> {
        let kernel = plan.kernel;
        let query = M::query(&self.0).resolve_guard(kernel.tag_key())?;
        let read = || read_model::<M>(kernel, &query);
        let read = kernel.patiently(attempts, LoadError::store_error, read).await;
        let (mut model, after) = read?;
        plan.rests_on(after);
        for event in plan.proposal.events().filter(|event| is_read::<M>(&query, event)) {
            let mut sink = |event: M::Event| model.evolve(&event);
            M::Event::decode(EncodedEvent::of_new(event), &mut sink).map_err(LoadError::from)?;
        }
        let condition = AppendCondition { fail_if_events_match: query, after };
        plan.proposal.unless_overtaken(condition);
        plan.models.push(Box::new(model));
        Ok(())
    }

    fn decide(&self, number: usize, plan: &mut Plan<'_>) -> Result<(), TransactionError> {
        let mut model = plan.models.pop().expect("the model was loaded for this step");
        let query = M::query(&self.0).resolve_guard(plan.kernel.tag_key())?;
        let encoder = plan.encoder(plan.kernel);
        let read: &mut M = model.downcast_mut().expect("the model is of this step's type");
        let cx = encoder.context("", StreamVersion::ZERO);
        let decision = read.decide(&self.0, &cx);
        let decision =
            decision.map_err(|no| TransactionError::Rejected(StepRejected::new(number, no)))?;
        for (category, key, event) in decision.into_writes() {
            let stream = StreamId::new(&category, &key).map_err(LoadError::from)?;
            let (new, as_read) = encoder.event(&event)?;
            query.check_kinds(std::slice::from_ref(&new)).map_err(EncodeError::from)?;
            // The event is folded before anything is stored, because an event on which `evolve`
            // panics must not be stored.
            if is_read::<M>(&query, &new) {
                read.evolve(&as_read);
            }
            plan.write(stream, new)?;
        }
        plan.models.push(model);
        Ok(())
    }
}

/// True if a model's query matches a new event and its enum knows the event's name.
fn is_read<M: DecisionModel>(query: &Query, event: &NewEvent) -> bool {
    let name = event.name.as_str();
    query.matches(name, event.tags.iter().map(Tag::as_str)) && M::Event::owns(name)
}
