//! An aggregate that stays in memory: commands decided one after another, stored together.
//!
//! This is `execute` in pieces, for whoever keeps states between commands. What it leaves to the
//! caller: when to load, what to do with the answers, and to drop a draft that was not stored.

use std::sync::Arc;

use crate::{
    aggregate::Aggregate,
    batch::AppendBatch,
    encoder::{Encoded, Encoder},
    error::StoreError,
    event::NewEvent,
    execution::{ExecuteError, Executed},
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
    tag::Tag,
    version::StreamVersion,
};

/// A loaded aggregate, with what was decided on it and is not stored yet.
///
/// Events of several commands are stored in one append, all or nothing; each keeps its own id and
/// metadata.
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
    /// The log that `stored` is a version in.
    store: Arc<dyn EventStore>,
    stream: StreamId,
    loaded: Loaded<A>,
    /// The version of what is stored; the loaded one counts the draft's events too.
    stored: StreamVersion,
    events: Vec<NewEvent>,
    bytes: usize,
    guards: Vec<(AppendCondition, A::Rejection)>,
    /// So many answers rest on it since it began.
    answers: usize,
}

/// What became of a command.
#[derive(Debug)]
pub enum Drafted<A: Aggregate> {
    /// These events of it are in the draft; none: there was nothing to do.
    Taken(Vec<A::Event>),
    /// It doesn't go with what was decided since the draft began: settle that, and decide it
    /// again. A command with guards goes alone, because a guard that fails refuses all that it is
    /// stored with, and what was answered from the state behind it.
    PutOff,
}

/// What was found behind a loaded aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing: the state is the stored one.
    Empty,
    /// Others had appended; the state has it now.
    Folded,
}

impl<A: Aggregate> Repository<A> {
    /// Loads an aggregate to be kept in memory: waits and tries again while the store is
    /// unavailable.
    ///
    /// # Errors
    /// `Invalid` for a stream of another category, else see [`LoadError`].
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
    /// The state behind the draft's events.
    pub fn state(&self) -> &A {
        &self.loaded.state
    }

    /// Begins anew to count the answers that rest on the draft, which must be empty.
    pub fn begin(&mut self) {
        debug_assert!(self.events.is_empty(), "what is drafted is stored first");
        self.answers = 0;
    }

    /// The draft itself, for an answer to be made of its state; `None`: put it off, as
    /// [`Drafted::PutOff`] says.
    pub fn look(&mut self) -> Option<&Self> {
        self.answers += 1;
        self.guards.is_empty().then_some(&*self)
    }

    /// Its stream.
    pub fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The version behind the draft's events.
    pub fn version(&self) -> StreamVersion {
        self.loaded.version
    }

    /// The position of its last stored event.
    pub fn position(&self) -> Position {
        self.loaded.position
    }

    /// The version of the newest snapshot that is known of; 0: none.
    pub fn snapshot_version(&self) -> StreamVersion {
        self.loaded.since.taken_at.map_or(StreamVersion::ZERO, |_| self.loaded.since.version)
    }

    /// How many events are not stored yet.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// A copy of the state, and how far it is.
    pub fn loaded(&self) -> Loaded<A>
    where
        A: Clone,
    {
        self.loaded.clone()
    }

    /// Decides a command on the state behind the draft's events, and adds what it decided.
    ///
    /// # Errors
    /// `Rejected`, `Encode`, or `Store` with `Invalid` for a repository of another store than the
    /// draft's; the draft is as before then.
    ///
    /// # Panics
    /// If `decide` or `evolve` does. The draft must be dropped then.
    pub fn decide(
        &mut self,
        repository: &Repository<A>,
        command: &A::Command,
        metadata: &Metadata,
    ) -> Result<Drafted<A>, ExecuteError<A::Rejection>> {
        self.decide_tagged(repository, command, metadata, None)
    }

    /// [`decide`](Self::decide), and puts one more tag on each of the command's events:
    /// [`Repository::tagged`] finds them by it.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    ///
    /// # Panics
    /// As [`decide`](Self::decide).
    pub fn decide_tagged(
        &mut self,
        repository: &Repository<A>,
        command: &A::Command,
        metadata: &Metadata,
        tag: Option<&Tag>,
    ) -> Result<Drafted<A>, ExecuteError<A::Rejection>> {
        self.check(repository)?;
        if !self.guards.is_empty() {
            return Ok(Drafted::PutOff);
        }
        let encoder = Encoder::new(repository.kernel(), metadata).with_tag(tag);
        let is_first = self.answers == 0;
        self.answers += 1;
        let cx = encoder.context(self.stream.key(), self.loaded.version);
        let decision = self.loaded.state.decide(command, &cx).map_err(ExecuteError::Rejected)?;
        if !is_first && !decision.events.is_empty() && !decision.guards.is_empty() {
            return Ok(Drafted::PutOff);
        }
        Ok(self.take(repository, encoder.encode(decision)?))
    }

    /// Adds what was decided on the draft's state, if there is room.
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

    /// Stores the draft's events, at the version that was loaded. Repeats what is unknown or
    /// finds the store unavailable. The draft must hold an event.
    ///
    /// # Errors
    /// `Rejected` by a guard, `Conflict`, `Indeterminate` or `Store`. The draft must be dropped
    /// then. `Invalid` for a repository of another store than the draft's: then it is as before.
    ///
    /// # Panics
    /// If the draft was not stored before and is used all the same.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have stored the events; drop the draft too.
    pub async fn commit(
        &mut self,
        repository: &Repository<A>,
        attempts: &mut Attempts,
    ) -> Result<Committing, ExecuteError<A::Rejection>> {
        Ok(self.commit_along(repository, AppendBatch::new(), attempts).await?)
    }

    /// [`commit`](Self::commit), with a batch of the caller's behind the draft's events. A draft
    /// without events checks its stream.
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
            // The draft's events are the batch's first; what rode along is behind them.
            self.loaded.stored(last, appended.first.plus(count - 1), appended.recorded_at);
            (self.stored, self.bytes) = (self.loaded.version, 0);
        }
        Ok(committing)
    }

    /// What came of the one command that was decided: these events, stored up to this position.
    pub(crate) fn into_executed(
        self,
        position: Option<Position>,
        events: Vec<A::Event>,
    ) -> Executed<A> {
        let Loaded { state, version, .. } = self.loaded;
        Executed { state, version, position, events }
    }

    /// Folds what others have appended since; waits and tries again while the store is
    /// unavailable. The draft must be empty. A log that is another one, or another history, is
    /// loaded from its beginning; the draft belongs to the repository's log from then on.
    ///
    /// # Errors
    /// See [`LoadError`]. The draft must be dropped then.
    ///
    /// # Cancel safety
    /// Drop the draft with the future.
    pub async fn catch_up(
        &mut self,
        repository: &Repository<A>,
        attempts: &mut Attempts,
    ) -> Result<Tail, LoadError> {
        debug_assert!(self.events.is_empty(), "what is not stored has nothing behind it");
        self.store.clone_from(repository.kernel().events());
        // The last event is read once more: it tells whether this is still the same history.
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
            // What was folded is gone with the failed read.
            Err(LoadError::Store(_)) => repository.load_for(&self.stream, attempts).await?,
            folded => folded?,
        };
        self.stored = self.loaded.version;
        Ok(Tail::Folded)
    }

    /// Takes a snapshot of the stored state where the repository keeps them and one is due. A
    /// cache: what goes wrong is counted, and the next one is due in its turn.
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
        let at = (last.version, last.position);
        let identity = (last.id, last.recorded_at);
        let header = SnapshotHeader::new(lineage, at, identity, now);
        tokio::select! {
            biased;
            () = snapshots.save(&self.stream, header, &self.loaded.state) => {}
            () = clock.sleep(SNAPSHOT_WAIT_MAX) => snapshots.stats().count_failed(),
        }
        self.loaded.since = Since { version: last.version, at: Some(now), taken_at: Some(now) };
    }

    /// Refuses a repository of another log: the draft's version says nothing of that one.
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
