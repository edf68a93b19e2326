//! An aggregate that stays in memory: it decides commands one after another and stores them
//! together.
//!
//! A draft offers the parts of `execute` separately, for callers that keep states between commands.
//! The caller decides when to load, answers its own callers, and drops a draft whose append failed.

use std::sync::Arc;

use crate::{
    aggregate::Aggregate,
    batch::AppendBatch,
    encoder::{Encoded, Encoder},
    error::{StoreError, VersionConflict},
    event::NewEvent,
    execution::{ExecuteError, Executed},
    identity::Once,
    load::{At, Folding, Last, LoadError, Loaded},
    metadata::Metadata,
    position::Position,
    proposal::{Committing, Proposal, Unsent},
    query::AppendCondition,
    read::{ReadFrom, ReadQuery},
    repository::{Repository, SNAPSHOT_WAIT_MAX},
    retry::Attempts,
    snapshot::{Since, SnapshotHeader},
    store::EventStore,
    stream::StreamId,
    version::StreamVersion,
};

/// A loaded aggregate with decided events that are not stored yet.
///
/// The events of several commands are stored in one append, all or nothing. Each command has its
/// own event ids and metadata.
///
/// ```
/// use factum_kernel::{Attempts, Committing, Drafted, Metadata, Repository, RetryPolicy};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = Repository::<Account>::new(kernel);
/// # let email = "ada@example.org".to_owned();
/// # accounts.execute("ada", &AccountCommand::Open { owner: "Ada".into(), email }).await?;
/// let mut attempts = Attempts::new(RetryPolicy::new());
/// let mut ada = accounts.draft(&accounts.stream("ada")?, &mut attempts).await?;
/// for cents in [300, 200] {
///     let drafted = ada.decide(&accounts, &AccountCommand::Deposit { cents }, &Metadata::new())?;
///     assert!(matches!(drafted, Drafted::Taken(events) if events.len() == 1));
/// }
/// let Committing::Stored(_) = ada.commit(&accounts, &mut attempts).await? else { panic!() };
/// assert_eq!(ada.state().balance_cents, 500);
/// assert_eq!(accounts.load("ada").await?.version, ada.version());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Draft<A: Aggregate> {
    /// The log that contains the version `stored`.
    store: Arc<dyn EventStore>,
    stream: StreamId,
    loaded: Loaded<A>,
    /// The version up to which the events are stored. The version in `loaded` includes the draft's
    /// events.
    stored: StreamVersion,
    events: Vec<NewEvent>,
    bytes: usize,
    guards: Vec<(AppendCondition, A::Rejection)>,
    /// The number of answers since `begin` that are based on the draft.
    answers: usize,
}

/// The result of deciding a command.
#[derive(Debug)]
pub enum Drafted<A: Aggregate> {
    /// The command is decided. The draft contains its events, which may be none.
    Taken(Vec<A::Event>),
    /// The command can't join the decisions since `begin`: commit them, and decide it again.
    /// Reasons: the batch is full, or the command has guards. A command with guards must be alone,
    /// because a failed guard refuses the whole batch and makes answers from the later state wrong.
    PutOff,
}

/// The result of comparing a draft with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The state is that of the log.
    Empty,
    /// Other writers had appended. Their events are folded into the state now.
    Folded,
}

impl<A: Aggregate> Repository<A> {
    /// Loads an aggregate to keep it in memory. While the store is unavailable, waits and tries
    /// again.
    ///
    /// # Errors
    /// `Invalid` if the stream has another category, else see [`LoadError`].
    pub async fn draft(
        &self,
        stream: &StreamId,
        attempts: &mut Attempts,
    ) -> Result<Draft<A>, LoadError> {
        if stream.category() != A::CATEGORY {
            let message = format!(
                "the stream is not one of this aggregate, take it from Repository::stream: \
                 stream={stream} category={}",
                A::CATEGORY
            );
            return Err(StoreError::invalid(message).into());
        }
        let loaded = self.load_for(stream, attempts).await?;
        Ok(Draft {
            store: self.kernel().events().clone(),
            stored: loaded.version,
            stream: stream.clone(),
            loaded,
            events: Vec::new(),
            bytes: 0,
            guards: Vec::new(),
            answers: 0,
        })
    }
}

impl<A: Aggregate> Draft<A> {
    /// The state after the draft's events.
    pub fn state(&self) -> &A {
        &self.loaded.state
    }

    /// Resets the number of answers that are based on the draft. The draft must have no events.
    pub fn begin(&mut self) {
        debug_assert!(self.events.is_empty(), "the draft's events are stored first");
        self.answers = 0;
    }

    /// The draft, to compute an answer from its state. `None` if the answer must wait for the
    /// commit, as for [`Drafted::PutOff`].
    pub fn look(&mut self) -> Option<&Self> {
        self.answers += 1;
        self.guards.is_empty().then_some(&*self)
    }

    /// The draft's stream.
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The version after the draft's events.
    pub fn version(&self) -> StreamVersion {
        self.loaded.version
    }

    /// The conflict of the draft with a version that a writer expects, if there is one.
    pub fn conflict(&self, expected: StreamVersion) -> Option<VersionConflict> {
        self.loaded.bounds().conflict(&self.stream, expected.into())
    }

    /// The position of the last stored event.
    pub fn position(&self) -> Position {
        self.loaded.position
    }

    /// The version of the newest known snapshot; 0 if none is known.
    pub fn snapshot_version(&self) -> StreamVersion {
        self.loaded.since.taken_at.map_or(StreamVersion::ZERO, |_| self.loaded.since.version)
    }

    /// The number of events that are not stored yet.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// A copy of the state with its version and position.
    pub fn loaded(&self) -> Loaded<A>
    where
        A: Clone,
    {
        self.loaded.clone()
    }

    /// Decides a command on the state after the draft's events, and adds the command's events.
    ///
    /// # Errors
    /// `Rejected`, `Encode`, or `Store` with `Invalid` if the repository is of another store than
    /// the draft. The draft is unchanged after an error.
    ///
    /// # Panics
    /// If `decide` or `evolve` panics. The draft must be dropped then.
    pub fn decide(
        &mut self,
        repository: &Repository<A>,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Result<Drafted<A>, ExecuteError<A::Rejection>> {
        self.decide_once(repository, command, metadata, None)
    }

    /// Like [`decide`](Self::decide), for a command with an id. Its events get the id's tag, by
    /// which [`Kernel::tagged`](crate::Kernel::tagged) finds them, and the first one says which
    /// command the id names.
    ///
    /// # Errors
    /// See [`decide`](Self::decide).
    ///
    /// # Panics
    /// See [`decide`](Self::decide).
    pub fn decide_once(
        &mut self,
        repository: &Repository<A>,
        command: &A::Command,
        metadata: &Metadata,
        once: Option<&Once>,
    ) -> Result<Drafted<A>, ExecuteError<A::Rejection>> {
        self.check(repository)?;
        if !self.guards.is_empty() {
            return Ok(Drafted::PutOff);
        }
        let encoder = Encoder::new(repository.kernel(), metadata).with_tag(once.map(Once::tag));
        let is_first = self.answers == 0;
        self.answers += 1;
        let cx = encoder.context(self.stream.key(), self.loaded.version);
        let decision = self.loaded.state.decide(command, &cx).map_err(ExecuteError::Rejected)?;
        if !is_first && !decision.events.is_empty() && !decision.guards.is_empty() {
            return Ok(Drafted::PutOff);
        }
        let mut encoded = encoder.encode(decision)?;
        if let (Some(once), Some(first)) = (once, encoded.events.first_mut()) {
            once.sign(first, repository.kernel().tag_key());
        }
        Ok(self.take(repository, encoded))
    }

    /// Adds the events and guards of a decision, if the batch has room.
    fn take(&mut self, repository: &Repository<A>, encoded: Encoded<A>) -> Drafted<A> {
        let id_bytes = self.stream.as_str().len();
        let sizes = encoded.events.iter().map(|event| event.size() + id_bytes);
        let bytes = self.bytes + sizes.sum::<usize>();
        let limits = repository.kernel().events().guarantees().limits;
        let is_full = self.events.len() + encoded.events.len() > limits.batch_events_max
            || bytes > limits.batch_bytes_max;
        if is_full && !self.events.is_empty() && !encoded.events.is_empty() {
            return Drafted::PutOff;
        }
        encoded.fold(&mut self.loaded);
        let Encoded { events, read, guards } = encoded;
        self.bytes = bytes;
        self.events.extend(events);
        self.guards.extend(guards);
        Drafted::Taken(read)
    }

    /// Appends the draft's events at the loaded version. Repeats the append while its outcome is
    /// unknown or the store is unavailable. The draft must have an event.
    ///
    /// # Errors
    /// `Rejected` by a guard, `Conflict`, `Indeterminate` or `Store`: the draft must be dropped.
    /// `Invalid` if the repository is of another store than the draft: the draft is unchanged.
    ///
    /// # Panics
    /// If an earlier commit of this draft failed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the events may be stored or not. Drop the draft too.
    pub async fn commit(
        &mut self,
        repository: &Repository<A>,
        attempts: &mut Attempts,
    ) -> Result<Committing, ExecuteError<A::Rejection>> {
        Ok(self.commit_along(repository, AppendBatch::new(), attempts).await?)
    }

    /// Like [`commit`](Self::commit), with a batch of the caller's after the draft's events. If the
    /// draft has no events, its stream's version is checked.
    pub(crate) async fn commit_along(
        &mut self,
        repository: &Repository<A>,
        along: AppendBatch,
        attempts: &mut Attempts,
    ) -> Result<Committing, Unsent<A::Rejection>> {
        self.check(repository)?;
        let mut proposal = Proposal::new();
        let stream = proposal.stream(self.stream.clone(), self.stored.into());
        let last = self.events.last().map(Last::of);
        let count = self.events.len() as u64;
        let is_whole = count == 0 || self.loaded.version == self.stored.plus(count);
        assert!(is_whole, "a draft that was not stored is dropped: its state holds lost events");
        proposal.add(stream, std::mem::take(&mut self.events));
        for (condition, rejection) in std::mem::take(&mut self.guards) {
            proposal.guard(condition, rejection);
        }
        let committing = proposal.send(along, repository.kernel(), attempts).await?;
        if let (Committing::Stored(appended), Some(last)) = (&committing, last) {
            // The draft's events are first in the batch; the events of the caller's batch follow.
            self.loaded.stored(last, appended.first.plus(count - 1), appended.recorded_at);
            (self.stored, self.bytes) = (self.loaded.version, 0);
        }
        Ok(committing)
    }

    /// The outcome of the draft's only command, with its events and their last position.
    pub(crate) fn into_executed(
        self,
        position: Option<Position>,
        events: Vec<A::Event>,
    ) -> Executed<A> {
        let Loaded { state, version, .. } = self.loaded;
        Executed { state, version, position, events }
    }

    /// Folds the events that other writers have appended. While the store is unavailable, waits and
    /// tries again. The draft must have no events. If the log or its history is another one, the
    /// aggregate is loaded from the start. After the call the draft belongs to the repository's
    /// log.
    ///
    /// # Errors
    /// See [`LoadError`]. The draft must be dropped then.
    ///
    /// # Cancel safety
    /// If the future is dropped, drop the draft too.
    pub async fn catch_up(
        &mut self,
        repository: &Repository<A>,
        attempts: &mut Attempts,
    ) -> Result<Tail, LoadError> {
        debug_assert!(self.events.is_empty(), "a draft with events is not compared with the log");
        self.store.clone_from(repository.kernel().events());
        // The last event is read again, to check that the history is the same.
        let from = ReadFrom::Version(self.stored.max(StreamVersion::new(1)));
        let query = ReadQuery::stream(self.stream.clone()).from(from);
        let kernel = repository.kernel();
        let read = || kernel.events().read(query.clone());
        let mut page = kernel.patiently(attempts, |error| Some(error), read).await?;
        let bounds = page.bounds.unwrap_or_default();
        let first = page.events.first().filter(|event| event.version() == self.stored);
        let is_ours = match (first, &self.loaded.last) {
            (Some(first), Some(last)) => first.id() == last.id,
            _ => bounds.version >= self.stored,
        };
        let is_same_log = self.loaded.lineage.is_none_or(|lineage| lineage == page.lineage);
        if !(is_ours && is_same_log) {
            self.loaded = repository.load_for(&self.stream, attempts).await?;
            self.stored = self.loaded.version;
            return Ok(Tail::Folded);
        }
        if bounds.version == self.stored {
            return Ok(Tail::Empty);
        }
        if first.is_some() {
            page.events.remove(0);
        }
        let loaded = std::mem::replace(&mut self.loaded, Loaded::nothing());
        let folding = Folding::new(&self.stream, At::Latest, loaded);
        self.loaded = match folding.run(kernel, page).await {
            // The state was lost with the failed read.
            Err(LoadError::Store(_)) => repository.load_for(&self.stream, attempts).await?,
            folded => folded?,
        };
        self.stored = self.loaded.version;
        Ok(Tail::Folded)
    }

    /// Stores a snapshot of the stored state, if the repository has snapshots and one is due. A
    /// failure is only counted, because snapshots are a cache; the next snapshot is stored when it
    /// is due.
    pub async fn snapshot_if_due(&mut self, repository: &Repository<A>) {
        let Some(snapshots) = &repository.snapshots else { return };
        let clock = repository.kernel().clock();
        let now = clock.now();
        let is_due = snapshots.policy().is_due(&self.loaded.since, self.loaded.version, now);
        let (Some(last), Some(lineage)) =
            (self.loaded.last.filter(|_| is_due), self.loaded.lineage)
        else {
            return;
        };
        let header = SnapshotHeader::new(lineage, &last, now);
        tokio::select! {
            biased;
            () = snapshots.save(&self.stream, header, &self.loaded.state) => {}
            () = clock.sleep(SNAPSHOT_WAIT_MAX) => snapshots.stats().count_failed(),
        }
        self.loaded.since = Since { version: last.version, at: Some(now), taken_at: Some(now) };
    }

    /// Refuses a repository of another log, in which the draft's version has no meaning.
    fn check(&self, repository: &Repository<A>) -> Result<(), StoreError> {
        if Arc::ptr_eq(&self.store, repository.kernel().events()) {
            return Ok(());
        }
        Err(StoreError::invalid(format!(
            "the repository is of another store than the draft, use the one that made it: \
             stream={}",
            self.stream
        )))
    }
}
