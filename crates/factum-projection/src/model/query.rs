//! Questions for a page of documents, and the answers.

use factum_consumer::ConsumerName;
use factum_kernel::{KeyRange, ScanQuery};
use serde::{Deserialize, Serialize};

use crate::{
    documents::documents_prefix,
    index::{self, BEHIND_TEXT, IndexRange},
    model_build::Build,
};

/// The most documents of a page, unless asked otherwise.
pub const DOCUMENTS_MAX_DEFAULT: usize = 100;
/// The most documents of a page, whatever is asked for.
pub const DOCUMENTS_MAX: usize = 1_000;

/// A question for one page of documents: at most 100 and 1 MiB, in ascending order; one that is
/// larger comes alone.
///
/// ```
/// use factum_projection::{IndexRange, ModelQuery};
///
/// let accounts = ModelQuery::keys("account/").with_documents_max(20);
/// let richest = ModelQuery::index("balance", IndexRange::all()).backward();
/// # let _ = (accounts, richest);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct ModelQuery {
    what: What,
    documents_max: usize,
    is_backward: bool,
    then: Option<Continuation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Keys(String),
    Index(String, IndexRange),
}

/// A page of documents, with their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelPage<T> {
    /// Keys and documents, in the order of the keys or of the index.
    pub documents: Vec<(String, T)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Continuation>,
}

/// Where a page ended. It can be stored and given to clients: it leads nowhere that the query
/// itself does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continuation {
    build: Build,
    last: Vec<u8>,
}

impl Continuation {
    pub(super) fn new(build: Build, last: &[u8]) -> Self {
        Self { build, last: last.to_vec() }
    }
}

impl ModelQuery {
    /// All documents, by key.
    pub fn all() -> Self {
        Self::keys("")
    }

    /// Those whose keys begin so, by key.
    pub fn keys(prefix: &str) -> Self {
        Self::of(What::Keys(prefix.into()))
    }

    /// Those that an index holds within a range, by the index's values and then by key. One that
    /// has several values in the range comes once for each.
    pub fn index(index: &str, range: IndexRange) -> Self {
        Self::of(What::Index(index.into(), range))
    }

    fn of(what: What) -> Self {
        Self { what, documents_max: DOCUMENTS_MAX_DEFAULT, is_backward: false, then: None }
    }

    /// Sets the most documents of the page: 1 to 1,000.
    pub fn with_documents_max(mut self, documents_max: usize) -> Self {
        self.documents_max = documents_max.clamp(1, DOCUMENTS_MAX);
        self
    }

    /// Descending.
    pub fn backward(mut self) -> Self {
        self.is_backward = true;
        self
    }

    /// What comes behind another page of the same query. It is of the same build, also when
    /// another one serves by now.
    pub fn then(mut self, continuation: Continuation) -> Self {
        self.then = Some(continuation);
        self
    }

    pub(super) fn continued_in(&self) -> Option<Build> {
        self.then.as_ref().map(|then| then.build)
    }

    pub(super) fn index_name(&self) -> Option<&str> {
        match &self.what {
            What::Keys(_) => None,
            What::Index(name, _) => Some(name),
        }
    }

    /// What all keys of stored documents begin with that it may look at.
    pub(super) fn base(&self, consumer: &ConsumerName) -> Vec<u8> {
        match &self.what {
            What::Keys(_) => documents_prefix(consumer).into_bytes(),
            What::Index(name, _) => index::prefix(consumer, name),
        }
    }

    pub(super) fn scan(&self, consumer: &ConsumerName) -> ScanQuery {
        let base = self.base(consumer);
        let mut range = match &self.what {
            What::Keys(prefix) if prefix.is_empty() => {
                // The indexes are behind all texts.
                let to = [&base[..], &[BEHIND_TEXT]].concat();
                KeyRange::new(base.clone(), to)
            }
            What::Keys(prefix) => KeyRange::prefix([&base[..], prefix.as_bytes()].concat()),
            What::Index(_, range) => range.keys(&base),
        };
        if let Some(Continuation { last, .. }) = &self.then {
            let last = [&base[..], last].concat();
            match self.is_backward {
                true => {
                    let to = range.to.map_or(last.clone(), |to| last.min(to.to_vec()));
                    range.to = Some(to.into());
                }
                // The first key behind this one is itself and a zero byte.
                false => range.from = range.from.max([&last[..], &[0]].concat().into()),
            }
        }
        let scan = ScanQuery::new(range).with_documents_max(self.documents_max);
        if self.is_backward { scan.backward() } else { scan }
    }

    /// The key of the document behind a key that was scanned.
    pub(super) fn document_key(&self, scanned: &[u8]) -> Result<String, String> {
        let key = match &self.what {
            What::Keys(_) => Some(scanned),
            What::Index(..) => index::document_key(scanned),
        };
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        key.map(Into::into).ok_or_else(|| format!("no key of a document: key={scanned:?}"))
    }
}
