//! Commands on several aggregates, and decisions over queries, stored in one append.

mod plan;
mod step;

use std::{error::Error, fmt, sync::Arc};

use crate::{
    aggregate::Aggregate,
    batch::AppendBatch,
    error::StoreError,
    execution::TransactionError,
    identity::Once,
    kernel::Kernel,
    kind::ErrorKind,
    load::{LoadError, Loaded},
    metadata::Metadata,
    model::DecisionModel,
    position::Position,
    proposal::{Committing, Unsent},
    query::{AppendCondition, Query, QueryItem},
    recorded::RecordedEvent,
    repository::Repository,
    retry::{Attempts, RetryPolicy},
    stream::StreamId,
    tag::Tag,
    version::StreamVersion,
};
use plan::{Held, HeldModel, Plan, Read};
use step::{Expect, On, Over, Step};

/// The name of the tag that earlier versions of Factum gave the events of a transaction with an id.
const EARLIER_TAG: &str = "$transaction";

/// The rejection of a step. Nothing of the transaction was stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepRejected {
    /// The number of the step, from 0.
    pub step: usize,
    rejection: Box<dyn Error + Send + Sync>,
}

impl StepRejected {
    pub(crate) fn new(step: usize, rejection: impl Error + Send + Sync + 'static) -> Self {
        Self { step, rejection: Box::new(rejection) }
    }

    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Rejected
    }

    /// The rejection, if it is of this type.
    pub fn downcast_ref<R: Error + 'static>(&self) -> Option<&R> {
        self.rejection.downcast_ref()
    }

    /// The rejection, boxed.
    pub fn into_rejection(self) -> Box<dyn Error + Send + Sync> {
        self.rejection
    }
}

impl fmt::Display for StepRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: step={}", self.rejection, self.step)
    }
}

impl Error for StepRejected {}

/// The result of a transaction's append.
#[derive(Default)]
struct Stored {
    position: Option<Position>,
    events: usize,
    versions: Vec<(StreamId, StreamVersion)>,
}

impl Stored {
    /// Notes the version of a stream after a write. A later write replaces it.
    fn note(&mut self, stream: &StreamId, version: StreamVersion) {
        match self.versions.iter_mut().find(|(id, _)| id == stream) {
            Some((_, noted)) => *noted = version,
            None => self.versions.push((stream.clone(), version)),
        }
    }

    /// The result that the events of a stored transaction tell.
    fn of<'e>(events: impl Iterator<Item = &'e RecordedEvent>) -> Self {
        let mut stored = Self::default();
        for event in events {
            stored.note(&event.stream().to_stream_id(), event.version());
            stored.position = Some(event.position());
            stored.events += 1;
        }
        stored
    }
}

/// The result of a search for a stored transaction.
enum Search {
    Found(Stored),
    /// The log has no event of the transaction up to this position.
    NothingThrough(Position),
}

/// The outcome of a transaction.
#[non_exhaustive]
pub struct Committed {
    /// The position of the last event; `None` if there was no event.
    pub position: Option<Position>,
    /// The number of stored events.
    pub events: usize,
    /// The version of each written stream after the transaction.
    pub versions: Vec<(StreamId, StreamVersion)>,
    /// True if an earlier attempt stored the transaction, which was recognised by its
    /// [id](Transaction::once).
    pub replayed: bool,
    /// The position that the answer is based on: that of the last event, or, if there was no event,
    /// that of the last event that was read.
    pub rests_on: Position,
    states: Vec<(StreamId, Box<dyn Held>)>,
    models: Vec<Box<dyn HeldModel>>,
}

impl Committed {
    /// The state of an aggregate after the transaction; `None` if the transaction did not load it.
    /// For a transaction that an earlier attempt stored, the present state.
    pub fn state<A: Aggregate>(&self, key: &str) -> Option<&A> {
        Some(&self.loaded::<A>(key)?.state)
    }

    /// The version of an aggregate after the transaction; `None` if the transaction did not load
    /// it. For a transaction that an earlier attempt stored, the present version.
    pub fn version<A: Aggregate>(&self, key: &str) -> Option<StreamVersion> {
        Some(self.loaded::<A>(key)?.version)
    }

    fn loaded<A: Aggregate>(&self, key: &str) -> Option<&Loaded<A>> {
        let is_meant = |id: &StreamId| id.category() == A::CATEGORY && id.key() == key;
        let (_, held) = self.states.iter().find(|(id, _)| is_meant(id))?;
        held.as_any().downcast_ref()
    }

    /// The first decision model of this kind, as it is after the transaction. It includes the
    /// events of later steps that its query matches.
    pub fn model<M: DecisionModel>(&self) -> Option<&M> {
        self.models.iter().find_map(|it| it.as_any().downcast_ref::<Read<M>>()).map(|it| &it.model)
    }

    /// Returns the first decision model of this kind.
    pub fn into_model<M: DecisionModel>(self) -> Option<M> {
        let read = |it: Box<dyn HeldModel>| it.into_any().downcast::<Read<M>>().ok();
        self.models.into_iter().find_map(read).map(|it| it.model)
    }
}

impl fmt::Debug for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Committed");
        out.field("position", &self.position).field("events", &self.events);
        out.field("replayed", &self.replayed).finish_non_exhaustive()
    }
}

/// A transaction: commands on several aggregates and decisions over queries. They are decided in
/// order and stored in one append, or not at all. The events have the order of the steps in the
/// log.
///
/// A step sees the events of the steps before it: on its own aggregate, and in a model whose query
/// matches them. The store also checks the streams and queries that a step only read, so that they
/// are unchanged when the events are stored. After a conflict everything is decided again.
///
/// This is the lower level. An application sends transactions by `App::transaction`, which passes
/// its layers.
///
/// ```
/// use factum_kernel::{Metadata, Repository, Transaction};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = Repository::<Account>::new(kernel.clone());
/// # for name in ["ada", "bob"] {
/// #     let (owner, email) = (name.to_owned(), format!("{name}@example.org"));
/// #     accounts.execute(name, &AccountCommand::Open { owner, email }).await?;
/// # }
/// # accounts.execute("ada", &AccountCommand::Deposit { cents: 500 }).await?;
/// let transfer = Transaction::new(kernel)
///     .execute(&accounts, "ada", AccountCommand::Send { to: "bob".into(), cents: 200 })
///     .execute(&accounts, "bob", AccountCommand::Receive { from: "ada".into(), cents: 200 });
/// let committed = transfer.commit(&Metadata::new()).await?;
/// assert_eq!(committed.events, 2);
/// assert_eq!(committed.state::<Account>("bob").unwrap().balance_cents, 200);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Transaction {
    kernel: Kernel,
    retry: RetryPolicy,
    steps: Vec<Arc<dyn Step>>,
    once: Option<Once>,
    unchanged: Unchanged,
}

/// The treatment of a step that leads to no event, if another step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unchanged {
    Refused,
    Allowed,
}

impl Transaction {
    /// Makes a transaction without steps.
    pub fn new(kernel: Kernel) -> Self {
        let retry = RetryPolicy::new();
        Self { kernel, retry, steps: Vec::new(), once: None, unchanged: Unchanged::Refused }
    }

    /// Sets the number of attempts of the commit, and the pauses between them.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Adds a command. The repository must use the same log as the transaction.
    pub fn execute<A: Aggregate>(
        mut self,
        on: &Repository<A>,
        key: &str,
        command: impl Into<Arc<A::Command>>,
    ) -> Self {
        let repository = on.clone();
        self.steps.push(Arc::new(On { repository, key: key.into(), command: command.into() }));
        self
    }

    /// Adds a decision over a query. It may write to the stream of an earlier step, but not to that
    /// of a later one.
    pub fn decide<M: DecisionModel>(mut self, command: impl Into<Arc<M::Command>>) -> Self {
        self.steps.push(Arc::new(Over::<M>(command.into())));
        self
    }

    /// Commits only if the aggregate with this key has this version before the transaction; 0 means
    /// that the aggregate has no events.
    pub fn expecting<A: Aggregate>(
        mut self,
        on: &Repository<A>,
        key: &str,
        version: StreamVersion,
    ) -> Self {
        let repository = on.clone();
        self.steps.insert(0, Arc::new(Expect { repository, key: key.into(), version }));
        self
    }

    /// Lets a step lead to no event although others do. Without this, the steps take effect
    /// together: each leads to an event, or none does.
    ///
    /// A step without events may mean that its effect is there already, as that of a refund which
    /// is paid. Then the payment, which is the next step, must not be made either. Allow it for
    /// steps that only check something, and for steps that don't depend on each other.
    pub fn allowing_unchanged(mut self) -> Self {
        self.unchanged = Unchanged::Allowed;
        self
    }

    /// Gives the transaction an id, so that it takes effect once. Its events get the id's tag, and
    /// the first one says which commands the id names. If the log has events of these commands,
    /// the answer is the stored result; if the id names others, the error is
    /// [`IdTaken`](TransactionError::IdTaken).
    ///
    /// ```
    /// use factum_kernel::{
    ///     CommandId, EncodeError, Metadata, NamedCommand, Once, Repository, Transaction,
    ///     TransactionError,
    /// };
    /// use factum_testing::bank::{Account, AccountCommand};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
    /// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
    /// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
    /// # let accounts = Repository::<Account>::new(kernel.clone());
    /// # let email = "ada@example.org".to_owned();
    /// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
    /// let pay = |cents| -> Result<Transaction, EncodeError> {
    ///     let deposit = AccountCommand::Deposit { cents };
    ///     let named = NamedCommand::of_aggregate("account", "ada", &deposit)?;
    ///     let once = Once::new(CommandId::derived("order-17", "pay"), [named]);
    ///     let transaction = Transaction::new(kernel.clone());
    ///     let transaction = transaction.execute(&accounts, "ada", deposit);
    ///     Ok(transaction.once(once))
    /// };
    /// assert!(!pay(500)?.commit(&Metadata::new()).await?.replayed);
    /// assert!(pay(500)?.commit(&Metadata::new()).await?.replayed);
    /// let Err(TransactionError::IdTaken(taken)) = pay(600)?.commit(&Metadata::new()).await else {
    ///     panic!("the id names another content")
    /// };
    /// assert_eq!(taken.stored[0].name(), "account.deposit");
    /// # Ok(()) }
    /// ```
    pub fn once(mut self, once: Once) -> Self {
        self.once = Some(once);
        self
    }

    /// Decides every step and stores the events.
    ///
    /// # Errors
    /// `Rejected` and `Unchanged` with the number of the step; `Invalid` if a repository is of
    /// another store than the transaction; else see [`TransactionError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, all of the events are stored or none.
    pub async fn commit(&self, metadata: &Metadata) -> Result<Committed, TransactionError> {
        let mut attempts = Attempts::new(self.retry);
        loop {
            // A repeat is not decided again on states that have the effect already.
            let through = match self.search(&mut attempts).await? {
                Search::Found(stored) => return self.replay(stored, &mut attempts).await,
                Search::NothingThrough(position) => position,
            };
            let (mut plan, decided) = self.plan(metadata, &mut attempts).await;
            let events = plan.proposal.event_count();
            if decided.is_err() || events == 0 {
                // Nothing will be appended that another attempt could refuse. So it is searched for
                // after the states were read: if it is not found, the states don't contain it.
                if let Search::Found(stored) = self.search(&mut attempts).await? {
                    return self.replay(stored, &mut attempts).await;
                }
                if is_answer(&decided) && !plan.proposal.holds(&self.kernel, &mut attempts).await? {
                    continue;
                }
                decided?;
                return Ok(plan.into_committed(Stored::default()));
            }
            if let (Some(once), Some(query)) = (&self.once, self.query()) {
                plan.proposal.sign(|first| once.sign(first, self.kernel.tag_key()));
                let condition = AppendCondition { fail_if_events_match: query, after: through };
                plan.proposal.unless_overtaken(condition);
            }
            let proposal = plan.take_proposal();
            let written: Vec<_> = proposal.written().cloned().collect();
            let along = AppendBatch::new();
            let sent = match proposal.send(along, &self.kernel, &mut attempts).await {
                Ok(sent) => sent,
                Err(error @ (Unsent::Store(_) | Unsent::Indeterminate(_))) => {
                    return Err(error.into());
                }
                // Another attempt may have stored the transaction, and so refuse this one.
                Err(refused) => match self.search(&mut attempts).await {
                    Ok(Search::Found(stored)) => return self.replay(stored, &mut attempts).await,
                    Err(error @ TransactionError::IdTaken(_)) => return Err(error),
                    _ => return Err(refused.into()),
                },
            };
            if let Committing::Stored(appended) = sent {
                let mut stored = Stored { events, ..Stored::default() };
                for (stream, version) in written.iter().zip(appended.versions.iter().copied()) {
                    stored.note(stream, version);
                }
                stored.position = Some(appended.last);
                return Ok(plan.into_committed(stored));
            }
        }
    }

    /// The plan up to the first step that fails, and its error.
    async fn plan<'a>(
        &'a self,
        metadata: &'a Metadata,
        attempts: &mut Attempts,
    ) -> (Plan<'a>, Result<(), TransactionError>) {
        let tag = self.once.as_ref().map(Once::tag);
        let mut plan = Plan::new(&self.kernel, metadata, tag);
        let decided = self.decide_steps(&mut plan, attempts).await;
        (plan, decided)
    }

    async fn decide_steps(
        &self,
        plan: &mut Plan<'_>,
        attempts: &mut Attempts,
    ) -> Result<(), TransactionError> {
        let mut unchanged = None;
        for (number, step) in self.numbered() {
            self.check(number, &**step)?;
            step.load(plan, attempts).await?;
            let before = plan.proposal.event_count();
            step.decide(number, plan)?;
            if plan.proposal.event_count() == before && !step.is_silent() {
                unchanged = unchanged.or(Some(number));
            }
        }
        match unchanged.filter(|_| self.unchanged == Unchanged::Refused) {
            Some(step) if plan.proposal.event_count() > 0 => {
                Err(TransactionError::Unchanged { step })
            }
            _ => Ok(()),
        }
    }

    /// The steps. The caller's steps are counted from 0.
    fn numbered(&self) -> impl Iterator<Item = (usize, &Arc<dyn Step>)> {
        let first = self.steps.iter().take_while(|step| step.is_silent()).count();
        let number = move |(at, step)| (usize::saturating_sub(at, first), step);
        self.steps.iter().enumerate().map(number)
    }

    fn check(&self, number: usize, step: &dyn Step) -> Result<(), StoreError> {
        if step.store().is_none_or(|store| Arc::ptr_eq(store, self.kernel.events())) {
            return Ok(());
        }
        let message = format!("a step's repository is of another store: step={number}");
        Err(StoreError::invalid(message))
    }

    /// The query for the events of the transaction's id.
    fn query(&self) -> Option<Query> {
        let once = self.once.as_ref()?;
        let tags = [once.tag().clone(), earlier_tag(once)];
        Some(Query::new(tags.map(|tag| QueryItem { types: vec![], tags: vec![tag] })))
    }

    /// Searches the log for the transaction.
    async fn search(&self, attempts: &mut Attempts) -> Result<Search, TransactionError> {
        let (Some(once), Some(query)) = (&self.once, self.query()) else {
            return Ok(Search::NothingThrough(Position::ZERO));
        };
        let (recorded, through) = self.kernel.tagged_through(query, attempts).await?;
        let has = |event: &RecordedEvent, tag: &Tag| event.tags().any(|it| it == tag.as_str());
        // Earlier versions gave a command and a transaction the same id without a conflict.
        let earlier = earlier_tag(once);
        let mut found: Vec<_> = recorded.iter().filter(|event| has(event, &earlier)).collect();
        if found.is_empty() {
            let tagged = recorded.iter().filter(|event| has(event, once.tag()));
            found = once.recognise(tagged, self.kernel.tag_key())?;
        }
        Ok(match found.is_empty() {
            true => Search::NothingThrough(through),
            false => Search::Found(Stored::of(found.into_iter())),
        })
    }

    /// The answer to a transaction that is stored already.
    async fn replay(
        &self,
        stored: Stored,
        attempts: &mut Attempts,
    ) -> Result<Committed, TransactionError> {
        let metadata = Metadata::new();
        let mut plan = Plan::new(&self.kernel, &metadata, None);
        for (_, step) in self.numbered().filter(|(_, step)| !step.is_silent()) {
            match step.load(&mut plan, attempts).await {
                // The answer leaves out a state that can't be loaded any more.
                Err(TransactionError::Load(error)) if LoadError::store_error(&error).is_none() => {}
                loaded => loaded?,
            }
        }
        Ok(Committed { replayed: true, ..plan.into_committed(stored) })
    }
}

/// True if the decision is an answer that rests on what was read, and appends nothing.
fn is_answer(decided: &Result<(), TransactionError>) -> bool {
    match decided {
        Ok(()) => true,
        Err(error) => matches!(
            error,
            TransactionError::Rejected(_)
                | TransactionError::Unchanged { .. }
                | TransactionError::Conflict(_)
        ),
    }
}

fn earlier_tag(once: &Once) -> Tag {
    Tag::new(EARLIER_TAG, once.id()).expect("a short name and a UUID make a tag")
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}
