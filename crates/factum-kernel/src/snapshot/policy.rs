//! The rules for taking and keeping snapshots.

use std::time::Duration;

use crate::{kind::ErrorKind, time::Timestamp, version::StreamVersion};

/// The rules for taking, keeping and compressing snapshots.
///
/// ```
/// use factum_kernel::SnapshotPolicy;
///
/// let policy = SnapshotPolicy::every_events(100).with_kept(2);
/// assert!(policy.validate().is_ok());
/// assert!(SnapshotPolicy::every_events(0).validate().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct SnapshotPolicy {
    /// Take a snapshot N events after the last one.
    pub every_events: Option<u64>,
    /// Take a snapshot when the last one, or else the first event, is this old and there are new
    /// events.
    pub every: Option<Duration>,
    /// The shortest time between two snapshots of an aggregate.
    pub spacing_min: Duration,
    /// The number of snapshots kept of each aggregate, at least 1. `load_at` uses the older ones.
    pub kept: usize,
    /// A state that is larger than this, in bytes, is stored compressed (LZ4).
    pub compress_above_bytes: usize,
    /// The number of the state's shape. Raise it when the state's type keeps its name and fields
    /// but its meaning changes: snapshots with another number, or of a type with another name or
    /// other fields, are ignored. A new field that is left out where it is empty
    /// (`skip_serializing_if`) needs it too.
    pub state_version: u32,
}

/// The error for a snapshot policy that contradicts itself, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid snapshot policy: {0}")]
pub struct InvalidSnapshotPolicy(&'static str);

impl InvalidSnapshotPolicy {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl SnapshotPolicy {
    const fn new() -> Self {
        Self {
            every_events: None,
            every: None,
            spacing_min: Duration::ZERO,
            kept: 1,
            compress_above_bytes: 4_096,
            state_version: 1,
        }
    }

    /// A snapshot every 200 events, at most one per second. Two are kept.
    pub const fn production() -> Self {
        Self::every_events(200).with_spacing_min(Duration::from_secs(1)).with_kept(2)
    }

    /// A snapshot every N events.
    pub const fn every_events(events: u64) -> Self {
        Self { every_events: Some(events), ..Self::new() }
    }

    /// A snapshot whenever the last one is this old and there are new events.
    pub const fn every(age: Duration) -> Self {
        Self { every: Some(age), ..Self::new() }
    }

    /// Sets the shortest time between two snapshots.
    pub const fn with_spacing_min(mut self, spacing: Duration) -> Self {
        self.spacing_min = spacing;
        self
    }

    /// Sets the number of snapshots to keep.
    pub const fn with_kept(mut self, kept: usize) -> Self {
        self.kept = kept;
        self
    }

    /// Sets the size above which a state is compressed.
    pub const fn with_compress_above_bytes(mut self, bytes: usize) -> Self {
        self.compress_above_bytes = bytes;
        self
    }

    /// Sets the number of the state's shape.
    pub const fn with_state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// Checks that the policy makes sense.
    ///
    /// # Errors
    /// A value that is out of range, or a policy that takes no snapshots.
    pub const fn validate(self) -> Result<Self, InvalidSnapshotPolicy> {
        let problem = match self {
            Self { every_events: Some(0), .. } => "every_events must be at least 1",
            Self { every: Some(Duration::ZERO), .. } => "every must be longer than zero",
            Self { every_events: None, every: None, .. } => "it never takes a snapshot",
            Self { kept: 0, .. } => "kept must be at least 1",
            Self { kept, .. } if kept > KEPT_MAX => "kept must be at most 100",
            _ => return Ok(self),
        };
        Err(InvalidSnapshotPolicy(problem))
    }

    /// True if a snapshot is due at `version`, given the snapshot that loading found.
    pub(crate) fn is_due(&self, since: &Since, version: StreamVersion, now: Timestamp) -> bool {
        let events = version.value().saturating_sub(since.version.value());
        let by_events = self.every_events.is_some_and(|every| events >= every);
        let is_old = |every| since.at.is_some_and(|at| age(at, now) >= every);
        let by_age = events > 0 && self.every.is_some_and(is_old);
        let is_spaced = since.taken_at.is_none_or(|at| age(at, now) >= self.spacing_min);
        (by_events || by_age) && is_spaced
    }
}

/// The time between a stored moment and now. A moment in the future comes from a clock that was
/// ahead; it must not postpone the next snapshot until then.
#[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
fn age(at: Timestamp, now: Timestamp) -> Duration {
    now.saturating_since(at).max(at.saturating_since(now))
}

/// The most snapshots to keep. More would be of no use.
const KEPT_MAX: usize = 100;

/// The point from which events count towards the next snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since {
    pub(crate) version: StreamVersion,
    /// The time of the last snapshot; without a snapshot, the time of the first event.
    pub(crate) at: Option<Timestamp>,
    pub(crate) taken_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
