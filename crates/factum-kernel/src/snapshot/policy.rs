//! When snapshots are taken, and how many are kept.

use std::time::Duration;

use crate::{kind::ErrorKind, time::Timestamp, version::StreamVersion};

/// When snapshots are taken, how many are kept, and how.
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
    /// After so many events since the last one.
    pub every_events: Option<u64>,
    /// When the last one, or the first event, is this old and there are new events.
    pub every: Option<Duration>,
    /// Never sooner than this after the last one.
    pub spacing_min: Duration,
    /// How many are kept of each aggregate, at least 1; the older ones serve `load_at`.
    pub kept: usize,
    /// A state whose bytes are more than this is stored compressed (LZ4).
    pub compress_above_bytes: usize,
    /// The number of the state's shape. Raise it when the state's type keeps its name and changes
    /// its meaning: snapshots with another number, or of a type with another name, are ignored.
    pub state_version: u32,
}

/// A snapshot policy that makes no sense, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid snapshot policy: {0}")]
pub struct InvalidSnapshotPolicy(&'static str);

impl InvalidSnapshotPolicy {
    /// What the caller can do.
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

    /// Every 50 events: bugs around snapshots show early.
    pub const fn development() -> Self {
        Self::every_events(50)
    }

    /// Every 200 events, at most one per second, two kept.
    pub const fn production() -> Self {
        Self::every_events(200).with_spacing_min(Duration::from_secs(1)).with_kept(2)
    }

    /// One after every so many events.
    pub const fn every_events(events: u64) -> Self {
        Self { every_events: Some(events), ..Self::new() }
    }

    /// One whenever the last is this old and there are new events.
    pub const fn every(age: Duration) -> Self {
        Self { every: Some(age), ..Self::new() }
    }

    /// Also when the last one is this old.
    pub const fn or_every(mut self, age: Duration) -> Self {
        self.every = Some(age);
        self
    }

    /// Sets the least time between two.
    pub const fn with_spacing_min(mut self, spacing: Duration) -> Self {
        self.spacing_min = spacing;
        self
    }

    /// Sets how many are kept.
    pub const fn with_kept(mut self, kept: usize) -> Self {
        self.kept = kept;
        self
    }

    /// Sets above which size a state is compressed.
    pub const fn with_compress_above_bytes(mut self, bytes: usize) -> Self {
        self.compress_above_bytes = bytes;
        self
    }

    /// Sets the number of the state's shape.
    pub const fn with_state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// Whether the policy makes sense.
    ///
    /// # Errors
    /// What does not.
    pub const fn validate(self) -> Result<Self, InvalidSnapshotPolicy> {
        let problem = match self {
            Self { every_events: Some(0), .. } => "every_events must be at least 1",
            Self { every: Some(Duration::ZERO), .. } => "every must be longer than zero",
            Self { every_events: None, every: None, .. } => "it never takes one",
            Self { kept: 0, .. } => "kept must be at least 1",
            Self { kept, .. } if kept > KEPT_MAX => "kept must be at most 100",
            _ => return Ok(self),
        };
        Err(InvalidSnapshotPolicy(problem))
    }

    /// Whether one is due at `version`, after what loading saw.
    pub(crate) fn is_due(&self, since: &Since, version: StreamVersion, now: Timestamp) -> bool {
        let events = version.value().saturating_sub(since.version.value());
        let by_events = self.every_events.is_some_and(|every| events >= every);
        let is_old = |every| since.at.is_some_and(|at| age(at, now) >= every);
        let by_age = events > 0 && self.every.is_some_and(is_old);
        let is_spaced = since.taken_at.is_none_or(|at| age(at, now) >= self.spacing_min);
        (by_events || by_age) && is_spaced
    }
}

/// The time between what is stored and now. One that is in the future was taken by a clock that was
/// ahead: it must not keep the next one off until then.
#[expect(clippy::disallowed_methods, reason = "the age of what is stored")]
fn age(at: Timestamp, now: Timestamp) -> Duration {
    now.saturating_since(at).max(at.saturating_since(now))
}

/// More kept snapshots than this help nobody.
const KEPT_MAX: usize = 100;

/// From where on events count towards the next snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Since {
    pub(crate) version: StreamVersion,
    /// When the last snapshot was taken, else when the first event was recorded.
    pub(crate) at: Option<Timestamp>,
    pub(crate) taken_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests;
