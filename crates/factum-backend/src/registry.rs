//! The registry: from a store URL to a store.

use std::{fmt, fs, path::Path, sync::Arc};

use async_trait::async_trait;
use factum_kernel::{Clock, DocumentStore, EventStore, IdSource, StoreError};

use crate::{
    name::{check_expanded, check_new},
    place::{IfAbsent, JOURNAL_MARKER},
    url::StoreUrl,
};

/// The two halves of an open store.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The log.
    pub events: Arc<dyn EventStore>,
    /// The documents.
    pub documents: Arc<dyn DocumentStore>,
}

impl Stores {
    /// The halves of a store that implements both traits.
    pub fn both<S: EventStore + DocumentStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { events: store.clone(), documents: store }
    }
}

/// The environment that a store is opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenContext {
    /// The clock for the time of events.
    pub clock: Arc<dyn Clock>,
    /// The source of a new log's lineage.
    pub ids: Arc<dyn IdSource>,
    /// The behaviour if there is no store. Every kind of store must follow it.
    pub if_absent: IfAbsent,
}

impl OpenContext {
    /// An environment in which a store is made if there is none.
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self { clock, ids, if_absent: IfAbsent::Make }
    }

    /// Sets the behaviour if there is no store.
    #[must_use]
    pub fn with_if_absent(mut self, if_absent: IfAbsent) -> Self {
        self.if_absent = if_absent;
        self
    }
}

/// A kind of store that a URL can name.
#[async_trait]
pub trait OpenStore: fmt::Debug + Send + Sync + 'static {
    /// The scheme of its URLs.
    fn scheme(&self) -> &'static str;

    /// Opens the store. If it does not exist, makes it or fails, as the context says.
    ///
    /// # Errors
    /// One sentence: the fault, the place, and the remedy.
    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError>;

    /// The URL of the store at a path, if it is of this kind. A folder is a store only if it is one
    /// as a whole: a folder that also holds a store's file is not.
    fn recognise(&self, _path: &Path) -> Option<StoreUrl> {
        None
    }

    /// The URL of a new store in a folder, for kinds that live in files.
    fn place_in(&self, _folder: &Path) -> Option<StoreUrl> {
        None
    }
}

/// The kinds of store that a program knows. The first kind that can live in a folder is the
/// default.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    kinds: Vec<Arc<dyn OpenStore>>,
    /// The schemes that the program is built without, each with the feature that adds it.
    left_out: Vec<(&'static str, &'static str)>,
}

/// The name that an empty file system has at its root.
const MOUNTED: &str = "lost+found";
/// The most entries of a folder that are looked at for a store, to name it in an error.
const ENTRIES_MAX: usize = 100;

impl Registry {
    /// A registry without kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind.
    #[must_use]
    pub fn with(mut self, kind: impl OpenStore) -> Self {
        self.kinds.push(Arc::new(kind));
        self
    }

    /// Notes a scheme that the program is built without, and the feature that adds it. Errors about
    /// the scheme then name the feature.
    #[must_use]
    pub fn without(mut self, scheme: &'static str, feature: &'static str) -> Self {
        self.left_out.push((scheme, feature));
        self
    }

    /// The URL that a text stands for: the text itself if it is a URL; for a path, the store that
    /// is there, or else a new store of the default kind. Where no store exists, a path begins with
    /// `./`, `../` or `/`, so that no other text makes a store. Makes nothing.
    ///
    /// # Errors
    /// `Invalid` for a text that names no store and no place for one. The error says what was
    /// probably meant, and holds no part of a password.
    pub fn resolve(&self, url_or_path: &str) -> Result<StoreUrl, StoreError> {
        if url_or_path.is_empty() {
            return Err(StoreError::invalid(
                "no store is named, give a path such as ./data or a URL such as sqlite:./events.db",
            ));
        }
        if let Some(url) = StoreUrl::parse(url_or_path) {
            self.kind_of(&url)?;
            return Ok(url);
        }
        let is_scheme = |scheme: &str| scheme == url_or_path;
        let left_out = || self.left_out.iter().any(|(scheme, _)| is_scheme(scheme));
        if self.kinds.iter().any(|kind| is_scheme(kind.scheme())) || left_out() {
            return Err(StoreError::invalid(format!(
                "a store's URL has a colon, say {url_or_path}: or, for a folder of that name, \
                 ./{url_or_path}"
            )));
        }
        check_expanded(url_or_path)?;
        self.at_path(Path::new(url_or_path), url_or_path)
    }

    /// The store at a path, or a new one.
    fn at_path(&self, path: &Path, text: &str) -> Result<StoreUrl, StoreError> {
        if let Some(there) = self.kinds.iter().find_map(|kind| kind.recognise(path)) {
            return Ok(there);
        }
        if path.is_dir() {
            self.check_free(path, text)?;
            check_new(text)?;
        } else if path.exists() {
            return Err(StoreError::invalid(format!(
                "the file is no store that this program knows, check the path: path={text} {}",
                self.known()
            )));
        } else {
            check_new(text)?;
        }
        self.kinds.iter().find_map(|kind| kind.place_in(path)).ok_or_else(|| {
            StoreError::invalid(format!(
                "no store of this program lives in a folder, give a URL: {}",
                self.known()
            ))
        })
    }

    /// Refuses a folder that holds anything, and is therefore no place for a new store.
    fn check_free(&self, folder: &Path, text: &str) -> Result<(), StoreError> {
        if folder.join(JOURNAL_MARKER).is_file() {
            return Err(self.unknown("journal"));
        }
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let entries: Vec<_> =
            entries.filter(|entry| entry.file_name() != MOUNTED).take(ENTRIES_MAX).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let store = |kind: &Arc<dyn OpenStore>| {
            entries.iter().find_map(|entry| kind.recognise(&entry.path()))
        };
        let remedy = match self.kinds.iter().find_map(store) {
            Some(url) => format!("name the store in it, {url}, or choose an empty one"),
            None => "choose an empty one, or check the path".into(),
        };
        Err(StoreError::invalid(format!(
            "the folder holds other files and is no store, {remedy}: path={text}"
        )))
    }

    /// Opens the store that a URL or path names.
    ///
    /// # Errors
    /// `Invalid` for an unknown scheme; otherwise the store's own.
    pub async fn open(
        &self,
        url_or_path: &str,
        context: &OpenContext,
    ) -> Result<Stores, StoreError> {
        self.open_url(&self.resolve(url_or_path)?, context).await
    }

    /// Opens the store of a URL, for example one that was [resolved](Self::resolve) from a path. A
    /// special character of a URL may be a part of a path.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub async fn open_url(
        &self,
        url: &StoreUrl,
        context: &OpenContext,
    ) -> Result<Stores, StoreError> {
        self.kind_of(url)?.open(url, context).await
    }

    fn kind_of(&self, url: &StoreUrl) -> Result<&Arc<dyn OpenStore>, StoreError> {
        let kind = self.kinds.iter().find(|kind| kind.scheme() == url.scheme());
        kind.ok_or_else(|| match url.path().starts_with(['/', '.']) {
            true => self.unknown(url.scheme()),
            false => self.no_scheme(url.scheme()),
        })
    }

    /// The error for a text before a colon that was probably no scheme, but a host or a user.
    fn no_scheme(&self, text: &str) -> StoreError {
        if self.left_out.iter().any(|(left_out, _)| *left_out == text) {
            return self.unknown(text);
        }
        StoreError::invalid(format!(
            "the store's name begins with no scheme, begin a server's address with its kind, such \
             as postgres://, and a path with ./: scheme={text} {}",
            self.known()
        ))
    }

    /// The error for a scheme without a kind.
    fn unknown(&self, scheme: &str) -> StoreError {
        let known = self.known();
        if let Some((_, feature)) = self.left_out.iter().find(|(left_out, _)| *left_out == scheme) {
            return StoreError::invalid(format!(
                "this program is built without {scheme} stores, build it with the feature \
                 {feature} of factum: {known}"
            ));
        }
        StoreError::invalid(format!(
            "no store of this program has this scheme: scheme={scheme} {known}"
        ))
    }

    /// The schemes of the program, and those that it is built without.
    fn known(&self) -> String {
        let known: Vec<_> = self.kinds.iter().map(|kind| kind.scheme()).collect();
        let known = format!("known={}", known.join(","));
        if self.left_out.is_empty() {
            return known;
        }
        let left_out: Vec<_> = self.left_out.iter().map(|(scheme, _)| *scheme).collect();
        format!("{known} left_out={}", left_out.join(","))
    }
}

#[cfg(test)]
mod tests {
    use factum_kernel::{SystemClock, SystemIds};

    use super::*;

    /// A kind of store that lives in folders.
    #[derive(Debug)]
    struct Folders;

    #[async_trait]
    impl OpenStore for Folders {
        fn scheme(&self) -> &'static str {
            "folders"
        }

        async fn open(&self, url: &StoreUrl, _: &OpenContext) -> Result<Stores, StoreError> {
            Err(StoreError::invalid(format!("it is never opened: url={url}")))
        }

        fn place_in(&self, folder: &Path) -> Option<StoreUrl> {
            Some(StoreUrl::of_path(self.scheme(), folder))
        }
    }

    #[tokio::test]
    async fn what_was_to_be_a_server_becomes_no_folder_and_shows_no_password() {
        let registry = Registry::new().with(Folders);
        let context = OpenContext::new(Arc::new(SystemClock), Arc::new(SystemIds));
        for text in [
            "'postgres://ada:s3c@db/bank'",
            " postgres://ada:s3c@db/bank",
            "folders//ada:s3c@db/bank",
            "host=db user=ada password=s3c",
            "user = ada password = s3c",
            "ada:s3c@db/bank",
            "folders:ada:s3c@db",
        ] {
            let error = registry.open(text, &context).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3c"), "{text}: {error:?}");
        }
        let there = tempfile::tempdir().unwrap();
        for path in ["./data", "/backup/ada@db", there.path().to_str().unwrap()] {
            assert_eq!(registry.resolve(path).unwrap().path(), path);
        }
    }
}
