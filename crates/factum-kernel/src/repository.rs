//! The repository: it loads an aggregate, decides, appends, and starts over on a conflict.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    aggregate::Aggregate,
    batch::{AppendBatch, Appended},
    decision::Decision,
    draft::Drafted,
    encoder::Encoder,
    error::{AppendError, ChangeError, StoreError},
    event::NewEvent,
    execution::{AlongError, DeleteError, Deleted, ExecuteError, Executed},
    history::History,
    id::EventId,
    kernel::Kernel,
    load::{At, LoadError, Loaded, load},
    metadata::Metadata,
    proposal::{Committing, Proposal, Unsent},
    retry::{Attempts, Next, RetryPolicy},
    schema::Event,
    snapshot::{InvalidSnapshotPolicy, SnapshotPolicy, SnapshotStats, Snapshots},
    store::{StreamChange, StreamInfo},
    stream::{StreamId, may_be_category},
    version::ExpectedVersion,
};

/// The aggregates of one kind. Cheap to clone.
///
/// This is the lower level: each call loads the aggregate from the log, and commands pass no layer.
/// An application sends commands by `App::command`.
///
/// ```
/// use factum_kernel::Repository;
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// let accounts = Repository::<Account>::new(kernel);
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// let done = accounts.execute("ada", &AccountCommand::Deposit { cents: 500 }).await?;
/// assert_eq!((done.state.balance_cents, done.version.value()), (500, 2));
/// assert_eq!(accounts.load("ada").await?.state, done.state);
/// # Ok(()) }
/// ```
#[must_use]
pub struct Repository<A: Aggregate> {
    kernel: Kernel,
    retry: RetryPolicy,
    pub(crate) snapshots: Option<Snapshots<A>>,
}

// A derived `Clone` would ask for `A: Clone`.
impl<A: Aggregate> Clone for Repository<A> {
    fn clone(&self) -> Self {
        let kernel = self.kernel.clone();
        let snapshots = self.snapshots.clone();
        Self { kernel, retry: self.retry, snapshots }
    }
}

impl<A: Aggregate> fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Repository");
        out.field("category", &A::CATEGORY).field("retry", &self.retry).finish_non_exhaustive()
    }
}

impl<A: Aggregate> Repository<A> {
    /// Makes a repository without snapshots. An invalid category is a compile error.
    pub fn new(kernel: Kernel) -> Self {
        const {
            assert!(
                may_be_category(A::CATEGORY),
                "CATEGORY has 1 to 64 letters, digits, '_' and '.'; write it with category!(..)"
            );
        }
        Self { kernel, retry: RetryPolicy::new(), snapshots: None }
    }

    /// Sets the number of attempts of an execution, and the pauses between them.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Stores snapshots of the state.
    ///
    /// # Errors
    /// The policy is invalid.
    pub fn with_snapshots(mut self, policy: SnapshotPolicy) -> Result<Self, InvalidSnapshotPolicy>
    where
        A: Serialize + DeserializeOwned,
    {
        let documents = self.kernel.documents().clone();
        self.snapshots = Some(Snapshots::new(policy.validate()?, documents));
        Ok(self)
    }

    /// The counters of snapshots, shared by all clones; `None` if the repository stores no
    /// snapshots.
    pub fn snapshot_stats(&self) -> Option<Arc<SnapshotStats>> {
        self.snapshots.as_ref().map(|snapshots| snapshots.stats().clone())
    }

    /// The number of attempts of an execution, and the pauses between them.
    pub fn retry(&self) -> RetryPolicy {
        self.retry
    }

    /// The stream with this key.
    ///
    /// # Errors
    /// The key or the category is invalid.
    pub fn stream(&self, key: &str) -> Result<StreamId, LoadError> {
        Ok(StreamId::new(A::CATEGORY, key)?)
    }

    /// The store, clock and ids that the repository uses.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Loads the state of an aggregate. An aggregate without events has version 0.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, key: &str) -> Result<Loaded<A>, LoadError> {
        self.load_at(key, At::Latest).await
    }

    /// Loads the state of an aggregate at a version or a time.
    ///
    /// # Errors
    /// `Truncated` if the history of that moment was deleted, else see [`LoadError`].
    pub async fn load_at(&self, key: &str, at: At) -> Result<Loaded<A>, LoadError> {
        load(&self.kernel, self.snapshots.as_ref(), &self.stream(key)?, at).await
    }

    /// The events of an aggregate, oldest first, page by page.
    ///
    /// # Errors
    /// A key that is invalid for a stream.
    pub fn history(&self, key: &str) -> Result<History<A::Event>, LoadError> {
        Ok(History::new(self.kernel.events().clone(), self.stream(key)?))
    }

    /// Executes a command: loads, decides and appends. After a conflict it loads and decides again.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the events may be stored or not.
    pub async fn execute(
        &self,
        key: &str,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.execute_with(key, command, &Metadata::default()).await
    }

    /// Like [`execute`](Self::execute), with metadata for the rule and for the events.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute_with(
        &self,
        key: &str,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.run(key, command, metadata, &AppendBatch::new()).await
    }

    /// Like [`execute_with`](Self::execute_with), with a batch of the caller's in the same append:
    /// all is stored or nothing. The caller's batch is stored even if the command has no event; the
    /// aggregate's version is checked in that case too. The batch's events come after the
    /// command's. The batch must contain an event, or be empty, and must not write to the
    /// aggregate's stream.
    ///
    /// # Errors
    /// See [`AlongError`].
    pub async fn execute_along(
        &self,
        key: &str,
        command: &A::Command,
        metadata: &Metadata,
        along: &AppendBatch,
    ) -> Result<Executed<A>, AlongError<A::Rejection>> {
        if !along.is_empty() && along.event_count() == 0 {
            let error =
                StoreError::invalid("the caller's batch has no events, leave it empty or add one");
            return Err(ExecuteError::from(error).into());
        }
        let stream = self.stream(key).map_err(ExecuteError::from)?;
        if along.writes().iter().any(|write| write.stream == stream) {
            // The returned state would lack events that the batch writes to the aggregate's stream.
            let error = StoreError::invalid(format!(
                "the caller's batch writes the aggregate's stream, let the command decide \
                 those events: stream={stream}"
            ));
            return Err(ExecuteError::from(error).into());
        }
        self.run(key, command, metadata, along).await
    }

    async fn run<E>(
        &self,
        key: &str,
        command: &A::Command,
        metadata: &Metadata,
        along: &AppendBatch,
    ) -> Result<Executed<A>, E>
    where
        E: From<ExecuteError<A::Rejection>> + From<Unsent<A::Rejection>>,
    {
        let stream = self.stream(key).map_err(ExecuteError::from)?;
        let mut attempts = Attempts::new(self.retry);
        loop {
            let draft = self.draft(&stream, &mut attempts).await;
            let mut draft = draft.map_err(ExecuteError::from)?;
            let Drafted::Taken(events) = draft.decide(self, command, metadata)? else {
                unreachable!("the first command of a draft is not put off");
            };
            if events.is_empty() && along.is_empty() {
                return Ok(draft.into_executed(None, events));
            }
            let committing = draft.commit_along(self, along.clone(), &mut attempts).await?;
            if let Committing::Stored(appended) = committing {
                if !events.is_empty() {
                    draft.snapshot_if_due(self).await;
                }
                return Ok(draft.into_executed(Some(appended.last), events));
            }
        }
    }

    /// Loads for an execution: while the store is unavailable, waits and tries again.
    pub(crate) async fn load_for(
        &self,
        stream: &StreamId,
        attempts: &mut Attempts,
    ) -> Result<Loaded<A>, LoadError> {
        let load = || load(&self.kernel, self.snapshots.as_ref(), stream, At::Latest);
        self.kernel.patiently(attempts, LoadError::store_error, load).await
    }

    /// Erases an aggregate: its events and its snapshots. The next command starts with the default
    /// state. The log shows the deletion as an event, so that read models forget the aggregate too.
    /// Deleting an aggregate that does not exist does nothing.
    ///
    /// # Errors
    /// See [`DeleteError`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the aggregate may be deleted or not.
    pub async fn delete(
        &self,
        key: &str,
        expected: ExpectedVersion,
    ) -> Result<Deleted, DeleteError> {
        self.delete_with(key, expected, &Metadata::default()).await
    }

    /// Like [`delete`](Self::delete), with metadata for the event of the deletion.
    ///
    /// # Errors
    /// See [`DeleteError`].
    ///
    /// # Cancel safety
    /// That of [`delete`](Self::delete).
    pub async fn delete_with(
        &self,
        key: &str,
        expected: ExpectedVersion,
        metadata: &Metadata,
    ) -> Result<Deleted, DeleteError> {
        let stream = StreamId::new(A::CATEGORY, key)?;
        let id = EventId::new(self.kernel.ids().uuid(self.kernel.clock().now()));
        let deletion = NewEvent::deletion(id).with_metadata(metadata.clone());
        let batch = AppendBatch::new().write(stream.clone(), expected, [deletion]);
        let deleted = match self.append_patiently(batch).await {
            Ok(appended) => {
                Deleted { version: appended.versions[0], position: Some(appended.last) }
            }
            // The stream is as expected, and there is nothing to delete.
            Err(AppendError::Conflict(conflict)) if conflict.expected != expected => {
                Deleted { version: conflict.actual, position: None }
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(snapshots) = &self.snapshots {
            snapshots.clear(&stream).await?;
        }
        Ok(deleted)
    }

    /// Appends a batch that needs no decision. Repeats the append while its outcome is unknown or
    /// the store is unavailable.
    async fn append_patiently(&self, mut batch: AppendBatch) -> Result<Appended, AppendError> {
        let mut attempts = Attempts::new(self.retry);
        loop {
            let outcome = self.kernel.events().append(batch.clone()).await;
            match attempts.after(outcome, |_| false) {
                Next::Done(appended) => return Ok(appended),
                Next::Fail(error) => return Err(error),
                Next::Repeat(pause) | Next::Reload(pause) => {
                    self.kernel.pause(pause).await;
                    batch = batch.repeated();
                }
            }
        }
    }

    /// Appends a summary of the state and erases the events before it. The aggregate loads as
    /// before; its older history is erased for good.
    ///
    /// # Errors
    /// `Invalid` if the aggregate has no events, or if its [`Aggregate::summary`] is `None` or not
    /// marked as a summary; else as [`execute`](Self::execute). `Store` and `Indeterminate` may
    /// also mean that the summary is stored and only the erasure is missing: run it again.
    pub async fn summarise(
        &self,
        key: &str,
        metadata: &Metadata,
    ) -> Result<StreamInfo, ExecuteError<Infallible>> {
        let stream = self.stream(key)?;
        let mut attempts = Attempts::new(self.retry);
        loop {
            let mut loaded = self.load_for(&stream, &mut attempts).await?;
            let mut proposal = Proposal::<Infallible>::new();
            let written = proposal.stream(stream.clone(), loaded.version.into());
            let summary = Decision::from([summary_of(&stream, &loaded)?]);
            let encoded = Encoder::new(&self.kernel, metadata).encode(summary)?;
            encoded.fold(&mut loaded);
            proposal.add(written, encoded.events);
            let sent = proposal.send(AppendBatch::new(), &self.kernel, &mut attempts).await?;
            if let Committing::Stored(appended) = sent {
                let [version] = appended.versions[..] else {
                    unreachable!("the proposal has one write")
                };
                assert_eq!(
                    version, loaded.version,
                    "only the summary's append precedes the erasure"
                );
                let change = StreamChange::TruncateBefore(version);
                let changed = self.kernel.events().change(&stream, change).await;
                return changed.map_err(|error| match error {
                    ChangeError::Indeterminate(error) => ExecuteError::Indeterminate(error),
                    ChangeError::Store(error) => ExecuteError::Store(error),
                });
            }
        }
    }
}

/// The longest time that a stored command waits for its snapshot to be written.
pub(crate) const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(2);

/// The summary of a state. Refuses an event that is not marked as a summary, because history is
/// erased only up to a summary.
fn summary_of<A: Aggregate>(stream: &StreamId, loaded: &Loaded<A>) -> Result<A::Event, StoreError> {
    let problem = match loaded.state.summary() {
        _ if loaded.last.is_none() => "there are no events to summarise",
        None => "the aggregate defines no summary",
        Some(event) if event.is_summary() => return Ok(event),
        Some(_) => "the summary's variant is not marked #[event(summary)]",
    };
    Err(StoreError::invalid(format!("{problem}: stream={stream}")))
}
