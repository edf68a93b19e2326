//! How many events a stream has, and what a writer expects of it.

use std::fmt;

use crate::number::number;

number! {
    /// How many events a stream has ever had: the version of its last event, 0 when there is none.
    ///
    /// A deletion counts as one, so that what was decided before it conflicts after it. Versions
    /// survive it: one (stream, version) never names two events.
    ///
    /// ```
    /// use factum_kernel::{ExpectedVersion, StreamVersion};
    ///
    /// let two = StreamVersion::new(2);
    /// assert_eq!(two.next().value(), 3);
    /// assert_eq!(ExpectedVersion::from(two), ExpectedVersion::Exact(two));
    /// ```
    StreamVersion
}

/// What must be so of a stream for an append to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// Nothing is expected; the events go to the end.
    Any,
    /// The stream never had an event. A deleted stream does not match.
    NoStream,
    /// The stream has events, and was not deleted since the last of them.
    StreamExists,
    /// The stream is at just this version. `Exact(0)` is the same as `NoStream`.
    Exact(StreamVersion),
}

impl From<StreamVersion> for ExpectedVersion {
    fn from(version: StreamVersion) -> Self {
        if version == StreamVersion::ZERO { Self::NoStream } else { Self::Exact(version) }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::NoStream => f.write_str("no-stream"),
            Self::StreamExists => f.write_str("stream-exists"),
            Self::Exact(version) => version.fmt(f),
        }
    }
}
