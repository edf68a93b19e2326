//! The errors of queries of a read model.

use factum_consumer::ConsumerName;
use factum_kernel::{CodecError, ErrorKind, StoreError};

use crate::model_build::Build;

/// The reason why a read model does not answer a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The documents could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No program has ever maintained the projection.
    #[error("the projection was never started, maintain it first: projection={0}")]
    NotStarted(ConsumerName),
    /// A document has another shape than the reader expects: it is of another version.
    #[error(
        "the document has another shape, say how to read this version (`with_earlier`) or wait for \
         the rebuild, {error}: projection={projection} build={build} key={key}"
    )]
    Decode {
        /// The projection.
        projection: ConsumerName,
        /// The build that contains the document.
        build: Build,
        /// The key of the document.
        key: String,
        /// The reason why it can't be decoded.
        error: CodecError,
    },
    /// The serving build was made without this index.
    #[error(
        "the read model has no such index, declare it and raise the projection's version, or wait \
         for the rebuild: projection={projection} build={build} index={index}"
    )]
    NoIndex {
        /// The projection.
        projection: ConsumerName,
        /// The serving build.
        build: Build,
        /// The name of the index.
        index: String,
    },
    /// The build of the earlier page was dropped.
    #[error("the read model was rebuilt meanwhile, list it from its beginning: projection={0}")]
    Replaced(ConsumerName),
}

impl QueryError {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind().into(),
            Self::NotStarted(_) | Self::NoIndex { .. } => ErrorKind::Invalid,
            Self::Decode { .. } => ErrorKind::Corrupt,
            Self::Replaced(_) => ErrorKind::Conflict,
        }
    }
}
