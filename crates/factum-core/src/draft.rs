//! An aggregate that stays in memory: commands decided one after another, stored together.
//!
//! This is `execute` in pieces, for whoever keeps states between commands. What it leaves to the
//! caller: when to load, what to do with the answers, and to drop a draft that was not stored.

use std::sync::Arc;

use crate::{
    aggregate::{Aggregate, Context, fold},
    batch::{AppendBatch, Appended},
    error::{AppendError, StoreError},
    event::NewEvent,
    execution::{ExecuteError, failure},
    load::{At, Folding, LoadError, Loaded},
    metadata::Metadata,
    position::Position,
    query::AppendCondition,
    read::{ReadFrom, ReadQuery},
    recorded::EventHeader,
    repository::{Encoded, Repository, SNAPSHOT_WAIT_MAX},
    retry::{Appending, Attempts},
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
/// use factum_core::{Attempts, Committing, Drafted, Metadata, Repository, RetryPolicy};
/// use factum_testing::bank::{Account, AccountCommand};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_core::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_core::TagKey::new([1; 32]));
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

/// What became of a draft.
#[derive(Debug)]
#[must_use]
pub enum Committing {
    /// It is stored; the draft is empty, and its state is the stored one.
    Stored(Appended),
    /// Others were first, nothing is stored: drop the draft, load and decide again. The pause is
    /// over.
    Overtaken,
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
    /// A rejection, an event or a guard that can't be written down, or `Invalid` for a repository
    /// of another store than the draft's; the draft is as before then.
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
        let is_first = self.answers == 0;
        self.answers += 1;
        let kernel = repository.kernel();
        let now = kernel.clock().now();
        let cx = Context::new(self.stream.key(), self.loaded.version, now, metadata);
        let decision = self.loaded.state.decide(command, &cx).map_err(ExecuteError::Rejected)?;
        if decision.events.is_empty() {
            return Ok(Drafted::Taken(Vec::new()));
        }
        if !is_first && !decision.guards.is_empty() {
            return Ok(Drafted::PutOff);
        }
        let encoded = repository.encode(decision, metadata, now)?;
        let Encoded { mut events, conditions, decision } = encoded;
        if let Some(tag) = tag {
            events.iter_mut().for_each(|event| event.tags.push(tag.clone()));
        }
        let id_bytes = self.stream.as_str().len();
        let bytes = self.bytes + events.iter().map(|it| it.size() + id_bytes).sum::<usize>();
        let limits = kernel.events().guarantees().limits;
        let is_full = self.events.len() + events.len() > limits.batch_events_max
            || bytes > limits.batch_bytes_max;
        if is_full && !self.events.is_empty() {
            return Ok(Drafted::PutOff);
        }
        decision.events.iter().for_each(|event| fold(&mut self.loaded.state, event));
        self.loaded.version = self.loaded.version.plus(events.len() as u64);
        self.bytes = bytes;
        self.events.extend(events);
        let rejections = decision.guards.into_iter().map(|(_, rejection)| rejection);
        self.guards.extend(conditions.into_iter().zip(rejections));
        Ok(Drafted::Taken(decision.events))
    }

    /// Stores the draft's events, at the version that was loaded. Repeats what is unknown or
    /// finds the store unavailable. The draft must hold an event.
    ///
    /// # Errors
    /// A guard's rejection, else see [`ExecuteError`]. The draft must be dropped then.
    /// `Invalid` for a repository of another store than the draft's: then it is as before.
    ///
    /// # Cancel safety
    /// A dropped future may or may not have stored the events; drop the draft too.
    pub async fn commit(
        &mut self,
        repository: &Repository<A>,
        attempts: &mut Attempts,
    ) -> Result<Committing, ExecuteError<A::Rejection>> {
        self.check(repository)?;
        let events = std::mem::take(&mut self.events);
        let last = events.last().map(|event| (event.id, event.schema_version, event.content));
        let (conditions, mut rejections): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.guards).into_iter().unzip();
        let batch = AppendBatch::new().write(self.stream.clone(), self.stored, events);
        let batch = conditions.into_iter().fold(batch, AppendBatch::unless);
        match repository.kernel().append(batch, attempts, |_| true).await {
            Appending::Done(appended) => {
                let recorded_at = appended.recorded_at;
                self.loaded.last = last.map(|(id, schema_version, content)| EventHeader {
                    position: appended.last,
                    version: self.loaded.version,
                    recorded_at,
                    id,
                    schema_version,
                    content,
                });
                self.loaded.position = appended.last;
                self.loaded.since.at = self.loaded.since.at.or(Some(recorded_at));
                (self.stored, self.bytes) = (self.loaded.version, 0);
                Ok(Committing::Stored(appended))
            }
            Appending::Reload => Ok(Committing::Overtaken),
            Appending::Failed(AppendError::ConditionFailed { condition, .. })
                if condition < rejections.len() =>
            {
                Err(ExecuteError::Rejected(rejections.swap_remove(condition)))
            }
            Appending::Failed(error) => Err(failure(error)),
        }
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
        let mut page = loop {
            match kernel.events().read(query.clone()).await {
                Ok(page) => break page,
                Err(error) => match attempts.after_failed_load(&error) {
                    Some(pause) => kernel.pause(pause).await,
                    None => return Err(error.into()),
                },
            }
        };
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
        let (at, identity) = ((last.version, last.position), (last.id, last.recorded_at));
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
