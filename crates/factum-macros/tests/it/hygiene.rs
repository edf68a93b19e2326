//! Generated code in a scope with unexpected names and lints.

#![deny(
    warnings,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    missing_debug_implementations,
    clippy::all,
    clippy::pedantic
)]

use factum_kernel::{Command as _, Event as _};

use crate::{append, decode};

/// The names of the prelude and the crates have other meanings here.
mod shadowed {
    #![allow(dead_code, non_camel_case_types, missing_debug_implementations)]

    macro_rules! shadow {
        ($($name:ident)*) => { $(struct $name;)* };
    }
    shadow! { Result Option Vec String Box Some None Ok Err Default Clone Send Sync Sized FnMut }
    shadow! { Event EventType EventName Codec Cbor Json Content Serialize Deserialize Serializer }
    shadow! { serde bytes core std factum factum_kernel From Into IntoIterator Iterator ToString }

    #[derive(Debug, PartialEq, factum_macros::Event)]
    pub(super) enum ShadowedEvent {
        Unit,
        Named {
            #[event(tag)]
            r#type: ::std::string::String,
            #[event(tag)]
            r#match: ::core::option::Option<u8>,
        },
        Pair(u8, Private),
    }

    #[derive(Debug, PartialEq, factum_macros::Event)]
    #[event(flatten)]
    pub(super) enum OuterEvent {
        Inner(ShadowedEvent),
    }

    #[derive(::serde::Serialize, ::serde::Deserialize, factum_macros::Command)]
    pub(super) enum ShadowedCommand {
        Go,
    }

    #[derive(Debug, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
    pub(super) struct Private(pub(super) u8);
}

/// Functions with names that generated code might give to its variables.
#[expect(clippy::unnecessary_wraps, reason = "an upcaster may refuse")]
fn event(event: factum_kernel::OldEvent) -> Result<factum_kernel::Upcast, String> {
    Ok(event.next())
}

/// An enum that strict lints accept.
#[derive(Debug, PartialEq, factum_macros::Event)]
#[non_exhaustive]
pub(crate) enum LintedEvent {
    /// Deprecated, but still stored.
    #[deprecated]
    Opened,
    /// Fields with the names of methods and variables.
    #[event(schema_version = 2, upcast(from = 1, with = event))]
    Changed {
        /// One.
        event: u8,
        /// Two.
        #[event(tag)]
        out: String,
        /// Three.
        sink: u8,
        /// Four.
        self_: u8,
    },
    /// Types that lints object to; the lints are allowed here.
    #[allow(deprecated, unused_qualifications, clippy::box_collection)]
    Odd(Former, Box<Vec<u8>>, std::string::String),
}

/// A deprecated type.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[deprecated]
pub(crate) struct Former;

macro_rules! declare {
    ($name:ident, $variant:ident, $field:ident: $kind:ty) => {
        #[derive(Debug, PartialEq, factum_macros::Event)]
        #[event(crate = factum_kernel)]
        enum $name {
            $variant {
                #[event(tag)]
                $field: $kind,
                #[event(tag)]
                own: u8,
            },
        }
    };
}

declare!(DeclaredEvent, Made, by: Option<u8>);

#[test]
fn shadowed_names_do_not_matter() {
    use shadowed::{OuterEvent, Private, ShadowedCommand, ShadowedEvent};

    let named = ShadowedEvent::Named { r#type: "a".into(), r#match: Some(1) };
    let recorded = append(&named);
    assert_eq!(recorded.tags().collect::<Vec<_>>(), ["type:a", "match:1"]);
    assert_eq!(recorded.payload(), b"\xa2\x64type\x61a\x65match\x01");
    assert_eq!(decode(&recorded), Ok(vec![named]));
    for event in [ShadowedEvent::Unit, ShadowedEvent::Pair(1, Private(2))] {
        let event = OuterEvent::Inner(event);
        assert_eq!(decode(&append(&event)), Ok(vec![event]));
    }
    assert_eq!(ShadowedCommand::Go.name(), "shadowed.go");
}

#[test]
fn names_of_fields_and_functions_do_not_matter() {
    let changed = LintedEvent::Changed { event: 1, out: "a".into(), sink: 2, self_: 3 };
    let recorded = append(&changed);
    let json = r#"{"event":1,"out":"a","sink":2,"self_":3}"#;
    let old = crate::stored("linted.changed", 1, json);
    assert_eq!(decode(&recorded).as_ref(), Ok(&vec![changed]));
    assert_eq!(decode::<LintedEvent>(&recorded), decode(&old));
}

#[test]
fn a_declarative_macro_may_write_the_enum() {
    let made = DeclaredEvent::Made { by: Some(7), own: 8 };
    assert_eq!(append(&made).tags().collect::<Vec<_>>(), ["by:7", "own:8"]);
    assert_eq!(DeclaredEvent::types()[0].name.as_str(), "declared.made");
}

#[test]
fn an_enum_inside_a_function_may_be_an_event() {
    type Cents = u64;

    #[derive(Debug, PartialEq, factum_macros::Event)]
    enum LocalEvent {
        Paid(Cents),
    }
    assert_eq!(decode(&append(&LocalEvent::Paid(5))), Ok(vec![LocalEvent::Paid(5)]));
}
