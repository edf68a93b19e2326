//! Deletions beside the events of an enum, for readers that want to see both.

use bytes::BytesMut;
use serde::{Serializer, ser::Error as _};

use crate::{
    codec::CodecError,
    event::{Content, EventName},
    schema::{DecodeError, EncodedEvent, Event, EventType},
    tag::{InvalidTag, TagWriter},
};

/// An event of an enum, or the deletion of a stream: the events of a closure that also looks at
/// deletions. It sees those of all streams; the recorded event tells which stream is deleted.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use factum_kernel::{Aggregate, OrDeleted, RecordedEvent};
/// use factum_testing::bank::{Account, AccountEvent};
///
/// /// Keeps the owner of each account, and forgets those of deleted ones.
/// fn fold(
///     owners: &mut BTreeMap<String, String>,
///     event: OrDeleted<AccountEvent>,
///     recorded: &RecordedEvent,
/// ) {
///     let stream = recorded.stream();
///     match event {
///         OrDeleted::Event(AccountEvent::Opened { owner, .. }) => {
///             owners.insert(stream.key().into(), owner);
///         }
///         OrDeleted::Deleted if stream.category() == Account::CATEGORY => {
///             owners.remove(stream.key());
///         }
///         _ => {}
///     }
/// }
/// # let _ = fold;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrDeleted<E> {
    /// An event of the enum.
    Event(E),
    /// The stream was deleted. Its older events are erased.
    Deleted,
}

impl<E: Event> Event for OrDeleted<E> {
    fn types() -> Vec<EventType> {
        let mut types = E::types();
        types.push(deleted());
        types
    }

    fn event_type(&self) -> EventType {
        match self {
            Self::Event(event) => event.event_type(),
            Self::Deleted => deleted(),
        }
    }

    fn owns(name: &str) -> bool {
        E::owns(name) || name == EventName::STREAM_DELETED.as_str()
    }

    fn is_summary(&self) -> bool {
        matches!(self, Self::Event(event) if event.is_summary())
    }

    fn tags(&self, out: &mut TagWriter<'_>) -> Result<(), InvalidTag> {
        match self {
            Self::Event(event) => event.tags(out),
            Self::Deleted => Ok(()),
        }
    }

    fn fields<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Event(event) => event.fields(serializer),
            Self::Deleted => Err(S::Error::custom(NOT_WRITTEN)),
        }
    }

    fn encode(&self, out: &mut BytesMut) -> Result<Content, CodecError> {
        match self {
            Self::Event(event) => event.encode(out),
            Self::Deleted => Err(CodecError::new(NOT_WRITTEN)),
        }
    }

    fn decode(event: EncodedEvent<'_>, sink: &mut dyn FnMut(Self)) -> Result<(), DecodeError> {
        if event.name() == EventName::STREAM_DELETED.as_str() {
            sink(Self::Deleted);
            return Ok(());
        }
        E::decode(event, &mut |event| sink(Self::Event(event)))
    }
}

const NOT_WRITTEN: &str = "a deletion is no event to write, delete the stream instead";

fn deleted() -> EventType {
    let rust_type = "factum::OrDeleted";
    EventType { name: EventName::STREAM_DELETED, schema_version: 1, rust_type }
}
