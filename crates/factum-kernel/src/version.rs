//! The version of a stream, and the version that a writer expects.

use std::fmt;

use crate::number::number;

number! {
    /// The number of events that a stream has ever had, which is the version of its last event. 0
    /// for a stream without events.
    ///
    /// A deletion counts as one event, so a decision that was made before the deletion conflicts
    /// after it. Versions survive a deletion: one (stream, version) never names two events.
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

/// The condition on a stream's version under which an append goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// No condition; the events go to the end of the stream.
    Any,
    /// The stream never had an event. A deleted stream does not match.
    NoStream,
    /// The stream has events, and it was not deleted after the last of them.
    StreamExists,
    /// The stream is at exactly this version. `Exact(0)` is the same as `NoStream`.
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
