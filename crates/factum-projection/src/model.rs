//! Read models in documents, as readers query them.

mod change;
mod error;
mod query;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use factum_consumer::{ConsumerName, InvalidConsumerName, StopCause, StopReason, WaitError};
use factum_kernel::{Cbor, Codec, CodecError, Kernel, Position, ScanPage, StoreError};
use serde::de::DeserializeOwned;

use crate::{
    document_key::check_key,
    documents::{Documents, declared_indexes, documents_prefix},
    maintain::{Maintained, Targets, stored_divergence, stored_reach},
    model_build::{Build, Builds, REFRESH, StoredBuilds},
};

pub use change::{ModelChange, ModelChanges};
pub use error::QueryError;
pub use query::{Continuation, DOCUMENTS_MAX, DOCUMENTS_MAX_DEFAULT, ModelPage, ModelQuery};

/// The number of attempts at a read, if its build is dropped during the read.
const RESOLVES_MAX: usize = 8;
/// The number of reads of the stored position in each [`REFRESH`] while a caller waits.
const LOOKS: u32 = 20;

/// The choice of a reader when the read model has not reached the requested position in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Return an error.
    Fail,
    /// Return the read model as it is.
    Serve,
}

/// The outcome of a wait: whether the read model has reached the requested position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Freshness {
    /// It has reached the position.
    Fresh,
    /// It is behind the position, and the reader accepts that.
    Stale,
}

/// The documents of a read model, in the program that maintains it or in any other. Cheap to clone.
///
/// It reads the serving build, and notices within a second that another process has swapped in a
/// new one. A page shows one moment of one build. A reader never loses what it has seen, as
/// [`Maintained`] says.
///
/// While an older version serves, its documents may have another shape:
/// [`with_earlier`](Self::with_earlier) converts them.
///
/// ```
/// use std::time::Duration;
/// use factum_consumer::{ConsumerOptions, Consumers};
/// use factum_projection::{
///     Documents, Index, IndexRange, ModelQuery, ProjectionFn, Projections, Stale,
/// };
/// use factum_testing::bank::{Account, AccountCommand, AccountEvent};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = std::sync::Arc::new(factum_memory::MemoryStore::new());
/// # let kernel = factum_kernel::Kernel::new(store.clone(), store);
/// # let kernel = kernel.with_tag_key(factum_kernel::TagKey::new([1; 32]));
/// # let accounts = factum_kernel::Repository::<Account>::new(kernel.clone());
/// let owners = ProjectionFn::<_, Documents, _>::new("owners", 1, |event, recorded, documents| {
///     match event {
///         AccountEvent::Opened { owner, .. } => documents.put(recorded.stream().key(), &owner),
///         _ => Ok(()),
///     }
/// });
/// let documents = kernel.clone();
/// let target = move |_: &_| {
///     Documents::new(&documents)
///         .with_index(Index::new("owner", |owner: &String| [owner.as_str().into()]))
/// };
/// let owners =
///     Consumers::new(kernel).maintain_fn(owners, target, ConsumerOptions::new()).await?;
///
/// let email = "ada@example.org".to_owned();
/// let open = AccountCommand::Open { owner: "Ada".into(), email };
/// let position = accounts.execute("a1", &open).await?.position.expect("it is an event");
///
/// let owners = owners.read_model::<String>();
/// let _ = owners.wait_for(position, Duration::from_secs(5), Stale::Fail).await?;
/// assert_eq!(owners.get("a1").await?.as_deref(), Some("Ada"));
/// let page = owners.list(ModelQuery::index("owner", IndexRange::equal("Ada"))).await?;
/// assert_eq!(page.documents, [("a1".to_owned(), "Ada".to_owned())]);
/// # Ok(()) }
/// ```
pub struct ReadModel<T> {
    stored: Arc<StoredBuilds>,
    /// The projection, if this process maintains it.
    maintained: Option<Maintained<Documents>>,
    earlier: Vec<(u32, Arc<Convert<T>>)>,
    /// The declared indexes of the build that was queried last.
    indexes: Arc<Mutex<Option<DeclaredOf>>>,
}

type Convert<T> = dyn Fn(&[u8]) -> Result<T, CodecError> + Send + Sync;
type DeclaredOf = (Build, Arc<BTreeSet<String>>);

impl Maintained<Documents> {
    /// The documents that this projection maintains.
    pub fn read_model<T: DeserializeOwned>(&self) -> ReadModel<T> {
        ReadModel::of(self.stored().clone(), Some(self.clone()))
    }

    /// The changes of the documents that readers see, from now on.
    pub fn changes<T: DeserializeOwned>(&self) -> ModelChanges<T> {
        ModelChanges::new(self)
    }
}

impl<T: DeserializeOwned> ReadModel<T> {
    /// The documents of the projection with this name, which any process may maintain.
    ///
    /// # Errors
    /// A name that is invalid.
    pub fn new(kernel: &Kernel, projection: &str) -> Result<Self, InvalidConsumerName> {
        let name = ConsumerName::new(projection)?;
        Ok(Self::elsewhere(StoredBuilds::new(kernel.clone(), name)))
    }

    /// The documents of a projection that another process maintains.
    pub(crate) fn elsewhere(stored: StoredBuilds) -> Self {
        Self::of(Arc::new(stored), None)
    }

    fn of(stored: Arc<StoredBuilds>, maintained: Option<Maintained<Documents>>) -> Self {
        Self { stored, maintained, earlier: Vec::new(), indexes: Arc::default() }
    }

    /// Reads the documents as `Old` while this older version serves, and converts them.
    #[must_use]
    pub fn with_earlier<Old: DeserializeOwned>(
        mut self,
        version: u32,
        convert: impl Fn(Old) -> T + Send + Sync + 'static,
    ) -> Self {
        let convert = move |bytes: &[u8]| Cbor::decode::<Old>(bytes).map(&convert);
        self.earlier.push((version, Arc::new(convert)));
        self
    }

    /// The document with this key.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn get(&self, key: &str) -> Result<Option<T>, QueryError> {
        if check_key(key).is_err() {
            return Ok(None);
        }
        for _ in 0..RESOLVES_MAX {
            let build = self.builds().await?.serving;
            let prefix = documents_prefix(&self.consumer(build));
            let at = format!("{prefix}{key}");
            let found = self.stored.kernel().documents().get(at.as_bytes()).await?;
            if self.builds().await?.keeps(build) {
                let value = found.map(|document| self.decode(build, key, &document.value));
                return value.transpose();
            }
        }
        Err(self.replaced())
    }

    /// Returns a page of documents: all, those whose keys begin with a prefix, or those of an
    /// index. A page shows one moment; a document that changes between two pages may be missing or
    /// appear twice.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn list(&self, query: ModelQuery) -> Result<ModelPage<T>, QueryError> {
        for _ in 0..RESOLVES_MAX {
            let builds = self.builds().await?;
            let build = match query.continued_in() {
                Some(build) if builds.keeps(build) => build,
                Some(_) => break,
                None => builds.serving,
            };
            let consumer = self.consumer(build);
            if let Some(index) = query.index_name()
                && !self.has_index(build, index).await?
            {
                return Ok(ModelPage { documents: Vec::new(), next: None });
            }
            let scan = query.scan(&consumer);
            let page = self.stored.kernel().documents().scan(scan).await?;
            if self.builds().await?.keeps(build) {
                return self.page(&query, build, page);
            }
        }
        Err(self.replaced())
    }

    fn page(
        &self,
        query: &ModelQuery,
        build: Build,
        page: ScanPage,
    ) -> Result<ModelPage<T>, QueryError> {
        let prefix = query.base(&self.consumer(build));
        let next = page.rest.as_ref().and(page.documents.last());
        let next = next.map(|last| Continuation::new(build, &last.key[prefix.len()..]));
        let mut documents = Vec::with_capacity(page.documents.len());
        for document in &page.documents {
            let key = query
                .document_key(&document.key[prefix.len()..])
                .map_err(|text| QueryError::Store(StoreError::corrupt(text)))?;
            let value = self.decode(build, &key, &document.value)?;
            documents.push((key, value));
        }
        Ok(ModelPage { documents, next })
    }

    /// Waits until the documents that readers see contain every event up to this position. To read
    /// the effects of a command, pass the position that its execution returned. If another process
    /// maintains the read model, only its stored progress counts, so events that the projection
    /// does not handle count late.
    ///
    /// # Errors
    /// With [`Stale::Fail`] the errors of [`Maintained::wait_for`]; with [`Stale::Serve`] none.
    pub async fn wait_for(
        &self,
        position: Position,
        timeout: Duration,
        stale: Stale,
    ) -> Result<Freshness, WaitError> {
        let come = match &self.maintained {
            Some(maintained) => maintained.wait_for(position, timeout).await,
            None => self.wait_elsewhere(position, timeout).await,
        };
        match (come, stale) {
            (Ok(()), _) => Ok(Freshness::Fresh),
            (Err(_), Stale::Serve) => Ok(Freshness::Stale),
            (Err(error), Stale::Fail) => Err(error),
        }
    }

    async fn wait_elsewhere(&self, position: Position, timeout: Duration) -> Result<(), WaitError> {
        let kernel = self.stored.kernel();
        let clock = kernel.clock();
        let of = kernel.clone();
        let targets: Targets<Documents> = Arc::new(move |_| Documents::new(&of));
        let mut reached = Position::ZERO;
        let mut consumer = self.stored.name().clone();
        let come = async {
            loop {
                // An error of the store is ignored: the next round asks again.
                if let Ok(builds) = self.builds().await {
                    consumer = self.consumer(builds.serving);
                    let partitions = builds.partitions(builds.serving);
                    let found = stored_reach(kernel, &targets, &consumer, partitions).await;
                    if let Ok(found) = found {
                        reached = found.position;
                        if found.reaches(position, &consumer)?
                            && let Ok(diverged) =
                                stored_divergence(kernel, &targets, &consumer, partitions).await
                        {
                            let Some(diverged) = diverged else { return Ok(()) };
                            let reason = StopReason::Diverged(StopCause::new(diverged));
                            return Err(WaitError::Stopped { consumer: consumer.clone(), reason });
                        }
                    }
                }
                clock.sleep(REFRESH / LOOKS).await;
            }
        };
        let come = tokio::select! {
            biased;
            come = come => Some(come),
            () = clock.sleep(timeout) => None,
        };
        come.unwrap_or_else(|| {
            Err(WaitError::Behind { consumer, position, reached, waited: timeout })
        })
    }

    async fn builds(&self) -> Result<Arc<Builds>, QueryError> {
        let builds = self.stored.current().await?;
        builds.ok_or_else(|| QueryError::NotStarted(self.stored.name().clone()))
    }

    fn consumer(&self, build: Build) -> ConsumerName {
        build.consumer(self.stored.name())
    }

    /// Returns true if a build has the index, false if the build has not begun, and an error if the
    /// build was made without it.
    async fn has_index(&self, build: Build, index: &str) -> Result<bool, QueryError> {
        let cached = self.indexes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if cached.is_some_and(|(of, names)| of == build && names.contains(index)) {
            return Ok(true);
        }
        let documents = self.stored.kernel().documents();
        let consumer = self.consumer(build);
        let has_begun = Documents::has_begun(documents, &consumer).await?;
        let names = Arc::new(declared_indexes(documents, &consumer).await?);
        let is_there = names.contains(index);
        *self.indexes.lock().unwrap_or_else(PoisonError::into_inner) = Some((build, names));
        match is_there || !has_begun {
            true => Ok(is_there),
            false => {
                let index = index.into();
                Err(QueryError::NoIndex { projection: self.stored.name().clone(), build, index })
            }
        }
    }

    fn decode(&self, build: Build, key: &str, bytes: &[u8]) -> Result<T, QueryError> {
        let earlier = self.earlier.iter().find(|(version, _)| *version == build.version);
        let value = match earlier {
            Some((_, convert)) => convert(bytes),
            None => Cbor::decode(bytes),
        };
        value.map_err(|error| {
            let projection = self.stored.name().clone();
            let key = key.into();
            QueryError::Decode { projection, build, key, error }
        })
    }

    fn replaced(&self) -> QueryError {
        QueryError::Replaced(self.stored.name().clone())
    }
}

impl<T> Clone for ReadModel<T> {
    fn clone(&self) -> Self {
        Self {
            stored: self.stored.clone(),
            maintained: self.maintained.clone(),
            earlier: self.earlier.clone(),
            indexes: self.indexes.clone(),
        }
    }
}

impl<T> fmt::Debug for ReadModel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadModel").field("projection", self.stored.name()).finish_non_exhaustive()
    }
}
