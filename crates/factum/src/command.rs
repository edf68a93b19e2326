//! The way to send a command.

use std::{error::Error, fmt, future::IntoFuture, marker::PhantomData, pin::Pin, time::Duration};

use factum_kernel::{
    Aggregate, Metadata, Position, ReadFrom, ReadQuery, RecordedEvent, StoreError, StreamId,
    StreamVersion,
};
use factum_runtime::{CommandError, CommandId, CommandRequest, Outcome};

use crate::{app::App, seen::Readers, send::SendError};

type Sent<A, T> = Result<Outcome<A, T>, SendError<<A as Aggregate>::Rejection>>;
type Sending<A, T> = Pin<Box<dyn Future<Output = Sent<A, T>> + Send>>;

/// A command that is about to be sent: it is when this is awaited. See [`App::command`].
#[must_use = "it is sent when it is awaited"]
pub struct SendCommand<A: Aggregate, T = ()> {
    app: App,
    request: CommandRequest,
    readers: Readers,
    outcome: PhantomData<fn() -> (A, T)>,
}

impl App {
    /// Sends a command to the aggregate with this key: through the [layers] of the application, to
    /// the entity of that key, and waits for the outcome.
    ///
    /// What can be said of it is said before the `await`:
    ///
    /// | to | use |
    /// |---|---|
    /// | have it take effect once, however often it is sent | [`once`](SendCommand::once) |
    /// | say who asks, and why | [`with_metadata`](SendCommand::with_metadata) |
    /// | change only what one has seen | [`expecting`](SendCommand::expecting) |
    /// | get something of the state after it | [`reply`](SendCommand::reply) |
    /// | be answered when a read model shows it | [`seen_by`](SendCommand::seen_by) |
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
    ///     .once(CommandId::derived(b"ada/order-17"))
    ///     .reply(|account| account.balance_cents)
    ///     .await?;
    /// assert_eq!((done.version.value(), done.reply), (2, 500));
    /// # Ok(()) }
    /// ```
    ///
    /// [layers]: crate::AppBuilder::layer
    ///
    /// # Errors
    /// Awaited, see [`SendError`].
    ///
    /// # Panics
    /// As [`aggregate`](Self::aggregate). Awaited outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped before it has come to its entity, nothing happens. After that the command takes
    /// effect once, without the caller; whoever must know gives it an id and sends it again.
    pub fn command<A: Aggregate>(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> SendCommand<A> {
        let request = self.request::<A>(key.as_ref(), command);
        let readers = Readers::nobody();
        SendCommand { app: self.clone(), request, readers, outcome: PhantomData }
    }
}

impl<A: Aggregate, T: Send + 'static> SendCommand<A, T> {
    /// Gives it an id, so that it takes effect once, however often it is sent with it, after
    /// restarts and through other processes too. Sent again, it is answered with what it stored
    /// the first time, [`replayed`](Outcome::replayed).
    ///
    /// One that was rejected, or led to no event, left nothing behind and is decided again. An id
    /// names one command on one aggregate: the command itself is not compared. It is known as long
    /// as the aggregate keeps its events; summaries, retention and deletion forget.
    pub fn once(mut self, id: CommandId) -> Self {
        self.request = self.request.once(id);
        self
    }

    /// Sets the metadata for layers and the rule to see and the events to carry. Where it names no
    /// cause, that is the command, by its id; where it names no conversation, the command begins
    /// one.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.request = self.request.with_metadata(metadata);
        self
    }

    /// Executes it only if this is the version of the aggregate, 0 for one that never was. On
    /// another version it fails with [`Conflict`](factum_runtime::EntityError::Conflict), and
    /// nothing is stored. A repeat of a command that is stored under its [id](Self::once) is
    /// answered, whatever the version is by then.
    pub fn expecting(mut self, version: StreamVersion) -> Self {
        self.request = self.request.expecting(version);
        self
    }

    /// Computes a reply from the state right after the command. It may be computed more than once;
    /// the last one counts. Where it panics, the command takes no effect.
    pub fn reply<R: Send + Sync + 'static>(
        self,
        compute: impl Fn(&A) -> R + Send + Sync + 'static,
    ) -> SendCommand<A, R> {
        let Self { app, request, readers, .. } = self;
        let request = request.replying(compute);
        SendCommand { app, request, readers, outcome: PhantomData }
    }

    /// Answers when the consumer or projection of this name has seen what came of it too: what is
    /// read of that one then has it. Several are waited for at once, for
    /// [5 seconds](crate::SEEN_WITHIN_DEFAULT) after the outcome unless [`within`](Self::within)
    /// says otherwise. See [`Consumers::wait_for`](factum_projection::Consumers::wait_for) for the
    /// names.
    ///
    /// A command that led to no event, because what it asks for is so already, is answered when
    /// they have seen the last event of its aggregate: the answer rests on that one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use factum::{App, Fold};
    /// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// let opened = app.fold(Fold::new("opened", 1, |count: &mut u64, event, _| {
    ///     *count += u64::from(matches!(event, AccountEvent::Opened { .. }));
    /// }))?;
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

    /// Sets how long all who are to see it are waited for together, once the command took effect.
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
    /// A request for the entity with this key.
    pub(crate) fn request<A: Aggregate>(&self, key: &str, command: A::Command) -> CommandRequest {
        // So that what is behind the layers knows where it goes.
        self.entities::<A>();
        CommandRequest::new::<A>(self.commands().id(), key, command)
    }

    /// The stream of a command; `None`: there can be none.
    pub(crate) fn stream_of(&self, request: &CommandRequest) -> Option<StreamId> {
        let step = request.steps().first()?;
        StreamId::new(step.category(), step.key()).ok()
    }

    /// Waits until the readers of a command have seen what came of it: its last event, or the one
    /// that it found to be the aggregate's last.
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

    /// The position of an event; `None`: there is none, or it is gone.
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
