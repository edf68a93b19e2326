//! Read models in documents, as their readers see them.

mod change;
mod error;
mod query;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use factum_consumer::{ConsumerName, InvalidConsumerName, WaitError};
use factum_kernel::{Cbor, Codec, CodecError, Kernel, Position, ScanPage, StoreError};
use serde::de::DeserializeOwned;

use crate::{
    document_key::check_key,
    documents::{Documents, declared_indexes, documents_prefix},
    maintain::{Maintained, Targets, stored_position},
    model_build::{Build, Builds, REFRESH, StoredBuilds},
};

pub use change::{ModelChange, ModelChanges};
pub use error::QueryError;
pub use query::{Continuation, DOCUMENTS_MAX, DOCUMENTS_MAX_DEFAULT, ModelPage, ModelQuery};

/// How often a read is begun again because what it read was dropped meanwhile.
const RESOLVES_MAX: usize = 8;
/// How often the stored position is looked at in [`REFRESH`] by those who wait for it.
const LOOKS: u32 = 20;

/// What to do when a read model has not come as far as the reader asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// An error.
    Fail,
    /// What there is.
    Serve,
}

/// Whether a read model has come as far as the reader asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Freshness {
    /// It has.
    Fresh,
    /// It is behind, and the reader takes what there is.
    Stale,
}

/// The documents of a read model, from anywhere: beside the projection, or in a program that does
/// not run it. Cheap to clone.
///
/// It reads the serving build; one that takes over in another process is seen within a second. A
/// page is one moment of one build, and what was seen once is seen again, as
/// [`Maintained`] says.
///
/// Where an older version serves still, its documents may have another shape:
/// [`with_earlier`](Self::with_earlier) says how they are read.
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
    /// If this process maintains it.
    maintained: Option<Maintained<Documents>>,
    earlier: Vec<(u32, Arc<Convert<T>>)>,
    /// The indexes of the build that was asked for some last.
    indexes: Arc<Mutex<Option<DeclaredOf>>>,
}

type Convert<T> = dyn Fn(&[u8]) -> Result<T, CodecError> + Send + Sync;
type DeclaredOf = (Build, Arc<BTreeSet<String>>);

impl Maintained<Documents> {
    /// The documents that this projection maintains.
    pub fn read_model<T: DeserializeOwned>(&self) -> ReadModel<T> {
        ReadModel::of(self.stored().clone(), Some(self.clone()))
    }

    /// What changes in the documents that readers see, from now on.
    pub fn changes<T: DeserializeOwned>(&self) -> ModelChanges<T> {
        ModelChanges::new(self)
    }
}

impl<T: DeserializeOwned> ReadModel<T> {
    /// The documents that the projection of this name maintains, in whatever process.
    ///
    /// # Errors
    /// A name that is none.
    pub fn new(kernel: &Kernel, projection: &str) -> Result<Self, InvalidConsumerName> {
        let name = ConsumerName::new(projection)?;
        Ok(Self::elsewhere(StoredBuilds::new(kernel.clone(), name)))
    }

    /// The documents of a projection that is not maintained here.
    pub(crate) fn elsewhere(stored: StoredBuilds) -> Self {
        Self::of(Arc::new(stored), None)
    }

    fn of(stored: Arc<StoredBuilds>, maintained: Option<Maintained<Documents>>) -> Self {
        Self { stored, maintained, earlier: Vec::new(), indexes: Arc::default() }
    }

    /// Reads the documents of an older version, while it serves, as `Old`, and makes them what
    /// they are now.
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

    /// A page of documents: all, those whose keys begin so, or those of an index. What changes
    /// between two pages may be missed or seen twice; a page is one moment.
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

    /// Waits until what readers see holds every event up to this position: the position that an
    /// execution answered, to read what one has written. Where another process maintains the read
    /// model, only what is stored of its progress counts, and events that the projection does not
    /// handle are counted late.
    ///
    /// # Errors
    /// With [`Stale::Fail`] those of [`Maintained::wait_for`]; with [`Stale::Serve`] none.
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
                // A store that can't be reached for a while is asked again.
                if let Ok(builds) = self.builds().await {
                    consumer = self.consumer(builds.serving);
                    let partitions = builds.partitions(builds.serving);
                    let found = stored_position(kernel, &targets, &consumer, partitions).await;
                    reached = found.unwrap_or(reached);
                }
                if reached >= position {
                    return;
                }
                clock.sleep(REFRESH / LOOKS).await;
            }
        };
        let is_over = tokio::select! {
            biased;
            () = come => false,
            () = clock.sleep(timeout) => true,
        };
        match is_over {
            true => Err(WaitError::Behind { consumer, position, reached, waited: timeout }),
            false => Ok(()),
        }
    }

    async fn builds(&self) -> Result<Arc<Builds>, QueryError> {
        let builds = self.stored.current().await?;
        builds.ok_or_else(|| QueryError::NotStarted(self.stored.name().clone()))
    }

    fn consumer(&self, build: Build) -> ConsumerName {
        build.consumer(self.stored.name())
    }

    /// Whether a build has an index; false for one that has not begun.
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
