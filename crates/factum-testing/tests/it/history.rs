//! The history checker: for each way in which a log can be wrong, a wrong log.

use bytes::Bytes;
use factum_kernel::{
    AppendBatch, AppendError, Appended, Content, ErasedRange, EventHeader, EventId, EventName,
    ExpectedVersion, Lineage, NewEvent, Page, Position, RecordedEvent, Scope, StoreError, StreamId,
    StreamVersion, Timestamp,
};
use factum_testing::{Delivery, History, Summary, Violation};
use uuid::Uuid;

fn id(number: u128) -> EventId {
    EventId::new(Uuid::from_u128(number))
}

fn event(number: u128) -> NewEvent {
    let name = EventName::from_static("account.deposited");
    NewEvent::new(id(number), name, Content::Json, format!("{number}"))
}

fn stream(key: &str) -> StreamId {
    StreamId::new("account", key).unwrap()
}

/// Events with these numbers, for one stream.
fn batch(key: &str, numbers: &[u128]) -> AppendBatch {
    let events = numbers.iter().map(|number| event(*number));
    AppendBatch::new().write(stream(key), ExpectedVersion::Any, events)
}

/// An event as a log holds it.
fn at(position: u64, key: &str, version: u64, number: u128) -> RecordedEvent {
    recorded(position, key, version, &event(number), position)
}

fn recorded(position: u64, key: &str, version: u64, new: &NewEvent, micros: u64) -> RecordedEvent {
    let header = EventHeader {
        position: Position::new(position),
        version: StreamVersion::new(version),
        recorded_at: Timestamp::from_micros(micros),
        id: new.id,
        schema_version: new.schema_version,
        content: new.content,
    };
    RecordedEvent::from_new(header, stream(key).as_ref(), new)
}

fn page(events: Vec<RecordedEvent>, erased: &[(u64, u64)]) -> Page {
    let mut page = Page::empty(Lineage::new(Uuid::from_u128(9)));
    page.erased = erased
        .iter()
        .map(|(first, last)| ErasedRange {
            first: Position::new(*first),
            last: Position::new(*last),
        })
        .collect();
    let last_event = events.last().map_or(0, |event| event.position().value());
    let last = erased.last().map_or(0, |range| range.1).max(last_event);
    (page.head, page.scanned_through) = (Position::new(last), Position::new(last));
    page.events = events;
    page
}

fn stored(first: u64, versions: &[u64], count: usize) -> Result<Appended, AppendError> {
    let versions = versions.iter().map(|version| StreamVersion::new(*version)).collect();
    let at = Timestamp::from_micros(first);
    Ok(Appended::new(Position::new(first), versions, at).with_events(count))
}

fn failed() -> Result<Appended, AppendError> {
    Err(StoreError::unavailable("no").into())
}

fn unknown() -> Result<Appended, AppendError> {
    Err(AppendError::Indeterminate(StoreError::unavailable("no reply")))
}

/// Ada's events 1 and 2, acknowledged at positions 1 and 2.
fn two_stored() -> History {
    let history = History::new();
    history.attempt(&batch("ada", &[1, 2])).ended(&stored(1, &[2], 2));
    history
}

fn two_events() -> Vec<RecordedEvent> {
    vec![at(1, "ada", 1, 1), at(2, "ada", 2, 2)]
}

/// Checks that the log is refused, with a sentence that contains this text.
fn refused(history: &History, pages: &[Page], text: &str) -> Violation {
    let violation = history.check(pages).unwrap_err();
    assert!(violation.to_string().contains(text), "{violation}");
    violation
}

#[test]
fn a_right_log_is_summed_up() {
    let history = two_stored();
    history.attempt(&batch("bob", &[3])).ended(&failed());
    history.attempt(&batch("bob", &[4])).ended(&unknown());
    drop(history.attempt(&batch("bob", &[5])));
    let mut events = two_events();
    events.push(at(3, "bob", 1, 5));
    let summary = history.check(&[page(events, &[])]).unwrap();
    let mut wanted = Summary::default();
    (wanted.events, wanted.streams, wanted.acknowledged) = (3, 2, 1);
    (wanted.unknown_stored, wanted.unknown_absent, wanted.failed) = (1, 1, 1);
    assert_eq!(summary, wanted);
}

#[test]
fn what_was_acknowledged_must_be_there() {
    let history = two_stored();
    let lost = refused(&history, &[page(vec![at(1, "ada", 1, 1)], &[])], "lost");
    let text = lost.to_string();
    assert!(text.contains("stream=account-ada position=2 id=00000000-"), "{text}");
    refused(&history, &[page(vec![], &[])], "lost");
    // Erased, but no change of the stream was recorded.
    refused(&history, &[page(vec![at(2, "ada", 2, 2)], &[(1, 1)])], "versions jump");
    refused(&history, &[page(vec![at(1, "ada", 1, 1)], &[(2, 2)])], "lost");
    history.changed(&stream("ada"));
    assert_eq!(history.check(&[page(vec![at(2, "ada", 2, 2)], &[(1, 1)])]).unwrap().erased, 1);
    // A change explains an erased event, but not one without any position.
    refused(&history, &[page(vec![at(1, "ada", 1, 1)], &[])], "lost");
}

#[test]
fn what_nobody_appended_must_not_be_there() {
    let mut events = two_events();
    events.push(at(3, "bob", 1, 9));
    refused(&two_stored(), &[page(events, &[])], "invented");
}

#[test]
fn what_failed_must_not_be_there() {
    let history = two_stored();
    history.attempt(&batch("bob", &[3])).ended(&failed());
    let mut events = two_events();
    events.push(at(3, "bob", 1, 3));
    refused(&history, &[page(events.clone(), &[])], "although it failed");
    // After another attempt with an unknown outcome, it may be there.
    history.attempt(&batch("bob", &[3])).ended(&unknown());
    assert_eq!(history.check(&[page(events, &[])]).unwrap().unknown_stored, 1);
}

#[test]
fn one_event_stands_once() {
    let mut events = two_events();
    events.push(at(3, "ada", 3, 2));
    let violation = refused(&two_stored(), &[page(events, &[])], "doubled");
    assert!(violation.to_string().contains("first=2 second=3"));
}

#[test]
fn an_event_must_be_as_it_was_appended() {
    let mut other = event(2);
    other.payload = Bytes::from_static(b"other");
    let events = vec![at(1, "ada", 1, 1), recorded(2, "ada", 2, &other, 2)];
    refused(&two_stored(), &[page(events, &[])], "the payload of the event");
}

#[test]
fn an_event_must_be_where_its_writer_was_told() {
    let events = vec![at(1, "ada", 1, 2), at(2, "ada", 2, 1)];
    let violation = refused(&two_stored(), &[page(events, &[])], "misplaced");
    let told = "told version 1 at position 1, found version 2 at position 2";
    assert!(violation.to_string().contains(told), "{violation}");
}

#[test]
fn a_batch_of_unknown_outcome_is_whole_or_absent() {
    let history = History::new();
    history.attempt(&batch("ada", &[1, 2])).ended(&unknown());
    assert!(history.check(&[page(vec![], &[])]).is_ok());
    assert!(history.check(&[page(two_events(), &[])]).is_ok());
    refused(&history, &[page(vec![at(1, "ada", 1, 1)], &[])], "torn: 1 of 2");
    refused(&history, &[page(vec![at(1, "ada", 1, 2)], &[])], "torn");
    let swapped = vec![at(1, "ada", 1, 2), at(2, "ada", 2, 1)];
    refused(&history, &[page(swapped, &[])], "torn");
}

#[test]
fn positions_have_no_hole() {
    let history = two_stored();
    let events = vec![at(1, "ada", 1, 1), at(3, "ada", 2, 2)];
    refused(&history, &[page(events, &[])], "position 3 follows 1");
    let swapped = vec![at(2, "ada", 2, 2), at(1, "ada", 1, 1)];
    refused(&history, &[page(swapped, &[])], "position 1 follows 2");
    let mut cut = page(two_events(), &[]);
    cut.head = Position::new(5);
    refused(&history, &[cut], "stops at position 2, before head=5");
}

#[test]
fn versions_have_no_hole() {
    let events = vec![at(1, "ada", 1, 1), at(2, "ada", 3, 2)];
    refused(&two_stored(), &[page(events, &[])], "version 3 follows 1");
}

#[test]
fn time_and_lineage_stay() {
    let events = vec![recorded(1, "ada", 1, &event(1), 7), recorded(2, "ada", 2, &event(2), 6)];
    refused(&two_stored(), &[page(events, &[])], "time went back");
    let mut other = page(vec![], &[]);
    other.lineage = Lineage::new(Uuid::from_u128(8));
    refused(&two_stored(), &[page(two_events(), &[]), other], "lineage");
}

#[test]
fn a_consumer_is_given_every_event_and_an_effect_is_there_once() {
    let log = || [page([two_events(), vec![at(3, "bob", 1, 3)]].concat(), &[])];
    let names = &["account.deposited"];
    let given = |delivery, scope: Scope, seen: &[&RecordedEvent]| {
        let history = two_stored();
        history.attempt(&batch("bob", &[3])).ended(&stored(3, &[1], 1));
        let consumer = history.consumer("balances", delivery, scope, names);
        seen.iter().for_each(|event| history.took_effect(&consumer, event));
        history.check(&log()).map(drop).map_err(|violation| violation.to_string())
    };
    let [one, two, three] = &[at(1, "ada", 1, 1), at(2, "ada", 2, 2), at(3, "bob", 1, 3)];
    for delivery in [Delivery::AtLeastOnce, Delivery::Once] {
        assert_eq!(given(delivery, Scope::Log, &[one, two, three]), Ok(()));
        // A parked event comes late; only its own stream is in order.
        assert_eq!(given(delivery, Scope::Log, &[three, one, two]), Ok(()));
        assert_eq!(given(delivery, Scope::Stream(stream("bob")), &[three]), Ok(()));
        let said = given(delivery, Scope::Log, &[one, two]).unwrap_err();
        assert!(said.contains("missed an event: stream=account-bob position=3"), "{said}");
        let said = given(delivery, Scope::Log, &[two, one, three]).unwrap_err();
        assert!(said.contains("position 1 after 2"), "{said}");
        let said = given(delivery, Scope::Stream(stream("bob")), &[one, three]).unwrap_err();
        assert!(said.contains("another's event"), "{said}");
    }
    let twice = [one, two, one, two, three];
    assert_eq!(given(Delivery::AtLeastOnce, Scope::Log, &twice), Ok(()));
    let said = given(Delivery::Once, Scope::Log, &twice).unwrap_err();
    assert!(said.contains("an effect twice: stream=account-ada position=1"), "{said}");
}

#[test]
fn a_reader_sees_the_log_in_order_and_without_a_hole() {
    let log = || [page([two_events(), vec![at(3, "bob", 1, 3)]].concat(), &[])];
    let read = |scope: Scope, seen: &[RecordedEvent]| {
        let history = two_stored();
        history.attempt(&batch("bob", &[3])).ended(&stored(3, &[1], 1));
        let reader = history.reader("balances", scope);
        seen.iter().for_each(|event| history.delivered(&reader, event));
        history.check(&log()).map_err(|violation| violation.to_string())
    };
    let [one, two, three] = [at(1, "ada", 1, 1), at(2, "ada", 2, 2), at(3, "bob", 1, 3)];
    let all = [one.clone(), two.clone(), three.clone()];
    assert!(read(Scope::Log, &all).is_ok());
    assert!(read(Scope::Log, &all[1..]).is_ok(), "it may begin later");
    assert!(read(Scope::Stream(stream("bob")), std::slice::from_ref(&three)).is_ok());
    let said = read(Scope::Log, &[one.clone(), three.clone()]).unwrap_err();
    assert!(said.contains("\"balances\" missed an event: stream=account-ada position=2"), "{said}");
    let said = read(Scope::Log, &[two, one.clone()]).unwrap_err();
    assert!(said.contains("position 1 after 2"), "{said}");
    let said = read(Scope::Log, &[one.clone(), one]).unwrap_err();
    assert!(said.contains("position 1 after 1"), "{said}");
    let said = read(Scope::Log, &[at(3, "bob", 1, 7)]).unwrap_err();
    assert!(said.contains("that the log does not hold"), "{said}");
    let said = read(Scope::Stream(stream("ada")), &[three]).unwrap_err();
    assert!(said.contains("that the log does not hold"), "{said}");
}
