//! An order: a change that another process asks of the journal's store.

use bytes::{BufMut, Bytes, BytesMut};
use factum_kernel::{
    AppendBatch, AppendCondition, Content, DocumentWrite, EventId, EventName, ExpectedRevision,
    ExpectedVersion, KeyRange, Metadata, NewEvent, Position, Query, QueryItem, Retention, Revision,
    StreamChange, StreamCheck, StreamId, StreamVersion, StreamWrite, Tag, WriteBatch,
};
use uuid::Uuid;

use super::wire::{Wire, put_all, put_bytes, take_text};
use crate::{
    number::{take, take_bytes, take_len},
    record::{StreamState, put_state, take_state},
};

/// A change that a store can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// [`factum_kernel::EventStore::append`]
    Append(AppendBatch),
    /// [`factum_kernel::EventStore::change`]
    Change(StreamId, StreamChange),
    /// [`factum_kernel::DocumentStore::write`]
    Write(WriteBatch),
    /// [`factum_kernel::DocumentStore::clear`]
    Clear(KeyRange),
}

impl Wire for Order {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Append(batch) => {
                out.put_u8(1);
                batch.put(out);
            }
            Self::Change(stream, change) => {
                out.put_u8(2);
                stream.put(out);
                change.put(out);
            }
            Self::Write(batch) => {
                out.put_u8(3);
                put_all(out, batch.entries());
            }
            Self::Clear(range) => {
                out.put_u8(4);
                range.from.put(out);
                range.to.put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            1 => AppendBatch::take(bytes).map(Self::Append),
            2 => Some(Self::Change(StreamId::take(bytes)?, StreamChange::take(bytes)?)),
            3 => {
                let entries = Vec::<DocumentWrite>::take(bytes)?.into_iter();
                Some(Self::Write(entries.fold(
                    WriteBatch::new(),
                    |batch, entry| match entry.value {
                        Some(value) => batch.put(entry.key, entry.expected, value),
                        None => batch.remove(entry.key, entry.expected),
                    },
                )))
            }
            4 => Some(Self::Clear(KeyRange { from: Wire::take(bytes)?, to: Wire::take(bytes)? })),
            _ => None,
        }
    }
}

impl Wire for AppendBatch {
    fn put(&self, out: &mut BytesMut) {
        self.is_repeated().put(out);
        put_all(out, self.writes());
        put_all(out, self.checks());
        put_all(out, self.conditions());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let is_repeated = bool::take(bytes)?;
        let mut batch = Self::new();
        for StreamWrite { stream, expected, events } in Vec::<StreamWrite>::take(bytes)? {
            batch = batch.write(stream, expected, events);
        }
        for StreamCheck { stream, expected } in Vec::<StreamCheck>::take(bytes)? {
            batch = batch.check(stream, expected);
        }
        batch = Vec::<AppendCondition>::take(bytes)?.into_iter().fold(batch, Self::unless);
        Some(if is_repeated { batch.repeated() } else { batch })
    }
}

impl Wire for StreamWrite {
    fn put(&self, out: &mut BytesMut) {
        self.stream.put(out);
        self.expected.put(out);
        put_all(out, &self.events);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let stream = Wire::take(bytes)?;
        let expected = Wire::take(bytes)?;
        Some(Self { stream, expected, events: Wire::take(bytes)? })
    }
}

impl Wire for StreamCheck {
    fn put(&self, out: &mut BytesMut) {
        self.stream.put(out);
        self.expected.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { stream: Wire::take(bytes)?, expected: Wire::take(bytes)? })
    }
}

impl Wire for ExpectedVersion {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Any => out.put_u8(0),
            Self::NoStream => out.put_u8(1),
            Self::StreamExists => out.put_u8(2),
            Self::Exact(version) => {
                out.put_u8(3);
                version.put(out);
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            0 => Some(Self::Any),
            1 => Some(Self::NoStream),
            2 => Some(Self::StreamExists),
            3 => StreamVersion::take(bytes).map(Self::Exact),
            _ => None,
        }
    }
}

impl Wire for NewEvent {
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self.id.as_uuid().as_bytes());
        self.name.put(out);
        u64::from(self.schema_version).put(out);
        u64::from(self.content.number()).put(out);
        self.payload.put(out);
        put_all(out, &self.tags);
        (self.metadata.encoded_len() as u64).put(out);
        self.metadata.encode(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let id = EventId::new(Uuid::from_slice(take_bytes(bytes, 16)?).ok()?);
        let name = EventName::take(bytes)?;
        let schema_version = u32::try_from(take(bytes)?).ok()?;
        let content = Content::from_number(u16::try_from(take(bytes)?).ok()?);
        let mut event = Self::new(id, name, content, Bytes::take(bytes)?);
        (event.schema_version, event.tags) = (schema_version, Wire::take(bytes)?);
        let len = take_len(bytes)?;
        event.metadata = Metadata::decode(take_bytes(bytes, len)?)?;
        Some(event)
    }
}

impl Wire for EventName {
    fn put(&self, out: &mut BytesMut) {
        put_bytes(out, self.as_str().as_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Self::parse(take_text(bytes)?).ok()
    }
}

impl Wire for Tag {
    fn put(&self, out: &mut BytesMut) {
        put_bytes(out, self.as_str().as_bytes());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Self::parse(take_text(bytes)?).ok()
    }
}

impl Wire for AppendCondition {
    fn put(&self, out: &mut BytesMut) {
        self.after.put(out);
        put_all(out, self.fail_if_events_match.items());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let after = Position::take(bytes)?;
        let fail_if_events_match = Query::new(Vec::<QueryItem>::take(bytes)?);
        Some(Self { fail_if_events_match, after })
    }
}

impl Wire for QueryItem {
    fn put(&self, out: &mut BytesMut) {
        put_all(out, &self.types);
        put_all(out, &self.tags);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { types: Wire::take(bytes)?, tags: Wire::take(bytes)? })
    }
}

impl Wire for StreamChange {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Retain(retention) => {
                out.put_u8(1);
                put_state(out, &StreamState { retention: *retention, ..StreamState::default() });
            }
            Self::TruncateBefore(version) => {
                out.put_u8(2);
                version.put(out);
            }
            // The receiver refuses a change that it doesn't know.
            _ => out.put_u8(u8::MAX),
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        match u8::take(bytes)? {
            1 => {
                let Retention { events_max, age_max } = take_state(bytes)?.retention;
                Some(Self::Retain(Retention { events_max, age_max }))
            }
            2 => StreamVersion::take(bytes).map(Self::TruncateBefore),
            _ => None,
        }
    }
}

impl Wire for DocumentWrite {
    fn put(&self, out: &mut BytesMut) {
        self.key.put(out);
        match self.expected {
            ExpectedRevision::Any => out.put_u8(0),
            ExpectedRevision::Absent => out.put_u8(1),
            ExpectedRevision::Exact(revision) => {
                out.put_u8(2);
                revision.put(out);
            }
        }
        self.value.put(out);
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let key = Bytes::take(bytes)?;
        let expected = match u8::take(bytes)? {
            0 => ExpectedRevision::Any,
            1 => ExpectedRevision::Absent,
            2 => ExpectedRevision::Exact(Revision::take(bytes)?),
            _ => return None,
        };
        Some(Self { key, expected, value: Wire::take(bytes)? })
    }
}

#[cfg(test)]
mod tests;
