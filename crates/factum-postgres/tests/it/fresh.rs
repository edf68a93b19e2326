//! A store in a schema of its own, and appends to it.

use factum_kernel::{
    AppendBatch, Category, Clock, Content, EventId, EventName, ExpectedVersion, IdSource, NewEvent,
    StreamId, SystemClock, SystemIds, Tag,
};
use factum_postgres::PostgresStore;
pub(crate) use factum_testing::{check_log, pages, positions};

use crate::server::Schema;

/// A store in a schema of its own, which is removed with it.
pub(crate) struct Fresh {
    pub(crate) store: PostgresStore,
    pub(crate) schema: Schema,
}

impl Fresh {
    pub(crate) async fn open() -> Self {
        let schema = Schema::new();
        Self { store: PostgresStore::open(schema.options()).await.unwrap(), schema }
    }

    /// Another handle on the same log.
    pub(crate) async fn another(&self) -> PostgresStore {
        PostgresStore::open(self.schema.options()).await.unwrap()
    }

    /// Runs statements in the schema over another program's connection.
    pub(crate) async fn run(&self, statements: &str) {
        let raw = self.schema.raw().await;
        let path = format!("SET search_path = {}", self.schema.name);
        raw.batch_execute(&format!("{path}; {statements}")).await.unwrap();
    }
}

pub(crate) fn new_id() -> EventId {
    EventId::new(SystemIds.uuid(SystemClock.now()))
}

pub(crate) fn event(payload: &str) -> NewEvent {
    let name = EventName::from_static("account.opened");
    NewEvent::new(new_id(), name, Content::Json, payload.to_owned())
}

pub(crate) fn stream(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

pub(crate) fn one(key: &str) -> AppendBatch {
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event("{}")])
}

pub(crate) fn tagged(key: &str, tags: &[&str]) -> AppendBatch {
    let event =
        tags.iter().fold(event("{}"), |event, tag| event.with_tag(Tag::parse(tag).unwrap()));
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, [event])
}

pub(crate) fn category() -> Category {
    Category::new("account").unwrap()
}
