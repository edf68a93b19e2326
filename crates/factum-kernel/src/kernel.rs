//! The dependencies of the typed layer: the two stores, a clock, a source of ids.

use std::sync::Arc;

use crate::{
    document::DocumentStore,
    id::{IdSource, SystemIds},
    store::EventStore,
    tag::TagKey,
    time::{Clock, SystemClock},
};

/// The stores, clock, source of ids and tag key that the typed layer uses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel {
    events: Arc<dyn EventStore>,
    documents: Arc<dyn DocumentStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    tag_key: Option<TagKey>,
}

impl Kernel {
    /// A kernel with these two stores, the machine's clock and randomness, and no tag key.
    pub fn new(events: Arc<dyn EventStore>, documents: Arc<dyn DocumentStore>) -> Self {
        let clock = Arc::new(SystemClock);
        let ids = Arc::new(SystemIds);
        Self { events, documents, clock, ids, tag_key: None }
    }

    /// Sets the clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the source of ids.
    #[must_use]
    pub fn with_ids(mut self, ids: Arc<dyn IdSource>) -> Self {
        self.ids = ids;
        self
    }

    /// Sets the secret of hashed tags.
    #[must_use]
    pub fn with_tag_key(mut self, key: TagKey) -> Self {
        self.tag_key = Some(key);
        self
    }

    /// Replaces the log, for instance by a decorator around it.
    #[must_use]
    pub fn with_events(mut self, events: Arc<dyn EventStore>) -> Self {
        self.events = events;
        self
    }

    /// The log.
    pub fn events(&self) -> &Arc<dyn EventStore> {
        &self.events
    }

    /// The documents.
    pub fn documents(&self) -> &Arc<dyn DocumentStore> {
        &self.documents
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The source of ids.
    pub fn ids(&self) -> &Arc<dyn IdSource> {
        &self.ids
    }

    /// The secret of hashed tags.
    pub fn tag_key(&self) -> Option<&TagKey> {
        self.tag_key.as_ref()
    }
}
