//! The entities of one kind: what callers see.

mod listing;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crate::{
    drive::Driving,
    error::{AskError, EntityError},
    message::{Answering, Done, Message, Outcome, Reply},
    option::EntityOptions,
    order::{CommandId, Order},
    stats::{EntityInfo, EntityStats, QuarantinedEntity, Shutdown},
    system::{Delivery, System},
};
use factum_kernel::{
    Aggregate, At, Draft, History, Loaded, Metadata, Repository, StreamId, StreamVersion,
};
use tokio::sync::{futures::OwnedNotified, oneshot};

pub use listing::LISTED_MAX;

/// The running aggregates of one kind, addressed by key. Cheap to clone.
///
/// An entity is activated by its first message: its state is loaded and stays in memory until it
/// is passivated, because nobody used it for a while or because others need the room. Messages to
/// one entity are decided one after another; entities don't wait for one another.
///
/// Keys are whatever lends a text: `&str`, `String`, a type of yours that is `AsRef<str>`.
///
/// This is the lower level: what is asked here passes no layer. An application sends commands by
/// `App::command`.
///
/// # Guarantees
/// - What was decided on events is answered after they are durable, in the order in which the
///   messages came.
/// - An answer that appends nothing is as fresh as the log: see
///   [`OtherWriters`](crate::OtherWriters).
/// - A command takes effect at most once, however often its entity fails.
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
    /// Entities on a repository, none of them active. Make them once and clone them: two sets of
    /// entities on one log are right, but get in each other's way.
    pub fn new(repository: Repository<A>, options: EntityOptions) -> Self {
        Self { system: Arc::new(System::new(repository, options)) }
    }

    /// What they load from and append to.
    pub fn repository(&self) -> &Repository<A> {
        &self.system.repository
    }

    /// Asks an entity to execute a command, and waits for the outcome. A mailbox that is full is
    /// waited for.
    ///
    /// # Errors
    /// See [`AskError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropped while the mailbox is full, nothing happens; after that, the command takes effect
    /// once, without the caller.
    pub async fn ask(
        &self,
        key: impl AsRef<str>,
        command: A::Command,
    ) -> Result<Outcome<A>, AskError<A::Rejection>> {
        self.ask_with(key, command, Metadata::default()).await
    }

    /// [`ask`](Self::ask), with metadata for the rule to see and the events to carry.
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

    /// [`ask`](Self::ask), with a reply that is computed from the state right behind the command.
    /// It may be computed more than once; the last one counts. Where it panics, the command takes
    /// no effect.
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
    /// this id, after restarts and through other processes too.
    ///
    /// One that was stored is answered with what it stored: version, position, events, and
    /// [`replayed`](Outcome::replayed). One that was rejected, or led to no event, left nothing
    /// behind and is decided again. The command itself is not compared: an id names one command
    /// on one aggregate.
    ///
    /// A command is known as long as its stream keeps its events. [Summaries], retention and
    /// deletion forget: what is sent again after that is decided again.
    ///
    /// Its events bear the tag [`COMMAND_TAG`](crate::COMMAND_TAG) with the id, so that one tag
    /// less is left for their own, and carry the id as their cause and conversation where
    /// the metadata names none. It costs one read by tag for each burst; commands without an id
    /// cost nothing. Events that a repository or a transaction appends are not recognised.
    ///
    /// [Summaries]: factum_kernel::Repository::summarise
    ///
    /// ```
    /// # use factum_kernel::{Metadata, Repository};
    /// # use factum_runtime::{CommandId, Entities, EntityOptions};
    /// # use factum_testing::bank::{Account, AccountCommand};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
    /// # let accounts = Entities::<Account>::new(Repository::new(kernel), EntityOptions::new());
    /// # let email = "ada@example.org".to_owned();
    /// # accounts.ask("ada", AccountCommand::Open { owner: "Ada".into(), email }).await?;
    /// let id = CommandId::derived(b"ada/order-17");
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
    /// See [`AskError`]. After any of them the command may be sent again with the same id, and
    /// should be where the outcome is unknown: the answer tells what is so.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// As [`ask`](Self::ask).
    pub async fn ask_once(
        &self,
        key: impl AsRef<str>,
        id: CommandId,
        command: A::Command,
        metadata: Metadata,
    ) -> Result<Outcome<A>, AskError<A::Rejection>> {
        let outcome = self.order(key.as_ref(), Order::once(command, metadata, id)).await?;
        Ok(outcome.map(|_| ()))
    }

    pub(crate) async fn order(
        &self,
        key: &str,
        order: Order<A>,
    ) -> Result<Done<A>, AskError<A::Rejection>> {
        let (message, answer) = Message::order(order);
        self.exchange(key, message, answer).await
    }

    /// Gives an entity a command, and doesn't wait. What comes of it is not told: the domain's no
    /// and every failure are counted in [`stats`](Self::stats), and the command is lost with the
    /// process if it dies before the entity comes to it.
    ///
    /// # Errors
    /// `Busy` if the mailbox is full, `Quarantined`, `Closed`, or a key that no stream can have.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn tell(&self, key: impl AsRef<str>, command: A::Command) -> Result<(), EntityError> {
        self.tell_with(key, command, Metadata::default())
    }

    /// [`tell`](Self::tell), with metadata for the rule to see and the events to carry.
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
            // Nobody waits for it, so it goes to a task.
            Delivery::Accepted(_) => Ok(()),
            Delivery::Full(..) => Err(EntityError::Busy(stream)),
            Delivery::Refused(error) => Err(error),
        }
    }

    /// The state of an entity, behind every command that was accepted before.
    ///
    /// # Errors
    /// See [`EntityError`].
    pub async fn state(&self, key: impl AsRef<str>) -> Result<Loaded<A>, EntityError>
    where
        A: Clone,
    {
        self.see(key.as_ref(), Draft::loaded).await
    }

    /// What is computed from the state of an entity and its version, behind every command that
    /// was accepted before. It may be computed more than once; the last one counts.
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

    /// The state as it was at a version or a time, read from the log.
    ///
    /// # Errors
    /// `Load`: see [`LoadError`](factum_kernel::LoadError).
    pub async fn state_at(&self, key: impl AsRef<str>, at: At) -> Result<Loaded<A>, EntityError> {
        Ok(self.system.repository.load_at(key.as_ref(), at).await?)
    }

    /// The events that are kept, oldest first, page by page.
    ///
    /// # Errors
    /// A key that no stream can have.
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

    /// Waits until the mailbox has taken a message.
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

    /// What they have done, and are doing.
    pub fn stats(&self) -> EntityStats {
        let uptime = self.system.now().saturating_since(self.system.started);
        let active = self.system.active();
        let mut stats = EntityStats { uptime, active, ..EntityStats::default() };
        for shard in self.system.directory.shards() {
            let (resident, weight, passivated) = shard.counts();
            stats.resident += resident;
            stats.resident_bytes += weight;
            stats.passivated += passivated;
            let dead = shard.iter().filter(|(_, slot)| slot.cell.quarantine().is_some());
            stats.quarantined += dead.count();
        }
        self.system.counters.fill(&mut stats);
        stats
    }

    /// What is known of one entity; `None` if it is neither in memory nor in trouble.
    ///
    /// # Errors
    /// A key that no stream can have.
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

    /// Lets a quarantined entity take messages again. Whether it was one.
    ///
    /// # Errors
    /// A key that no stream can have.
    pub fn release(&self, key: impl AsRef<str>) -> Result<bool, EntityError> {
        let stream = self.stream(key.as_ref())?;
        let mut shard = self.system.directory.shard(&stream);
        Ok(shard.find(&stream).is_some_and(|slot| slot.cell.release()))
    }

    /// Stops accepting messages, and waits so long for those that were accepted. What is not done
    /// then is told: what waited is answered with `Closed`, what was under way goes on.
    pub async fn shutdown(&self, wait: Duration) -> Shutdown {
        self.system.close();
        if self.system.within(Some(wait), self.system.until_rested()).await.is_some() {
            return Shutdown::default();
        }
        let (refused, unfinished) = self.system.drain();
        Shutdown { unfinished, refused }
    }
}

/// Gets on with an entity's work, if it is the caller's, until the answer is there.
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
