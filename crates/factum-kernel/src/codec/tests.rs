use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::*;

#[test]
fn bytes_left_over_are_an_error() {
    assert!(Cbor::decode::<u8>(&[1, 2]).is_err());
    assert!(Json::decode::<u8>(b"1 2").is_err());
}

/// What comes of a value that is written, read as upcasters see it, and read from that.
#[track_caller]
fn upcast<C: Codec, T: Serialize + DeserializeOwned>(value: &T) -> T {
    let mut out = BytesMut::new();
    C::encode(value, &mut out).unwrap();
    C::from_value(&C::to_value(&out).unwrap()).unwrap()
}

#[test]
fn what_is_written_for_people_is_read_out_of_a_value() {
    let id = uuid::Uuid::from_u128(7);
    assert_eq!(upcast::<Json, _>(&id), id);
    assert_eq!(upcast::<Cbor, _>(&id), id);
}

#[test]
fn a_price_keeps_its_last_digit() {
    // The sum of its digits is read one bit off without care.
    let price = 33.333_333_333_333_336_f64;
    for cents in (0..100_000).map(|it| f64::from(it) / 100.0 * 1.19).chain([price]) {
        let mut out = BytesMut::new();
        Json::encode(&cents, &mut out).unwrap();
        assert_eq!(Json::decode::<f64>(&out).unwrap().to_bits(), cents.to_bits());
        assert_eq!(upcast::<Json, _>(&cents).to_bits(), cents.to_bits());
    }
}

#[test]
fn integers_of_128_bits_come_through_an_upcast() {
    for value in [u128::MAX, u128::from(u64::MAX) + 1, 0] {
        assert_eq!(upcast::<Json, _>(&value), value);
        assert_eq!(upcast::<Cbor, _>(&value), value);
    }
    for value in [i128::MIN, i128::from(i64::MIN) - 1, -1, i128::MAX] {
        assert_eq!(upcast::<Json, _>(&value), value);
        assert_eq!(upcast::<Cbor, _>(&value), value);
    }
}

/// The JSON text that is written again after an upcast that changes nothing.
fn rewritten(text: &str) -> String {
    let value = Json::to_value(text.as_bytes()).unwrap();
    let mut out = Vec::new();
    json::write(&value, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_number_that_no_type_holds_keeps_its_text() {
    for text in [
        "0.1000000000000000055511151231257827",
        "123456789012345678901234567890123456789012345678901234567890",
        "1e400",
        "-1e-99999999999",
    ] {
        assert_eq!(rewritten(text), text);
        assert_eq!(rewritten(&format!("{{\"a\":[{text}]}}")), format!("{{\"a\":[{text}]}}"));
    }
    for (text, same) in [("1.50", "1.5"), ("1E2", "100.0"), ("120.0", "120.0"), ("-0", "-0.0")] {
        assert_eq!(rewritten(text), same);
    }
    assert_eq!(rewritten("0.0"), "0.0");
}

#[test]
fn an_object_keeps_the_order_and_the_escapes_of_its_keys() {
    let text = r#"{"b":1,"a":{"\"\n":[true,false,null,"\u0000x"]},"":{}}"#;
    assert_eq!(rewritten(text), text);
}

#[test]
fn json_that_is_nested_too_deep_is_an_error() {
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::to_value(nested(127).as_bytes()).is_ok());
    assert!(Json::to_value(nested(100_000).as_bytes()).is_err());
    for text in ["", "{", "[1,]", "nul", "01", "{\"a\" 1}", "1 2"] {
        assert!(Json::to_value(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn a_value_that_json_does_not_have_is_an_error() {
    let wrong = [
        Value::Tag(0, Box::new(Value::from("1985-04-12T23:20:50.52Z"))),
        Value::Tag(2, Box::new(Value::Bytes(vec![1; 17]))),
        Value::Map(vec![(Value::Null, Value::Null)]),
    ];
    for value in wrong {
        assert!(Json::from_value::<serde_json::Value>(&value).is_err(), "{value:?}");
    }
}

/// Every shape that serde knows, but those that JSON can't tell apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Shapes {
    signed: (i8, i16, i32, i64, i128),
    unsigned: (u8, u16, u32, u64, u128),
    float: f64,
    short: f32,
    letter: char,
    text: String,
    some: Option<Box<Shapes>>,
    unit: (),
    list: Vec<Option<u64>>,
    named: BTreeMap<String, i64>,
    numbered: BTreeMap<u32, String>,
    choice: Choice,
    tagged: Tagged,
    newtype: Newtype,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(u128);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Choice {
    Unit,
    One(i128),
    Two(f64, String),
    Named { at: u64, whether: Option<bool> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Plain,
    Priced { price: f64, count: i64 },
}

fn any_float() -> impl Strategy<Value = f64> {
    let price = (any::<i32>(), 0..5_i32).prop_map(|(it, power)| f64::from(it) / 10_f64.powi(power));
    prop_oneof![any::<f64>().prop_filter("JSON has no other", |it| it.is_finite()), price]
}

fn any_choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(Choice::Unit),
        any::<i128>().prop_map(Choice::One),
        (any_float(), any::<String>()).prop_map(|(float, text)| Choice::Two(float, text)),
        (any::<u64>(), any::<Option<bool>>())
            .prop_map(|(at, whether)| Choice::Named { at, whether }),
    ]
}

fn any_shapes() -> impl Strategy<Value = Shapes> {
    let floats = (any_float(), any::<f32>().prop_filter("as above", |it| it.is_finite()));
    let texts = (any::<char>(), any::<String>());
    let tagged = prop_oneof![
        Just(Tagged::Plain),
        (any_float(), any::<i64>()).prop_map(|(price, count)| Tagged::Priced { price, count }),
    ];
    let lists = (any::<Vec<Option<u64>>>(), any::<BTreeMap<String, i64>>());
    let more = (any::<BTreeMap<u32, String>>(), any_choice(), tagged, any::<u128>());
    let leaf = (any::<[u128; 2]>(), floats, texts, lists, more).prop_map(
        |([signed, unsigned], (float, short), (letter, text), (list, named), more)| Shapes {
            signed: (signed as i8, signed as i16, signed as i32, signed as i64, signed as i128),
            unsigned: (unsigned as u8, unsigned as u16, unsigned as u32, unsigned as u64, unsigned),
            float,
            short,
            letter,
            text,
            some: None,
            unit: (),
            list,
            named,
            numbered: more.0,
            choice: more.1,
            tagged: more.2,
            newtype: Newtype(more.3),
        },
    );
    let leaf = leaf.boxed();
    (leaf.clone(), proptest::option::of(leaf))
        .prop_map(|(outer, inner)| Shapes { some: inner.map(Box::new), ..outer })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_upcast_that_changes_nothing_gives_what_was_written(shapes in any_shapes()) {
        prop_assert_eq!(&upcast::<Cbor, _>(&shapes), &shapes);
        prop_assert_eq!(&upcast::<Json, _>(&shapes), &shapes);
    }
}
