//! A digest of a value as serde sees it, to tell whether what was read is what was written.
//!
//! The digest of a command's content is stored too, as a keyed hash. So a digest must not change
//! from one version of Factum to the next. It depends on the names of fields and variants, not on
//! their order. The name of a command's own variant is left out: its stored name stands beside it.
//!
//! Bytes don't tell: JSON has one `null` for `None`, `Some(None)` and `Some(())`. serde does: every
//! value goes through it before a codec leaves something out.

use std::fmt::Display;

use serde::{
    Serialize, Serializer,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// The digest of a value. Two values with one digest are equal, but for chance (2^-64): maps and
/// sets in whatever order, a NaN to any other NaN.
pub(crate) fn digest<T: Serialize + ?Sized>(value: &T) -> Result<u64, NotSerializable> {
    let mut digester = Digester::default();
    value.serialize(&mut digester)?;
    Ok(digester.finish())
}

/// The digest of a command's content. The name of the outermost variant is left out: a command has
/// a stored name of its own.
pub(crate) fn digest_of_content<T: Serialize + ?Sized>(
    command: &T,
) -> Result<u64, NotSerializable> {
    let mut digester = Digester { names_variant: false, ..Digester::default() };
    command.serialize(&mut digester)?;
    Ok(digester.finish())
}

/// The digests of the fields of a struct by their names; none for a value of another shape.
pub(crate) fn digests_by_name<T: Serialize + ?Sized>(value: &T) -> Vec<(&'static str, u64)> {
    let mut digester = Digester { fields: Some(Vec::new()), ..Digester::default() };
    let serialized = value.serialize(&mut digester);
    serialized.ok().and(digester.fields).unwrap_or_default()
}

/// The type refuses to be serialised.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotSerializable(String);

impl serde::ser::Error for NotSerializable {
    fn custom<T: Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

/// What comes next, so that neighbours of different kinds don't look alike.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    Bytes,
    None,
    Some,
    Unit,
    Variant,
    Sequence,
    Map,
    Field,
}

struct Digester {
    state: u64,
    /// False while a variant would be the outermost one of a command.
    names_variant: bool,
    /// Filled with the fields of the outermost struct, where they are wanted one by one.
    fields: Option<Vec<(&'static str, u64)>>,
}

impl Default for Digester {
    fn default() -> Self {
        Self { state: 0, names_variant: true, fields: None }
    }
}

impl Digester {
    fn add_variant(&mut self, variant: &str) {
        let name = if self.enter() { variant } else { "" };
        self.add_bytes(Kind::Variant, name.as_bytes());
    }

    /// Notes that the values from here on are inside of another. Returns whether this one is too.
    fn enter(&mut self) -> bool {
        std::mem::replace(&mut self.names_variant, true)
    }

    fn mix(&mut self, word: u64) {
        self.state = (self.state.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn add(&mut self, kind: Kind, word: u64) {
        self.mix(kind as u64);
        self.mix(word);
    }

    fn add_bytes(&mut self, kind: Kind, bytes: &[u8]) {
        self.add(kind, bytes.len() as u64);
        let mut words = bytes.chunks_exact(8);
        for word in words.by_ref() {
            self.mix(u64::from_le_bytes(word.try_into().expect("8 bytes")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.mix(u64::from_le_bytes(last));
    }

    /// An integer of any width, by its value.
    fn add_integer(&mut self, low: u128, is_negative: bool) {
        self.add(Kind::Integer, low as u64);
        self.mix((low >> 64) as u64);
        self.mix(is_negative.into());
    }

    fn add_float(&mut self, float: f64) {
        let bits = if float.is_nan() { f64::NAN.to_bits() } else { float.to_bits() };
        self.add(Kind::Float, bits);
    }

    /// Spreads every bit over the whole, so that digests can be added up.
    fn finish(self) -> u64 {
        let mut word = self.state;
        word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        word = (word ^ (word >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        word ^ (word >> 32)
    }
}

type Done = Result<(), NotSerializable>;

macro_rules! integers {
    ($($method:ident: $type:ty => $wider:ident),*) => {$(
        fn $method(self, value: $type) -> Done {
            self.$wider(value.into())
        }
    )*};
}

impl<'a> Serializer for &'a mut Digester {
    type Ok = ();
    type Error = NotSerializable;
    type SerializeSeq = Unordered<'a>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Unordered<'a>;
    type SerializeStruct = ByName<'a>;
    type SerializeStructVariant = ByName<'a>;

    integers!(
        serialize_i8: i8 => serialize_i128,
        serialize_i16: i16 => serialize_i128,
        serialize_i32: i32 => serialize_i128,
        serialize_i64: i64 => serialize_i128,
        serialize_u8: u8 => serialize_u128,
        serialize_u16: u16 => serialize_u128,
        serialize_u32: u32 => serialize_u128,
        serialize_u64: u64 => serialize_u128
    );

    fn serialize_i128(self, value: i128) -> Done {
        self.add_integer(value.cast_unsigned(), value < 0);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Done {
        self.add_integer(value, false);
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Done {
        self.add(Kind::Bool, value.into());
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Done {
        self.add_float(value.into());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Done {
        self.add_float(value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Done {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Done {
        self.add_bytes(Kind::Text, value.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Done {
        self.add_bytes(Kind::Bytes, value);
        Ok(())
    }

    fn serialize_none(self) -> Done {
        self.mix(Kind::None as u64);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Done {
        self.enter();
        self.mix(Kind::Some as u64);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Done {
        self.mix(Kind::Unit as u64);
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Done {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Done {
        self.add_variant(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Done {
        self.enter();
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Done {
        self.add_variant(variant);
        value.serialize(self)
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Unordered<'a>, NotSerializable> {
        Ok(Unordered::new(self, Kind::Sequence))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Self, NotSerializable> {
        self.enter();
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, NotSerializable> {
        self.enter();
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self, NotSerializable> {
        self.add_variant(variant);
        Ok(self)
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Unordered<'a>, NotSerializable> {
        Ok(Unordered::new(self, Kind::Map))
    }

    fn serialize_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<ByName<'a>, NotSerializable> {
        Ok(ByName { digester: self, sum: 0, count: 0 })
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<ByName<'a>, NotSerializable> {
        self.add_variant(variant);
        Ok(ByName { digester: self, sum: 0, count: 0 })
    }

    // Formats for machines hold more: what a type writes for people may be shortened.
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence or the entries of a map, added up: a set is a sequence for serde, and
/// two equal ones give their elements in different orders.
struct Unordered<'a> {
    digester: &'a mut Digester,
    kind: Kind,
    sum: u64,
    count: u64,
    entry: Digester,
}

impl<'a> Unordered<'a> {
    fn new(digester: &'a mut Digester, kind: Kind) -> Self {
        Self { digester, kind, sum: 0, count: 0, entry: Digester::default() }
    }

    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        value.serialize(&mut self.entry)?;
        self.sum = self.sum.wrapping_add(std::mem::take(&mut self.entry).finish());
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Done {
        self.digester.add(self.kind, self.sum);
        self.digester.mix(self.count);
        Ok(())
    }
}

impl SerializeSeq for Unordered<'_> {
    type Ok = ();
    type Error = NotSerializable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.add(value)
    }

    fn end(self) -> Done {
        self.finish()
    }
}

impl SerializeMap for Unordered<'_> {
    type Ok = ();
    type Error = NotSerializable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Done {
        key.serialize(&mut self.entry)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
        self.add(value)
    }

    fn end(self) -> Done {
        self.finish()
    }
}

macro_rules! in_order {
    ($($serialize:ident::$method:ident),*) => {$(
        impl $serialize for &mut Digester {
            type Ok = ();
            type Error = NotSerializable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Done {
                value.serialize(&mut **self)
            }

            fn end(self) -> Done {
                Ok(())
            }
        }
    )*};
}

in_order!(
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

/// The fields of a struct, added up: a struct is the same with its fields in another order. A field
/// that is left out leaves its name out.
struct ByName<'a> {
    digester: &'a mut Digester,
    sum: u64,
    count: u64,
}

impl ByName<'_> {
    fn add<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Done {
        if let Some(fields) = &mut self.digester.fields {
            fields.push((name, digest(value)?));
            return Ok(());
        }
        let mut field = Digester::default();
        field.add_bytes(Kind::Field, name.as_bytes());
        value.serialize(&mut field)?;
        self.sum = self.sum.wrapping_add(field.finish());
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Done {
        self.digester.add(Kind::Field, self.sum);
        self.digester.mix(self.count);
        Ok(())
    }
}

macro_rules! by_name {
    ($($serialize:ident),*) => {$(
        impl $serialize for ByName<'_> {
            type Ok = ();
            type Error = NotSerializable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Done {
                self.add(name, value)
            }

            fn end(self) -> Done {
                self.finish()
            }
        }
    )*};
}

by_name!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn of<T: Serialize>(value: T) -> u64 {
        digest(&value).unwrap()
    }

    #[test]
    fn what_json_writes_alike_has_digests_of_its_own() {
        let options = [None, Some(None), Some(Some(()))].map(of);
        assert!(options[0] != options[1] && options[1] != options[2] && options[0] != options[2]);
        assert_ne!(of(Some(())), of(None::<()>));
        assert_ne!(of(f64::INFINITY), of(f64::NAN));
    }

    #[test]
    fn equal_values_have_one_digest() {
        let numbers = 0..1_000_u64;
        let forwards: HashMap<_, _> = numbers.clone().map(|it| (it, it.to_string())).collect();
        let backwards: HashMap<_, _> =
            numbers.clone().rev().map(|it| (it, it.to_string())).collect();
        assert_eq!(of(&forwards), of(&backwards));
        let forwards: HashSet<_> = numbers.clone().collect();
        let backwards: HashSet<_> = numbers.rev().collect();
        assert_eq!(of(&forwards), of(&backwards));
        assert_eq!(of(f64::NAN), of(-f64::NAN));
        assert_eq!(of((1_u8, 1.5_f32)), of((1_i64, 1.5_f64)));
    }

    #[test]
    fn different_values_have_different_digests() {
        let texts = ["", "a", "b", "aa", "a\0", "abcdefgh", "abcdefg\0", "abcdefghi"];
        let integers = [0, 1, -1, i128::MAX, i128::MIN, 1 << 64, 255];
        let mut digests: Vec<_> = texts.map(of).into_iter().chain(integers.map(of)).collect();
        digests.extend([of(u128::MAX), of(0.0), of(-0.0), of(false), of(true), of(())]);
        digests.extend([of(vec![1]), of(vec![1, 1]), of(vec![[1], [2]]), of(vec![[1, 2]])]);
        digests.extend([of((1, 2)), of((2, 1)), of(HashMap::from([(1, 2)])), of("ab".as_bytes())]);
        let distinct: HashSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
    #[test]
    fn a_struct_has_one_digest_in_every_order_of_its_fields() {
        #[derive(Serialize)]
        struct Sum {
            cents: u64,
            currency: String,
        }
        #[derive(Serialize)]
        struct Turned {
            currency: String,
            cents: u64,
        }
        #[derive(Serialize)]
        enum Pay<S> {
            Out { sum: S, to: u8 },
        }
        let sum = |cents| Sum { cents, currency: "EUR".into() };
        let turned = Turned { currency: "EUR".into(), cents: 5 };
        assert_eq!(of(sum(5)), of(&turned));
        assert_ne!(of(sum(5)), of(sum(6)));
        let turned = Pay::Out { sum: turned, to: 1 };
        assert_eq!(of(Pay::Out { sum: sum(5), to: 1 }), of(turned));
        assert_ne!(of(Pay::Out { sum: sum(5), to: 1 }), of(Pay::Out { sum: sum(5), to: 2 }));
        assert_ne!(of((sum(5), 6)), of((sum(6), 5)));
    }

    #[test]
    fn the_content_of_a_command_leaves_out_the_name_of_its_own_variant_only() {
        #[derive(Clone, Copy, Serialize)]
        enum Old {
            Unit,
            One(u8),
            Two(u8, u8),
            Named { at: u8 },
        }
        #[derive(Clone, Copy, Serialize)]
        enum Renamed {
            Nothing,
            Single(u8),
            Pair(u8, u8),
            Fields { at: u8 },
        }
        #[derive(Serialize)]
        struct Of<T>(T);
        #[derive(Serialize)]
        struct Pair<T>(T, u8);
        #[derive(Serialize)]
        struct With<T> {
            it: T,
        }
        fn content<T: Serialize>(value: T) -> u64 {
            digest_of_content(&value).unwrap()
        }
        let old = [Old::Unit, Old::One(1), Old::Two(1, 2), Old::Named { at: 1 }];
        let renamed =
            [Renamed::Nothing, Renamed::Single(1), Renamed::Pair(1, 2), Renamed::Fields { at: 1 }];
        for (old, renamed) in old.into_iter().zip(renamed) {
            assert_eq!(content(old), content(renamed));
            assert_ne!(of(old), of(renamed));
            assert_ne!(content(Of(old)), content(Of(renamed)));
            assert_ne!(content(Pair(old, 1)), content(Pair(renamed, 1)));
            assert_ne!(content(With { it: old }), content(With { it: renamed }));
            assert_ne!(content(Some(old)), content(Some(renamed)));
            assert_ne!(content((old, 1)), content((renamed, 1)));
        }
    }
}
