//! What loading does with events that it can't read.

use factum_kernel::{
    AppendBatch, Content, DecodeReason, EventId, EventName, EventStore, ExpectedVersion, LoadError,
    NewEvent, Timestamp,
};

use crate::bench::{Bench, stream};

async fn append_raw(bench: &Bench, name: &'static str, schema_version: u32, payload: &'static str) {
    let id = EventId::derived(Timestamp::EPOCH, payload.as_bytes());
    let mut event = NewEvent::new(id, EventName::from_static(name), Content::Json, payload);
    event.schema_version = schema_version;
    let batch = AppendBatch::new().write(stream("ada"), ExpectedVersion::Any, [event]);
    bench.store.append(batch).await.unwrap();
}

#[tokio::test]
async fn an_event_that_can_not_be_read_stops_loading_and_never_vanishes() {
    let cases = [
        ("account.vanished", 1, "{}"),
        ("account.deposited", 2, "{\"cents\":1}"),
        ("account.deposited", 1, "{\"cents\":\"many\"}"),
        ("account.deposited", 1, "{\"cents\":1} and more"),
    ];
    for (name, schema_version, payload) in cases {
        let bench = Bench::new();
        bench.open("ada", &[1]).await;
        append_raw(&bench, name, schema_version, payload).await;
        let error = bench.accounts().load("ada").await.unwrap_err();
        let LoadError::Decode(error) = error else { panic!("{error}") };
        assert_eq!((&*error.name, error.schema_version), (name, schema_version));
        match schema_version {
            2 => assert_eq!(error.reason, DecodeReason::NewerSchema(1)),
            _ => assert_ne!(error.reason, DecodeReason::NewerSchema(1)),
        }
    }
}

#[tokio::test]
async fn reading_obeys_the_stored_content_and_leaves_unknown_fields() {
    let bench = Bench::new();
    bench.open("ada", &[1]).await;
    append_raw(&bench, "account.deposited", 1, "{\"cents\":41,\"since\":\"later\"}").await;
    assert_eq!(bench.balance("ada").await, (42, 3));
}
