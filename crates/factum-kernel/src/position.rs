//! The place of an event in the whole log, and the identity of that log.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::number::number;

number! {
    /// The place of an event in the whole log: 1, 2, 3, ... without holes, in commit order.
    ///
    /// ```
    /// use factum_kernel::Position;
    ///
    /// assert_eq!(Position::ZERO.next(), Position::new(1));
    /// assert!(Position::new(7) < Position::new(8));
    /// ```
    Position
}

/// The identity of the history that a [`Position`] belongs to.
///
/// A log gets a lineage when it is created, and a new one when it is restored, forked or imported.
/// A position of one lineage means nothing in a log of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(Uuid);

impl Lineage {
    /// The lineage with this id.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The id, for storage.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A range of positions whose events were truncated or deleted for good. Both ends are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ErasedRange {
    /// The first erased position.
    pub first: Position,
    /// The last erased position.
    pub last: Position,
}
