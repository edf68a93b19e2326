use std::time::Duration;

use super::*;
use crate::inbox::wire::{seal, unseal};

fn event(name: &str) -> NewEvent {
    let name = EventName::parse(name).unwrap();
    let metadata = Metadata::new().with_user("ada").with("reason", "gift");
    let mut event = NewEvent::new(EventId::new(Uuid::from_u128(7)), name, Content::Json, "{}")
        .with_tag(Tag::new("account", "ada").unwrap())
        .with_metadata(metadata);
    event.schema_version = 3;
    event
}

fn orders() -> Vec<Order> {
    let [ada, bob] = ["ada", "bob"].map(|key| StreamId::new("account", key).unwrap());
    let version = StreamVersion::new(300);
    let item = QueryItem {
        types: vec![EventName::from_static("account.opened")],
        tags: vec![Tag::new("account", "ada").unwrap()],
    };
    let condition = AppendCondition {
        fail_if_events_match: Query::new([item, QueryItem::default()]),
        after: Position::new(u64::MAX),
    };
    let batch = AppendBatch::new()
        .write(ada.clone(), version, [event("a"), event("b")])
        .write(bob, ExpectedVersion::Any, [event("c")])
        .check("$queue-1".parse().unwrap(), ExpectedVersion::StreamExists)
        .unless(condition);
    let write = WriteBatch::new()
        .put("a", ExpectedRevision::Absent, "1")
        .put("b", ExpectedRevision::Exact(Revision::new(9)), "")
        .remove("c", ExpectedRevision::Any);
    let retention = Retention { events_max: Some(5), age_max: Some(Duration::from_secs(60)) };
    vec![
        Order::Append(batch.clone()),
        Order::Append(batch.repeated()),
        Order::Change(ada.clone(), StreamChange::Retain(retention)),
        Order::Change(ada.clone(), StreamChange::Retain(Retention::default())),
        Order::Change(ada.clone(), StreamChange::TruncateBefore(version)),
        Order::Append(AppendBatch::new().delete(ada, version, event("a").id)),
        Order::Write(write),
        Order::Clear(KeyRange::all()),
        Order::Clear(KeyRange::prefix("a/")),
    ]
}

#[test]
fn an_order_comes_back_as_it_was_sent() {
    for order in orders() {
        assert_eq!(unseal::<Order>(&seal(&order)), Some(order));
    }
}

#[test]
fn what_is_cut_or_changed_is_no_order() {
    for order in orders() {
        let bytes = seal(&order);
        for len in 0..bytes.len() {
            assert_eq!(unseal::<Order>(&bytes[..len]), None);
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(unseal::<Order>(&changed), None, "byte {at} of {order:?}");
        }
    }
}
