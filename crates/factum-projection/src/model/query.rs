//! Queries for a page of documents, and their pages.

use factum_consumer::ConsumerName;
use factum_kernel::ScanQuery;
use serde::{Deserialize, Serialize};

use crate::{
    documents::{document_range, documents_prefix},
    index::{self, IndexRange},
    model_build::Build,
};

/// The default for the most documents of a page.
pub const DOCUMENTS_MAX_DEFAULT: usize = 100;
/// The largest number of documents that a query may ask for in one page.
pub const DOCUMENTS_MAX: usize = 1_000;

/// A query for one page of documents: at most 100 documents and 1 MiB, in ascending order. A
/// document that is larger than 1 MiB is a page of its own.
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
    selection: Selection,
    documents_max: usize,
    is_backward: bool,
    then: Option<Continuation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Selection {
    Keys(String),
    Index(String, IndexRange),
}

/// A page of documents, with their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelPage<T> {
    /// Keys and documents, in the order of the keys or of the index.
    pub documents: Vec<(String, T)>,
    /// The place where the next page begins; `None` at the end.
    pub next: Option<Continuation>,
}

/// The place where a page ended. It can be stored and given to clients: it gives access to nothing
/// that the query itself does not return.
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
    /// All documents, ordered by key.
    pub fn all() -> Self {
        Self::keys("")
    }

    /// The documents whose keys begin with `prefix`, ordered by key.
    pub fn keys(prefix: &str) -> Self {
        Self::of(Selection::Keys(prefix.into()))
    }

    /// The documents whose index value is in the range, ordered by value and then by key. A
    /// document with several values in the range is returned once for each of them.
    pub fn index(index: &str, range: IndexRange) -> Self {
        Self::of(Selection::Index(index.into(), range))
    }

    fn of(selection: Selection) -> Self {
        Self { selection, documents_max: DOCUMENTS_MAX_DEFAULT, is_backward: false, then: None }
    }

    /// Sets the most documents of the page: 1 to 1,000.
    pub fn with_documents_max(mut self, documents_max: usize) -> Self {
        self.documents_max = documents_max.clamp(1, DOCUMENTS_MAX);
        self
    }

    /// Reverses the order: descending.
    pub fn backward(mut self) -> Self {
        self.is_backward = true;
        self
    }

    /// Continues after another page of the same query, in the same build, even if another build
    /// serves meanwhile.
    pub fn then(mut self, continuation: Continuation) -> Self {
        self.then = Some(continuation);
        self
    }

    pub(super) fn continued_in(&self) -> Option<Build> {
        self.then.as_ref().map(|then| then.build)
    }

    pub(super) fn index_name(&self) -> Option<&str> {
        match &self.selection {
            Selection::Keys(_) => None,
            Selection::Index(name, _) => Some(name),
        }
    }

    /// The prefix of all stored keys that the query may read.
    pub(super) fn base(&self, consumer: &ConsumerName) -> Vec<u8> {
        match &self.selection {
            Selection::Keys(_) => documents_prefix(consumer).into_bytes(),
            Selection::Index(name, _) => index::prefix(consumer, name),
        }
    }

    pub(super) fn scan(&self, consumer: &ConsumerName) -> ScanQuery {
        let base = self.base(consumer);
        let mut range = match &self.selection {
            Selection::Keys(prefix) => document_range(&documents_prefix(consumer), prefix),
            Selection::Index(_, range) => range.keys(&base),
        };
        if let Some(Continuation { last, .. }) = &self.then {
            let last = [&base[..], last].concat();
            match self.is_backward {
                true => {
                    let to = range.to.map_or(last.clone(), |to| last.min(to.to_vec()));
                    range.to = Some(to.into());
                }
                // The first key after `last` is `last` with a zero byte added.
                false => range.from = range.from.max([&last[..], &[0]].concat().into()),
            }
        }
        let scan = ScanQuery::new(range).with_documents_max(self.documents_max);
        if self.is_backward { scan.backward() } else { scan }
    }

    /// The key of the document that a scanned key stands for.
    pub(super) fn document_key(&self, scanned: &[u8]) -> Result<String, String> {
        let key = match &self.selection {
            Selection::Keys(_) => Some(scanned),
            Selection::Index(..) => index::document_key(scanned),
        };
        let key = key.and_then(|key| std::str::from_utf8(key).ok());
        key.map(Into::into)
            .ok_or_else(|| format!("the stored key is not the key of a document: key={scanned:?}"))
    }
}
