//! Between the kernel's unsigned numbers and PostgreSQL's signed ones.

/// A number as PostgreSQL keeps it. One beyond its range lies behind everything that is stored,
/// and so does the largest, so that a hostile position is no special case anywhere.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A stored number. None is negative unless the table is damaged.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
