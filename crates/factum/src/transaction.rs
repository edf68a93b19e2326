//! Commands and decisions that are stored together, or not at all.

use std::{fmt, future::IntoFuture, pin::Pin, time::Duration};

use factum_kernel::{
    Aggregate, Command, CommandId, Committed, DecisionModel, Metadata, StepRejected, StreamVersion,
};
use factum_runtime::{CommandError, CommandRequest, CommandTransaction};

use crate::{app::App, seen::Readers, send::SendError};

type Sent = Result<Committed, SendError<StepRejected>>;
type Sending = Pin<Box<dyn Future<Output = Sent> + Send>>;

/// A transaction that is sent when this is awaited. See [`App::transaction`].
#[must_use = "the transaction is sent only when it is awaited"]
pub struct SendTransaction {
    app: App,
    steps: CommandTransaction,
    id: Option<CommandId>,
    metadata: Metadata,
    readers: Readers,
}

impl App {
    /// Begins a transaction: commands on several aggregates and decisions over queries, stored in
    /// one append or not at all. It passes the [layers](crate::AppBuilder::layer) of the
    /// application, which see every step.
    ///
    /// The steps take effect together: each leads to an event, or none does. A step that has
    /// nothing to do while others have is an error, unless the transaction [allows
    /// it](SendTransaction::allowing_unchanged).
    ///
    /// The events have the order of the steps in the log. Each step sees the events that the steps
    /// before it decided. The store also checks the streams and queries that a step only read, so
    /// that they are unchanged when the events are stored. If another writer was first, the
    /// transaction is decided again. Entities notice the stored events.
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
    ///     .once(CommandId::derived("order-17", "transfer"))
    ///     .await?;
    /// assert_eq!(transferred.events, 2);
    /// assert_eq!(transferred.state::<Account>("bob").unwrap().balance_cents, 200);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The future returns a [`SendError`]. A rejection has the number of its step.
    ///
    /// # Cancel safety
    /// If the future is dropped, all of the events are stored or none. A caller that must know the
    /// outcome gives the transaction an id and sends it again.
    pub fn transaction(&self) -> SendTransaction {
        SendTransaction {
            app: self.clone(),
            steps: self.no_steps(),
            id: None,
            metadata: Metadata::new(),
            readers: Readers::none(),
        }
    }

    pub(crate) fn no_steps(&self) -> CommandTransaction {
        CommandTransaction::new(self.kernel().clone(), self.retry())
    }
}

impl SendTransaction {
    /// Adds a command for the aggregate with this key. It derives [`Command`], because an
    /// [id](Self::once) of the transaction names it.
    ///
    /// # Panics
    /// See [`App::aggregate`].
    pub fn command<A: Aggregate<Command: Command>>(
        mut self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> Self {
        self.steps = self.steps.command(&self.app.repository::<A>(), key.as_ref(), command);
        self
    }

    /// Adds a decision over a query. It may write to the streams of commands before it, but not to
    /// those of commands after it. Its command derives [`Command`], because an [id](Self::once) of
    /// the transaction names it.
    pub fn decide<M: DecisionModel<Command: Command>>(mut self, command: M::Command) -> Self {
        self.steps = self.steps.decide::<M>(command);
        self
    }

    /// Lets a step lead to no event although others do.
    ///
    /// Without this, such a transaction stores nothing, and the error is
    /// [`Unchanged`](factum_kernel::TransactionError::Unchanged): a step without events may mean
    /// that its effect is there already, as that of a refund which is paid. Then the payment, which
    /// is the next step, must not be made again. Allow it for steps that only check something, and
    /// for steps that don't depend on each other.
    ///
    /// ```
    /// use factum::App;
    /// use factum_testing::bank::{Account, AccountCommand};
    /// # use factum::{Context, DecisionModel, Matching, ModelDecision, Command};
    /// # use factum_testing::bank::AccountEvent;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Default)]
    /// # struct Closed(bool);
    /// # #[derive(Serialize, Deserialize, Command)]
    /// # struct CheckOpen {}
    /// # #[derive(Debug, thiserror::Error)]
    /// # #[error("the bank is closed")]
    /// # struct IsClosed;
    /// # impl DecisionModel for Closed {
    /// #     type Command = CheckOpen;
    /// #     type Event = AccountEvent;
    /// #     type Rejection = IsClosed;
    /// #     fn query(_: &CheckOpen) -> Matching {
    /// #         Matching::tag("bank", "closed")
    /// #     }
    /// #     fn evolve(&mut self, _: &AccountEvent, _: &str) {
    /// #         self.0 = true;
    /// #     }
    /// #     fn decide(
    /// #         &self,
    /// #         _: &CheckOpen,
    /// #         _: &Context<'_>,
    /// #     ) -> Result<ModelDecision<AccountEvent>, IsClosed> {
    /// #         if self.0 { Err(IsClosed) } else { Ok(ModelDecision::nothing()) }
    /// #     }
    /// # }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let app = App::open("memory:").await?;
    /// # let open = AccountCommand::Open { owner: "Ada".into(), email: "ada@example.org".into() };
    /// # app.command::<Account>("ada", open).await?;
    /// // The first step only checks that the bank is open.
    /// let deposited = app
    ///     .transaction()
    ///     .decide::<Closed>(CheckOpen {})
    ///     .command::<Account>("ada", AccountCommand::Deposit { cents: 500 })
    ///     .allowing_unchanged()
    ///     .await?;
    /// assert_eq!(deposited.events, 1);
    /// # Ok(()) }
    /// ```
    pub fn allowing_unchanged(mut self) -> Self {
        self.steps = self.steps.allowing_unchanged();
        self
    }

    /// Commits only if the aggregate with this key has this version before the transaction; 0 means
    /// that the aggregate has no events. Otherwise nothing is stored, and the error is a conflict.
    /// Layers see the aggregate among the steps, also if no command of the transaction is for it.
    ///
    /// # Panics
    /// See [`App::aggregate`].
    pub fn expecting<A: Aggregate>(mut self, key: impl AsRef<str>, version: StreamVersion) -> Self {
        self.steps = self.steps.expecting(&self.app.repository::<A>(), key.as_ref(), version);
        self
    }

    /// Gives the transaction an id, so that it takes effect once, however often it is sent with
    /// this id, also after restarts and through other processes. The answer to a repeat has the
    /// position that the first attempt stored, [`replayed`](Committed::replayed) set, and the
    /// present states.
    ///
    /// An id names one transaction in the log: the aggregates, stored names and contents of its
    /// commands, in order. If the log has another command or transaction under the id, the error is
    /// [`IdTaken`](factum_kernel::IdTaken), and nothing is stored.
    ///
    /// A transaction that was rejected, or had no event, left no trace in the log, so a repeat of
    /// it is decided again. The id is known while the log keeps the first event of the
    /// transaction.
    pub fn once(mut self, id: CommandId) -> Self {
        self.id = Some(id);
        self
    }

    /// Sets the metadata for the layers, the rules and the events.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Answers only after the consumer or projection with this name has handled the transaction's
    /// events; see [`SendCommand::seen_by`](crate::aggregate::SendCommand::seen_by).
    pub fn seen_by(mut self, name: impl Into<String>) -> Self {
        self.readers.add(name.into());
        self
    }

    /// Sets the longest wait for all readers together, from the moment the transaction took effect.
    pub fn within(mut self, within: Duration) -> Self {
        self.readers.within(within);
        self
    }

    async fn send(self) -> Sent {
        let Self { app, steps, id, metadata, readers } = self;
        let request = CommandRequest::transaction(app.commands().id(), steps);
        let request = request.with_metadata(metadata);
        let request = match id {
            Some(id) => request.once(id),
            None => request,
        };
        app.send_together(request, &readers).await
    }
}

impl App {
    /// Sends a transaction or a decision, and waits for its readers.
    pub(crate) async fn send_together<R: std::error::Error + Send + Sync + 'static>(
        &self,
        request: CommandRequest,
        readers: &Readers,
    ) -> Result<Committed, SendError<R>> {
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
