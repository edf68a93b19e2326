//! Decisions over a query.

use std::{fmt, future::IntoFuture, marker::PhantomData, pin::Pin, time::Duration};

use factum_kernel::{
    Command, CommandId, DecisionModel, Metadata, Position, StreamId, StreamVersion,
};
use factum_runtime::{CommandError, CommandRequest};

use crate::{app::App, seen::Readers, send::SendError};

type Sent<M> = Result<Decided<M>, SendError<<M as DecisionModel>::Rejection>>;
type Sending<M> = Pin<Box<dyn Future<Output = Sent<M>> + Send>>;

/// The outcome of a decision over a query.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decided<M> {
    /// The model after the decision. For a decision that an earlier attempt stored, the present
    /// model.
    pub model: M,
    /// The position of the last event; `None` if there was no event.
    pub position: Option<Position>,
    /// The number of stored events.
    pub events: usize,
    /// The version of each written stream after the decision.
    pub versions: Vec<(StreamId, StreamVersion)>,
    /// True if an earlier attempt stored the decision, which was recognised by its
    /// [id](SendDecision::once).
    pub replayed: bool,
}

/// A decision over a query that is sent when this is awaited. See [`App::decide`].
#[must_use = "the decision is sent only when it is awaited"]
pub struct SendDecision<M: DecisionModel> {
    app: App,
    request: CommandRequest,
    readers: Readers,
    model: PhantomData<fn() -> M>,
}

impl App {
    /// Decides over a query instead of a stream, by the rules of a [`DecisionModel`]. The decision
    /// passes the [layers](crate::AppBuilder::layer) of the application. A
    /// [transaction](Self::transaction) can contain a decision as a step.
    ///
    /// # Errors
    /// The future returns a [`SendError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, all of the events are stored or none. A caller that must know the
    /// outcome gives the decision an id and sends it again.
    pub fn decide<M: DecisionModel>(&self, command: M::Command) -> SendDecision<M> {
        let request = CommandRequest::decision::<M>(self.commands().id(), self.no_steps(), command);
        let readers = Readers::none();
        SendDecision { app: self.clone(), request, readers, model: PhantomData }
    }
}

impl<M: DecisionModel> SendDecision<M> {
    /// Gives the decision an id, so that it takes effect once, however often it is sent with this
    /// id. The answer to a repeat has the position that the first attempt stored,
    /// [`replayed`](Decided::replayed) set, and the present model.
    ///
    /// An id names one decision in the log: the stored name and the content of its command, which
    /// derives [`Command`]. A model has no stored name, so a type of commands belongs to one model:
    /// two models with one type of commands need ids of different purposes. If the log has another
    /// command under the id, the error is [`IdTaken`](factum_kernel::IdTaken).
    pub fn once(mut self, id: CommandId) -> Self
    where
        M: DecisionModel<Command: Command>,
    {
        self.request = self.request.named_decision::<M>().once(id);
        self
    }

    /// Sets the metadata for the layers, the rule and the events.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.request = self.request.with_metadata(metadata);
        self
    }

    /// Answers only after the consumer or projection with this name has handled the decision's
    /// events; see [`SendCommand::seen_by`](crate::aggregate::SendCommand::seen_by).
    pub fn seen_by(mut self, name: impl Into<String>) -> Self {
        self.readers.add(name.into());
        self
    }

    /// Sets the longest wait for all readers together, from the moment the decision took effect.
    pub fn within(mut self, within: Duration) -> Self {
        self.readers.within(within);
        self
    }

    async fn send(self) -> Sent<M> {
        let Self { app, request, readers, .. } = self;
        let category = request.category();
        let command = request.name();
        let committed = app.send_together(request, &readers).await?;
        let position = committed.position;
        let events = committed.events;
        let versions = committed.versions.clone();
        let replayed = committed.replayed;
        let model = committed.into_model::<M>();
        let model = model.ok_or(CommandError::WrongCommand { category, command })?;
        Ok(Decided { model, position, events, versions, replayed })
    }
}

impl<M: DecisionModel> IntoFuture for SendDecision<M> {
    type Output = Sent<M>;
    type IntoFuture = Sending<M>;

    fn into_future(self) -> Sending<M> {
        Box::pin(self.send())
    }
}

impl<M: DecisionModel> fmt::Debug for SendDecision<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SendDecision");
        out.field("request", &self.request).field("readers", &self.readers);
        out.finish_non_exhaustive()
    }
}
