use std::time::Duration;

use factum_kernel::{EventName, NewEvent, StreamId};

use super::*;

const PLACE: RecordPlace =
    RecordPlace { seed: 7, base_at: Timestamp::from_micros(1_000), position: 42 };

fn written() -> BytesMut {
    let mut out = BytesMut::new();
    let stream = StreamId::new("account", "zoë-1").unwrap();
    let id = EventId::derived(Timestamp::EPOCH, b"x");
    let event = NewEvent::new(id, EventName::from_static("account.opened"), Content::Json, "{}")
        .with_tag(Tag::new("branch", 7).unwrap())
        .with_metadata(Metadata::new().with_user("ada"));
    let header = EventHeader {
        position: Position::new(42),
        version: StreamVersion::new(300),
        recorded_at: Timestamp::from_micros(5_000_000),
        id,
        schema_version: 3,
        content: Content::Other(9_000),
    };
    put_event(&mut out, PLACE, &PlannedEvent { header, stream: &stream, event: &event }, 5);
    out
}

#[test]
fn an_event_comes_back() {
    let bytes = written();
    let mut rest = &bytes[..];
    let Some(Record::Event(event)) = take_record(&mut rest, PLACE) else { panic!("no event") };
    assert!(rest.is_empty());
    assert_eq!((event.stream, event.name, event.payload), ("account-zoë-1", 5, &b"{}"[..]));
    assert_eq!(event.header.position, Position::new(42));
    assert_eq!(event.header.version, StreamVersion::new(300));
    assert_eq!(event.header.recorded_at, Timestamp::from_micros(5_000_000));
    assert_eq!((event.header.schema_version, event.header.content), (3, Content::Other(9_000)));
    assert_eq!(Metadata::decode(event.metadata).unwrap().user.as_deref(), Some("ada"));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = written();
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(take_record(&mut &bytes[..], PLACE).is_none(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(take_record(&mut &bytes[..len], PLACE).is_none(), "cut at {len}");
    }
    for place in [RecordPlace { seed: 8, ..PLACE }, RecordPlace { position: 43, ..PLACE }] {
        assert!(take_record(&mut &bytes[..], place).is_none(), "{place:?}");
    }
}

#[test]
fn changes_and_documents_come_back() {
    let bounds = StreamBounds {
        version: StreamVersion::new(9),
        erased_through: StreamVersion::new(4),
        deleted_at: StreamVersion::new(3),
    };
    let limited = Retention { events_max: Some(0), age_max: Some(Duration::from_secs(60)) };
    for retention in [Retention::default(), limited] {
        let state = StreamState { bounds, retention };
        let mut out = BytesMut::new();
        put_change(&mut out, PLACE, "account-ada", &state);
        match take_record(&mut &out[..], PLACE) {
            Some(Record::Change(stream, found)) => {
                assert_eq!((stream, found), ("account-ada", state));
            }
            other => panic!("{other:?}"),
        }
    }
    for value in [None, Some(&b""[..]), Some(&b"value"[..])] {
        let document = DocumentRecord { revision: 300, key: b"key", value };
        let mut out = BytesMut::new();
        put_document(&mut out, PLACE, &document);
        match take_record(&mut &out[..], PLACE) {
            Some(Record::Document(found)) => assert_eq!(found, document),
            other => panic!("{other:?}"),
        }
    }
}

/// A checksum guards against chance, not against a person who computes it. Whatever bytes have a
/// valid checksum, they are read or refused.
#[test]
fn any_bytes_under_a_good_checksum_are_read_or_refused() {
    let mut random = crate::simulation::Random::new(7);
    let mut read = 0;
    for _ in 0..60_000 {
        let len = random.below(40) as usize;
        let mut body: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        if let Some(kind) = body.first_mut() {
            *kind = random.below(7) as u8;
        }
        // Small numbers lead deeper into the decoder.
        for byte in body.iter_mut().skip(1).take(random.below(12) as usize) {
            *byte %= 8;
        }
        let mut out = BytesMut::new();
        put_record(&mut out, PLACE, body.len(), |out| out.put_slice(&body));
        read += usize::from(take_record(&mut &out[..], PLACE).is_some());
        let mut any = &body[..];
        let _ = take_record(&mut any, PLACE);
    }
    assert!(read > 1_000, "{read} were read");
}
