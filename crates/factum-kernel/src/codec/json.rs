//! JSON, and the value that upcasters work on in its place.
//!
//! serde_json reads a number into the nearest float where no integer of 64 bits holds it, or into a
//! map where another crate of the program switches its `arbitrary_precision` on. Here the text of
//! each number is taken as it is written, so that a value holds all that was, and writes it again.

use std::{fmt, sync::OnceLock};

use bytes::{BufMut, BytesMut};
use serde::{
    Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Codec, CodecError, Value};
use crate::event::Content;

/// Arrays and objects nested deeper than this are not read, as in serde_json.
const DEPTH_MAX: usize = 128;

/// The tag of a number that neither an integer of 128 bits nor a float holds; the tagged value is
/// its text. Outside the range of registered tags (RFC 8949, 9.2).
const NUMBER_TAG: u64 = 0x6661_6374_756d;
/// The tags of integers that are longer than 64 bits (RFC 8949, 3.4.3).
const POSITIVE_TAG: u64 = 2;
const NEGATIVE_TAG: u64 = 3;

/// JSON (RFC 8259), for logs that people read with other tools.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    const CONTENT: Content = Content::Json;

    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) -> Result<(), CodecError> {
        serde_json::to_writer(out.writer(), value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        // Only a type that serde looks at before it knows it is read by way of what is given there,
        // but which types those are can't be told from here.
        match are_floats_maps() {
            false => parse(bytes),
            true => serde_json::from_value(parse(bytes)?).map_err(CodecError::new),
        }
    }

    fn to_value(bytes: &[u8]) -> Result<Value, CodecError> {
        value_of(parse::<&RawValue>(bytes)?, DEPTH_MAX)
    }

    // Types that write themselves for people (UUIDs, times) read so only from a format for people.
    fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, CodecError> {
        let mut text = Vec::new();
        write(value, &mut text)?;
        Self::decode(&text)
    }
}

/// Whether serde_json gives a float that it finds as a map: with its `arbitrary_precision`, which
/// some crate of the program has switched on. Fields of untagged and internally tagged enums, and
/// flattened ones, would not be read then. A [`serde_json::Value`] gives a float as a float.
fn are_floats_maps() -> bool {
    struct IsMap;
    impl<'de> Visitor<'de> for IsMap {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a float")
        }

        fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
            Ok(false)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(true)
        }
    }
    static ARE_MAPS: OnceLock<bool> = OnceLock::new();
    *ARE_MAPS.get_or_init(|| {
        let mut reader = serde_json::Deserializer::from_str("1.5");
        reader.deserialize_any(IsMap).unwrap_or(true)
    })
}

fn parse<'de, T: serde::Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, CodecError> {
    serde_json::from_slice(bytes).map_err(CodecError::new)
}

/// The value of a JSON text. Each level is taken apart on its own, and its parts are left as texts.
fn value_of(raw: &RawValue, depth: usize) -> Result<Value, CodecError> {
    let text = raw.get();
    let left = || depth.checked_sub(1).ok_or_else(|| CodecError::new("nested too deep"));
    match text.as_bytes().first() {
        Some(b'{') => {
            let depth = left()?;
            let Entries(entries) = entries(text)?;
            let entry = |(key, raw)| Ok((Value::Text(key), value_of(raw, depth)?));
            Ok(Value::Map(entries.into_iter().map(entry).collect::<Result<_, CodecError>>()?))
        }
        Some(b'[') => {
            let depth = left()?;
            let items: Vec<&RawValue> = parse(text.as_bytes())?;
            let items = items.into_iter().map(|raw| value_of(raw, depth));
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        Some(b'"') => Ok(Value::Text(parse(text.as_bytes())?)),
        Some(b't') => Ok(Value::Bool(true)),
        Some(b'f') => Ok(Value::Bool(false)),
        Some(b'n') => Ok(Value::Null),
        _ => Ok(number(text)),
    }
}

/// The entries of an object, in their order.
struct Entries<'de>(Vec<(String, &'de RawValue)>);

fn entries(text: &str) -> Result<Entries<'_>, CodecError> {
    struct Collect;
    impl<'de> Visitor<'de> for Collect {
        type Value = Entries<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(Entries(entries))
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Collect).map_err(CodecError::new)
}

/// The value of a number: an integer or a float that is the same number, or else its text.
fn number(text: &str) -> Value {
    let is_integer = text.bytes().all(|it| it == b'-' || it.is_ascii_digit());
    let exact = match is_integer {
        // Only a float's zero has a sign.
        true if text == "-0" => Some(Value::Float(-0.0)),
        true => integer(text),
        false => text.parse().ok().filter(|float| is_written_as(*float, text)).map(Value::Float),
    };
    exact.unwrap_or_else(|| Value::Tag(NUMBER_TAG, Box::new(Value::Text(text.to_owned()))))
}

fn integer(text: &str) -> Option<Value> {
    let signed = text.parse::<i128>().map(Value::from);
    signed.or_else(|_| text.parse::<u128>().map(Value::from)).ok()
}

/// Whether the shortest text of a float is the same number as this text.
fn is_written_as(float: f64, text: &str) -> bool {
    float.is_finite() && decimal(&format!("{float:e}")) == decimal(text)
}

/// A decimal number, the same for every way to write it: 120 and 1.2e2 are equal.
#[derive(PartialEq)]
struct Decimal {
    is_negative: bool,
    /// Without zeros around them.
    digits: String,
    /// The power of ten of the digit before the first.
    power: i64,
}

/// Reads a number; `None` for a power that no float comes near.
fn decimal(text: &str) -> Option<Decimal> {
    let (mantissa, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut power = power.parse::<i32>().map(i64::from).ok()?;
    let is_negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    power += whole.len() as i64;
    let significant = digits.trim_start_matches('0');
    power -= (digits.len() - significant.len()) as i64;
    let significant = significant.trim_end_matches('0');
    let power = if significant.is_empty() { 0 } else { power };
    Some(Decimal { is_negative, digits: significant.to_owned(), power })
}

/// Writes a value as serde_json would write what it came from.
pub(super) fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(bool) => out.extend(if *bool { &b"true"[..] } else { b"false" }),
        Value::Integer(integer) => out.extend(i128::from(*integer).to_string().as_bytes()),
        Value::Float(float) => write_by_serde(float, out)?,
        Value::Text(text) => write_by_serde(text, out)?,
        Value::Bytes(bytes) => write_by_serde(bytes, out)?,
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                separate(place, out);
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Map(entries) => {
            out.push(b'{');
            for (place, (key, value)) in entries.iter().enumerate() {
                separate(place, out);
                write_key(key, out)?;
                out.push(b':');
                write(value, out)?;
            }
            out.push(b'}');
        }
        Value::Tag(tag, inner) => out.extend(tagged(*tag, inner)?.as_bytes()),
        _ => return Err(CodecError::new("a value of a kind that JSON does not have")),
    }
    Ok(())
}

fn separate(place: usize, out: &mut Vec<u8>) {
    if place > 0 {
        out.push(b',');
    }
}

fn write_by_serde<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    serde_json::to_writer(out, value).map_err(CodecError::new)
}

/// Keys are texts; an upcaster may have put a number or a bool there.
fn write_key(key: &Value, out: &mut Vec<u8>) -> Result<(), CodecError> {
    match key {
        Value::Text(text) => write_by_serde(text, out),
        Value::Integer(integer) => write_by_serde(&i128::from(*integer).to_string(), out),
        Value::Bool(bool) => write_by_serde(&bool.to_string(), out),
        _ => Err(CodecError::new("a key of an object that is no text")),
    }
}

/// The text of a number that a tag makes of what it is on.
fn tagged(tag: u64, inner: &Value) -> Result<String, CodecError> {
    match (tag, inner) {
        (NUMBER_TAG, Value::Text(text)) => Ok(text.clone()),
        (POSITIVE_TAG, Value::Bytes(bytes)) => Ok(unsigned(bytes)?.to_string()),
        (NEGATIVE_TAG, Value::Bytes(bytes)) => {
            let negative = i128::try_from(unsigned(bytes)?).map(|it| -1 - it);
            negative.map(|it| it.to_string()).map_err(|_| too_long())
        }
        _ => Err(CodecError::new(format!("JSON has no tags: tag={tag}"))),
    }
}

/// An integer of at most 128 bits out of its bytes, the highest first.
fn unsigned(bytes: &[u8]) -> Result<u128, CodecError> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let mut all = [0; 16];
    let place = all.len().checked_sub(bytes.len() - start).ok_or_else(too_long)?;
    all[place..].copy_from_slice(&bytes[start..]);
    Ok(u128::from_be_bytes(all))
}

fn too_long() -> CodecError {
    CodecError::new("an integer of more than 128 bits")
}
