//! Conversions between the kernel's unsigned numbers and SQLite's signed ones.

/// A number in SQLite's form. A number beyond its range becomes the largest, which is after
/// everything stored. So a hostile position needs no special case.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number. Only a damaged file has a negative one.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
