//! An event before the append, and what is stored of its type.

use std::{borrow::Cow, fmt};

use bytes::Bytes;

use crate::{id::EventId, kind::ErrorKind, metadata::Metadata, tag::Tag};

/// The longest stored name of an event type, in bytes.
pub const EVENT_NAME_BYTES_MAX: usize = 256;

/// A name that no event type can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid event name, it must have 1 to 256 bytes and no control character: name={0:?}")]
pub struct InvalidEventName(String);

impl InvalidEventName {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The stored name of an event type, such as `account.money-deposited`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventName(Cow<'static, str>);

impl EventName {
    /// Stands for "no type at all" in an impossible query; no event can have it.
    pub(crate) const IMPOSSIBLE: Self = Self(Cow::Borrowed(""));

    /// A name known at compile time.
    ///
    /// # Panics
    /// On a name that [`EventName::parse`] refuses; in a `const`, that is a compile error.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(is_name(name), "an event name has 1 to 256 bytes and no control character");
        Self(Cow::Borrowed(name))
    }

    /// A name as it was stored or typed.
    ///
    /// # Errors
    /// An empty or overlong name, or one with a control character.
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

/// How payload bytes are to be read. Stored with every event, and obeyed when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// CBOR, RFC 8949.
    Cbor,
    /// JSON, RFC 8259.
    Json,
    /// A number that the application gave its own format; from 256 on.
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

    /// What a stored number stands for.
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
    /// Its identity, by which a retry is recognised.
    pub id: EventId,
    /// The stored name of its type.
    pub name: EventName,
    /// The number of its schema, from 1 on.
    pub schema_version: u32,
    /// How the payload is to be read.
    pub content: Content,
    /// Its fields, encoded.
    pub payload: Bytes,
    /// Its labels.
    pub tags: Vec<Tag>,
    /// What is known beside.
    pub metadata: Metadata,
}

impl NewEvent {
    /// An event of schema 1, without tags and metadata.
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

    /// What the limits on an event count, in bytes: name, tags, metadata and payload as stored.
    pub fn size(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| 2 + tag.as_str().len()).sum();
        self.name.as_str().len() + tags + self.metadata.encoded_len() + self.payload.len()
    }
}
