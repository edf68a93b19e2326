//! The steps of a transaction.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    StepRejected,
    plan::{HeldModel, Plan, Read},
};
use crate::{
    aggregate::Aggregate,
    execution::TransactionError,
    load::LoadError,
    model::{DecisionModel, ModelExpectation, ModelWrite, read_model},
    query::AppendCondition,
    read::ReadQuery,
    repository::Repository,
    retry::Attempts,
    schema::EncodeError,
    store::EventStore,
    stream::StreamId,
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
        plan.add_events(index, encoded.events)
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
        plan.expect(stream, self.version, page.bounds.unwrap_or_default())
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
        let (model, after) = read?;
        plan.rests_on(after);
        let mut read = Read { model, query: query.clone() };
        for (stream, event) in plan.proposal.placed() {
            read.take(event, stream.key()).map_err(LoadError::from)?;
        }
        let condition = AppendCondition { fail_if_events_match: query, after };
        plan.proposal.unless_overtaken(condition);
        plan.add_model(read);
        Ok(())
    }

    fn decide(&self, number: usize, plan: &mut Plan<'_>) -> Result<(), TransactionError> {
        let mut read = plan.take_model::<M>();
        let encoder = plan.encoder(plan.kernel);
        let cx = encoder.context("", StreamVersion::ZERO);
        let decision = read.model.decide(&self.0, &cx);
        let decision =
            decision.map_err(|no| TransactionError::Rejected(StepRejected::new(number, no)))?;
        for ModelExpectation { category, key, expected } in decision.expectations() {
            let stream = StreamId::new(category, key).map_err(LoadError::from)?;
            plan.rule(stream, *expected)?;
        }
        for ModelWrite { category, key, event } in decision.into_writes() {
            let stream = StreamId::new(&category, &key).map_err(LoadError::from)?;
            let (new, as_read) = encoder.event(&event)?;
            read.query.check_kinds(std::slice::from_ref(&new)).map_err(EncodeError::from)?;
            // The event is folded before anything is stored, because an event on which `evolve`
            // panics must not be stored.
            if read.is_read(&new) {
                read.model.evolve(&as_read, stream.key());
            }
            plan.write(stream, new)?;
        }
        plan.add_model(*read);
        Ok(())
    }
}
