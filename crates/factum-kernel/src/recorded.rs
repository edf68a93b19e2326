//! An event that was appended: a small header by value, and one slice of the page for the rest.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    event::{Content, EventName, NewEvent},
    id::EventId,
    kind::ErrorKind,
    metadata::Metadata,
    position::Position,
    stream::StreamRef,
    tag::Tag,
    time::Timestamp,
    version::StreamVersion,
};

/// The part of a recorded event that has a fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// The position of the event in the log.
    pub position: Position,
    /// The version of the event in its stream.
    pub version: StreamVersion,
    /// The time of the append, by the store's clock.
    pub recorded_at: Timestamp,
    /// The identity of the event.
    pub id: EventId,
    /// The number of the event's schema.
    pub schema_version: u32,
    /// The encoding of the payload.
    pub content: Content,
}

/// The part of a recorded event that has a variable size, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventParts<'a> {
    /// The whole stream id.
    pub stream: &'a str,
    /// The stored name of the type.
    pub name: &'a str,
    /// The tags as [`encode_tags`] writes them.
    pub tags: &'a [u8],
    /// The metadata as [`Metadata::encode`] writes them.
    pub metadata: &'a [u8],
    /// The encoded fields.
    pub payload: &'a [u8],
}

/// The end of each part of an event in its body, in this order: stream, name, tags, metadata. The
/// payload takes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLayout {
    stream_end: u32,
    name_end: u32,
    tags_end: u32,
    metadata_end: u32,
    category_len: u16,
}

/// The error for bytes that are not the body of an event, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event body is damaged: {0}")]
pub struct InvalidBody(&'static str);

impl InvalidBody {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

/// Appends the stored form of tags: for each tag a `u16` little-endian length and its UTF-8.
pub fn encode_tags(tags: &[Tag], out: &mut BytesMut) {
    for tag in tags {
        out.put_u16_le(u16::try_from(tag.as_str().len()).expect("a tag is at most 256 bytes"));
        out.put_slice(tag.as_str().as_bytes());
    }
}

impl BodyLayout {
    /// The layout of these parts when they are written one after another.
    ///
    /// # Errors
    /// The stream id has no `-`, or the parts are longer than 4 GiB.
    pub fn of(parts: &EventParts<'_>) -> Result<Self, InvalidBody> {
        let category_len = parts.stream.find('-').ok_or(InvalidBody("stream id without '-'"))?;
        let stream = parts.stream.len();
        let name = stream + parts.name.len();
        let tags = name + parts.tags.len();
        let end = |n: usize| u32::try_from(n).map_err(|_| InvalidBody("longer than 4 GiB"));
        Ok(Self {
            stream_end: end(stream)?,
            name_end: end(name)?,
            tags_end: end(tags)?,
            metadata_end: end(tags + parts.metadata.len())?,
            category_len: u16::try_from(category_len)
                .map_err(|_| InvalidBody("category longer than 64 KiB"))?,
        })
    }

    /// Writes the body of a new event in `stream`, and returns the layout of its parts.
    pub fn write(stream: StreamRef<'_>, event: &NewEvent, out: &mut BytesMut) -> Self {
        let start = out.len();
        let end = |out: &BytesMut| {
            u32::try_from(out.len() - start).expect("an event is smaller than the limit of a batch")
        };
        out.put_slice(stream.as_str().as_bytes());
        let stream_end = end(out);
        out.put_slice(event.name.as_str().as_bytes());
        let name_end = end(out);
        encode_tags(&event.tags, out);
        let tags_end = end(out);
        event.metadata.encode(out);
        let metadata_end = end(out);
        out.put_slice(&event.payload);
        let category_len = u16::try_from(stream.category().len()).expect("a valid stream id");
        Self { stream_end, name_end, tags_end, metadata_end, category_len }
    }
}

/// An event that was appended. Cheap to clone: one reference count.
///
/// The accessors borrow from the event, which holds a slice of the page that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    header: EventHeader,
    layout: BodyLayout,
    body: Bytes,
}

impl RecordedEvent {
    /// Makes an event from a body that a store kept.
    ///
    /// # Errors
    /// The body does not fit the layout, or a text in it is not UTF-8.
    pub fn new(header: EventHeader, layout: BodyLayout, body: Bytes) -> Result<Self, InvalidBody> {
        let ends = [layout.stream_end, layout.name_end, layout.tags_end, layout.metadata_end];
        if !ends.is_sorted() || layout.metadata_end as usize > body.len() {
            return Err(InvalidBody("a part ends outside the body"));
        }
        let text = std::str::from_utf8(&body[..layout.name_end as usize])
            .map_err(|_| InvalidBody("stream or name is not UTF-8"))?;
        let dash = usize::from(layout.category_len);
        if !text.is_char_boundary(layout.stream_end as usize)
            || dash >= layout.stream_end as usize
            || text.as_bytes().get(dash) != Some(&b'-')
        {
            return Err(InvalidBody("no valid boundary between stream and name"));
        }
        let tags = &body[layout.name_end as usize..layout.tags_end as usize];
        if !tags_are_valid(tags) {
            return Err(InvalidBody("the tags are not valid"));
        }
        let metadata = &body[layout.tags_end as usize..layout.metadata_end as usize];
        if !Metadata::is_valid(metadata) {
            return Err(InvalidBody("the metadata are not valid"));
        }
        Ok(Self { header, layout, body })
    }

    /// The recorded form of a new event, for stores that keep this form.
    pub fn from_new(header: EventHeader, stream: StreamRef<'_>, event: &NewEvent) -> Self {
        let mut body = BytesMut::with_capacity(stream.as_str().len() + event.size());
        let layout = BodyLayout::write(stream, event, &mut body);
        Self { header, layout, body: body.freeze() }
    }

    /// The header, which has a fixed size.
    pub fn header(&self) -> &EventHeader {
        &self.header
    }

    /// The position of the event in the log.
    pub fn position(&self) -> Position {
        self.header.position
    }

    /// The version of the event in its stream.
    pub fn version(&self) -> StreamVersion {
        self.header.version
    }

    /// The time of the append, by the store's clock; never before that of an earlier event.
    pub fn recorded_at(&self) -> Timestamp {
        self.header.recorded_at
    }

    /// The identity of the event.
    pub fn id(&self) -> EventId {
        self.header.id
    }

    /// The number of the event's schema.
    pub fn schema_version(&self) -> u32 {
        self.header.schema_version
    }

    /// The encoding of the payload.
    pub fn content(&self) -> Content {
        self.header.content
    }

    /// The stream of the event.
    pub fn stream(&self) -> StreamRef<'_> {
        StreamRef::from_stored(self.text(0, self.layout.stream_end), self.layout.category_len)
    }

    /// The stored name of the event's type.
    pub fn name(&self) -> &str {
        self.text(self.layout.stream_end, self.layout.name_end)
    }

    /// True for the event of a deletion: everything before it in its stream is erased. It belongs
    /// to no enum of events; [`OrDeleted`](crate::OrDeleted) is for readers that want to see it.
    pub fn is_deletion(&self) -> bool {
        self.name() == EventName::STREAM_DELETED.as_str()
    }

    /// The labels of the event, each `name:value`.
    pub fn tags(&self) -> Tags<'_> {
        Tags { rest: self.slice(self.layout.name_end, self.layout.tags_end) }
    }

    /// Facts about the event that are not in the payload. Each call decodes them.
    pub fn metadata(&self) -> Metadata {
        let bytes = self.slice(self.layout.tags_end, self.layout.metadata_end);
        Metadata::decode(bytes).expect("checked when the event was made")
    }

    /// The encoded fields.
    pub fn payload(&self) -> &[u8] {
        &self.body[self.layout.metadata_end as usize..]
    }

    /// The encoded fields as a slice of the page that can be kept.
    pub fn payload_bytes(&self) -> Bytes {
        self.body.slice(self.layout.metadata_end as usize..)
    }

    /// All parts of variable size, as they are stored.
    pub fn parts(&self) -> EventParts<'_> {
        EventParts {
            stream: self.stream().as_str(),
            name: self.name(),
            tags: self.slice(self.layout.name_end, self.layout.tags_end),
            metadata: self.slice(self.layout.tags_end, self.layout.metadata_end),
            payload: self.payload(),
        }
    }

    /// The size that counts against the limits of a page, in bytes.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    fn slice(&self, start: u32, end: u32) -> &[u8] {
        &self.body[start as usize..end as usize]
    }

    fn text(&self, start: u32, end: u32) -> &str {
        std::str::from_utf8(self.slice(start, end)).expect("checked when the event was made")
    }
}

fn tags_are_valid(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(len) = bytes.try_get_u16_le() else { return false };
        let Some((tag, rest)) = bytes.split_at_checked(usize::from(len)) else { return false };
        if std::str::from_utf8(tag).is_err() {
            return false;
        }
        bytes = rest;
    }
    true
}

/// The tags of a recorded event, each `name:value`.
#[derive(Debug, Clone)]
pub struct Tags<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let len = usize::from(self.rest.try_get_u16_le().ok()?);
        let (tag, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(std::str::from_utf8(tag).expect("checked when the event was made"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::StreamId;

    fn header() -> EventHeader {
        EventHeader {
            position: Position::new(9),
            version: StreamVersion::new(2),
            recorded_at: Timestamp::from_micros(77),
            id: EventId::derived(Timestamp::EPOCH, b"x"),
            schema_version: 3,
            content: Content::Json,
        }
    }

    fn event() -> (StreamId, NewEvent) {
        let stream = StreamId::new("account", "zoë-1").unwrap();
        let name = EventName::from_static("account.opened");
        let event = NewEvent::new(header().id, name, Content::Json, "{\"a\":1}")
            .with_tag(Tag::new("email", "z@x").unwrap())
            .with_tag(Tag::new("branch", 7).unwrap())
            .with_metadata(Metadata::new().with_user("zoë"));
        (stream, event)
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (stream, event) = event();
        let recorded = RecordedEvent::from_new(header(), stream.as_ref(), &event);
        assert_eq!(recorded.stream(), stream);
        assert_eq!(recorded.stream().key(), "zoë-1");
        assert_eq!(recorded.name(), "account.opened");
        assert_eq!(recorded.tags().collect::<Vec<_>>(), ["email:z@x", "branch:7"]);
        assert_eq!(recorded.metadata(), event.metadata);
        assert_eq!(recorded.payload(), b"{\"a\":1}");
        assert_eq!(recorded.size(), stream.as_str().len() + event.size());
    }

    #[test]
    fn parts_give_the_same_layout_and_a_damaged_body_is_refused() {
        let (stream, event) = event();
        let recorded = RecordedEvent::from_new(header(), stream.as_ref(), &event);
        let layout = BodyLayout::of(&recorded.parts()).unwrap();
        assert_eq!(layout, recorded.layout);
        let again = RecordedEvent::new(header(), layout, recorded.body.clone());
        assert_eq!(again.as_ref(), Ok(&recorded));

        let cut = recorded.body.slice(..layout.metadata_end as usize - 1);
        assert!(RecordedEvent::new(header(), layout, cut).is_err());
        let mut bad = BytesMut::from(&recorded.body[..]);
        bad[0] = 0xff;
        assert!(RecordedEvent::new(header(), layout, bad.freeze()).is_err());
    }
}
