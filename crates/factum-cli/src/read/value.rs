//! Payloads for people and programs: CBOR and JSON as JSON, other contents in hexadecimal.

use factum::{
    RecordedEvent,
    event::{Cbor, Codec, Content, Json, Value},
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};

/// The decoded payload of an event; `None` if its content is not self-describing.
pub(crate) fn decode(event: &RecordedEvent) -> Option<Value> {
    match event.content() {
        Content::Cbor => Cbor::decode(event.payload()).ok(),
        Content::Json => Json::decode(event.payload()).ok(),
        Content::Other(_) => None,
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value that serialises as JSON. Values that JSON lacks become text: bytes in hexadecimal,
/// integers beyond 64 bits, floats that are not finite, and keys that are not text.
pub(crate) struct AsJson<'a>(pub(crate) &'a Value);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Integer(number) => integer(i128::from(*number), to),
            Value::Bytes(bytes) => to.serialize_str(&hex(bytes)),
            Value::Float(number) if number.is_finite() => to.serialize_f64(*number),
            Value::Float(number) => to.serialize_str(&number.to_string()),
            Value::Text(text) => to.serialize_str(text),
            Value::Bool(yes) => to.serialize_bool(*yes),
            Value::Null => to.serialize_unit(),
            // A tag says how to interpret a value (RFC 8949, 3.4). JSON has nothing like it.
            Value::Tag(_, value) => AsJson(value).serialize(to),
            Value::Array(values) => {
                let mut list = to.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(&AsJson(value)))?;
                list.end()
            }
            Value::Map(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                for (name, value) in entries {
                    map.serialize_entry(&key(name), &AsJson(value))?;
                }
                map.end()
            }
            other => to.serialize_str(&format!("{other:?}")),
        }
    }
}

fn integer<S: Serializer>(number: i128, to: S) -> Result<S::Ok, S::Error> {
    match (u64::try_from(number), i64::try_from(number)) {
        (Ok(number), _) => to.serialize_u64(number),
        (_, Ok(number)) => to.serialize_i64(number),
        _ => to.serialize_str(&number.to_string()),
    }
}

fn key(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        other => text(other),
    }
}

/// A value as JSON text.
pub(crate) fn text(value: &Value) -> String {
    serde_json::to_string(&AsJson(value)).unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_has_stays_and_in_its_order() {
        let value: Value = Json::decode(br#"{"b":[1,-2,1.5,true,null],"a":"x"}"#).unwrap();
        assert_eq!(text(&value), r#"{"b":[1,-2,1.5,true,null],"a":"x"}"#);
    }

    #[test]
    fn what_json_lacks_becomes_text() {
        let tagged = Value::Tag(1, Box::new(Value::from(7)));
        let value = Value::Map(vec![
            (Value::from(1), Value::Bytes(vec![0, 255])),
            (Value::from("nan"), Value::Float(f64::NAN)),
            (Value::from("tagged"), tagged),
        ]);
        assert_eq!(text(&value), r#"{"1":"00ff","nan":"NaN","tagged":7}"#);
        assert_eq!(text(&Value::from(-(1_i128 << 64))), "\"-18446744073709551616\"");
    }
}
