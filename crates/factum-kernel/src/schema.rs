//! The stored identity of typed events: names, schema versions, and decoding to the present types.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use serde::{Serialize, Serializer, de::DeserializeOwned};

use crate::{
    codec::{Cbor, Codec, CodecError, Json, Value},
    digest::digest,
    event::{Content, EventName, NewEvent},
    id::EventId,
    kind::ErrorKind,
    metadata::Metadata,
    position::Position,
    read_back::changed_field,
    recorded::RecordedEvent,
    tag::{InvalidTag, TagKey, TagWriter},
};

/// The error for an event or a command that can't be encoded, or a guard that can't become a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The codec refused a field.
    #[error("event can't be encoded: {reason}: type={name}")]
    Codec {
        /// The stored name of the event's type.
        name: EventName,
        /// The codec's reason.
        reason: CodecError,
    },
    /// A command with an id can't be serialised, so it can't be compared with a repeat.
    #[error("command can't be serialised: {reason}: command={name}")]
    Command {
        /// The stored name of the command.
        name: &'static str,
        /// The reason of its `Serialize`.
        reason: CodecError,
    },
    /// A tag is not allowed.
    #[error(transparent)]
    Tag(#[from] InvalidTag),
    /// The encoded event does not decode to exactly one event. If it were stored, its stream would
    /// be unreadable.
    #[error("event does not read back, see that its fields serialise both ways: {0}")]
    NotReadable(DecodeError),
    /// The encoded event decodes to another value: the codec can't hold the value, as JSON can't
    /// hold `Some(None)`, or a field is changed or left out when it is written or read.
    #[error(
        "event reads back as another value, give the field a type that its codec holds, \
         and serialise it both ways: type={name} field={field}"
    )]
    Changed {
        /// The stored name of its type.
        name: EventName,
        /// The first field that differs; empty for an event whose fields have no names.
        field: &'static str,
    },
    /// A guard, or the query of a decision model, can match no event. It would protect nothing.
    #[error(
        "a guard or the query of a model can match no event and would protect nothing, name types \
         or tags that one event can have"
    )]
    MatchesNothing,
}

/// The error for a stored event that this program can't read. The reader stops or parks the event;
/// it never skips it silently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "event can't be decoded: {reason}: type={name} schema_version={schema_version} \
     stream={stream} position={position}"
)]
pub struct DecodeError {
    /// The stream of the event; empty before the append.
    pub stream: String,
    /// The position of the event; zero before the append.
    pub position: Position,
    /// The stored name of the event's type.
    pub name: String,
    /// The stored number of the event's schema.
    pub schema_version: u32,
    /// The reason.
    pub reason: DecodeReason,
}

/// The reason why a stored event can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeReason {
    /// No variant has this name.
    #[error("no variant has this name, add the variant or an upcaster for it")]
    UnknownType,
    /// A newer program wrote it.
    #[error("a newer program wrote it, this one knows schema versions up to {0}")]
    NewerSchema(u32),
    /// No upcaster leads from the stored schema version to the present one.
    #[error(
        "no upcaster leads from this schema version to {0}, write one: \
         #[event(upcast(from = .., with = ..))]"
    )]
    NoUpcaster(u32),
    /// An upcaster returned its input unchanged, or upcasters lead in a circle.
    #[error("its upcasters never reach the present schema version")]
    EndlessUpcast,
    /// An upcaster refused the event.
    #[error("its upcaster refused it, {0}")]
    Upcast(String),
    /// The enum's codec does not read this content.
    #[error("its content is {0}, which this enum's codec does not read")]
    UnknownContent(Content),
    /// The fields do not fit the type.
    #[error("{0}")]
    Fields(CodecError),
    /// An event of the present schema decodes to no event, or to several.
    #[error("it decodes to {0} events instead of one")]
    NotOne(usize),
}

impl EncodeError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl DecodeError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

impl DecodeReason {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Corrupt
    }
}

/// The stored identity of an event type, and the Rust type that defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventType {
    /// The stored name, `<prefix>.<variant>`.
    pub name: EventName,
    /// The number of the present schema.
    pub schema_version: u32,
    /// The enum that defines the type. With it an error can name two enums with the same stored
    /// name.
    pub rust_type: &'static str,
}

/// An enum of events. `derive(Event)` implements it.
///
/// An enum of such enums (`#[event(flatten)]`) implements it too, so that a reader of several
/// aggregates needs only one type.
pub trait Event: Sized + Send + Sync + 'static {
    /// Every stored name of the enum: those of its variants, and old ones that its upcasters read.
    fn types() -> Vec<EventType>;

    /// The type of this event.
    fn event_type(&self) -> EventType;

    /// True if a stored name belongs to this enum, as a present name or an old one for an upcaster.
    fn owns(name: &str) -> bool;

    /// True if the event holds the whole folded state, so that older history may be deleted.
    fn is_summary(&self) -> bool;

    /// Writes the labels of the event.
    ///
    /// # Errors
    /// A value is not allowed in a tag, or a hashed tag has no key.
    fn tags(&self, out: &mut TagWriter<'_>) -> Result<(), InvalidTag>;

    /// Serialises the fields of the event, as [`encode`](Self::encode) gives them to its codec.
    ///
    /// # Errors
    /// Those of the serializer.
    fn fields<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Appends the encoded fields of the event.
    ///
    /// # Errors
    /// The codec can't write a value.
    fn encode(&self, out: &mut BytesMut) -> Result<Content, CodecError>;

    /// Decodes a stored event and passes the result to `sink`: usually one event; after upcasters
    /// also none or several. In a flattened enum, upcasters stay within the enum that declares
    /// them.
    ///
    /// # Errors
    /// See [`DecodeReason`]. After an error, the caller must discard what the sink received.
    fn decode(event: EncodedEvent<'_>, sink: &mut dyn FnMut(Self)) -> Result<(), DecodeError>;
}

/// The error for two enums that store events under the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "two event types have one stored name, set another with #[event(prefix = \"..\")] or \
     #[event(name = \"..\")]: name={name} first={first} second={second}"
)]
pub struct DuplicateEventType {
    /// The stored name that both enums have.
    pub name: EventName,
    /// The enum that has the name.
    pub first: &'static str,
    /// The enum that has the same name.
    pub second: &'static str,
}

impl DuplicateEventType {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// A command with a stored name, so that an id can name it and a server can take it as JSON.
/// `derive(Command)` implements it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no stored name as a command",
    note = "add `#[derive(Serialize, Deserialize, Command)]` to the type of the command: an id \
            stands for a name and a content"
)]
pub trait Command: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The number of the present schema.
    const SCHEMA_VERSION: u32;
    /// The stored names of all commands of the type.
    const NAMES: &'static [&'static str];

    /// The stored name of this command, `<prefix>.<variant>`.
    fn name(&self) -> &'static str;

    /// The command with this stored name, read from its fields: a map for named fields or none,
    /// whatever the field is for one unnamed field, an array for more. No bytes stand for an empty
    /// map. `None`: no command has the name.
    ///
    /// # Errors
    /// Fields that are not those of the command, also one more than it has. A field with serde's
    /// `flatten` takes the fields that the others leave.
    fn from_fields<C: Codec>(name: &str, fields: &[u8]) -> Option<Result<Self, CodecError>>;
}

/// Encodes a typed event and decodes it again. So every stored event can be read, and the state
/// folds the same event that later loads will fold.
///
/// # Errors
/// See [`EncodeError`].
pub(crate) fn encode_checked<E: Event>(
    event: &E,
    id: EventId,
    metadata: &Metadata,
    tag_key: Option<&TagKey>,
) -> Result<(NewEvent, E), EncodeError> {
    let new = encode_event(event, id, metadata, tag_key)?;
    let read = read_back(EncodedEvent::of_new(&new))?;
    check_same(event, &read, &new.name)?;
    Ok((new, read))
}

fn read_back<E: Event>(encoded: EncodedEvent<'_>) -> Result<E, EncodeError> {
    let mut read = Vec::with_capacity(1);
    E::decode(encoded.clone(), &mut |event| read.push(event)).map_err(EncodeError::NotReadable)?;
    let count = read.len();
    match read.pop() {
        Some(event) if count == 1 => Ok(event),
        _ => Err(EncodeError::NotReadable(encoded.error(DecodeReason::NotOne(count)))),
    }
}

fn check_same<E: Event>(written: &E, read: &E, name: &EventName) -> Result<(), EncodeError> {
    if digest(&FieldsOf(written)).ok() == digest(&FieldsOf(read)).ok() {
        return Ok(());
    }
    let field = changed_field(&FieldsOf(written), &FieldsOf(read));
    Err(EncodeError::Changed { name: name.clone(), field })
}

/// The fields of an event, as something that serialises.
struct FieldsOf<'a, E>(&'a E);

impl<E: Event> Serialize for FieldsOf<'_, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fields(serializer)
    }
}

/// Encodes a typed event for an append.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_event<E: Event>(
    event: &E,
    id: EventId,
    metadata: &Metadata,
    tag_key: Option<&TagKey>,
) -> Result<NewEvent, EncodeError> {
    let EventType { name, schema_version, .. } = event.event_type();
    let mut payload = BytesMut::new();
    let content = event
        .encode(&mut payload)
        .map_err(|reason| EncodeError::Codec { name: name.clone(), reason })?;
    let mut tags = TagWriter::new(tag_key);
    event.tags(&mut tags)?;
    let mut new = NewEvent::new(id, name, content, payload.freeze());
    new.schema_version = schema_version;
    new.tags = tags.finish();
    new.metadata = metadata.clone();
    Ok(new)
}

/// Decodes a recorded event as an event of an enum; see [`Event::decode`]. The event of a deletion
/// decodes to nothing, except for [`OrDeleted`](crate::OrDeleted).
///
/// # Errors
/// See [`DecodeReason`].
pub fn decode_event<E: Event>(
    recorded: &RecordedEvent,
    sink: &mut dyn FnMut(E),
) -> Result<(), DecodeError> {
    if recorded.is_deletion() && !E::owns(recorded.name()) {
        return Ok(());
    }
    E::decode(EncodedEvent::of(recorded), sink)
}

impl RecordedEvent {
    /// Decodes the event into events of the enum `E`: usually exactly one. Upcasters can turn an
    /// old event into none or several. The event of a deletion decodes to none, except for
    /// [`OrDeleted`](crate::OrDeleted).
    ///
    /// # Errors
    /// See [`DecodeReason`].
    pub fn decode<E: Event>(&self) -> Result<Vec<E>, DecodeError> {
        let mut events = Vec::with_capacity(1);
        decode_event(self, &mut |event| events.push(event))?;
        Ok(events)
    }
}

/// An event to decode: a stored name, a schema version, and fields.
#[derive(Debug, Clone)]
pub struct EncodedEvent<'a> {
    name: Cow<'a, str>,
    schema_version: u32,
    content: Content,
    fields: Fields<'a>,
    /// The recorded event; `None` before the append.
    place: Option<&'a RecordedEvent>,
    /// The length of the chain of upcasters that led to this event.
    depth: usize,
    /// The number of upcasters that have run for the stored event.
    steps: Option<Arc<AtomicUsize>>,
}

#[derive(Debug, Clone)]
enum Fields<'a> {
    Bytes(&'a [u8]),
    Upcast(Value),
}

impl<'a> EncodedEvent<'a> {
    /// A recorded event as it was stored.
    pub fn of(recorded: &'a RecordedEvent) -> Self {
        Self {
            name: Cow::Borrowed(recorded.name()),
            schema_version: recorded.schema_version(),
            content: recorded.content(),
            fields: Fields::Bytes(recorded.payload()),
            place: Some(recorded),
            depth: 0,
            steps: None,
        }
    }

    pub(crate) fn of_new(event: &'a NewEvent) -> Self {
        Self {
            name: Cow::Borrowed(event.name.as_str()),
            schema_version: event.schema_version,
            content: event.content,
            fields: Fields::Bytes(&event.payload),
            place: None,
            depth: 0,
            steps: None,
        }
    }

    /// The stored name of the event's type.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the event's schema.
    pub fn schema_version(&self) -> u32 {
        self.schema_version
    }

    /// The error that this event can't be decoded for `reason`.
    pub fn error(&self, reason: DecodeReason) -> DecodeError {
        let (stream, position) = self.place.map_or_else(Default::default, |recorded| {
            (recorded.stream().as_str().to_owned(), recorded.position())
        });
        let name = self.name.clone().into_owned();
        let schema_version = self.schema_version;
        DecodeError { stream, position, name, schema_version, reason }
    }

    /// Decodes the fields by the stored content. `C` decodes contents that are not Factum's own.
    ///
    /// # Errors
    /// `UnknownContent`, or `Fields` with the codec's reason.
    pub fn fields<C: Codec, T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let read = match (&self.fields, self.content) {
            (Fields::Bytes(bytes), Content::Cbor) => Cbor::decode(bytes),
            (Fields::Bytes(bytes), Content::Json) => Json::decode(bytes),
            (Fields::Bytes(bytes), other) if other == C::CONTENT => C::decode(bytes),
            (Fields::Upcast(value), Content::Cbor) => Cbor::from_value(value),
            (Fields::Upcast(value), Content::Json) => Json::from_value(value),
            (Fields::Upcast(value), other) if other == C::CONTENT => C::from_value(value),
            (_, other) => return Err(self.error(DecodeReason::UnknownContent(other))),
        };
        read.map_err(|e| self.error(DecodeReason::Fields(e)))
    }

    /// The fields as the value that upcasters work on.
    fn value<C: Codec>(&self, bytes: &[u8]) -> Result<Value, DecodeError> {
        let read = match self.content {
            Content::Cbor => Cbor::to_value(bytes),
            Content::Json => Json::to_value(bytes),
            other if other == C::CONTENT => C::to_value(bytes),
            other => return Err(self.error(DecodeReason::UnknownContent(other))),
        };
        read.map_err(|e| self.error(DecodeReason::Fields(e)))
    }
}

/// An event of an old schema that upcasters turn into one of the present schema.
///
/// ```
/// use factum_kernel::{OldEvent, Upcast, Value};
///
/// /// Schema 1 of a deposit had no currency; all of them were euros.
/// fn add_currency(mut event: OldEvent) -> Result<Upcast, String> {
///     event.set("currency", "EUR");
///     Ok(event.next())
/// }
///
/// let old = OldEvent::new("account.deposited", 1, [("cents", Value::from(5))]);
/// let Ok(Upcast::One(new)) = add_currency(old) else { panic!("one event") };
/// assert_eq!(new.schema_version, 2);
/// assert_eq!(new.field("currency"), Some(&Value::from("EUR")));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct OldEvent {
    /// The stored name of the event's type. An upcaster may change it.
    pub name: String,
    /// The number of the event's schema.
    pub schema_version: u32,
    /// The fields: a map for a variant with named fields, the value itself for one unnamed field,
    /// an array for several unnamed fields.
    pub fields: Value,
}

impl OldEvent {
    /// An event with named fields.
    pub fn new<'a>(
        name: &str,
        schema_version: u32,
        fields: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Self {
        let fields = fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect();
        Self { name: name.into(), schema_version, fields: Value::Map(fields) }
    }

    fn entries(&self) -> &[(Value, Value)] {
        self.fields.as_map().map_or(&[], Vec::as_slice)
    }

    /// The value of a named field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.entries().iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
    }

    /// Sets a named field. Does nothing if the fields have no names.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.remove(name);
        if let Some(entries) = self.fields.as_map_mut() {
            entries.push((Value::from(name), value.into()));
        }
    }

    /// Removes a named field and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let entries = self.fields.as_map_mut()?;
        let at = entries.iter().position(|(key, _)| key.as_text() == Some(name))?;
        Some(entries.remove(at).1)
    }

    /// Renames a named field. Does nothing if there is no such field.
    pub fn rename(&mut self, from: &str, to: &str) {
        if let Some(value) = self.remove(from) {
            self.set(to, value);
        }
    }

    /// The same event at the next schema version.
    #[must_use]
    pub fn next(mut self) -> Upcast {
        self.schema_version += 1;
        Upcast::One(self)
    }
}

/// The result of an upcaster.
#[derive(Debug, Clone, PartialEq)]
pub enum Upcast {
    /// One event of a later schema, or of another name.
    One(OldEvent),
    /// Several events, in this order.
    Many(Vec<OldEvent>),
    /// No event: the old event has no meaning any more.
    Drop,
}

/// A step from an old event schema to the next. It is pure; an `Err` makes the event undecodable.
pub type Upcaster = fn(OldEvent) -> Result<Upcast, String>;

/// The longest chain of upcasters. A longer one is taken for a circle.
const UPCAST_DEPTH_MAX: usize = 64;
/// The most upcasters for one stored event. More mean that events split again and again.
const UPCAST_STEPS_MAX: usize = 10_000;

/// Runs one upcaster on an event and decodes the result. `current` is the present schema version of
/// the type; `steps` are its upcasters, each with the version that it starts from.
///
/// # Errors
/// See [`DecodeReason`].
pub fn upcast_event<C: Codec, E: Event>(
    event: &EncodedEvent<'_>,
    current: u32,
    steps: &[(u32, Upcaster)],
    sink: &mut dyn FnMut(E),
) -> Result<(), DecodeError> {
    let from = event.schema_version;
    if from > current {
        return Err(event.error(DecodeReason::NewerSchema(current)));
    }
    let Some((_, step)) = steps.iter().find(|(start, _)| *start == from) else {
        return Err(event.error(DecodeReason::NoUpcaster(current)));
    };
    let taken = event.steps.clone().unwrap_or_default();
    let so_far = taken.fetch_add(1, Ordering::Relaxed);
    if event.depth >= UPCAST_DEPTH_MAX || so_far >= UPCAST_STEPS_MAX {
        return Err(event.error(DecodeReason::EndlessUpcast));
    }
    let fields = match &event.fields {
        Fields::Upcast(value) => value.clone(),
        Fields::Bytes(bytes) => event.value::<C>(bytes)?,
    };
    let old = OldEvent { name: event.name.clone().into_owned(), schema_version: from, fields };
    let results = match step(old).map_err(|e| event.error(DecodeReason::Upcast(e)))? {
        Upcast::One(one) => vec![one],
        Upcast::Many(many) => many,
        Upcast::Drop => vec![],
    };
    for result in results {
        let next = EncodedEvent {
            name: Cow::Owned(result.name),
            schema_version: result.schema_version,
            content: event.content,
            fields: Fields::Upcast(result.fields),
            place: event.place,
            depth: event.depth + 1,
            steps: Some(taken.clone()),
        };
        E::decode(next, sink)?;
    }
    Ok(())
}
