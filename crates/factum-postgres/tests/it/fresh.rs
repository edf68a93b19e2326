//! A store in a schema of its own, and what is appended to it.

use factum_core::{
    AppendBatch, Category, Clock, Content, EventId, EventName, EventStore, ExpectedVersion,
    IdSource, NewEvent, Page, Position, ReadQuery, StreamId, SystemClock, SystemIds, Tag,
};
use factum_postgres::PostgresStore;

use crate::server::Schema;

/// A store in a schema of its own, which goes with it.
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

    /// Runs statements of somebody else's in the schema.
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

/// Every event and erased range of a read, page by page.
pub(crate) async fn pages(store: &dyn EventStore, query: ReadQuery) -> Vec<Page> {
    let mut pages = Vec::new();
    let mut next = Some(query);
    while let Some(query) = next {
        let page = store.read(query.clone()).await.unwrap();
        next = query.next(&page);
        pages.push(page);
    }
    pages
}

pub(crate) async fn positions(store: &dyn EventStore, query: ReadQuery) -> Vec<u64> {
    let pages = pages(store, query).await;
    pages.iter().flat_map(|page| &page.events).map(|event| event.position().value()).collect()
}

/// Fails if the log has a hole, or a stream counts otherwise than 1, 2, 3, ... The answer: head.
pub(crate) async fn check_laws(store: &dyn EventStore) -> Position {
    let (mut last, mut streams) = (0, std::collections::HashMap::new());
    for page in pages(store, ReadQuery::log()).await {
        let mut erased = page.erased.iter().peekable();
        for event in &page.events {
            while let Some(range) = erased.next_if(|range| range.first < event.position()) {
                assert_eq!(range.first.value(), last + 1, "a hole before an erased range");
                last = range.last.value();
            }
            assert_eq!(event.position().value(), last + 1, "a hole before an event");
            last += 1;
            let version = streams.entry(event.stream().to_stream_id()).or_insert(0);
            *version += 1;
            assert_eq!(event.version().value(), *version, "of {}", event.stream());
        }
        last = erased.last().map_or(last, |range| range.last.value());
        assert_eq!(last, page.scanned_through.value(), "a hole at the page's end");
    }
    Position::new(last)
}
