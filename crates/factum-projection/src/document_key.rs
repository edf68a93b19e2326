//! The keys of documents in a read model.

use factum_kernel::ErrorKind;

/// The most bytes of a document's key in a read model.
pub const DOCUMENT_KEY_BYTES_MAX: usize = 512;

/// The error for a text that can't be the key of a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a document's key has 1 to {DOCUMENT_KEY_BYTES_MAX} bytes, shorten it: bytes={bytes}")]
pub struct InvalidDocumentKey {
    /// The number of bytes of the text.
    pub bytes: usize,
}

impl InvalidDocumentKey {
    /// The kind of the error: what the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), InvalidDocumentKey> {
    let bytes = key.len();
    if (1..=DOCUMENT_KEY_BYTES_MAX).contains(&bytes) {
        Ok(())
    } else {
        Err(InvalidDocumentKey { bytes })
    }
}
