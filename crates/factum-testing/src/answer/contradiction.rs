//! The ways in which an answer can contradict the log.

use factum_kernel::{DecodeError, StoreError, StreamId, StreamVersion};

/// An answer that the log contradicts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Contradiction {
    /// Events that were answered as stored are not like that in the log.
    #[error("not stored as told: {what}: stream={stream} version={version}")]
    NotStored {
        /// The part that differs.
        what: &'static str,
        /// The stream.
        stream: StreamId,
        /// The answered version.
        version: StreamVersion,
    },
    /// Two answers claim the same event.
    #[error("told twice: two callers have one event: stream={stream} version={version}")]
    Twice {
        /// The stream.
        stream: StreamId,
        /// The event's version.
        version: StreamVersion,
    },
    /// An answer depends on a state older than the one stored before the call.
    #[error(
        "stale: version {version} was told, {from} was stored before the call: stream={stream}"
    )]
    Stale {
        /// The stream.
        stream: StreamId,
        /// The answered version.
        version: StreamVersion,
        /// The version before the call.
        from: StreamVersion,
    },
    /// An answer depends on events that were not stored yet.
    #[error("too early: version {version} was told, only {to} was stored: stream={stream}")]
    Early {
        /// The stream.
        stream: StreamId,
        /// The answered version.
        version: StreamVersion,
        /// The version when the answer was there.
        to: StreamVersion,
    },
    /// The state at that version differs from the answered one.
    #[error("another state: told {told}, the log says {is}: stream={stream} version={version}")]
    OtherState {
        /// The stream.
        stream: StreamId,
        /// The answered version.
        version: StreamVersion,
        /// The answered state.
        told: String,
        /// The state by the log.
        is: String,
    },
    /// By the rules, no state between call and answer leads to this answer.
    #[error("unfounded: no version from {from} to {to} leads to {told}: stream={stream}")]
    Unfounded {
        /// The stream.
        stream: StreamId,
        /// The first version that the answer may depend on.
        from: StreamVersion,
        /// The last version that the answer may depend on.
        to: StreamVersion,
        /// The answer.
        told: String,
    },
    /// The log could not be read.
    #[error("the log can't be read: {0}")]
    Unreadable(#[from] StoreError),
    /// An event could not be read.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
}
