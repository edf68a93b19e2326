//! What can go wrong with a query of a read model.

use factum_consumer::ConsumerName;
use factum_kernel::{CodecError, ErrorKind, StoreError};

use crate::model_build::Build;

/// Why a read model does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No program has ever maintained it.
    #[error("the projection was never started, maintain it first: projection={0}")]
    NotStarted(ConsumerName),
    /// A document is not what the reader takes it for: it is from another version.
    #[error(
        "the document has another shape, say how to read this version (`with_earlier`) or wait for \
         the rebuild, {error}: projection={projection} build={build} key={key}"
    )]
    Decode {
        /// Of which projection.
        projection: ConsumerName,
        /// Of which build.
        build: Build,
        /// Which one.
        key: String,
        /// What is wrong with it.
        error: CodecError,
    },
    /// The build that serves was made without it.
    #[error(
        "the read model has no such index, declare it and raise the projection's version, or wait \
         for the rebuild: projection={projection} build={build} index={index}"
    )]
    NoIndex {
        /// Of which projection.
        projection: ConsumerName,
        /// The build that serves.
        build: Build,
        /// The index.
        index: String,
    },
    /// The build that the page was of is gone.
    #[error("the read model was rebuilt meanwhile, list it from its beginning: projection={0}")]
    Replaced(ConsumerName),
}

impl QueryError {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::NotStarted(_) | Self::NoIndex { .. } => ErrorKind::Invalid,
            Self::Decode { .. } => ErrorKind::Corrupt,
            Self::Replaced(_) => ErrorKind::Conflict,
        }
    }
}
