//! The entities of one kind, as callers see them.

mod listing;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crate::{
    command::EntityCommand,
    drive::Driving,
    error::{AskError, EntityError},
    message::{Answering, Done, Message, Outcome, Reply},
    option::EntityOptions,
    stats::{EntityInfo, EntityStats, QuarantinedEntity, Shutdown},
    system::{Delivery, System},
};
use factum_kernel::{
    Aggregate, Command, CommandId, Draft, History, Loaded, Metadata, Repository, StreamId,
    StreamVersion,
};
use tokio::sync::{futures::OwnedNotified, oneshot};

pub use listing::LISTED_MAX;

/// The running aggregates of one kind, addressed by key. Cheap to clone.
///
/// An entity is activated by its first message: its state is loaded and stays in memory until the
/// entity is passivated, because it was idle for a while or because other entities need the room.
/// Messages to one entity are decided one after another. Entities don't wait for each other.
///
/// A key is any type that implements `AsRef<str>`: `&str`, `String`, or a type of your own.
///
/// This is the lower level: commands that are sent here pass no layer. An application sends
/// commands by `App::command`.
///
/// # Guarantees
/// - An answer is given after the events that it is based on are durable. Answers keep the order in
///   which the messages came.
/// - An answer that appends nothing is as fresh as the log: see
///   [`OtherWriters`](crate::OtherWriters).
/// - A command takes effect at most once, even if its entity fails and is started again.
///
/// ```
/// use factum_kernel::Repository;
/// use factum_runtime::{Entities, EntityOptions};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// let accounts = Entities::<Account>::new(Repository::new(kernel), EntityOptions::new());
/// # let email = "ada@example.org".to_owned();
/// accounts.ask("ada", AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// accounts.tell("ada", AccountCommand::Deposit { cents: 500 })?;
/// let withdrawn = accounts
///     .ask_for("ada", AccountCommand::Withdraw { cents: 200 }, |ada| ada.balance_cents)
///     .await?;
/// assert_eq!((withdrawn.version.value(), withdrawn.reply), (3, 300));
/// assert_eq!(accounts.state("ada").await?.state.balance_cents, 300);
/// # Ok(()) }
/// ```
pub struct Entities<A: Aggregate> {
    system: Arc<System<A>>,
}

// A derived `Clone` would ask for `A: Clone`.
impl<A: Aggregate> Clone for Entities<A> {
    fn clone(&self) -> Self {
        Self { system: self.system.clone() }
    }
}

impl<A: Aggregate> fmt::Debug for Entities<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entities").field("category", &A::CATEGORY).finish_non_exhaustive()
    }
}

impl<A: Aggregate> Entities<A> {
    /// Makes entities on a repository, none of them active. Make them once and clone them. Two sets
    /// of entities on one log are correct, but cause each other conflicts.
    pub fn new(repository: Repository<A>, options: EntityOptions) -> Self {
        Self { system: Arc::new(System::new(repository, options)) }
    }

    /// The repository that the entities load from and append to.
    pub fn repository(&self) -> &Repository<A> {
        &self.system.repository
    }

    /// Asks an entity to execute a command, and waits for the outcome. Waits for room if the
    /// mailbox is full.
    ///
    /// # Errors
    /// See [`AskError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped while the mailbox is full, the command takes no effect. After that,
    /// the command takes effect once, although the caller doesn't wait.
    pub async fn ask(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> Result<Outcome<A>, AskError<A::Rejection>> {
        self.ask_with(key, command, Metadata::default()).await
    }

    /// Like [`ask`](Self::ask), with metadata for the rule and for the events.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask_with(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
        metadata: Metadata,
    ) -> Result<Outcome<A>, AskError<A::Rejection>> {
        let (message, answer) = Message::ask(command, metadata, |_| ());
        self.exchange(key.as_ref(), message, answer).await
    }

    /// Like [`ask`](Self::ask), with a reply that is computed from the state right after the
    /// command. The reply may be computed more than once; the last one counts. If computing it
    /// panics, the command takes no effect.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask_for<R: Send + 'static>(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
        reply: impl Fn(&A) -> R + Send + 'static,
    ) -> Result<Outcome<A, R>, AskError<A::Rejection>> {
        let (message, answer) = Message::ask(command, Metadata::default(), reply);
        self.exchange(key.as_ref(), message, answer).await
    }

    /// Asks an entity to execute a command that takes effect once, however often it is sent with
    /// this id, also after restarts and through other processes.
    ///
    /// A repeat of a stored command is answered with the stored version, position and events, and
    /// has [`replayed`](Outcome::replayed) set. A command that was rejected, or had no event, left
    /// no trace in the log, so a repeat of it is decided again.
    ///
    /// An id names one command in the log: its aggregate, stored name and content. If the log has
    /// another command under the id, the error is [`IdTaken`](EntityError::IdTaken), and nothing is
    /// stored. Contents are compared only at the same schema version, and without the order of
    /// lists. Two different commands that are sent with one id at the same moment, to two
    /// aggregates, may both take effect.
    ///
    /// A command is recognised while its stream keeps its events. After a [summary], retention or
    /// deletion removed them, a repeat is decided again.
    ///
    /// The command's events get the tag [`COMMAND_TAG`](factum_kernel::COMMAND_TAG) with the id, so
    /// an event has one tag fewer for its own use; the first event also gets an entry of that name
    /// in its metadata. The events carry the id as causation and correlation id, unless the
    /// metadata names others. The cost is one read by tag per burst; commands without an id cost
    /// nothing. The entity does not recognise events that a repository appended.
    ///
    /// [summary]: factum_kernel::Repository::summarise
    ///
    /// ```
    /// # use factum_kernel::{CommandId, Metadata, Repository};
    /// # use factum_runtime::{Entities, EntityOptions};
    /// # use factum_testing::bank::{Account, AccountCommand};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
    /// # let accounts = Entities::<Account>::new(Repository::new(kernel), EntityOptions::new());
    /// # let email = "ada@example.org".to_owned();
    /// # accounts.ask("ada", AccountCommand::Open { owner: "Ada".into(), email }).await?;
    /// let id = CommandId::derived("order-17", "deposit");
    /// for replayed in [false, true, true] {
    ///     let deposit = AccountCommand::Deposit { cents: 500 };
    ///     let done = accounts.ask_once("ada", id, deposit, Metadata::new()).await?;
    ///     assert_eq!((done.version.value(), done.replayed), (2, replayed));
    /// }
    /// assert_eq!(accounts.state("ada").await?.state.balance_cents, 500);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`AskError`]. After any error the command may be sent again with the same id. Send it
    /// again if the outcome is unknown: the answer then tells the outcome.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// See [`ask`](Self::ask).
    pub async fn ask_once(
        &self,
        key: impl AsRef<str>,
        id: CommandId,
        command: A::Command,
        metadata: Metadata,
    ) -> Result<Outcome<A>, AskError<A::Rejection>>
    where
        A: Aggregate<Command: Command>,
    {
        let key = key.as_ref();
        let command = EntityCommand::once(key, command, metadata, id).map_err(EntityError::from)?;
        let outcome = self.ask_with_options(key, command).await?;
        Ok(outcome.map(|_| ()))
    }

    pub(crate) async fn ask_with_options(
        &self,
        key: &str,
        command: EntityCommand<A>,
    ) -> Result<Done<A>, AskError<A::Rejection>> {
        let (message, answer) = Message::with_options(command);
        self.exchange(key, message, answer).await
    }

    /// Gives an entity a command without waiting for the outcome. Rejections and failures are only
    /// counted, in [`stats`](Self::stats). The command is lost if the process ends before the
    /// entity stored it.
    ///
    /// # Errors
    /// `Busy` if the mailbox is full, `Quarantined`, `Closed`, or a key that is invalid for a
    /// stream.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn tell(&self, key: impl AsRef<str>, command: A::Command) -> Result<(), EntityError> {
        self.tell_with(key, command, Metadata::default())
    }

    /// Like [`tell`](Self::tell), with metadata for the rule and for the events.
    ///
    /// # Errors
    /// See [`tell`](Self::tell).
    pub fn tell_with(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
        metadata: Metadata,
    ) -> Result<(), EntityError> {
        let stream = self.stream(key.as_ref())?;
        let message = Message::tell(command, metadata);
        match self.system.deliver(&stream, message, self.system.now()) {
            // No caller waits for the work, so dropping the handle moves it to a task.
            Delivery::Accepted(_) => Ok(()),
            Delivery::Full(..) => Err(EntityError::Busy(stream)),
            Delivery::Refused(error) => Err(error),
        }
    }

    /// The state of an entity after every command that was accepted before this call.
    ///
    /// # Errors
    /// See [`EntityError`].
    pub async fn state(&self, key: impl AsRef<str>) -> Result<Loaded<A>, EntityError>
    where
        A: Clone,
    {
        self.see(key.as_ref(), Draft::loaded).await
    }

    /// A value that is computed from the state of an entity and its version, after every command
    /// that was accepted before this call. It may be computed more than once; the last one counts.
    ///
    /// # Errors
    /// See [`EntityError`].
    pub async fn look<R: Send + 'static>(
        &self,
        key: impl AsRef<str>,
        look: impl Fn(&A, StreamVersion) -> R + Send + 'static,
    ) -> Result<R, EntityError> {
        self.see(key.as_ref(), move |draft| look(draft.state(), draft.version())).await
    }

    /// The events in the stream, oldest first, page by page.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn history(&self, key: impl AsRef<str>) -> Result<History<A::Event>, EntityError> {
        Ok(self.system.repository.history(key.as_ref())?)
    }

    fn stream(&self, key: &str) -> Result<StreamId, EntityError> {
        Ok(self.system.repository.stream(key)?)
    }

    async fn see<R: Send + 'static>(
        &self,
        key: &str,
        look: impl Fn(&Draft<A>) -> R + Send + 'static,
    ) -> Result<R, EntityError> {
        let (message, answer) = Message::look(look);
        self.exchange(key, message, answer).await.map_err(|error| match error {
            AskError::Failed(error) => error,
            AskError::Rejected(_) => unreachable!("a look is not decided"),
        })
    }

    async fn exchange<R>(
        &self,
        key: &str,
        message: Box<Message<A>>,
        answer: Answering<A, R>,
    ) -> Reply<A, R> {
        let stream = self.stream(key)?;
        let deadline = self.system.options.deadline;
        let begun = self.system.now();
        let (driving, left) = match self.system.deliver(&stream, message, begun) {
            Delivery::Accepted(driving) => (driving, deadline),
            Delivery::Full(message, room) => {
                let driving = self.wait_for_room(&stream, message, room).await?;
                let spent = self.system.now().saturating_since(begun);
                (driving, deadline.map(|deadline| deadline.saturating_sub(spent)))
            }
            Delivery::Refused(error) => return Err(error.into()),
        };
        match self.system.within(left, answered(driving, answer)).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(EntityError::Lost(stream).into()),
            None => Err(EntityError::Deadline(stream).into()),
        }
    }

    /// Queues a message as soon as the mailbox has room.
    async fn wait_for_room(
        &self,
        stream: &StreamId,
        mut message: Box<Message<A>>,
        mut room: OwnedNotified,
    ) -> Result<Driving<'_>, EntityError> {
        let waiting = async {
            loop {
                room.await;
                match self.system.deliver(stream, message, self.system.now()) {
                    Delivery::Accepted(driving) => return Ok(driving),
                    Delivery::Full(again, later) => (message, room) = (again, later),
                    Delivery::Refused(error) => return Err(error),
                }
            }
        };
        let waited = self.system.within(self.system.options.deadline, waiting).await;
        waited.unwrap_or_else(|| Err(EntityError::Busy(stream.clone())))
    }

    /// Counters of the entities since they were made, and their present numbers.
    pub fn stats(&self) -> EntityStats {
        let uptime = self.system.now().saturating_since(self.system.started);
        let active = self.system.active();
        let mut stats = EntityStats { uptime, active, ..EntityStats::default() };
        for shard in self.system.directory.shards() {
            shard.fill(&mut stats);
            let dead = shard.iter().filter(|(_, slot)| slot.cell.quarantine().is_some());
            stats.quarantined += dead.count();
        }
        self.system.counters.fill(&mut stats);
        stats
    }

    /// The known facts about one entity; `None` if it is not in memory and did not fail recently.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn entity(&self, key: impl AsRef<str>) -> Result<Option<EntityInfo>, EntityError> {
        let stream = self.stream(key.as_ref())?;
        Ok(self.find(&stream))
    }

    /// The entities that take no messages until they are released.
    pub fn quarantined(&self) -> Vec<QuarantinedEntity> {
        let mut found = Vec::new();
        for shard in self.system.directory.shards() {
            found.extend(shard.iter().filter_map(|(stream, slot)| {
                let stream = stream.clone();
                let cause = slot.cell.quarantine()?.clone();
                Some(QuarantinedEntity { stream, cause })
            }));
        }
        found
    }

    /// Lets a quarantined entity take messages again. Returns true if it was quarantined.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn release(&self, key: impl AsRef<str>) -> Result<bool, EntityError> {
        let stream = self.stream(key.as_ref())?;
        let mut shard = self.system.directory.shard(&stream);
        Ok(shard.find(&stream).is_some_and(|slot| slot.cell.release()))
    }

    /// Stops accepting messages, and waits at most this long for the accepted ones. After that,
    /// messages that still wait are answered with `Closed`, and bursts under way continue. Returns
    /// the number of the former, and the entities that still work on the latter.
    pub async fn shutdown(&self, wait: Duration) -> Shutdown {
        self.system.close();
        if self.system.within(Some(wait), self.system.until_rested()).await.is_some() {
            return Shutdown::default();
        }
        let (refused, unfinished) = self.system.drain();
        Shutdown { unfinished, refused }
    }
}

/// Drives an entity's work, while it is the caller's, until the answer arrives.
async fn answered<T>(
    mut driving: Driving<'_>,
    mut answer: oneshot::Receiver<T>,
) -> Result<T, oneshot::error::RecvError> {
    poll_fn(|cx| {
        driving.go_on(cx);
        Pin::new(&mut answer).poll(cx)
    })
    .await
}
