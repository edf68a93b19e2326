//! The stored form of the fields: exact bytes, and reading them back.

use std::collections::BTreeMap;

use factum_kernel::{Cbor, Codec, CodecError, Content, DecodeReason, Event, EventName, NewEvent};
use serde::{Deserialize, Serialize};

use crate::{append, decode, id, record, stored};

/// The same shapes with both codecs of the kernel, and with one of the user's.
macro_rules! shapes {
    ($name:ident, $($codec:tt)+) => {
        #[derive(Debug, Clone, PartialEq, factum_macros::Event)]
        #[event(crate = factum_kernel, prefix = "shape", codec = $($codec)+)]
        enum $name {
            Named { cents: u64, note: Option<String> },
            Wrapped(BTreeMap<String, u8>),
            Nothing(Option<u8>),
            Pair(u8, String),
            Unit,
            EmptyNamed {},
            EmptyTuple(),
        }

        impl $name {
            fn all() -> Vec<Self> {
                vec![
                    Self::Named { cents: 5, note: None },
                    Self::Named { cents: 5, note: Some("rent".into()) },
                    Self::Wrapped(BTreeMap::from([("a".into(), 1)])),
                    Self::Nothing(None),
                    Self::Nothing(Some(3)),
                    Self::Pair(1, "x".into()),
                    Self::Unit,
                    Self::EmptyNamed {},
                    Self::EmptyTuple(),
                ]
            }
        }
    };
}

shapes!(InCbor, factum_kernel::Cbor);
shapes!(InJson, factum_kernel::Json);
shapes!(InOwnCodec, Reversed);

/// A codec of the application's own: CBOR backwards.
struct Reversed;

impl Codec for Reversed {
    const CONTENT: Content = Content::Other(300);

    fn encode<T: Serialize + ?Sized>(
        value: &T,
        out: &mut factum_kernel::__private::bytes::BytesMut,
    ) -> Result<(), CodecError> {
        Cbor::encode(value, out)?;
        out.reverse();
        Ok(())
    }

    fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        Cbor::decode(&bytes.iter().rev().copied().collect::<Vec<_>>())
    }
}

#[test]
fn every_shape_comes_back_from_every_codec() {
    fn check<E: Event + Clone + PartialEq + std::fmt::Debug>(all: Vec<E>, content: Content) {
        for event in all {
            let recorded = append(&event);
            assert_eq!(recorded.content(), content);
            assert_eq!(decode(&recorded), Ok(vec![event]));
        }
    }
    check(InCbor::all(), Content::Cbor);
    check(InJson::all(), Content::Json);
    check(InOwnCodec::all(), Content::Other(300));
}

#[test]
fn only_the_fields_are_stored() {
    let payloads = InJson::all().iter().map(append).collect::<Vec<_>>();
    let payloads = payloads.iter().map(|event| std::str::from_utf8(event.payload()).unwrap());
    assert_eq!(
        payloads.collect::<Vec<_>>(),
        [
            r#"{"cents":5,"note":null}"#,
            r#"{"cents":5,"note":"rent"}"#,
            r#"{"a":1}"#,
            "null",
            "3",
            r#"[1,"x"]"#,
            "{}",
            "{}",
            "{}",
        ]
    );
}

#[test]
fn the_bytes_of_cbor_are_a_map_of_field_names() {
    let payload = |event| append(&event).payload().to_vec();
    // RFC 8949: a map of two, text of 5 bytes, 5, text of 4 bytes, null.
    let named = InCbor::Named { cents: 5, note: None };
    assert_eq!(payload(named), b"\xa2\x65cents\x05\x64note\xf6");
    assert_eq!(payload(InCbor::Pair(1, "x".into())), b"\x82\x01\x61x");
    assert_eq!(payload(InCbor::Nothing(Some(3))), b"\x03");
    assert_eq!(payload(InCbor::Unit), b"\xa0");
    assert_eq!(payload(InCbor::EmptyTuple()), b"\xa0");
}

#[test]
fn fields_of_newer_programs_are_ignored() {
    let check = |name, json, expected| {
        assert_eq!(decode::<InCbor>(&stored(name, 1, json)), Ok(vec![expected]), "{name}");
    };
    let named = InCbor::Named { cents: 5, note: None };
    check("shape.named", r#"{"cents":5,"currency":"EUR","list":[{}]}"#, named);
    check("shape.unit", r#"{"later":[1,{"a":null}]}"#, InCbor::Unit);
    check("shape.empty-named", r#"{"later":1}"#, InCbor::EmptyNamed {});
    check("shape.empty-tuple", r#"{"later":1}"#, InCbor::EmptyTuple());
}

#[test]
fn the_stored_content_is_obeyed_whatever_the_codec() {
    let json = append(&InJson::Pair(1, "x".into()));
    assert_eq!(decode(&json), Ok(vec![InCbor::Pair(1, "x".into())]));
    let cbor = append(&InCbor::Pair(1, "x".into()));
    assert_eq!(decode(&cbor), Ok(vec![InOwnCodec::Pair(1, "x".into())]));
    let own = append(&InOwnCodec::Unit);
    let error = decode::<InCbor>(&own).unwrap_err();
    assert_eq!(error.reason, DecodeReason::UnknownContent(Content::Other(300)));
}

#[test]
fn fields_that_do_not_fit_are_an_error_that_names_the_event() {
    let error = |json| decode::<InCbor>(&stored("shape.named", 1, json)).unwrap_err();
    let missing = error("{}");
    assert!(matches!(missing.reason, DecodeReason::Fields(_)));
    assert_eq!((missing.name.as_str(), missing.schema_version), ("shape.named", 1));
    assert!(missing.to_string().contains("missing field `cents`"), "{missing}");
    let shape = error("7").to_string();
    assert!(shape.contains("expected the fields of shape.named"), "{shape}");
}

#[test]
fn an_unknown_name_is_an_error() {
    let error = decode::<InCbor>(&stored("shape.Unit", 1, "{}")).unwrap_err();
    assert_eq!(error.reason, DecodeReason::UnknownType);
    let name = EventName::from_static("shape");
    let event = record(&NewEvent::new(id(), name, Content::Cbor, vec![0xa0]));
    assert_eq!(decode::<InCbor>(&event).unwrap_err().reason, DecodeReason::UnknownType);
}

/// Holds its text, but can't be cloned.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NotCloned(String);

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Address {
    city: String,
    zip: u16,
}

#[derive(Debug, PartialEq, factum_macros::Event)]
#[event(crate = factum_kernel, codec = factum_kernel::Json)]
enum CustomerEvent {
    Moved {
        #[serde(rename = "customerId", alias = "id")]
        customer: NotCloned,
        // A function over any type sees the type of the field, not a reference to it.
        #[serde(default, skip_serializing_if = "is_default")]
        floor: i8,
        #[serde(flatten)]
        address: Address,
        #[serde(skip)]
        cache: Vec<u8>,
        #[serde(with = "hex")]
        key: u32,
    },
    Renamed(#[serde(with = "hex")] u32),
    Graded(u8, #[serde(default)] u8),
    Seen(u8, #[serde(skip)] u8),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A number as text of base 16.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        u32::from_str_radix(&String::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

#[test]
fn serde_attributes_of_fields_are_obeyed() {
    let moved = |floor, cache| CustomerEvent::Moved {
        customer: NotCloned("ada".into()),
        floor,
        address: Address { city: "Graz".into(), zip: 8010 },
        cache,
        key: 255,
    };
    let check = |event, json: &str, back| {
        let recorded = append(&event);
        assert_eq!(std::str::from_utf8(recorded.payload()), Ok(json));
        assert_eq!(decode(&recorded), Ok(vec![back]));
    };
    let json = r#"{"customerId":"ada","city":"Graz","zip":8010,"key":"ff"}"#;
    check(moved(0, vec![1]), json, moved(0, vec![]));
    let json = r#"{"customerId":"ada","floor":2,"city":"Graz","zip":8010,"key":"ff"}"#;
    check(moved(2, vec![]), json, moved(2, vec![]));
    check(CustomerEvent::Renamed(16), r#""10""#, CustomerEvent::Renamed(16));
    check(CustomerEvent::Seen(1, 2), "[1]", CustomerEvent::Seen(1, 0));

    let json = r#"{"id":"ada","city":"Graz","zip":8010,"key":"ff"}"#;
    assert_eq!(decode(&stored("customer.moved", 1, json)), Ok(vec![moved(0, vec![])]));
    let graded = decode(&stored("customer.graded", 1, "[1]"));
    assert_eq!(graded, Ok(vec![CustomerEvent::Graded(1, 0)]));
}

#[derive(Debug, PartialEq, Serialize, Deserialize, factum_macros::Event)]
#[event(crate = factum_kernel)]
#[serde(crate = "serde", expecting = "a tree")]
enum TreeEvent {
    LeafGrown { size: u8 },
    Grafted { branches: Vec<Self>, parent: Option<Box<Self>> },
}

#[test]
fn the_serde_form_of_the_enum_itself_is_another_matter() {
    let leaf = || TreeEvent::LeafGrown { size: 1 };
    assert_eq!(append(&leaf()).payload(), b"\xa1\x64size\x01");
    let grafted = TreeEvent::Grafted { branches: vec![leaf()], parent: Some(Box::new(leaf())) };
    assert_eq!(decode(&append(&grafted)), Ok(vec![grafted]));
}
