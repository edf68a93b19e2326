//! The registry: from a store URL to a store.

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use factum_kernel::{Clock, DocumentStore, EventStore, IdSource, StoreError};

use crate::url::{StoreUrl, check_home};

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
pub struct OpenContext {
    /// The clock for the time of events.
    pub clock: Arc<dyn Clock>,
    /// The source of a new log's lineage.
    pub ids: Arc<dyn IdSource>,
}

/// A kind of store that a URL can name.
#[async_trait]
pub trait OpenStore: fmt::Debug + Send + Sync + 'static {
    /// The scheme of its URLs.
    fn scheme(&self) -> &'static str;

    /// Opens the store, and makes it if it does not exist.
    ///
    /// # Errors
    /// One sentence: the fault, the place, and the remedy.
    async fn open(&self, url: &StoreUrl, context: &OpenContext) -> Result<Stores, StoreError>;

    /// The URL of the store at a path, if it is of this kind.
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
}

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

    /// The URL that a text stands for: the text itself if it is a URL; for a path, the store that
    /// is there, or else a new store of the default kind.
    ///
    /// # Errors
    /// `Invalid` if no kind of store lives in a folder.
    pub fn resolve(&self, url_or_path: &str) -> Result<StoreUrl, StoreError> {
        if url_or_path.is_empty() {
            return Err(StoreError::invalid(
                "no store is named, give a path such as ./data or a URL such as sqlite:./events.db",
            ));
        }
        if let Some(url) = StoreUrl::parse(url_or_path) {
            return Ok(url);
        }
        if self.kinds.iter().any(|kind| kind.scheme() == url_or_path) {
            return Err(StoreError::invalid(format!(
                "a store's URL has a colon, say {url_or_path}: or, for a folder of that name, \
                 ./{url_or_path}"
            )));
        }
        if self.is_address(url_or_path) && !Path::new(url_or_path).exists() {
            return Err(StoreError::invalid(
                "a store on a server is named by a URL that begins with its kind, such as \
                 postgres://user@host/database; percent-encode special characters in the password",
            ));
        }
        check_home(url_or_path)?;
        let path = Path::new(url_or_path);
        let there = self.kinds.iter().find_map(|kind| kind.recognise(path));
        if there.is_none() && path.is_file() {
            return Err(StoreError::invalid(format!(
                "the file is no store that this program knows: path={url_or_path} known={}",
                self.schemes()
            )));
        }
        let default = || self.kinds.iter().find_map(|kind| kind.place_in(path));
        there.or_else(default).ok_or_else(|| {
            StoreError::invalid(format!(
                "no store of this program lives in a folder, give a URL: known={}",
                self.schemes()
            ))
        })
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
        let kind =
            self.kinds.iter().find(|kind| kind.scheme() == url.scheme()).ok_or_else(|| {
                StoreError::invalid(format!(
                    "no store of this program has this scheme: scheme={} known={}",
                    url.scheme(),
                    self.schemes()
                ))
            })?;
        kind.open(url, context).await
    }

    /// Returns whether a text that is not a URL looks like the address of a store on a server. It
    /// may hold a password, which must not become the name of a folder.
    fn is_address(&self, text: &str) -> bool {
        let packed: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
        let parts = ["://", "password=", "host=", "dbname="];
        let has_slashes = |kind: &Arc<dyn OpenStore>| {
            packed.strip_prefix(kind.scheme()).is_some_and(|rest| rest.starts_with("//"))
        };
        parts.iter().any(|part| packed.contains(part)) || self.kinds.iter().any(has_slashes)
    }

    fn schemes(&self) -> String {
        self.kinds.iter().map(|kind| kind.scheme()).collect::<Vec<_>>().join(",")
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
        let context = OpenContext { clock: Arc::new(SystemClock), ids: Arc::new(SystemIds) };
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
        let there = std::env::temp_dir();
        for path in ["./data", "/backup/ada@db", there.to_str().unwrap()] {
            assert_eq!(registry.resolve(path).unwrap().path(), path);
        }
    }
}
