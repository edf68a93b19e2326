//! Commands on several aggregates, stored in one append.

use std::{any::Any, collections::HashMap, error::Error, fmt, sync::Arc};

use async_trait::async_trait;

use crate::{
    aggregate::Aggregate,
    batch::AppendBatch,
    encoder::Encoder,
    error::StoreError,
    event::NewEvent,
    execution::ExecuteError,
    kernel::Kernel,
    kind::ErrorKind,
    load::Loaded,
    metadata::Metadata,
    position::Position,
    proposal::{Committing, Proposal},
    query::AppendCondition,
    repository::Repository,
    retry::{Attempts, RetryPolicy},
    store::EventStore,
    stream::StreamId,
    tag::Tag,
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
            let mut plan = Plan::new();
            for (step, command) in self.steps.iter().enumerate() {
                if !Arc::ptr_eq(command.store(), self.kernel.events()) {
                    let message = format!("a step's repository is of another store: step={step}");
                    return Err(StoreError::invalid(message).into());
                }
                command.plan(step, &mut plan, metadata, &mut attempts).await?;
            }
            let events = plan.proposal.events().count();
            if events == 0 {
                return Ok(Committed { position: None, events });
            }
            let along = AppendBatch::new();
            let sent = plan.proposal.send(along, &self.kernel, &mut attempts).await?;
            if let Committing::Stored(appended) = sent {
                return Ok(Committed { position: Some(appended.last), events });
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
struct Plan {
    proposal: Proposal<StepRejected>,
    /// By the number of the proposal's stream: a `Loaded<A>`, with the events so far.
    states: Vec<Box<dyn Any + Send + Sync>>,
    index: HashMap<StreamId, usize>,
}

impl Plan {
    fn new() -> Self {
        Self { proposal: Proposal::new(), states: Vec::new(), index: HashMap::new() }
    }

    /// Notes a guard; it holds for what earlier steps decided as it does for what is stored.
    fn guard(
        &mut self,
        condition: AppendCondition,
        rejected: StepRejected,
    ) -> Result<(), ExecuteError<StepRejected>> {
        let query = &condition.fail_if_events_match;
        let is_meant = |event: &NewEvent| {
            query.matches(event.name.as_str(), event.tags.iter().map(Tag::as_str))
        };
        if self.proposal.events().any(is_meant) {
            return Err(ExecuteError::Rejected(rejected));
        }
        self.proposal.guard(condition, rejected);
        Ok(())
    }

    fn add<A: Aggregate>(&mut self, stream: StreamId, loaded: Loaded<A>) -> usize {
        let index = self.proposal.stream(stream.clone(), loaded.version.into());
        self.states.push(Box::new(loaded));
        self.index.insert(stream, index);
        index
    }
}

#[async_trait]
trait Step: Send + Sync {
    fn store(&self) -> &Arc<dyn EventStore>;

    async fn plan(
        &self,
        step: usize,
        plan: &mut Plan,
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
        plan: &mut Plan,
        metadata: &Metadata,
        attempts: &mut Attempts,
    ) -> Result<(), ExecuteError<StepRejected>> {
        let stream = self.repository.stream(&self.key)?;
        let index = match plan.index.get(&stream) {
            Some(index) => *index,
            None => {
                let loaded = self.repository.load_for(&stream, attempts).await?;
                plan.add(stream.clone(), loaded)
            }
        };
        let loaded: &mut Loaded<A> = plan.states[index].downcast_mut().ok_or_else(|| {
            StoreError::invalid(format!(
                "two kinds of aggregate share a stream in one transaction: stream={stream}"
            ))
        })?;
        let rejected =
            |rejection: A::Rejection| StepRejected { step, rejection: Box::new(rejection) };
        let encoder = Encoder::new(self.repository.kernel(), metadata);
        let cx = encoder.context(&self.key, loaded.version);
        let decision = loaded
            .state
            .decide(&self.command, &cx)
            .map_err(|no| ExecuteError::Rejected(rejected(no)))?;
        let encoded = encoder.encode(decision)?;
        encoded.fold(loaded);
        for (condition, rejection) in encoded.guards {
            plan.guard(condition, rejected(rejection))?;
        }
        plan.proposal.add(index, encoded.events);
        Ok(())
    }
}
