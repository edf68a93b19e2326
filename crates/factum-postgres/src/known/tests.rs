use factum_kernel::{Content, EventName, ExpectedVersion, NewEvent};

use super::*;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// The batch is from a caller that did not hear that it was stored. Its first stream had it at
/// position 1 and was truncated after the database refused the second attempt.
#[test]
fn a_batch_is_recognised_where_its_stream_is_truncated_after_it_was_refused() {
    let [ada, bob] = ["ada", "bob"].map(|key| StreamId::new("account", key).unwrap());
    let event = |n: u8| {
        let name = EventName::from_static("account.opened");
        NewEvent::new(EventId::derived(NOW, &[n]), name, Content::Cbor, "x")
    };
    let batch = AppendBatch::new().write(ada.clone(), ExpectedVersion::NoStream, [event(1)]).write(
        bob.clone(),
        ExpectedVersion::Any,
        [event(2)],
    );
    let bounds = StreamBounds { version: StreamVersion::new(1), ..StreamBounds::default() };
    let known = Known { bounds: [(&ada, bounds), (&bob, bounds)].into(), ..Known::default() };
    let end = LogEnd { head: Position::new(2), last_at: NOW, now: NOW };
    let found = FoundEvent {
        id: event(2).id,
        position: Position::new(2),
        version: StreamVersion::new(1),
        recorded_at: NOW,
    };
    let first = ErasedRange { first: Position::new(1), last: Position::new(1) };
    let replies = Replies {
        found: vec![(bob.clone(), found)],
        erased_through: [(ada.clone(), StreamVersion::new(1))].into(),
        erased: vec![first],
    };
    let appended = known.judge(&batch, end, &replies).unwrap().outcome.unwrap().unwrap();
    assert!(appended.replayed);
    assert_eq!((appended.first, appended.last), (first.first, Position::new(2)));
}
