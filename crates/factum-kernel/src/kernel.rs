//! What the typed layer runs on: the two stores, a clock, a source of ids.

use std::sync::Arc;

use crate::{
    document::DocumentStore,
    id::{IdSource, SystemIds},
    store::EventStore,
    tag::TagKey,
    time::{Clock, SystemClock},
};

/// What the typed layer runs on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel {
    events: Arc<dyn EventStore>,
    documents: Arc<dyn DocumentStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    tag_key: Option<TagKey>,
}

impl Kernel {
    /// Two stores, the machine's clock and randomness, no tag key.
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

    /// Sets the secret behind hashed tags.
    #[must_use]
    pub fn with_tag_key(mut self, key: TagKey) -> Self {
        self.tag_key = Some(key);
        self
    }

    /// Puts another log in the place of this one: a decorator around it, for instance.
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

    /// The secret behind hashed tags.
    pub fn tag_key(&self) -> Option<&TagKey> {
        self.tag_key.as_ref()
    }
}
