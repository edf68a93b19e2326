use factum_kernel::{
    Content, EventId, EventName, Metadata, NewEvent, StreamId, StreamVersion, Tag, Timestamp,
};

use super::*;

fn event(number: u64, payload: usize, origin: Option<&str>) -> RecordedEvent {
    let header = EventHeader {
        position: Position::new(number),
        version: StreamVersion::new(number),
        recorded_at: Timestamp::EPOCH,
        id: EventId::derived(Timestamp::EPOCH, &number.to_le_bytes()),
        schema_version: 1,
        content: Content::Cbor,
    };
    let metadata = origin.map_or_else(Metadata::new, |o| Metadata::new().with_origin(o));
    let name = EventName::from_static("n");
    let new = NewEvent::new(header.id, name, Content::Cbor, vec![7; payload]);
    let stream = StreamId::new("s", "k").unwrap();
    let new = new.with_metadata(metadata).with_tag(Tag::new("t", 1).unwrap());
    RecordedEvent::from_new(header, stream.as_ref(), &new)
}

fn end() -> PageEnd {
    let head = Position::new(9);
    let lineage = Lineage::new(EventId::derived(Timestamp::EPOCH, b"lineage").as_uuid());
    PageEnd { scanned_through: head, head, lineage, erased: Vec::new(), bounds: None }
}

#[test]
fn a_page_takes_events_up_to_its_limits_and_one_at_least() {
    let query = ReadQuery::log().with_events_max(3).with_bytes_max(50);
    let mut page = PageBuilder::new(&query);
    let large = event(1, 500, None);
    assert_eq!(page.push(*large.header(), &large.parts()).unwrap(), Pushed::Taken);
    assert_eq!(page.push_ready(&event(2, 1, None)), Pushed::Full, "no bytes are left");

    let mut page = PageBuilder::new(&query);
    for number in 1..=3 {
        assert!(!page.is_full());
        assert_eq!(page.push_ready(&event(number, 1, None)), Pushed::Taken);
    }
    assert!(page.is_full());
    assert_eq!(page.push_ready(&event(4, 1, None)), Pushed::Full);
    assert_eq!(page.finish(end()).events.len(), 3);
}

#[test]
fn the_last_byte_of_a_page_is_used_whether_events_are_copied_or_shared() {
    let event = event(1, 7, Some("here"));
    let size = event.size();
    assert!(!event.parts().tags.is_empty() && !event.parts().metadata.is_empty());
    for (bytes_max, taken) in [(2 * size - 1, 1), (2 * size, 2), (3 * size - 1, 2), (3 * size, 3)] {
        let query = ReadQuery::log().with_bytes_max(bytes_max);
        let mut copied = PageBuilder::new(&query);
        let mut shared = PageBuilder::new(&query);
        for _ in 0..3 {
            let pushed = copied.push(*event.header(), &event.parts()).unwrap();
            assert_eq!(shared.push_ready(&event), pushed);
        }
        let pages = [copied.finish(end()), shared.finish(end())];
        assert_eq!(pages.map(|page| page.events.len()), [taken; 2], "bytes_max={bytes_max}");
    }
}

#[test]
fn the_room_of_a_page_is_what_is_left_of_its_events() {
    for (events_max, room) in [(3, 3), (usize::MAX, PAGE_EVENTS_MAX)] {
        let query = ReadQuery::log().with_events_max(events_max);
        let mut page = PageBuilder::new(&query);
        for taken in 0..3 {
            assert_eq!(page.room(), room - taken);
            page.push_ready(&event(1, 1, None));
        }
        assert_eq!(page.room(), room - 3);
    }
}

#[test]
fn copied_and_shared_events_are_the_same() {
    let query = ReadQuery::log();
    let mut copied = PageBuilder::new(&query);
    let mut shared = PageBuilder::new(&query);
    for number in 1..=5 {
        let event = event(number, number as usize, Some("here"));
        copied.push(*event.header(), &event.parts()).unwrap();
        shared.push_ready(&event);
    }
    assert_eq!(copied.finish(end()), shared.finish(end()));
}

#[test]
fn only_one_origin_is_taken_and_the_scan_is_bounded() {
    let query = ReadQuery::log().with_origin("b");
    let mut page = PageBuilder::new(&query);
    for (number, origin) in [(1, Some("a")), (2, Some("b")), (3, None)] {
        assert_eq!(page.push_ready(&event(number, 1, origin)), Pushed::Taken);
    }
    let copied = event(4, 1, Some("a"));
    assert_eq!(page.push(*copied.header(), &copied.parts()).unwrap(), Pushed::Taken);
    for _ in 4..PAGE_SCANNED_MAX {
        assert!(!page.is_full());
        page.skip();
    }
    assert!(page.is_full());
    let events = page.finish(end()).events;
    assert_eq!(events.iter().map(RecordedEvent::position).collect::<Vec<_>>(), [Position::new(2)]);
}

#[test]
fn the_partition_point_is_found_in_every_place() {
    for len in 0..20 {
        for point in 0..=len {
            let found = partition_point(0, len, |n| Ok::<_, ()>(n >= point));
            assert_eq!(found, Ok(point), "len={len}");
        }
    }
}
