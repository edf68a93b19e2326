use factum_kernel::{Content, EventId, EventName, Timestamp};
use proptest::{collection::vec, prelude::*};

use super::*;

const TYPES: [&str; 4] = ["a", "b", "c", "d"];

fn tags(values: &[u8]) -> Vec<Tag> {
    values.iter().map(|value| Tag::new("t", value).unwrap()).collect()
}

fn event(of_type: usize, labels: &[u8]) -> NewEvent {
    let id = EventId::derived(Timestamp::EPOCH, b"x");
    let event = NewEvent::new(id, EventName::from_static(TYPES[of_type]), Content::Cbor, "");
    tags(labels).into_iter().fold(event, NewEvent::with_tag)
}

fn item(types: &[usize], labels: &[u8]) -> QueryItem {
    let types = types.iter().map(|at| EventName::from_static(TYPES[*at])).collect();
    QueryItem { types, tags: tags(labels) }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_match_is_that_of_going_through_all_events(
        events in vec((0..3_usize, vec(0..4_u8, 0..3)), 0..12),
        items in vec((vec(0..4_usize, 0..3), vec(0..5_u8, 0..3)), 0..4),
        after in 0..14_u64,
    ) {
        let events = events.iter().map(|(of_type, labels)| event(*of_type, labels));
        let events: Vec<_> = events.collect();
        let query = Query::new(items.iter().map(|(types, labels)| item(types, labels)));
        let mut index = EventIndex::default();
        let places = (1..).map(Position::new).zip(&events);
        places.clone().for_each(|(position, event)| index.push(position, event));
        let first = places.filter(|(position, _)| position.value() > after).find(|(_, event)| {
            query.matches(event.name.as_str(), event.tags.iter().map(Tag::as_str))
        });
        let found = index.first_match(&query, Position::new(after));
        prop_assert_eq!(found, first.map(|(position, _)| position));
    }
}
