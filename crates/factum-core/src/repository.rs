//! Load, decide, append, and again on a conflict: the way from a command to events.

use std::{convert::Infallible, fmt, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    aggregate::{Aggregate, Context, fold},
    batch::{AppendBatch, Appended},
    decision::Decision,
    error::{StoreError, VersionConflict},
    event::NewEvent,
    execution::{ExecuteError, Executed, failure, refusal, unchanged},
    history::History,
    id::EventId,
    kernel::Kernel,
    load::{At, LoadError, Loaded, load},
    metadata::Metadata,
    position::Position,
    query::AppendCondition,
    retry::{Appending, Attempts, RetryPolicy},
    schema::{EncodeError, Event, encode_checked},
    snapshot::{InvalidSnapshotPolicy, SnapshotHeader, SnapshotPolicy, SnapshotStats, Snapshots},
    store::{StreamChange, StreamInfo},
    stream::{StreamId, may_be_category},
    time::Timestamp,
    version::{ExpectedVersion, StreamVersion},
};

/// The aggregates of one kind. Cheap to clone.
///
/// ```
/// use factum_core::Repository;
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_core::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_core::TagKey::new([1; 32]));
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
        let (kernel, snapshots) = (self.kernel.clone(), self.snapshots.clone());
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
    /// The aggregates of a kind, without snapshots. A category that can't be one is refused by the
    /// compiler.
    pub fn new(kernel: Kernel) -> Self {
        const {
            assert!(may_be_category(A::CATEGORY), "CATEGORY: 1 to 64 letters, digits, '_' and '.'");
        }
        Self { kernel, retry: RetryPolicy::new(), snapshots: None }
    }

    /// Sets how often and how fast executions try again.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Keeps snapshots of the state.
    ///
    /// # Errors
    /// A policy that makes no sense.
    pub fn with_snapshots(mut self, policy: SnapshotPolicy) -> Result<Self, InvalidSnapshotPolicy>
    where
        A: Serialize + DeserializeOwned,
    {
        let documents = self.kernel.documents().clone();
        self.snapshots = Some(Snapshots::new(policy.validate()?, documents));
        Ok(self)
    }

    /// How snapshots have fared here and in clones; `None` where none are kept.
    pub fn snapshot_stats(&self) -> Option<Arc<SnapshotStats>> {
        self.snapshots.as_ref().map(|snapshots| snapshots.stats().clone())
    }

    /// How often and how fast executions try again.
    pub fn retry(&self) -> RetryPolicy {
        self.retry
    }

    /// The stream of a key.
    ///
    /// # Errors
    /// A key or category that no stream can have.
    pub fn stream(&self, key: &str) -> Result<StreamId, LoadError> {
        Ok(StreamId::new(A::CATEGORY, key)?)
    }

    /// What it runs on.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The state of an aggregate as it is. One that has no events is at version 0.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, key: &str) -> Result<Loaded<A>, LoadError> {
        self.load_at(key, At::Latest).await
    }

    /// The state of an aggregate as it was.
    ///
    /// # Errors
    /// `Truncated` where the history of that moment is gone, else see [`LoadError`].
    pub async fn load_at(&self, key: &str, at: At) -> Result<Loaded<A>, LoadError> {
        load(&self.kernel, self.snapshots.as_ref(), &self.stream(key)?, at).await
    }

    /// The events of an aggregate that are kept, oldest first, page by page.
    ///
    /// # Errors
    /// A key that no stream can have.
    pub fn history(&self, key: &str) -> Result<History<A::Event>, LoadError> {
        Ok(History::new(self.kernel.events().clone(), self.stream(key)?))
    }

    /// Executes a command: loads, decides, appends; on a conflict loads and decides again.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    ///
    /// # Cancel safety
    /// A dropped future may or may not have stored the events.
    pub async fn execute(
        &self,
        key: &str,
        command: &A::Command,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.execute_with(key, command, &Metadata::default()).await
    }

    /// [`execute`](Self::execute), with metadata for the rule to see and the events to carry.
    ///
    /// # Errors
    /// See [`ExecuteError`].
    pub async fn execute_with(
        &self,
        key: &str,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        self.execute_along(key, command, metadata, &AppendBatch::new()).await
    }

    /// [`execute_with`](Self::execute_with), and stores a batch of the caller's in the same
    /// append, all or nothing, even if the command leads to no event: the aggregate's version is
    /// checked then. The batch's events come after the command's. It must hold an event, or be
    /// empty, and not write the aggregate's stream.
    ///
    /// # Errors
    /// `Along` or `Conflict` where the batch's own conditions or expectations don't hold; `Invalid`
    /// for a batch that must not ride along.
    pub async fn execute_along(
        &self,
        key: &str,
        command: &A::Command,
        metadata: &Metadata,
        along: &AppendBatch,
    ) -> Result<Executed<A>, ExecuteError<A::Rejection>> {
        if !along.is_empty() && along.event_count() == 0 {
            return Err(StoreError::invalid("the batch that rides along holds no events").into());
        }
        let stream = self.stream(key)?;
        if along.writes().iter().any(|write| write.stream == stream) {
            // The answer is the state with the command's events only.
            return Err(StoreError::invalid(format!(
                "the batch that rides along writes the aggregate's stream, let the command decide \
                 those events: stream={stream}"
            ))
            .into());
        }
        let mut attempts = Attempts::new(self.retry);
        loop {
            let mut loaded = self.load_for(&stream, &mut attempts).await?;
            let now = self.kernel.clock().now();
            let cx = Context::new(key, loaded.version, now, metadata);
            let decision = loaded.state.decide(command, &cx).map_err(ExecuteError::Rejected)?;
            if decision.events.is_empty() && along.is_empty() {
                return Ok(unchanged(loaded));
            }
            let (batch, decision) = self.batch(&stream, loaded.version, decision, metadata)?;
            let last = batch.events().last().map(|event| event.id);
            // Before anything is stored: an event that `evolve` panics on must not be.
            decision.events.iter().for_each(|event| fold(&mut loaded.state, event));
            let batch = batch.and(along.clone());
            let is_ours = |conflict: &VersionConflict| conflict.stream == stream;
            match self.kernel.append(batch, &mut attempts, is_ours).await {
                Appending::Done(appended) => {
                    let stored = Stored { appended, last, events: decision.events };
                    return Ok(self.executed(&stream, loaded, stored).await);
                }
                Appending::Reload => {}
                Appending::Failed(error) => return Err(refusal(error, decision)),
            }
        }
    }

    /// Loads for an execution: waits and tries again while the store is unavailable.
    pub(crate) async fn load_for(
        &self,
        stream: &StreamId,
        attempts: &mut Attempts,
    ) -> Result<Loaded<A>, LoadError> {
        loop {
            let loaded = load(&self.kernel, self.snapshots.as_ref(), stream, At::Latest).await;
            let Err(LoadError::Store(error)) = &loaded else { return loaded };
            let Some(pause) = attempts.after_failed_load(error) else { return loaded };
            self.kernel.pause(pause).await;
        }
    }

    /// A decision as a batch, and the decision with its events as they will be read: the guards
    /// are the batch's first conditions. Without events the stream is only checked.
    fn batch(
        &self,
        stream: &StreamId,
        version: StreamVersion,
        decision: Decision<A>,
        metadata: &Metadata,
    ) -> Result<(AppendBatch, Decision<A>), EncodeError> {
        if decision.events.is_empty() {
            return Ok((AppendBatch::new().check(stream.clone(), version), decision));
        }
        let now = self.kernel.clock().now();
        let Encoded { events, conditions, decision } = self.encode(decision, metadata, now)?;
        let batch = AppendBatch::new().write(stream.clone(), version, events);
        let batch = conditions.into_iter().fold(batch, AppendBatch::unless);
        Ok((batch, decision))
    }

    /// A decision's events and guards as they are appended, and the decision with its events as
    /// they will be read.
    pub(crate) fn encode(
        &self,
        mut decision: Decision<A>,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<Encoded<A>, EncodeError> {
        let key = self.kernel.tag_key();
        let mut events = Vec::with_capacity(decision.events.len());
        for event in &mut decision.events {
            let (new, read) = encode_checked(event, self.kernel.event_id_at(now), metadata, key)?;
            events.push(new);
            *event = read;
        }
        let mut conditions = Vec::with_capacity(decision.guards.len());
        for (guard, _) in &decision.guards {
            let fail_if_events_match = guard.resolve_guard(key)?;
            fail_if_events_match.check_kinds(&events)?;
            conditions.push(AppendCondition { fail_if_events_match, after: Position::ZERO });
        }
        Ok(Encoded { events, conditions, decision })
    }

    /// The answer, and a snapshot of the state when one is due.
    async fn executed(
        &self,
        stream: &StreamId,
        mut loaded: Loaded<A>,
        stored: Stored<A>,
    ) -> Executed<A> {
        let position = Some(stored.appended.last);
        if stored.events.is_empty() {
            return Executed { position, ..unchanged(loaded) };
        }
        loaded.version = loaded.version.plus(stored.events.len() as u64);
        if let Some(snapshots) = &self.snapshots {
            self.snapshot_if_due(snapshots, stream, &loaded, &stored).await;
        }
        Executed { state: loaded.state, version: loaded.version, position, events: stored.events }
    }

    /// Takes a snapshot of a state that was just stored. Documents that don't answer must not
    /// withhold the answer to the command for long.
    async fn snapshot_if_due(
        &self,
        snapshots: &Snapshots<A>,
        stream: &StreamId,
        loaded: &Loaded<A>,
        stored: &Stored<A>,
    ) {
        let now = self.kernel.clock().now();
        let is_due = snapshots.policy().is_due(&loaded.since, loaded.version, now);
        let (Some(id), Some(lineage)) = (stored.last.filter(|_| is_due), loaded.lineage) else {
            return;
        };
        // The aggregate's events are the batch's first; what rode along is behind them.
        let last = stored.appended.first.plus(stored.events.len() as u64 - 1);
        let identity = (id, stored.appended.recorded_at);
        let header = SnapshotHeader::new(lineage, (loaded.version, last), identity, now);
        tokio::select! {
            biased;
            () = snapshots.save(stream, header, &loaded.state) => {}
            () = self.kernel.clock().sleep(SNAPSHOT_WAIT_MAX) => snapshots.stats().count_failed(),
        }
    }

    /// Erases an aggregate: its events and its snapshots. It begins anew with the next command;
    /// deleting what is not there does nothing.
    ///
    /// # Errors
    /// `Conflict` if it is not as expected, else the store's. If only the snapshots are left, run
    /// it again.
    pub async fn delete(
        &self,
        key: &str,
        expected: ExpectedVersion,
    ) -> Result<StreamInfo, ExecuteError<Infallible>> {
        let stream = self.stream(key)?;
        let change = StreamChange::Delete(expected);
        let info = self.kernel.events().change(&stream, change).await.map_err(failure)?;
        if let Some(snapshots) = &self.snapshots {
            snapshots.clear(&stream).await?;
        }
        Ok(info)
    }

    /// Appends a summary of the state and erases what is before it: the aggregate loads as
    /// before, its older history is gone for good.
    ///
    /// # Errors
    /// `Invalid` for an aggregate without events, or whose [`Aggregate::summary`] is nothing or
    /// not marked as one; else as [`execute`](Self::execute). A failure of the store may come
    /// when the summary is stored already and only the erasing is left: run it again.
    pub async fn summarise(
        &self,
        key: &str,
        metadata: &Metadata,
    ) -> Result<StreamInfo, ExecuteError<Infallible>> {
        let stream = self.stream(key)?;
        let mut attempts = Attempts::new(self.retry);
        loop {
            let loaded = self.load_for(&stream, &mut attempts).await?;
            let decision = Decision::from([summary_of(&stream, &loaded)?]);
            let (batch, _) = self.batch(&stream, loaded.version, decision, metadata)?;
            match self.kernel.append(batch, &mut attempts, |_| true).await {
                Appending::Done(appended) => {
                    let first = appended.versions.first().copied().unwrap_or_default();
                    let change = StreamChange::TruncateBefore(first);
                    let info = self.kernel.events().change(&stream, change).await;
                    return info.map_err(failure);
                }
                Appending::Reload => {}
                Appending::Failed(error) => return Err(failure(error)),
            }
        }
    }
}

/// A decision as it is appended, and with its events as they will be read.
pub(crate) struct Encoded<A: Aggregate> {
    pub(crate) events: Vec<NewEvent>,
    pub(crate) conditions: Vec<AppendCondition>,
    pub(crate) decision: Decision<A>,
}

/// A decision that was stored.
struct Stored<A: Aggregate> {
    appended: Appended,
    /// The id of the aggregate's last event, if it has any.
    last: Option<EventId>,
    events: Vec<A::Event>,
}

/// How long a command that is stored waits for its snapshot to be written.
pub(crate) const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(2);

/// The summary of a state. History must not go for an event that does not stand for it.
fn summary_of<A: Aggregate>(stream: &StreamId, loaded: &Loaded<A>) -> Result<A::Event, StoreError> {
    let problem = match loaded.state.summary() {
        _ if loaded.last.is_none() => "there are no events to summarise",
        None => "the aggregate defines no summary",
        Some(event) if event.is_summary() => return Ok(event),
        Some(_) => "the summary's variant is not marked #[event(summary)]",
    };
    Err(StoreError::invalid(format!("{problem}: stream={stream}")))
}
