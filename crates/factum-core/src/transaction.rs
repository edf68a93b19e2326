//! Commands on several aggregates, stored in one append.

use std::{any::Any, collections::HashMap, error::Error, fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    aggregate::{Aggregate, Context, fold},
    batch::AppendBatch,
    error::{AppendError, StoreError, VersionConflict},
    event::NewEvent,
    execution::{ExecuteError, failure},
    kernel::Kernel,
    kind::ErrorKind,
    load::Loaded,
    metadata::Metadata,
    position::Position,
    query::{AppendCondition, Query},
    repository::Repository,
    retry::{Appending, Attempts, RetryPolicy},
    schema::{EncodeError, encode_checked},
    store::EventStore,
    stream::StreamId,
    tag::Tag,
    version::{ExpectedVersion, StreamVersion},
};

/// A step of a transaction was rejected; nothing of the transaction was stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepRejected {
    /// Which step, from 0.
    pub step: usize,
    rejection: Box<dyn Error + Send + Sync>,
}

impl StepRejected {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Rejected
    }

    /// The rejection, if it is of this type.
    pub fn downcast_ref<R: Error + 'static>(&self) -> Option<&R> {
        self.rejection.downcast_ref()
    }
}

impl fmt::Display for StepRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: step={}", self.rejection, self.step)
    }
}

impl Error for StepRejected {}

/// What came of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The position of the last event; `None` if there was nothing to do.
    pub position: Option<Position>,
    /// How many events were stored.
    pub events: usize,
}

/// Commands on several aggregates, each decided in order and all stored in one append, or none.
/// The events stand in the log in the order of the steps.
///
/// Steps on the same aggregate see one another. Streams that a step only looked at are checked,
/// so that what was decided on is still so when it is stored. A conflict decides everything
/// again.
///
/// ```
/// use factum_core::{Metadata, Repository, Transaction};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_core::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_core::TagKey::new([1; 32]));
/// # let accounts = Repository::<Account>::new(kernel.clone());
/// # for name in ["ada", "bob"] {
/// #     let (owner, email) = (name.to_owned(), format!("{name}@example.org"));
/// #     accounts.execute(name, &AccountCommand::Open { owner, email }).await?;
/// # }
/// # accounts.execute("ada", &AccountCommand::Deposit { cents: 500 }).await?;
/// let transfer = Transaction::new(kernel)
///     .execute(&accounts, "ada", AccountCommand::Send { to: "bob".into(), cents: 200 })
///     .execute(&accounts, "bob", AccountCommand::Receive { from: "ada".into(), cents: 200 });
/// assert_eq!(transfer.commit(&Metadata::new()).await?.events, 2);
/// assert_eq!(accounts.load("bob").await?.state.balance_cents, 200);
/// # Ok(()) }
/// ```
#[must_use]
pub struct Transaction {
    kernel: Kernel,
    retry: RetryPolicy,
    steps: Vec<Arc<dyn Step>>,
}

impl Transaction {
    /// No steps yet.
    pub fn new(kernel: Kernel) -> Self {
        Self { kernel, retry: RetryPolicy::new(), steps: Vec::new() }
    }

    /// Sets how often and how fast the commit tries again.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Adds a command. The repository must be of the same log as the transaction.
    pub fn execute<A: Aggregate>(
        mut self,
        on: &Repository<A>,
        key: &str,
        command: A::Command,
    ) -> Self {
        self.steps.push(Arc::new(On { repository: on.clone(), key: key.into(), command }));
        self
    }

    /// Decides every step and stores what they decided.
    ///
    /// # Errors
    /// `Rejected` names the step; `Invalid` for a repository of another store than the
    /// transaction's; else see [`ExecuteError`].
    ///
    /// # Cancel safety
    /// A dropped future may or may not have stored the events.
    pub async fn commit(
        &self,
        metadata: &Metadata,
    ) -> Result<Committed, ExecuteError<StepRejected>> {
        let mut attempts = Attempts::new(self.retry);
        loop {
            let mut draft = Draft::default();
            for (step, command) in self.steps.iter().enumerate() {
                if !Arc::ptr_eq(command.store(), self.kernel.events()) {
                    let message = format!("a step's repository is of another store: step={step}");
                    return Err(StoreError::invalid(message).into());
                }
                command.plan(step, &mut draft, metadata, &mut attempts).await?;
            }
            let events = draft.events.len();
            if events == 0 {
                return Ok(Committed { position: None, events });
            }
            let ours = |conflict: &VersionConflict| draft.has(&conflict.stream);
            match self.kernel.append(draft.batch(), &mut attempts, ours).await {
                Appending::Done(appended) => {
                    return Ok(Committed { position: Some(appended.last), events });
                }
                Appending::Reload => {}
                Appending::Failed(error) => return Err(draft.refusal(error)),
            }
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("steps", &self.steps.len()).finish_non_exhaustive()
    }
}

/// What the steps so far have decided.
#[derive(Default)]
struct Draft {
    /// In the order in which the steps came to them.
    streams: Vec<DraftStream>,
    index: HashMap<StreamId, usize>,
    /// Each with the place of its stream, in the order in which the steps decided them.
    events: Vec<(usize, NewEvent)>,
    guards: Vec<(AppendCondition, StepRejected)>,
}

struct DraftStream {
    id: StreamId,
    /// Its version when it was loaded.
    loaded: StreamVersion,
    /// A `Loaded<A>`, with the events so far.
    state: Box<dyn Any + Send + Sync>,
}

impl Draft {
    fn has(&self, stream: &StreamId) -> bool {
        self.index.contains_key(stream)
    }

    fn batch(&self) -> AppendBatch {
        let mut batch = AppendBatch::new();
        let mut is_written = vec![false; self.streams.len()];
        for (index, event) in &self.events {
            let stream = &self.streams[*index];
            let is_first = !std::mem::replace(&mut is_written[*index], true);
            let expected = if is_first { stream.loaded.into() } else { ExpectedVersion::Any };
            batch = batch.event(&stream.id, expected, event.clone());
        }
        let streams = self.streams.iter().zip(is_written);
        for (stream, _) in streams.filter(|(_, is_written)| !is_written) {
            batch = batch.check(stream.id.clone(), stream.loaded);
        }
        self.guards.iter().fold(batch, |batch, (condition, _)| batch.unless(condition.clone()))
    }

    fn refusal(mut self, error: AppendError) -> ExecuteError<StepRejected> {
        match error {
            AppendError::ConditionFailed { condition, .. } if condition < self.guards.len() => {
                ExecuteError::Rejected(self.guards.swap_remove(condition).1)
            }
            other => failure(other),
        }
    }

    /// Notes a guard; it holds for what earlier steps decided as it does for what is stored.
    fn guard(
        &mut self,
        query: Query,
        rejected: StepRejected,
    ) -> Result<(), ExecuteError<StepRejected>> {
        let mut decided = self.events.iter().map(|(_, event)| event);
        if decided.any(|e| query.matches(e.name.as_str(), e.tags.iter().map(Tag::as_str))) {
            return Err(ExecuteError::Rejected(rejected));
        }
        let condition = AppendCondition { fail_if_events_match: query, after: Position::ZERO };
        self.guards.push((condition, rejected));
        Ok(())
    }

    fn add(
        &mut self,
        id: StreamId,
        loaded: StreamVersion,
        state: Box<dyn Any + Send + Sync>,
    ) -> usize {
        let index = self.streams.len();
        self.index.insert(id.clone(), index);
        self.streams.push(DraftStream { id, loaded, state });
        index
    }
}

#[async_trait]
trait Step: Send + Sync {
    fn store(&self) -> &Arc<dyn EventStore>;

    async fn plan(
        &self,
        step: usize,
        draft: &mut Draft,
        metadata: &Metadata,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError<StepRejected>>;
}

struct On<A: Aggregate> {
    repository: Repository<A>,
    key: String,
    command: A::Command,
}

#[async_trait]
impl<A: Aggregate> Step for On<A> {
    fn store(&self) -> &Arc<dyn EventStore> {
        self.repository.kernel().events()
    }

    async fn plan(
        &self,
        step: usize,
        draft: &mut Draft,
        metadata: &Metadata,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError<StepRejected>> {
        let kernel = self.repository.kernel();
        let stream = self.repository.stream(&self.key)?;
        let index = match draft.index.get(&stream) {
            Some(index) => *index,
            None => {
                let loaded = self.repository.load_for(&stream, attempts).await?;
                draft.add(stream, loaded.version, Box::new(loaded))
            }
        };
        let entry = &mut draft.streams[index];
        let loaded: &mut Loaded<A> = entry.state.downcast_mut().ok_or_else(|| {
            StoreError::invalid(format!(
                "two kinds of aggregate share a stream in one transaction: stream={}",
                entry.id
            ))
        })?;
        let rejected =
            |rejection: A::Rejection| StepRejected { step, rejection: Box::new(rejection) };
        let cx = Context::new(&self.key, loaded.version, kernel.clock().now(), metadata);
        let decision = loaded
            .state
            .decide(&self.command, &cx)
            .map_err(|no| ExecuteError::Rejected(rejected(no)))?;
        let mut events = Vec::with_capacity(decision.events.len());
        for event in &decision.events {
            let id = kernel.event_id();
            let (new, read) = encode_checked(event, id, metadata, kernel.tag_key())?;
            events.push(new);
            fold(&mut loaded.state, &read);
            loaded.version = loaded.version.next();
        }
        let guards = decision.guards.into_iter().filter(|_| !events.is_empty());
        for (guard, rejection) in guards {
            let query = guard.resolve_guard(kernel.tag_key())?;
            query.check_kinds(&events).map_err(EncodeError::from)?;
            draft.guard(query, rejected(rejection))?;
        }
        draft.events.extend(events.into_iter().map(|event| (index, event)));
        Ok(())
    }
}
