//! Enums of enums of events.

use factum_kernel::{Content, DecodeReason, Event, Metadata, TagWriter, encode_event};

use crate::{append, decode, id, stored};

#[derive(Debug, Clone, PartialEq, factum_macros::Event)]
#[event(crate = factum_kernel)]
#[event(upcast(name = "order.made", from = 1, with = made))]
enum OrderEvent {
    Placed {
        #[event(tag)]
        order: u32,
    },
    #[event(summary)]
    Counted(u8),
}

#[derive(Debug, Clone, PartialEq, factum_macros::Event)]
#[event(crate = factum_kernel, codec = factum_kernel::Json)]
enum PaymentEvent {
    #[event(schema_version = 2)]
    Paid(u64),
}

#[derive(Debug, Clone, PartialEq, factum_macros::Event)]
#[event(flatten, crate = factum_kernel)]
enum ShopEvent {
    Order(OrderEvent),
    Payment(PaymentEvent),
}

#[derive(Debug, Clone, PartialEq, factum_macros::Event)]
#[event(crate = factum_kernel)]
enum StaffEvent {
    Hired,
}

#[derive(Debug, Clone, PartialEq, factum_macros::Event)]
#[event(flatten)]
enum CompanyEvent {
    Staff(StaffEvent),
    Shop(ShopEvent),
}

fn made(mut event: factum_kernel::OldEvent) -> Result<factum_kernel::Upcast, String> {
    event.name = "order.placed".into();
    Ok(factum_kernel::Upcast::One(event))
}

fn placed() -> CompanyEvent {
    CompanyEvent::Shop(ShopEvent::Order(OrderEvent::Placed { order: 7 }))
}

#[test]
fn an_event_is_stored_as_the_inner_enum_stores_it() {
    let inner = OrderEvent::Placed { order: 7 };
    assert_eq!(append(&placed()), append(&inner));
    assert_eq!(placed().event_type(), inner.event_type());

    let paid = CompanyEvent::Shop(ShopEvent::Payment(PaymentEvent::Paid(5)));
    let recorded = append(&paid);
    assert_eq!((recorded.name(), recorded.schema_version()), ("payment.paid", 2));
    assert_eq!((recorded.content(), recorded.payload()), (Content::Json, &b"5"[..]));
}

#[test]
fn events_find_their_way_through_two_levels() {
    let shop = |event| CompanyEvent::Shop(event);
    let all = [
        placed(),
        shop(ShopEvent::Order(OrderEvent::Counted(3))),
        shop(ShopEvent::Payment(PaymentEvent::Paid(5))),
        CompanyEvent::Staff(StaffEvent::Hired),
    ];
    for event in all {
        assert_eq!(decode(&append(&event)), Ok(vec![event]));
    }
}

#[test]
fn types_and_names_are_those_of_all_inner_enums() {
    let types = CompanyEvent::types();
    let names: Vec<_> = types.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(
        names,
        ["staff.hired", "order.placed", "order.counted", "order.made", "payment.paid"]
    );
    assert_eq!(types[1].rust_type, "it::flatten::OrderEvent");
    assert!(names.iter().all(|name| CompanyEvent::owns(name)));
    assert!(CompanyEvent::owns("order.made"));
    assert!(!CompanyEvent::owns("shop.order") && !CompanyEvent::owns("company.shop"));
}

#[test]
fn summaries_and_tags_are_those_of_the_inner_enum() {
    assert!(ShopEvent::Order(OrderEvent::Counted(3)).is_summary());
    assert!(!placed().is_summary());
    let new = encode_event(&placed(), id(), &Metadata::new(), None).unwrap();
    assert_eq!(new.tags[0].as_str(), "order:7");
    let mut tags = TagWriter::new(None);
    CompanyEvent::Staff(StaffEvent::Hired).tags(&mut tags).unwrap();
    assert!(tags.finish().is_empty());
}

#[test]
fn old_names_are_upcast_by_the_inner_enum() {
    let events = decode(&stored("order.made", 1, r#"{"order":7}"#));
    assert_eq!(events, Ok(vec![placed()]));
}

#[test]
fn what_nobody_owns_is_an_unknown_type() {
    let error = decode::<CompanyEvent>(&stored("company.sold", 1, "{}")).unwrap_err();
    assert_eq!(error.reason, DecodeReason::UnknownType);
    assert_eq!(error.name, "company.sold");
}
