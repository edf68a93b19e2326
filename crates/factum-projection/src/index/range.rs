//! Ranges of values in an index.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use factum_kernel::KeyRange;

use super::value::{COMPOSITE, IndexValue, Place, encode_beginning};

/// A range of values in an index.
///
/// ```
/// use factum_projection::IndexRange;
///
/// let ada = IndexRange::equal("ada");
/// let some = IndexRange::within(1_000_u64..5_000);
/// let rich = IndexRange::within(1_000_000_u64..);
/// let names_in_a = IndexRange::beginning("a");
/// // In an index whose values are pairs of a city and a year.
/// let in_graz = IndexRange::all().under("Graz");
/// let recent = IndexRange::within(2020_u64..).under("Graz");
/// # let _ = (ada, some, rich, names_in_a, in_graz, recent, IndexRange::all());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct IndexRange {
    /// The first parts of composite values, the outermost one last.
    under: Vec<IndexValue>,
    span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Span {
    Bounds(Bound<IndexValue>, Bound<IndexValue>),
    Beginning(String),
}

impl IndexRange {
    /// All entries of the index, in its order.
    pub fn all() -> Self {
        Self::of(Span::Bounds(Bound::Unbounded, Bound::Unbounded))
    }

    /// The entries with exactly this value.
    pub fn equal(value: impl Into<IndexValue>) -> Self {
        let value = value.into();
        Self::of(Span::Bounds(Bound::Included(value.clone()), Bound::Included(value)))
    }

    /// The entries whose values lie in the range. A range with one bound contains all values of
    /// that kind on its side of the bound.
    pub fn within<V: Into<IndexValue> + Clone>(range: impl RangeBounds<V>) -> Self {
        let value = |value: &V| value.clone().into();
        Self::of(Span::Bounds(range.start_bound().map(value), range.end_bound().map(value)))
    }

    /// The texts that begin with this one. Only the bytes of it count by which the index sorts a
    /// long text: see [`IndexValue`].
    pub fn beginning(text: &str) -> Self {
        Self::of(Span::Beginning(text.into()))
    }

    /// The composite values whose first part is this one, and whose next part lies in the range so
    /// far. Call it again for a part before that.
    pub fn under(mut self, first: impl Into<IndexValue>) -> Self {
        self.under.push(first.into());
        self
    }

    fn of(span: Span) -> Self {
        Self { under: Vec::new(), span }
    }

    /// The range of keys with this prefix.
    pub(crate) fn keys(&self, prefix: &[u8]) -> KeyRange {
        let place = if self.under.is_empty() { Place::Whole } else { Place::Part };
        let mut prefix = prefix.to_vec();
        if place == Place::Part {
            prefix.push(COMPOSITE);
            self.under.iter().rev().for_each(|part| prefix.extend(part.encode(place)));
        }
        let at = |bytes: &[u8]| -> Bytes { [&prefix[..], bytes].concat().into() };
        let after = |bytes: &[u8]| KeyRange::prefix(at(bytes)).to;
        let (from, to) = match &self.span {
            Span::Beginning(text) => return KeyRange::prefix(at(&encode_beginning(text, place))),
            Span::Bounds(from, to) => (from, to),
        };
        let kind = |bound: &Bound<IndexValue>| match bound {
            Bound::Included(value) | Bound::Excluded(value) => vec![value.kind()],
            Bound::Unbounded => Vec::new(),
        };
        let first = match from {
            Bound::Included(value) => Some(at(&value.encode(place))),
            Bound::Excluded(value) => after(&value.encode(place)),
            Bound::Unbounded => Some(at(&kind(to))),
        };
        let end = match to {
            Bound::Included(value) => after(&value.encode(place)),
            Bound::Excluded(value) => Some(at(&value.encode(place))),
            Bound::Unbounded => after(&kind(from)),
        };
        KeyRange { from: first.unwrap_or_default(), to: end }
    }
}

#[cfg(test)]
mod tests {
    use factum_kernel::Timestamp;
    use proptest::prelude::*;

    use super::{super::document_key, *};

    fn simple() -> impl Strategy<Value = IndexValue> {
        let text =
            prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'b', 'ÿ']), 0..5);
        prop_oneof![
            any::<bool>().prop_map(IndexValue::Bool),
            any::<i128>().prop_map(IndexValue::Integer),
            (-3..3_i128).prop_map(IndexValue::Integer),
            (0..9_u64).prop_map(|micros| IndexValue::Time(Timestamp::from_micros(micros))),
            text.prop_map(|text| IndexValue::Text(text.into_iter().collect())),
        ]
    }

    fn value() -> impl Strategy<Value = IndexValue> {
        let composite = prop::collection::vec(simple(), 2..4).prop_map(IndexValue::Composite);
        prop_oneof![3 => simple(), 1 => composite]
    }

    proptest! {
        #[test]
        fn bytes_sort_as_values_do_with_any_key_after_them(
            left in value(), right in value(), keys in ("[\0a-c]{1,3}", "[\0a-c]{1,3}"),
        ) {
            let of = |value: &IndexValue, key: &str| {
                [value.encode(Place::Whole), key.into()].concat()
            };
            let a = of(&left, &keys.0);
            let b = of(&right, &keys.1);
            prop_assert_eq!(a.cmp(&b), (&left, &keys.0).cmp(&(&right, &keys.1)));
            prop_assert_eq!(document_key(&a), Some(keys.0.as_bytes()));
        }

        #[test]
        fn a_range_holds_what_lies_in_it(
            value in value(), low in value(), high in value(), bounds in 0..9_u8,
        ) {
            prop_assume!(low.kind() == high.kind());
            let bound = |number: u8, value: &IndexValue| match number % 3 {
                0 => Bound::Included(value.clone()),
                1 => Bound::Excluded(value.clone()),
                _ => Bound::Unbounded,
            };
            let from = bound(bounds, &low);
            let to = bound(bounds / 3, &high);
            let is_bounded = from != Bound::Unbounded || to != Bound::Unbounded;
            let is_kind_fine = !is_bounded || value.kind() == low.kind();
            let expected = is_kind_fine && (from.clone(), to.clone()).contains(&value);
            let range = IndexRange::of(Span::Bounds(from, to));
            prop_assert_eq!(holds(&range, &value), expected);
        }

        #[test]
        fn a_range_under_a_part_holds_the_composite_values_with_that_part(
            parts in prop::collection::vec(simple(), 2..4), first in simple(), low in simple(),
            is_same in any::<bool>(),
        ) {
            let first = if is_same { parts[0].clone() } else { first };
            let value = IndexValue::Composite(parts.clone());
            let is_under = first == parts[0];
            prop_assert_eq!(holds(&IndexRange::all().under(first.clone()), &value), is_under);
            let from = IndexRange::within(low.clone()..).under(first.clone());
            let is_from = parts[1].kind() == low.kind() && parts[1] >= low;
            prop_assert_eq!(holds(&from, &value), is_under && is_from);
            if let Some(third) = parts.get(2) {
                let deep = IndexRange::equal(third.clone()).under(parts[1].clone()).under(first);
                prop_assert_eq!(holds(&deep, &value), is_under);
            }
        }

        #[test]
        fn a_long_text_is_found_by_itself_and_by_its_beginning(
            text in "[\0aä]{0,4}[a-c]{150,300}", end in "[ab]{1,2}", at in 0..120_usize,
        ) {
            let value = IndexValue::from(text.clone());
            let longer = format!("{text}{end}");
            let other = IndexValue::from(longer.clone());
            prop_assert!(value.encode(Place::Whole).len() <= super::super::INDEX_VALUE_BYTES_MAX);
            prop_assert!(holds(&IndexRange::equal(text.as_str()), &value));
            prop_assert!(!holds(&IndexRange::equal(text.as_str()), &other));
            let beginning = &text[..text.floor_char_boundary(at)];
            prop_assert!(holds(&IndexRange::beginning(beginning), &value));
            let pair = IndexValue::from((text.as_str(), 7));
            prop_assert!(holds(&IndexRange::equal(7).under(text.as_str()), &pair));
            prop_assert!(!holds(&IndexRange::equal(7).under(longer), &pair));
            let whole = [value.encode(Place::Whole), b"key".to_vec()].concat();
            prop_assert_eq!(document_key(&whole), Some(&b"key"[..]));
            let whole = [pair.encode(Place::Whole), b"key".to_vec()].concat();
            prop_assert_eq!(document_key(&whole), Some(&b"key"[..]));
        }
    }

    #[test]
    fn the_largest_composite_value_fits() {
        let long = "x".repeat(1_000);
        let value = IndexValue::from((long.as_str(), long.as_str(), long.as_str()));
        assert!(value.encode(Place::Whole).len() <= super::super::INDEX_VALUE_BYTES_MAX);
    }

    fn holds(range: &IndexRange, value: &IndexValue) -> bool {
        let key = [b"p/".to_vec(), value.encode(Place::Whole), b"key".to_vec()].concat();
        range.keys(b"p/").contains(&key)
    }
}
