//! Decisions over a query.

use std::{fmt, future::IntoFuture, marker::PhantomData, pin::Pin, time::Duration};

use factum_kernel::{DecisionModel, Metadata, Position, StreamId, StreamVersion};
use factum_runtime::{CommandError, CommandId, CommandRequest};

use crate::{app::App, seen::Readers, send::SendError};

type Sent<M> = Result<Decided<M>, SendError<<M as DecisionModel>::Rejection>>;
type Sending<M> = Pin<Box<dyn Future<Output = Sent<M>> + Send>>;

/// What came of a decision over a query.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decided<M> {
    /// The model after the decision. Of one that was stored before, the model as it is.
    pub model: M,
    /// The position of the last event; `None` if there was nothing to do.
    pub position: Option<Position>,
    /// How many events were stored.
    pub events: usize,
    /// The version of each stream after what was stored in it.
    pub versions: Vec<(StreamId, StreamVersion)>,
    /// It was stored before, and recognised by its [id](SendDecision::once).
    pub replayed: bool,
}

/// A decision over a query that is about to be sent: it is when this is awaited. See
/// [`App::decide`].
#[must_use = "it is sent when it is awaited"]
pub struct SendDecision<M: DecisionModel> {
    app: App,
    command: M::Command,
    id: Option<CommandId>,
    metadata: Metadata,
    readers: Readers,
    model: PhantomData<fn() -> M>,
}

impl App {
    /// Decides over a query instead of a stream: through the [layers](crate::AppBuilder::layer) of
    /// the application, by the rules of a [`DecisionModel`]. As a step among others it goes into a
    /// [transaction](Self::transaction).
    ///
    /// # Errors
    /// Awaited, see [`SendError`].
    ///
    /// # Cancel safety
    /// A dropped future has stored all of the events or none. Whoever must know gives it an id and
    /// sends it again.
    pub fn decide<M: DecisionModel>(&self, command: M::Command) -> SendDecision<M> {
        SendDecision {
            app: self.clone(),
            command,
            id: None,
            metadata: Metadata::new(),
            readers: Readers::nobody(),
            model: PhantomData,
        }
    }
}

impl<M: DecisionModel> SendDecision<M> {
    /// Gives it an id, so that it takes effect once, however often it is sent with it. Sent again,
    /// it is answered with the position of what it stored the first time, with
    /// [`replayed`](Decided::replayed), and with the model as it is by then. An id names one
    /// decision in the log.
    pub fn once(mut self, id: CommandId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the metadata for layers and the rule to see and the events to carry.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Answers when the consumer or projection of this name has seen what came of it too; as
    /// [`SendCommand::seen_by`](crate::SendCommand::seen_by).
    pub fn seen_by(mut self, name: impl Into<String>) -> Self {
        self.readers.add(name.into());
        self
    }

    /// Sets how long all who are to see it are waited for together, once it took effect.
    pub fn within(mut self, within: Duration) -> Self {
        self.readers.within(within);
        self
    }

    async fn send(self) -> Sent<M> {
        let Self { app, command, id, metadata, readers, .. } = self;
        let request = CommandRequest::decision::<M>(app.commands().id(), app.no_steps(), command);
        let category = request.category();
        let command = request.name();
        let committed = app.send_together(request, id, metadata, &readers).await?;
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
        out.field("id", &self.id).field("readers", &self.readers).finish_non_exhaustive()
    }
}
