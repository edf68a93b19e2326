//! Sending a command.

use std::{error::Error, fmt, future::IntoFuture, marker::PhantomData, pin::Pin, time::Duration};

use factum_kernel::{
    Aggregate, Command, CommandId, Metadata, Position, ReadFrom, ReadQuery, RecordedEvent,
    StoreError, StreamId, StreamVersion,
};
use factum_runtime::{CommandError, CommandRequest, Outcome};

use crate::{app::App, seen::Readers, send::SendError};

type Sent<A, T> = Result<Outcome<A, T>, SendError<<A as Aggregate>::Rejection>>;
type Sending<A, T> = Pin<Box<dyn Future<Output = Sent<A, T>> + Send>>;

/// A command that is sent when this is awaited. See [`App::command`].
#[must_use = "the command is sent only when it is awaited"]
pub struct SendCommand<A: Aggregate, T = ()> {
    app: App,
    request: CommandRequest,
    readers: Readers,
    outcome: PhantomData<fn() -> (A, T)>,
}

impl App {
    /// Sends a command to the aggregate with this key, and waits for the outcome. The command
    /// passes the [layers] of the application and is executed by the aggregate's entity.
    ///
    /// Options are set before the `await`:
    ///
    /// | to | use |
    /// |---|---|
    /// | let it take effect once, however often it is sent | [`once`](SendCommand::once) |
    /// | add metadata, such as the user | [`with_metadata`](SendCommand::with_metadata) |
    /// | execute it only on a known version | [`expecting`](SendCommand::expecting) |
    /// | get a value from the state after it | [`reply`](SendCommand::reply) |
    /// | wait until a read model has it | [`seen_by`](SendCommand::seen_by) |
    ///
    /// ```
    /// use factum::{App, CommandId};
    /// use factum_testing::bank::{Account, AccountCommand};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// # let email = "ada@example.org".to_owned();
    /// let open = AccountCommand::Open { owner: "Ada".into(), email };
    /// app.command::<Account>("ada", open).await?;
    /// let done = app
    ///     .command::<Account>("ada", AccountCommand::Deposit { cents: 500 })
    ///     .once(CommandId::derived("order-17", "deposit"))
    ///     .reply(|account| account.balance_cents)
    ///     .await?;
    /// assert_eq!((done.version.value(), done.reply), (2, 500));
    /// # Ok(()) }
    /// ```
    ///
    /// [layers]: crate::AppBuilder::layer
    ///
    /// # Errors
    /// The future returns a [`SendError`].
    ///
    /// # Panics
    /// See [`aggregate`](Self::aggregate). Also if it is awaited outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped before the command has reached its entity, nothing happens. After
    /// that, the command takes effect once, although the caller doesn't wait. A caller that must
    /// know the outcome gives the command an id and sends it again.
    pub fn command<A: Aggregate>(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> SendCommand<A> {
        let request = self.request::<A>(key.as_ref(), command);
        let readers = Readers::none();
        SendCommand { app: self.clone(), request, readers, outcome: PhantomData }
    }
}

impl<A: Aggregate, T: Send + 'static> SendCommand<A, T> {
    /// Gives the command an id, so that it takes effect once, however often it is sent with this
    /// id, also after restarts and through other processes. The answer to a repeat is the outcome
    /// that the first attempt stored, with [`replayed`](Outcome::replayed) set.
    ///
    /// An id names one command in the log: its aggregate, its stored name and its content, for
    /// which the command derives [`Command`]. If the log has another command under the id, the
    /// error is [`IdTaken`](factum_kernel::IdTaken), and nothing is stored. Contents are compared
    /// only at the same schema version of the command, and without the order of lists. Two
    /// different commands that are sent with one id at the same moment, to two aggregates, may both
    /// take effect. [`CommandId::derived`] makes an id of a cause and a purpose.
    ///
    /// A command that was rejected, or had no event, left no trace in the log, so a repeat of it is
    /// decided again. The id is known while the aggregate keeps the command's events: summaries,
    /// retention and deletion remove them.
    pub fn once(mut self, id: CommandId) -> Self
    where
        A: Aggregate<Command: Command>,
    {
        self.request = self.request.named::<A>().once(id);
        self
    }

    /// Sets the metadata for the layers, the rule and the events. If the metadata has no causation
    /// id, the command's id is set. If it has no correlation id, the command begins a new
    /// conversation.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.request = self.request.with_metadata(metadata);
        self
    }

    /// Executes the command only if the aggregate has this version; 0 means that the aggregate has
    /// no events. Otherwise the error is a [`Conflict`](factum_runtime::EntityError::Conflict), and
    /// nothing is stored. A repeat of a command that is stored under its [id](Self::once) is
    /// answered whatever the version is then.
    pub fn expecting(mut self, version: StreamVersion) -> Self {
        self.request = self.request.expecting(version);
        self
    }

    /// Computes a reply from the state right after the command. The reply may be computed more than
    /// once; the last one counts. If computing it panics, the command takes no effect. The reply to
    /// a repeat of a stored command ([`once`](Self::once)) is of the present state; if it panics,
    /// the error is [`ReplyPanicked`](factum_runtime::EntityError::ReplyPanicked), and the command
    /// keeps its effect.
    pub fn reply<R: Send + Sync + 'static>(
        self,
        compute: impl Fn(&A) -> R + Send + Sync + 'static,
    ) -> SendCommand<A, R> {
        let Self { app, request, readers, .. } = self;
        let request = request.replying(compute);
        SendCommand { app, request, readers, outcome: PhantomData }
    }

    /// Answers only after the consumer or projection with this name has handled the command's
    /// events, so that a read of it includes them. Waits for several names together, for at most [5
    /// seconds](crate::aggregate::SEEN_WITHIN_DEFAULT) after the command took effect, or as set by
    /// [`within`](Self::within). For the names, see
    /// [`Consumers::wait_for`](factum_projection::Projections::wait_for).
    ///
    /// A command may have no event, because the aggregate is already in the requested state. Then
    /// the answer is given when the readers have handled the last event of the aggregate, on which
    /// it is based.
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum::{App, Fold};
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// let opened = Fold::new("opened", 1, |count: &mut u64, event, _| {
    ///     *count += u64::from(matches!(event, AccountEvent::Opened { .. }));
    /// });
    /// let opened = app.fold(opened).await?;
    ///
    /// let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    /// let wait = Duration::from_secs(10);
    /// let done = app.command::<Account>("ada", open).seen_by("opened").within(wait).await?;
    /// assert_eq!((done.version.value(), *opened.read().await?), (1, 1));
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn seen_by(mut self, name: impl Into<String>) -> Self {
        self.readers.add(name.into());
        self
    }

    /// Sets the longest wait for all readers together, from the moment the command took effect.
    pub fn within(mut self, within: Duration) -> Self {
        self.readers.within(within);
        self
    }

    async fn send(self) -> Sent<A, T> {
        let Self { app, request, readers, .. } = self;
        let category = request.category();
        let command = request.name();
        let stream = app.stream_of(&request);
        let outcome = app.send(request, &readers).await?.into_outcome();
        let outcome: Outcome<A, T> =
            outcome.ok_or(CommandError::WrongCommand { category, command })?;
        app.wait_for_readers(&readers, stream, outcome.position, outcome.version).await?;
        Ok(outcome)
    }
}

impl App {
    /// Makes a request for the entity with this key.
    pub(crate) fn request<A: Aggregate>(&self, key: &str, command: A::Command) -> CommandRequest {
        // Registers the entities with the router, which needs them for the request.
        self.entities::<A>();
        CommandRequest::new::<A>(self.commands().id(), key, command)
    }

    /// The stream of a command; `None` if its key is invalid.
    pub(crate) fn stream_of(&self, request: &CommandRequest) -> Option<StreamId> {
        let step = request.steps().first()?;
        StreamId::new(step.category(), step.key()).ok()
    }

    /// Waits until the readers of a command have handled its last event, or, if it had none, the
    /// last event of the aggregate.
    pub(crate) async fn wait_for_readers<R: Error + 'static>(
        &self,
        readers: &Readers,
        stream: Option<StreamId>,
        position: Option<Position>,
        version: StreamVersion,
    ) -> Result<(), SendError<R>> {
        if readers.is_empty() {
            return Ok(());
        }
        let position = match position {
            Some(position) => Some(position),
            None => {
                let rests_on = self.rests_on(stream, version).await;
                let unseen = |error| SendError::Unseen { position: None, error };
                rests_on.map_err(|error| unseen(error.into()))?
            }
        };
        match position {
            Some(position) => self.seen(readers, position).await,
            None => Ok(()),
        }
    }

    /// The position of the event at this version; `None` if the aggregate has no events or the
    /// event was deleted.
    async fn rests_on(
        &self,
        stream: Option<StreamId>,
        version: StreamVersion,
    ) -> Result<Option<Position>, StoreError> {
        let Some(stream) = stream.filter(|_| version.value() > 0) else { return Ok(None) };
        let query = ReadQuery::stream(stream).from(ReadFrom::Version(version)).with_events_max(1);
        let page = self.kernel().events().read(query).await?;
        Ok(page.events.first().map(RecordedEvent::position))
    }
}

impl<A: Aggregate, T: Send + 'static> IntoFuture for SendCommand<A, T> {
    type Output = Sent<A, T>;
    type IntoFuture = Sending<A, T>;

    fn into_future(self) -> Sending<A, T> {
        Box::pin(self.send())
    }
}

impl<A: Aggregate, T> fmt::Debug for SendCommand<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SendCommand");
        out.field("request", &self.request).field("readers", &self.readers);
        out.finish_non_exhaustive()
    }
}
