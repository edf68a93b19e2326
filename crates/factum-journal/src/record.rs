//! A record: one item of a frame. It has its own checksum, so that an event can be read and checked
//! alone.

use bytes::{BufMut, BytesMut};
use factum_backend::PlannedEvent;
use factum_kernel::{
    Content, EventHeader, EventId, EventParts, Metadata, Position, Retention, StreamBounds,
    StreamVersion, Tag, Timestamp, encode_tags,
};
use uuid::Uuid;

use crate::number::{self, take, take_bytes, take_len, u32_at};

const EVENT: u8 = 1;
const NAME: u8 = 2;
const CHANGE: u8 = 3;
const DOCUMENT: u8 = 4;
const COMMIT: u8 = 5;
const ERASED: u8 = 6;

/// The values that a record's bytes depend on, besides its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordPlace {
    /// See [`SegmentHeader::seed`](crate::segment::SegmentHeader::seed).
    pub(crate) seed: u32,
    /// The time from which the times in the segment count.
    pub(crate) base_at: Timestamp,
    /// The position of the event, or else of the next event.
    pub(crate) position: u64,
}

/// The state of a stream that its events alone don't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StreamState {
    pub(crate) bounds: StreamBounds,
    pub(crate) retention: Retention,
}

impl StreamState {
    /// This state of a stream, read after another state. The records about left-out versions in a
    /// rewritten segment may be ahead of a change that follows.
    pub(crate) fn after(mut self, before: &Self) -> Self {
        self.bounds.version = self.bounds.version.max(before.bounds.version);
        self.bounds.erased_through = self.bounds.erased_through.max(before.bounds.erased_through);
        self
    }
}

/// A decoded record.
#[derive(Debug)]
pub(crate) enum Record<'a> {
    /// An event.
    Event(EventRecord<'a>),
    /// The name of an event type. The first in a segment is number 0, the next is 1, and so on.
    Name(&'a str),
    /// The new state of a stream.
    Change(&'a str, StreamState),
    /// A document, or its removal.
    Document(DocumentRecord<'a>),
    /// The end of a write of documents, which takes a revision.
    Commit,
    /// In a rewritten segment: a stream, and the highest of its versions that was left out.
    Erased(&'a str, u64),
}

/// A decoded document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DocumentRecord<'a> {
    pub(crate) revision: u64,
    pub(crate) key: &'a [u8],
    /// `None`: the document was removed.
    pub(crate) value: Option<&'a [u8]>,
}

/// A decoded event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRecord<'a> {
    pub(crate) header: EventHeader,
    /// The number of its type's name in the segment.
    pub(crate) name: u32,
    pub(crate) stream: &'a str,
    pub(crate) tags: &'a [u8],
    pub(crate) metadata: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> EventRecord<'a> {
    /// The parts of the event. `name` is the name for its number.
    pub(crate) fn parts(&self, name: &'a str) -> EventParts<'a> {
        let Self { stream, tags, metadata, payload, .. } = *self;
        EventParts { stream, name, tags, metadata, payload }
    }
}

/// Appends the record of an event.
pub(crate) fn put_event(
    out: &mut BytesMut,
    place: RecordPlace,
    planned: &PlannedEvent<'_>,
    name: u32,
) {
    let PlannedEvent { header, stream, event } = planned;
    let tags_len: usize = event.tags.iter().map(|tag| 2 + tag.as_str().len()).sum();
    let numbers = [
        header.version.value(),
        header.recorded_at.as_micros() - place.base_at.as_micros(),
        u64::from(header.schema_version),
        u64::from(header.content.number()),
        u64::from(name),
        stream.as_str().len() as u64,
        tags_len as u64,
        event.metadata.encoded_len() as u64,
    ];
    let fixed = 1 + numbers.iter().map(|n| number::len(*n)).sum::<usize>() + 16;
    let parts =
        stream.as_str().len() + tags_len + event.metadata.encoded_len() + event.payload.len();
    put_record(out, place, fixed + parts, |out| {
        out.put_u8(EVENT);
        for n in numbers {
            number::put(out, n);
        }
        out.put_slice(header.id.as_uuid().as_bytes());
        out.put_slice(stream.as_str().as_bytes());
        put_tags(&event.tags, out);
        put_metadata(&event.metadata, out);
        out.put_slice(&event.payload);
    });
}

fn put_tags(tags: &[Tag], out: &mut BytesMut) {
    encode_tags(tags, out);
}

fn put_metadata(metadata: &Metadata, out: &mut BytesMut) {
    metadata.encode(out);
}

/// Appends the record of a name.
pub(crate) fn put_name(out: &mut BytesMut, place: RecordPlace, name: &str) {
    put_record(out, place, 1 + name.len(), |out| {
        out.put_u8(NAME);
        out.put_slice(name.as_bytes());
    });
}

/// Appends the record of a change.
pub(crate) fn put_change(
    out: &mut BytesMut,
    place: RecordPlace,
    stream: &str,
    state: &StreamState,
) {
    let mut body = BytesMut::new();
    body.put_u8(CHANGE);
    number::put(&mut body, stream.len() as u64);
    body.put_slice(stream.as_bytes());
    put_state(&mut body, state);
    put_record(out, place, body.len(), |out| out.put_slice(&body));
}

/// Appends the record of a document.
pub(crate) fn put_document(out: &mut BytesMut, place: RecordPlace, document: &DocumentRecord<'_>) {
    let DocumentRecord { revision, key, value } = document;
    let value_len = value.map_or(0, <[u8]>::len);
    let key_len = key.len() as u64;
    let fixed = 2 + number::len(*revision) + number::len(key_len);
    put_record(out, place, fixed + key.len() + value_len, |out| {
        out.put_u8(DOCUMENT);
        out.put_u8(u8::from(value.is_some()));
        number::put(out, *revision);
        number::put(out, key_len);
        out.put_slice(key);
        out.put_slice(value.unwrap_or_default());
    });
}

/// Appends the record that ends a write of documents.
pub(crate) fn put_commit(out: &mut BytesMut, place: RecordPlace) {
    put_record(out, place, 1, |out| out.put_u8(COMMIT));
}

/// Appends the record of the highest version of a stream that was left out.
pub(crate) fn put_erased(out: &mut BytesMut, place: RecordPlace, stream: &str, version: u64) {
    put_record(out, place, 1 + number::len(version) + stream.len(), |out| {
        out.put_u8(ERASED);
        number::put(out, version);
        out.put_slice(stream.as_bytes());
    });
}

fn take_document<'a>(mut body: &'a [u8]) -> Option<DocumentRecord<'a>> {
    let is_there = take_bytes(&mut body, 1)?[0] == 1;
    let revision = take(&mut body)?;
    let key_len = take_len(&mut body)?;
    let key = take_bytes(&mut body, key_len)?;
    Some(DocumentRecord { revision, key, value: is_there.then_some(body) })
}

fn put_record(
    out: &mut BytesMut,
    place: RecordPlace,
    len: usize,
    body: impl FnOnce(&mut BytesMut),
) {
    out.reserve(len + 16);
    number::put(out, len as u64);
    let crc_at = out.len();
    out.put_u32_le(0);
    let start = out.len();
    body(out);
    assert_eq!(out.len() - start, len, "a record is as long as it says");
    let crc = checksum(place, &out[start..]);
    out[crc_at..start].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(place: RecordPlace, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(place.seed, &place.position.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

/// Takes a record off the front; `None` if the bytes were not written as a record at this place.
pub(crate) fn take_record<'a>(bytes: &mut &'a [u8], place: RecordPlace) -> Option<Record<'a>> {
    let len = take_len(bytes)?;
    let crc = u32_at(take_bytes(bytes, 4)?, 0);
    let body = take_bytes(bytes, len)?;
    if checksum(place, body) != crc {
        return None;
    }
    let (kind, mut body) = body.split_first()?;
    match *kind {
        EVENT => take_event(body, place).map(Record::Event),
        NAME => std::str::from_utf8(body).ok().map(Record::Name),
        CHANGE => {
            let len = take_len(&mut body)?;
            let stream = std::str::from_utf8(take_bytes(&mut body, len)?).ok()?;
            let state = take_state(&mut body)?;
            body.is_empty().then_some(Record::Change(stream, state))
        }
        DOCUMENT => take_document(body).map(Record::Document),
        COMMIT => body.is_empty().then_some(Record::Commit),
        ERASED => {
            let version = take(&mut body)?;
            std::str::from_utf8(body).ok().map(|stream| Record::Erased(stream, version))
        }
        _ => None,
    }
}

fn take_event<'a>(mut body: &'a [u8], place: RecordPlace) -> Option<EventRecord<'a>> {
    let body = &mut body;
    let version = StreamVersion::new(take(body)?);
    let micros = place.base_at.as_micros().checked_add(take(body)?)?;
    let schema_version = u32::try_from(take(body)?).ok()?;
    let content = Content::from_number(u16::try_from(take(body)?).ok()?);
    let name = u32::try_from(take(body)?).ok()?;
    let stream = take_len(body)?;
    let tags = take_len(body)?;
    let metadata = take_len(body)?;
    let id = EventId::new(Uuid::from_slice(take_bytes(body, 16)?).ok()?);
    let header = EventHeader {
        position: Position::new(place.position),
        version,
        recorded_at: Timestamp::from_micros(micros),
        id,
        schema_version,
        content,
    };
    let stream = std::str::from_utf8(take_bytes(body, stream)?).ok()?;
    let tags = take_bytes(body, tags)?;
    let metadata = take_bytes(body, metadata)?;
    Some(EventRecord { header, name, stream, tags, metadata, payload: body })
}

/// Appends the state of a stream, in the format of changes and of the index.
pub(crate) fn put_state(out: &mut impl BufMut, state: &StreamState) {
    let StreamState { bounds, retention } = state;
    for version in [bounds.version, bounds.erased_through, bounds.deleted_at] {
        number::put(out, version.value());
    }
    let age = retention.age_max.map(|age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
    for limit in [retention.events_max, age] {
        out.put_u8(u8::from(limit.is_some()));
        number::put(out, limit.unwrap_or(0));
    }
}

/// Takes the state of a stream off the front.
pub(crate) fn take_state(bytes: &mut &[u8]) -> Option<StreamState> {
    let mut version = || take(bytes).map(StreamVersion::new);
    let bounds =
        StreamBounds { version: version()?, erased_through: version()?, deleted_at: version()? };
    let mut limit = || {
        let is_set = take_bytes(bytes, 1)?[0] == 1;
        take(bytes).map(|number| is_set.then_some(number))
    };
    let events_max = limit()?;
    let age_max = limit()?;
    let retention =
        Retention { events_max, age_max: age_max.map(std::time::Duration::from_micros) };
    Some(StreamState { bounds, retention })
}

#[cfg(test)]
mod tests;
