//! Names, schema versions, summaries.

use factum_kernel::{Event, EventType};

use crate::append;

#[derive(Debug, factum_macros::Event)]
#[event(crate = "factum_kernel")]
enum BankAccountEvent {
    Opened {
        owner: String,
    },
    #[event(schema_version = 3)]
    HTTPDone(u8),
    #[event(summary, name = "summed.up")]
    Summarised(i64, u64),
    r#Closed,
}

#[derive(Debug, factum_macros::Event)]
#[event(crate = factum_kernel)]
#[event(prefix = "acct")]
enum Named {
    #[event(name = "was opened")]
    #[event(summary)]
    Opened,
}

/// The default path, `::factum`, and a default prefix without the suffix.
#[derive(Debug, factum_macros::Event)]
enum Shop {
    Opened,
}

#[test]
fn stored_names_are_the_prefix_and_the_variant_in_kebab_case() {
    let names = |types: Vec<EventType>| {
        types
            .into_iter()
            .map(|t| (t.name.as_str().to_owned(), t.schema_version))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(BankAccountEvent::types()),
        [
            ("bank-account.opened".into(), 1),
            ("bank-account.http-done".into(), 3),
            ("bank-account.summed.up".into(), 1),
            ("bank-account.closed".into(), 1),
        ]
    );
    assert_eq!(names(Named::types()), [("acct.was opened".into(), 1)]);
    assert_eq!(names(Shop::types()), [("shop.opened".into(), 1)]);
}

#[test]
fn an_event_has_one_of_the_types_of_its_enum() {
    let opened = BankAccountEvent::Opened { owner: "ada".into() };
    let all = [
        opened,
        BankAccountEvent::HTTPDone(1),
        BankAccountEvent::Summarised(1, 2),
        BankAccountEvent::Closed,
    ];
    let types: Vec<_> = all.iter().map(Event::event_type).collect();
    assert_eq!(types, BankAccountEvent::types());
    assert_eq!(types[0].rust_type, "it::identity::BankAccountEvent");

    let recorded = append(&all[1]);
    assert_eq!((recorded.name(), recorded.schema_version()), ("bank-account.http-done", 3));
}

#[test]
fn an_enum_owns_the_names_of_its_variants() {
    assert!(BankAccountEvent::owns("bank-account.opened"));
    assert!(BankAccountEvent::owns("bank-account.summed.up"));
    assert!(!BankAccountEvent::owns("bank-account.summarised"));
    assert!(!BankAccountEvent::owns("opened"));
    assert!(!BankAccountEvent::owns(""));
}

#[test]
fn only_the_marked_variant_is_a_summary() {
    assert!(BankAccountEvent::Summarised(1, 2).is_summary());
    assert!(!BankAccountEvent::HTTPDone(1).is_summary());
    assert!(Named::Opened.is_summary());
    assert!(!Shop::Opened.is_summary());
}
