//! An event before the append, and the stored identity of its type.

use std::{borrow::Cow, fmt};

use bytes::Bytes;

use crate::{id::EventId, kind::ErrorKind, metadata::Metadata, tag::Tag};

/// The longest stored name of an event type, in bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 256;

/// The error for a name that no event type can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid event name, it must have 1 to 256 bytes and no control character: name={0:?}")]
pub struct InvalidEventName(String);

impl InvalidEventName {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The stored name of an event type, such as `account.money-deposited`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// Stands for "no type at all" in a query that matches nothing. No event has this name.
    pub(crate) const IMPOSSIBLE: Self = Self(Cow::Borrowed(""));

    /// The name of the event that a deletion appends; see
    /// [`AppendBatch::delete`](crate::AppendBatch::delete).
    pub const STREAM_DELETED: Self = Self(Cow::Borrowed("$stream.deleted"));

    /// A name known at compile time.
    ///
    /// # Panics
    /// If [`EventName::parse`] refuses the name; in a `const`, that is a compile error.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(is_name(name), "an event name has 1 to 256 bytes and no control character");
        Self(Cow::Borrowed(name))
    }

    /// Parses a name that was stored or typed.
    ///
    /// # Errors
    /// The name is empty or too long, or holds a control character.
    pub fn parse(name: &str) -> Result<Self, InvalidEventName> {
        if is_name(name) {
            Ok(Self(Cow::Owned(name.into())))
        } else {
            Err(InvalidEventName(name.chars().take(80).collect()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] < 0x20 || bytes[i] == 0x7f {
            return false;
        }
        i += 1;
    }
    !bytes.is_empty() && bytes.len() <= EVENT_NAME_BYTES_MAX
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The encoding of a payload. It is stored with every event and decides how the event is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// CBOR, RFC 8949.
    Cbor,
    /// JSON, RFC 8259.
    Json,
    /// A format of the application, which gives it a number from 256 on.
    Other(u16),
}

impl Content {
    /// The stored number: 1 CBOR, 2 JSON.
    pub const fn number(self) -> u16 {
        match self {
            Self::Cbor => 1,
            Self::Json => 2,
            Self::Other(number) => number,
        }
    }

    /// The content with this stored number.
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Cbor,
            2 => Self::Json,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cbor => f.write_str("cbor"),
            Self::Json => f.write_str("json"),
            Self::Other(number) => write!(f, "other-{number}"),
        }
    }
}

/// An event before the append. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The identity of the event. The store recognises a retry by it.
    pub id: EventId,
    /// The stored name of the event's type.
    pub name: EventName,
    /// The number of the event's schema, from 1 on.
    pub schema_version: u32,
    /// The encoding of the payload.
    pub content: Content,
    /// The encoded fields of the event.
    pub payload: Bytes,
    /// The labels of the event.
    pub tags: Vec<Tag>,
    /// Facts about the event that are not in the payload.
    pub metadata: Metadata,
}

impl NewEvent {
    /// An event with schema version 1, no tags and no metadata.
    pub fn new(id: EventId, name: EventName, content: Content, payload: impl Into<Bytes>) -> Self {
        Self {
            id,
            name,
            schema_version: 1,
            content,
            payload: payload.into(),
            tags: Vec::new(),
            metadata: Metadata::default(),
        }
    }

    /// The event of a deletion: with it, a store erases everything before it in its stream. It has
    /// no payload and no tags. Metadata can be added.
    pub fn deletion(id: EventId) -> Self {
        Self::new(id, EventName::STREAM_DELETED, Content::Cbor, Bytes::new())
    }

    /// True for the event of a deletion.
    pub fn is_deletion(&self) -> bool {
        self.name == EventName::STREAM_DELETED
    }

    /// Adds a tag.
    #[must_use]
    pub fn with_tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The size that counts against the limits, in bytes: name, tags, metadata and payload as
    /// stored.
    pub fn size(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| 2 + tag.as_str().len()).sum();
        self.name.as_str().len() + tags + self.metadata.encoded_len() + self.payload.len()
    }
}
