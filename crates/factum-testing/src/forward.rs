//! Stores that forward to another store, except for the methods that they replace.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use factum_kernel::{
    AppendBatch, AppendError, Appended, ChangeError, Document, DocumentStore, EventStore,
    Guarantees, KeyRange, Page, Position, ReadQuery, Revision, ScanPage, ScanQuery, StoreError,
    StreamChange, StreamId, StreamInfo, WriteBatch, WriteError,
};
use tokio::sync::watch;

/// A store that forwards: with [`ForwardEvents`] a log, with [`ForwardDocuments`] documents.
#[derive(Debug)]
pub struct Forwarding<S>(pub S);

/// A log that forwards to another one, except for the methods that an implementation replaces. In
/// [`Forwarding`] it is an [`EventStore`].
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use factum_kernel::{EventStore, Page, ReadQuery, StoreError};
/// use factum_testing::{ForwardEvents, Forwarding};
///
/// #[derive(Debug)]
/// struct Unreadable(Arc<dyn EventStore>);
///
/// #[async_trait]
/// impl ForwardEvents for Unreadable {
///     fn events(&self) -> Arc<dyn EventStore> {
///         self.0.clone()
///     }
///
///     async fn read(&self, _: ReadQuery) -> Result<Page, StoreError> {
///         Err(StoreError::unavailable("this log can't be read"))
///     }
/// }
///
/// fn unreadable(store: Arc<dyn EventStore>) -> Arc<dyn EventStore> {
///     Arc::new(Forwarding(Unreadable(store)))
/// }
/// ```
#[async_trait]
pub trait ForwardEvents: fmt::Debug + Send + Sync + 'static {
    /// The log to forward to.
    fn events(&self) -> Arc<dyn EventStore>;

    /// Like [`EventStore::append`].
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.events().append(batch).await
    }

    /// Like [`EventStore::read`].
    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.events().read(query).await
    }

    /// Like [`EventStore::stream_info`].
    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.events().stream_info(stream).await
    }

    /// Like [`EventStore::change`].
    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        self.events().change(stream, change).await
    }

    /// Like [`EventStore::head`].
    fn head(&self) -> watch::Receiver<Position> {
        self.events().head()
    }

    /// Like [`EventStore::guarantees`].
    fn guarantees(&self) -> Guarantees {
        self.events().guarantees()
    }

    /// Like [`EventStore::close`].
    async fn close(&self) -> Result<(), StoreError> {
        self.events().close().await
    }
}

#[async_trait]
impl<S: ForwardEvents> EventStore for Forwarding<S> {
    async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        self.0.append(batch).await
    }

    async fn read(&self, query: ReadQuery) -> Result<Page, StoreError> {
        self.0.read(query).await
    }

    async fn stream_info(&self, stream: &StreamId) -> Result<StreamInfo, StoreError> {
        self.0.stream_info(stream).await
    }

    async fn change(
        &self,
        stream: &StreamId,
        change: StreamChange,
    ) -> Result<StreamInfo, ChangeError> {
        self.0.change(stream, change).await
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.0.head()
    }

    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.0.close().await
    }
}

/// Documents that forward to others, except for the methods that an implementation replaces. In
/// [`Forwarding`] they are a [`DocumentStore`]. [`ForwardEvents`] has an example.
#[async_trait]
pub trait ForwardDocuments: fmt::Debug + Send + Sync + 'static {
    /// The documents to forward to.
    fn documents(&self) -> Arc<dyn DocumentStore>;

    /// Like [`DocumentStore::get`].
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        self.documents().get(key).await
    }

    /// Like [`DocumentStore::scan`].
    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        self.documents().scan(query).await
    }

    /// Like [`DocumentStore::write`].
    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.documents().write(batch).await
    }

    /// Like [`DocumentStore::clear`].
    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        self.documents().clear(range).await
    }
}

#[async_trait]
impl<S: ForwardDocuments> DocumentStore for Forwarding<S> {
    async fn get(&self, key: &[u8]) -> Result<Option<Document>, StoreError> {
        self.0.get(key).await
    }

    async fn scan(&self, query: ScanQuery) -> Result<ScanPage, StoreError> {
        self.0.scan(query).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<Revision, WriteError> {
        self.0.write(batch).await
    }

    async fn clear(&self, range: KeyRange) -> Result<(), StoreError> {
        self.0.clear(range).await
    }
}
