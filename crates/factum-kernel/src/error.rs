//! Errors of a store. The kind of each says what the caller can do about it.

use std::{error::Error, fmt, sync::Arc};

use crate::{
    kind::{Cause, ErrorKind},
    position::Position,
    stream::StreamId,
    version::{ExpectedVersion, StreamVersion},
};

/// The kind of a [`StoreError`]: what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Nothing was done. Try again later.
    Unavailable,
    /// The request can never succeed. Correct it.
    Invalid,
    /// Stored data contradict themselves. Stop, and examine the store.
    Corrupt,
    /// The store was closed.
    Closed,
    /// An unforeseen failure. The text and the source say more.
    Internal,
}

impl StoreErrorKind {
    /// True if the same call fails until a person changes the call, the data, or the store. A kind
    /// that is not known to be permanent counts as temporary.
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::Invalid | Self::Corrupt | Self::Closed)
    }
}

/// The reason why a store did not do what it was asked. Cheap to clone.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: Arc<str>,
    cause: Cause,
}

impl StoreError {
    /// An error of this kind. The message is one lowercase sentence, values last as `key=value`.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into().into(), cause: Cause::new(kind.into()) }
    }

    /// Nothing was done. Try again later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Unavailable, message)
    }

    /// The request can never succeed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Invalid, message)
    }

    /// Stored data contradict themselves.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Corrupt, message)
    }

    /// The store was closed.
    pub fn closed() -> Self {
        Self::new(StoreErrorKind::Closed, "the store is closed")
    }

    /// An unforeseen failure.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Internal, message)
    }

    /// Adds the driver's own error as the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.cause = self.cause.with_source(source);
        self
    }

    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({:?}: {}", self.kind, self.message)?;
        if let Some(source) = self.cause.source() {
            write!(f, ": {source:?}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The source of the error is its [`Cause`], whose source is the driver's own error.
impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// A stream was not at the version that the writer expected. Load and decide again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", described(self))]
pub struct VersionConflict {
    /// The stream that was compared.
    pub stream: StreamId,
    /// The version that the writer expected.
    pub expected: ExpectedVersion,
    /// The version that the stream had.
    pub actual: StreamVersion,
    /// The version of the stream's last deletion, if the writer did not expect it.
    pub deleted_at: Option<StreamVersion>,
}

fn described(conflict: &VersionConflict) -> String {
    let VersionConflict { stream, expected, actual, deleted_at } = conflict;
    match deleted_at {
        None => format!("version conflict: stream={stream} expected={expected} actual={actual}"),
        Some(deleted_at) => format!(
            "version conflict, the stream was deleted: stream={stream} expected={expected} \
             actual={actual} deleted_at={deleted_at}"
        ),
    }
}

/// The reason why a batch was not appended, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another writer was first. Nothing was stored.
    #[error(transparent)]
    Conflict(#[from] VersionConflict),
    /// An event matches a condition. Nothing was stored.
    #[error("append condition does not hold: condition={condition} position={position}")]
    ConditionFailed {
        /// The index of the failed condition in the batch, from 0.
        condition: usize,
        /// The position of an event that matches the condition.
        position: Position,
    },
    /// The batch may or may not be stored. Repeat the *same* batch, marked
    /// [`repeated`](crate::AppendBatch::repeated), before anything is loaded again.
    #[error("the outcome of the append is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store refused or failed. Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VersionConflict {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Conflict
    }
}

impl AppendError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict(_) | Self::ConditionFailed { .. } => ErrorKind::Conflict,
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }

    /// The kind of the store's error if the variant is `Store`, which means that nothing was
    /// stored.
    pub fn store_kind(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Store(error) => Some(error.kind()),
            _ => None,
        }
    }
}

/// The reason why a stream was not changed, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The change may or may not be made. Make it again: a second time it does nothing.
    #[error("the outcome of the change is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store refused or failed. Nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ChangeError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}

/// The reason why documents were not written, or may not have been.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A document was not at the expected revision. Nothing was written.
    #[error("revision conflict: entry={entry}")]
    Conflict {
        /// The index of the entry in the batch, from 0.
        entry: usize,
    },
    /// The documents may or may not be written. Read a document of the batch to find out.
    #[error("the outcome of the write is unknown")]
    Indeterminate(#[source] StoreError),
    /// The store refused or failed. Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}
