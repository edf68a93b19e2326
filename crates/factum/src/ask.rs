//! Asking an entity, and waiting until read models have seen what came of it.

use std::{
    fmt,
    future::{IntoFuture, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use factum_consumer::WaitError;
use factum_kernel::{
    Aggregate, ErrorKind, Metadata, Position, ReadFrom, ReadQuery, RecordedEvent, StoreError,
};
use factum_projection::Projections;
use factum_runtime::{AskError, CommandId, Outcome};

use crate::app::App;

/// So long read models are waited for, unless it is said otherwise.
pub const SEEN_WITHIN_DEFAULT: Duration = Duration::from_secs(5);

type Asking<A> = Pin<Box<dyn Future<Output = Result<Outcome<A>, UnseenError<A>>> + Send>>;

/// A command that is about to be sent: it is when this is awaited. See [`App::ask`].
#[must_use = "it is sent when it is awaited"]
pub struct Ask<A: Aggregate> {
    app: App,
    key: String,
    command: A::Command,
    metadata: Metadata,
    id: Option<CommandId>,
    seen_by: Vec<String>,
    within: Duration,
}

/// Why a command has no outcome, or one that not everybody has seen who was to.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum UnseenError<A: Aggregate> {
    /// There is nothing of a name to wait for, or the store does not say. The command was not
    /// sent.
    #[error("the command was not sent")]
    NotSent(#[source] WaitError),
    /// The domain says no, or it failed: as [`Entities::ask`](factum_runtime::Entities::ask) says.
    #[error(transparent)]
    Ask(#[from] AskError<A::Rejection>),
    /// The command took effect, and its outcome is here; but a read model has not seen it. Don't
    /// send it again.
    #[error("the command took effect, but not everybody has seen it who was to")]
    Unseen {
        /// What came of the command.
        outcome: Outcome<A>,
        /// Who has not seen it, and why.
        #[source]
        error: WaitError,
    },
}

impl App {
    /// Asks the entity with this key to execute a command, as
    /// [`entities().ask`](factum_runtime::Entities::ask) does, and answers when the consumers and
    /// projections that are named have seen what came of it: what is read of them then has it.
    ///
    /// All are waited for at once, [5 seconds](SEEN_WITHIN_DEFAULT) behind the outcome unless
    /// [`within`](Ask::within) says otherwise; see
    /// [`Projections::wait_for`](factum_projection::Projections::wait_for) for the names. A command
    /// that led to no event, because what it asks for is so already, is answered when they have
    /// seen the last event of its aggregate: the answer rests on that one.
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
    /// let done = app.ask::<Account>("ada", open).seen_by("opened").within(wait).await?;
    /// assert_eq!((done.version.value(), *opened.read().await?), (1, 1));
    /// app.close().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Awaited, see [`UnseenError`].
    ///
    /// # Panics
    /// As [`entities`](Self::entities), and awaited outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped before it is awaited, or while the names are looked at or the mailbox is full,
    /// nothing happens; after that, the command takes effect once, without the caller.
    pub fn ask<A: Aggregate>(&self, key: impl AsRef<str>, command: A::Command) -> Ask<A> {
        Ask {
            app: self.clone(),
            key: key.as_ref().to_owned(),
            command,
            metadata: Metadata::new(),
            id: None,
            seen_by: Vec::new(),
            within: SEEN_WITHIN_DEFAULT,
        }
    }
}

impl<A: Aggregate> Ask<A> {
    /// Waits for the consumer or projection of this name too.
    pub fn seen_by(mut self, name: impl Into<String>) -> Self {
        self.seen_by.push(name.into());
        self
    }

    /// Sets how long all of them are waited for together, once the command took effect.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Sets the metadata for the rule to see and the events to carry.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Gives it an id, so that it takes effect once, however often it is sent: see
    /// [`Entities::ask_once`](factum_runtime::Entities::ask_once). Sent again, it waits for the
    /// events that it stored the first time.
    pub fn once(mut self, id: CommandId) -> Self {
        self.id = Some(id);
        self
    }

    async fn send(self) -> Result<Outcome<A>, UnseenError<A>> {
        let Self { app, key, command, metadata, id, seen_by, within } = self;
        for name in &seen_by {
            app.consumers().can_wait_for(name).await.map_err(UnseenError::NotSent)?;
        }
        let entities = app.entities::<A>();
        let outcome = match id {
            Some(id) => entities.ask_once(&key, id, command, metadata).await?,
            None => entities.ask_with(&key, command, metadata).await?,
        };
        if seen_by.is_empty() {
            return Ok(outcome);
        }
        match app.seen(&seen_by, &key, &outcome, within).await {
            Ok(()) => Ok(outcome),
            Err(error) => Err(UnseenError::Unseen { outcome, error }),
        }
    }
}

impl App {
    async fn seen<A: Aggregate>(
        &self,
        names: &[String],
        key: &str,
        outcome: &Outcome<A>,
        within: Duration,
    ) -> Result<(), WaitError> {
        let position = match outcome.position {
            Some(position) => Some(position),
            None => self.rests_on(key, outcome).await?,
        };
        let Some(position) = position else { return Ok(()) };
        let wait = |name: &String| {
            let consumers = self.consumers().clone();
            let name = name.clone();
            async move { consumers.wait_for(&name, position, within).await }
        };
        all(names.iter().map(wait)).await
    }

    /// The position of the event that a command found to be the aggregate's last, and changed
    /// nothing. `None`: there is none, or it is gone since.
    async fn rests_on<A: Aggregate>(
        &self,
        key: &str,
        outcome: &Outcome<A>,
    ) -> Result<Option<Position>, StoreError> {
        if outcome.version.value() == 0 {
            return Ok(None);
        }
        let stream = self.aggregate::<A>().stream(key);
        let stream = stream.map_err(|error| StoreError::invalid(error.to_string()))?;
        let last = ReadFrom::Version(outcome.version);
        let query = ReadQuery::stream(stream).from(last).with_events_max(1);
        let page = self.kernel().events().read(query).await?;
        Ok(page.events.first().map(RecordedEvent::position))
    }
}

/// Waits for all at once: until all are there, or one says that it never will be.
async fn all(
    waits: impl Iterator<Item = impl Future<Output = Result<(), WaitError>> + Send>,
) -> Result<(), WaitError> {
    let mut waits: Vec<_> = waits.map(Box::pin).collect();
    poll_fn(|cx| {
        let mut failed = None;
        waits.retain_mut(|wait| match wait.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(seen) => {
                failed = failed.take().or(seen.err());
                false
            }
        });
        match failed {
            Some(error) => Poll::Ready(Err(error)),
            None if waits.is_empty() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    })
    .await
}

impl<A: Aggregate> IntoFuture for Ask<A> {
    type Output = Result<Outcome<A>, UnseenError<A>>;
    type IntoFuture = Asking<A>;

    fn into_future(self) -> Asking<A> {
        Box::pin(self.send())
    }
}

impl<A: Aggregate> UnseenError<A> {
    /// What the caller can do. A command that took effect is not to be sent again, whatever its
    /// read model waits for.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSent(error) => error.kind(),
            Self::Ask(error) => error.kind(),
            Self::Unseen { .. } => ErrorKind::TimedOut,
        }
    }

    /// The rejection, if it is one.
    pub fn rejection(&self) -> Option<&A::Rejection> {
        if let Self::Ask(error) = self { error.rejection() } else { None }
    }
}

// A derived `Debug` would ask for `A: Debug`.
impl<A: Aggregate> fmt::Debug for UnseenError<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(error) => f.debug_tuple("NotSent").field(error).finish(),
            Self::Ask(error) => f.debug_tuple("Ask").field(error).finish(),
            Self::Unseen { outcome, error } => f
                .debug_struct("Unseen")
                .field("version", &outcome.version)
                .field("position", &outcome.position)
                .field("error", error)
                .finish_non_exhaustive(),
        }
    }
}

impl<A: Aggregate> fmt::Debug for Ask<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("category", &A::CATEGORY)
            .field("key", &self.key)
            .field("seen_by", &self.seen_by)
            .finish_non_exhaustive()
    }
}
