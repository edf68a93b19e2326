//! Commands and decisions that are stored together, or not at all.

use std::{fmt, future::IntoFuture, pin::Pin, time::Duration};

use factum_kernel::{Aggregate, Committed, DecisionModel, Metadata, StepRejected, StreamVersion};
use factum_runtime::{CommandError, CommandId, CommandRequest, CommandTransaction};

use crate::{app::App, seen::Readers, send::SendError};

type Sent = Result<Committed, SendError<StepRejected>>;
type Sending = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// A transaction that is about to be sent: it is when this is awaited. See [`App::transaction`].
#[must_use = "it is sent when it is awaited"]
pub struct SendTransaction {
    app: App,
    steps: CommandTransaction,
    id: Option<CommandId>,
    metadata: Metadata,
    readers: Readers,
}

impl App {
    /// Commands on several aggregates and decisions over queries, all stored in one append or none:
    /// through the [layers](crate::AppBuilder::layer) of the application, which see every step.
    ///
    /// The events stand in the log in the order of the steps, and each step sees what those before
    /// it decided. What a step only looked at is checked, so that it is still so when the events
    /// are stored; others who were first cost another try. The entities notice what was stored.
    ///
    /// ```
    /// use factum::{App, CommandId};
    /// use factum_testing::bank::{Account, AccountCommand};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// # for name in ["ada", "bob"] {
    /// #     let (owner, email) = (name.to_owned(), format!("{name}@example.org"));
    /// #     app.command::<Account>(name, AccountCommand::Open { owner, email }).await?;
    /// # }
    /// # app.command::<Account>("ada", AccountCommand::Deposit { cents: 500 }).await?;
    /// let transferred = app
    ///     .transaction()
    ///     .command::<Account>("ada", AccountCommand::Send { to: "bob".into(), cents: 200 })
    ///     .command::<Account>("bob", AccountCommand::Receive { from: "ada".into(), cents: 200 })
    ///     .once(CommandId::derived(b"transfer-17"))
    ///     .await?;
    /// assert_eq!(transferred.events, 2);
    /// assert_eq!(transferred.state::<Account>("bob").unwrap().balance_cents, 200);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Awaited, see [`SendError`]. A rejection names its step.
    ///
    /// # Cancel safety
    /// A dropped future has stored all of the events or none. Whoever must know gives it an id and
    /// sends it again.
    pub fn transaction(&self) -> SendTransaction {
        SendTransaction {
            app: self.clone(),
            steps: self.no_steps(),
            id: None,
            metadata: Metadata::new(),
            readers: Readers::nobody(),
        }
    }

    pub(crate) fn no_steps(&self) -> CommandTransaction {
        CommandTransaction::new(self.kernel().clone(), self.retry())
    }
}

impl SendTransaction {
    /// Adds a command for the aggregate with this key.
    ///
    /// # Panics
    /// As [`App::aggregate`].
    pub fn command<A: Aggregate>(mut self, key: impl AsRef<str>, command: A::Command) -> Self {
        self.steps = self.steps.command(&self.app.repository::<A>(), key.as_ref(), command);
        self
    }

    /// Adds a decision over a query. It may write the streams of commands before it, not those of
    /// commands after it.
    pub fn decide<M: DecisionModel>(mut self, command: M::Command) -> Self {
        self.steps = self.steps.decide::<M>(command);
        self
    }

    /// Commits only if the aggregate with this key is at this version before the transaction, 0 for
    /// one that never was. On another version nothing is stored, and the error is a conflict.
    ///
    /// # Panics
    /// As [`App::aggregate`].
    pub fn expecting<A: Aggregate>(mut self, key: impl AsRef<str>, version: StreamVersion) -> Self {
        self.steps = self.steps.expecting(&self.app.repository::<A>(), key.as_ref(), version);
        self
    }

    /// Gives it an id, so that it takes effect once, however often it is sent with it, after
    /// restarts and through other processes too. Sent again, it is answered with the position of
    /// what it stored the first time, with [`replayed`](Committed::replayed), and with the states
    /// as they are by then.
    ///
    /// An id names one transaction in the log; the steps are not compared. One that was rejected,
    /// or led to no event, left nothing behind and is decided again. It is known as long as one of
    /// its events is kept.
    pub fn once(mut self, id: CommandId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the metadata for layers and the rules to see and the events to carry.
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

    async fn send(self) -> Sent {
        let Self { app, steps, id, metadata, readers } = self;
        let request = CommandRequest::transaction(app.commands().id(), steps);
        app.send_together(request, id, metadata, &readers).await
    }
}

impl App {
    /// Sends what is stored together, and waits for its readers.
    pub(crate) async fn send_together<R: std::error::Error + Send + Sync + 'static>(
        &self,
        request: CommandRequest,
        id: Option<CommandId>,
        metadata: Metadata,
        readers: &Readers,
    ) -> Result<Committed, SendError<R>> {
        let request = request.with_metadata(metadata);
        let request = match id {
            Some(id) => request.once(id),
            None => request,
        };
        let category = request.category();
        let command = request.name();
        let committed = self.send(request, readers).await?.into_committed();
        let committed = committed.ok_or(CommandError::WrongCommand { category, command })?;
        if !readers.is_empty() {
            self.seen(readers, committed.rests_on).await?;
        }
        Ok(committed)
    }
}

impl IntoFuture for SendTransaction {
    type Output = Sent;
    type IntoFuture = Sending;

    fn into_future(self) -> Sending {
        Box::pin(self.send())
    }
}

impl fmt::Debug for SendTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("SendTransaction");
        out.field("steps", &self.steps).field("readers", &self.readers).finish_non_exhaustive()
    }
}
