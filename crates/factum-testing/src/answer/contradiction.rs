//! What an answer can turn out to have been wrong about.

use factum_kernel::{DecodeError, StoreError, StreamId, StreamVersion};

/// An answer that the log contradicts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Contradiction {
    /// What was told to be stored is not in the log so.
    #[error("not stored as told: {what}: stream={stream} version={version}")]
    NotStored {
        /// What of it.
        what: &'static str,
        /// The stream.
        stream: StreamId,
        /// The version that was told.
        version: StreamVersion,
    },
    /// Two callers were told that an event is theirs.
    #[error("told twice: two callers have one event: stream={stream} version={version}")]
    Twice {
        /// The stream.
        stream: StreamId,
        /// The event's version.
        version: StreamVersion,
    },
    /// An answer rests on an older state than was stored before the call.
    #[error(
        "stale: version {version} was told, {from} was stored before the call: stream={stream}"
    )]
    Stale {
        /// The stream.
        stream: StreamId,
        /// The version that was told.
        version: StreamVersion,
        /// The version before the call.
        from: StreamVersion,
    },
    /// An answer rests on events that were not stored yet.
    #[error("too early: version {version} was told, only {to} was stored: stream={stream}")]
    Early {
        /// The stream.
        stream: StreamId,
        /// The version that was told.
        version: StreamVersion,
        /// The version when the answer was there.
        to: StreamVersion,
    },
    /// The state at that version is another than was told.
    #[error("another state: told {told}, the log says {is}: stream={stream} version={version}")]
    OtherState {
        /// The stream.
        stream: StreamId,
        /// The version that was told.
        version: StreamVersion,
        /// The state that was told.
        told: String,
        /// What the log says.
        is: String,
    },
    /// The rules say otherwise of every state that there was between call and answer.
    #[error("unfounded: no version from {from} to {to} leads to {told}: stream={stream}")]
    Unfounded {
        /// The stream.
        stream: StreamId,
        /// The first version that it may rest on.
        from: StreamVersion,
        /// The last version that it may rest on.
        to: StreamVersion,
        /// What was told.
        told: String,
    },
    /// The log could not be read.
    #[error("the log can't be read: {0}")]
    Unreadable(#[from] StoreError),
    /// An event could not be read.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
}
