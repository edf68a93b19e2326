//! An event on one line: for people, or in full as JSON.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use factum::{Metadata, RecordedEvent, event::EventId};
use serde::Serialize;

use crate::{
    number::millisecond,
    output::Paint,
    read::value::{self, AsJson},
};

/// The most bytes of an undecodable payload that are shown to people.
const HEX_BYTES_MAX: usize = 48;

/// All fields of an event, for JSON.
#[derive(Serialize)]
struct Line<'a> {
    position: u64,
    version: u64,
    stream: &'a str,
    #[serde(rename = "type")]
    name: &'a str,
    schema_version: u32,
    content: String,
    id: EventId,
    recorded_at: String,
    tags: Vec<&'a str>,
    metadata: Beside<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<AsJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_hex: Option<String>,
}

/// The metadata that are present.
#[derive(Serialize)]
struct Beside<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<&'a str, &'a str>,
}

/// An event as a JSON object.
pub(crate) fn json(event: &RecordedEvent) -> String {
    let value = value::decode(event);
    let metadata = event.metadata();
    let line = Line {
        position: event.position().value(),
        version: event.version().value(),
        stream: event.stream().as_str(),
        name: event.name(),
        schema_version: event.schema_version(),
        content: event.content().to_string(),
        id: event.id(),
        recorded_at: event.recorded_at().to_string(),
        tags: event.tags().collect(),
        metadata: beside(&metadata),
        data: value.as_ref().map(AsJson),
        data_hex: (value.is_none() && !event.is_deletion()).then(|| value::hex(event.payload())),
    };
    serde_json::to_string(&line).expect("all keys are text")
}

fn beside(metadata: &Metadata) -> Beside<'_> {
    Beside {
        correlation_id: metadata.correlation_id.map(|id| id.to_string()),
        causation_id: metadata.causation_id.map(|id| id.to_string()),
        user: metadata.user.as_deref(),
        tenant: metadata.tenant.as_deref(),
        origin: metadata.origin.as_deref(),
        occurred_at: metadata.occurred_at.map(|time| time.to_string()),
        extra: metadata.extra.iter().map(|(key, value)| (&**key, &**value)).collect(),
    }
}

/// An event for people, cut to the terminal's width.
pub(crate) fn text(event: &RecordedEvent, paint: Paint, width: Option<usize>) -> String {
    let payload = match value::decode(event) {
        Some(value) => value::text(&value),
        None if event.is_deletion() => "older events of the stream are erased".into(),
        None => hex_start(event.payload()),
    };
    let place = format!("{:>8}  {}", event.position(), millisecond(event.recorded_at()));
    let stream = format!("{}@{}", event.stream(), event.version());
    let mut line = format!(
        "{}  {}  {}  {}",
        paint.dim(place),
        paint.bold(printable(&stream)),
        paint.name(printable(event.name())),
        printable(&payload),
    );
    for tag in event.tags() {
        let _ = write!(line, "  {}", paint.dim(printable(tag)));
    }
    match width {
        Some(width) => console::truncate_str(&line, width, "…").into_owned(),
        None => line,
    }
}

fn hex_start(bytes: &[u8]) -> String {
    match bytes.get(..HEX_BYTES_MAX) {
        Some(start) if bytes.len() > start.len() => {
            format!("{}… ({} bytes)", value::hex(start), bytes.len())
        }
        _ => value::hex(bytes),
    }
}

/// The text with its control characters escaped, which could move the cursor or change the
/// terminal's state.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| match c.is_control() {
        true => format!("\\u{{{:x}}}", u32::from(c)),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use factum::{
        Position,
        event::{
            Content, EventHeader, EventName, NewEvent, StreamId, StreamVersion, Tag, Timestamp,
        },
    };

    use super::*;

    fn event(content: Content, payload: &[u8]) -> RecordedEvent {
        let header = EventHeader {
            position: Position::new(7),
            version: StreamVersion::new(2),
            recorded_at: "2026-03-01T12:00:00.25Z".parse().unwrap(),
            id: EventId::derived(Timestamp::EPOCH, b"x"),
            schema_version: 3,
            content,
        };
        let name = EventName::from_static("account.opened");
        let event = NewEvent::new(header.id, name, content, payload.to_vec())
            .with_tag(Tag::new("branch", 7).unwrap())
            .with_metadata(Metadata::new().with_user("zoë").with("k", "v"));
        let stream = StreamId::new("account", "ada").unwrap();
        RecordedEvent::from_new(header, stream.as_ref(), &event)
    }

    const PLAIN: Paint = Paint::NONE;

    #[test]
    fn json_says_everything() {
        let line = json(&event(Content::Json, br#"{"z":1,"a":2}"#));
        let parts = [
            r#"{"position":7,"version":2,"stream":"account-ada","type":"account.opened","#,
            r#""schema_version":3,"content":"json","id":""#,
            &EventId::derived(Timestamp::EPOCH, b"x").to_string(),
            r#"","recorded_at":"2026-03-01T12:00:00.250000Z","tags":["branch:7"],"#,
            r#""metadata":{"user":"zoë","extra":{"k":"v"}},"data":{"z":1,"a":2}}"#,
        ];
        assert_eq!(line, parts.concat());
        let line = json(&event(Content::Other(300), &[1, 255]));
        assert!(line.contains(r#""content":"other-300""#), "{line}");
        assert!(line.ends_with(r#""data_hex":"01ff"}"#), "{line}");
    }

    #[test]
    fn a_deletion_is_shown_without_data() {
        let stream = StreamId::new("account", "ada").unwrap();
        let header = *event(Content::Cbor, &[]).header();
        let deletion = NewEvent::deletion(header.id);
        let deletion = RecordedEvent::from_new(header, stream.as_ref(), &deletion);
        let shown = text(&deletion, PLAIN, None);
        let end = "account-ada@2  $stream.deleted  older events of the stream are erased";
        assert!(shown.ends_with(end), "{shown}");
        let line = json(&deletion);
        assert!(
            line.contains(r#""type":"$stream.deleted""#) && !line.contains(r#""data"#),
            "{line}"
        );
    }

    #[test]
    fn text_is_one_line_cut_to_the_width() {
        let event = event(Content::Json, b"{\"a\":\"x\\ny\"}");
        let whole = "       7  2026-03-01 12:00:00.250  account-ada@2  account.opened  \
                     {\"a\":\"x\\ny\"}  branch:7";
        assert_eq!(text(&event, PLAIN, None), whole);
        assert_eq!(text(&event, PLAIN, Some(20)), "       7  2026-03-0…");
    }

    #[test]
    fn what_can_not_be_read_is_shown_as_bytes_and_escapes_reach_no_terminal() {
        let long = text(&event(Content::Other(256), &[0xab; 100]), PLAIN, None);
        assert!(long.contains("abab… (100 bytes)"), "{long}");
        let damaged = text(&event(Content::Json, b"{"), PLAIN, None);
        assert!(damaged.contains("  7b  "), "{damaged}");
        assert_eq!(printable("a\u{9b}31m\x1b[2J"), "a\\u{9b}31m\\u{1b}[2J");
    }
}
