//! What can go wrong in a store, by what the caller can do about it.

use std::{error::Error, fmt, sync::Arc};

use crate::{
    kind::{Cause, ErrorKind},
    position::Position,
    stream::StreamId,
    version::{ExpectedVersion, StreamVersion},
};

/// What a caller can do about a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// Nothing was done; try again later.
    Unavailable,
    /// The request can never succeed; correct it.
    Invalid,
    /// Stored data contradict themselves; stop and look.
    Corrupt,
    /// The store was closed.
    Closed,
    /// Something unforeseen; the text and the source tell.
    Internal,
}

impl StoreErrorKind {
    /// Whether the same call fails until a person has changed something: the call, the data, or
    /// the store. Whatever is not known to be permanent is tried again.
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::Invalid | Self::Corrupt | Self::Closed)
    }
}

/// Why a store did not do what it was asked. Cheap to clone.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: Arc<str>,
    cause: Cause,
}

impl StoreError {
    /// An error of this kind; the message is one lowercase sentence, values last as `key=value`.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into().into(), cause: Cause::new(kind.into()) }
    }

    /// Nothing was done; try again later.
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

    /// Something unforeseen.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StoreErrorKind::Internal, message)
    }

    /// Adds the driver's own error.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.cause = self.cause.with_source(source);
        self
    }

    /// What the caller can do.
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

/// Its source is its [`Cause`], and the driver's own error that one's.
impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// A stream was not at the version that the writer expected. Load again and decide again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version conflict: stream={stream} expected={expected} actual={actual}")]
pub struct VersionConflict {
    /// The stream.
    pub stream: StreamId,
    /// What the writer expected.
    pub expected: ExpectedVersion,
    /// What it was.
    pub actual: StreamVersion,
}

/// Why a batch was not appended, or is not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Another writer was first. Nothing was stored.
    #[error(transparent)]
    Conflict(#[from] VersionConflict),
    /// An event matches a condition. Nothing was stored.
    #[error("append condition does not hold: condition={condition} position={position}")]
    ConditionFailed {
        /// Which of the batch's conditions, from 0.
        condition: usize,
        /// An event that matches it.
        position: Position,
    },
    /// It may or may not be stored. Repeat the *same* batch, marked
    /// [`repeated`](crate::AppendBatch::repeated), before anything is loaded again.
    #[error("the outcome of the append is unknown")]
    Indeterminate(#[source] StoreError),
    /// Nothing was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl VersionConflict {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Conflict
    }
}

impl AppendError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict(_) | Self::ConditionFailed { .. } => ErrorKind::Conflict,
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }

    /// The kind of the store's error, if it is one and nothing was stored.
    pub fn store_kind(&self) -> Option<StoreErrorKind> {
        match self {
            Self::Store(error) => Some(error.kind()),
            _ => None,
        }
    }
}

/// Why documents were not written, or are not known to be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A document was not at the expected revision. Nothing was written.
    #[error("revision conflict: entry={entry}")]
    Conflict {
        /// Which of the batch's entries, from 0.
        entry: usize,
    },
    /// They may or may not be written. Read a document of the batch to see.
    #[error("the outcome of the write is unknown")]
    Indeterminate(#[source] StoreError),
    /// Nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Indeterminate(_) => ErrorKind::Unknown,
            Self::Store(error) => error.kind().into(),
        }
    }
}
