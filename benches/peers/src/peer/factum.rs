//! The client's side of Factum's own stores, by the trait that applications use. Appends expect any
//! version. Reads take pages of the default size, each event as a `RecordedEvent`.

use std::hint::black_box;

use factum_kernel::{
    AppendBatch, Content, EventId, EventName, EventStore, ExpectedVersion, NewEvent, ReadQuery,
    StreamId,
};

use crate::load::{EVENT_NAME, Record, stream_name};

pub(crate) async fn append(store: &impl EventStore, records: Vec<Record>) {
    let stream = stream_id(records[0].stream);
    let events = records.into_iter().map(|Record { id, payload, .. }| {
        let name = EventName::from_static(EVENT_NAME);
        NewEvent::new(EventId::new(id), name, Content::Cbor, payload)
    });
    let batch = AppendBatch::new().write(stream, ExpectedVersion::Any, events);
    store.append(batch).await.expect("an append");
}

pub(crate) async fn scan(store: &impl EventStore) -> usize {
    read(store, ReadQuery::log()).await
}

pub(crate) async fn read_stream(store: &impl EventStore, stream: usize) -> usize {
    read(store, ReadQuery::stream(stream_id(stream))).await
}

async fn read(store: &impl EventStore, query: ReadQuery) -> usize {
    let mut events = 0;
    let mut next = Some(query);
    while let Some(query) = next {
        let page = store.read(query.clone()).await.expect("a read");
        events += page.events.len();
        next = query.next(&page);
        black_box(page);
    }
    events
}

fn stream_id(stream: usize) -> StreamId {
    stream_name(stream).parse().expect("a valid id")
}
