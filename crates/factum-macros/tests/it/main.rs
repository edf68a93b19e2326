//! The generated code of the derives, seen through the traits that it implements.

// Generated code names `::factum` unless another path is set; here the kernel replaces the facade.
extern crate factum_kernel as factum;

mod command;
mod flatten;
mod hygiene;
mod identity;
mod payload;
mod tag;
mod ui;
mod upcast;

use factum_kernel::{
    Content, DecodeError, Event, EventHeader, EventId, EventName, Metadata, NewEvent, Position,
    RecordedEvent, StreamId, StreamVersion, Timestamp, decode_event, encode_event,
};

fn id() -> EventId {
    EventId::derived(Timestamp::EPOCH, b"test")
}

/// The event in the form in which a store returns it.
fn record(event: &NewEvent) -> RecordedEvent {
    let stream = StreamId::new("account", "ada").expect("a valid id");
    let header = EventHeader {
        position: Position::new(1),
        version: StreamVersion::new(1),
        recorded_at: Timestamp::EPOCH,
        id: event.id,
        schema_version: event.schema_version,
        content: event.content,
    };
    RecordedEvent::from_new(header, stream.as_ref(), event)
}

/// A typed event in the form in which a store returns it.
fn append<E: Event>(event: &E) -> RecordedEvent {
    record(&encode_event(event, id(), &Metadata::new(), None).expect("an event that can be stored"))
}

/// A JSON event that another program wrote.
fn stored(name: &str, schema_version: u32, json: &str) -> RecordedEvent {
    let name = EventName::parse(name).expect("a valid name");
    let mut event = NewEvent::new(id(), name, Content::Json, json.to_owned());
    event.schema_version = schema_version;
    record(&event)
}

fn decode<E: Event>(recorded: &RecordedEvent) -> Result<Vec<E>, DecodeError> {
    let mut events = Vec::new();
    decode_event(recorded, &mut |event| events.push(event))?;
    Ok(events)
}
