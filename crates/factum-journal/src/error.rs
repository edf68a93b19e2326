//! What the disk says, in the kernel's words.

use std::{fmt, io};

use factum_core::StoreError;

/// An error of the disk while something was done.
pub(crate) fn disk(doing: &str, name: &str, error: io::Error) -> StoreError {
    let message = |text: &str| format!("{text}: doing={doing} file={name}");
    let error_is = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::unavailable(message("the disk is full, make room and try again"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::unavailable(message("the disk does not permit it, check its permissions"))
        }
        _ => StoreError::unavailable(message("the disk refused, look at the system's own log")),
    };
    error_is.with_source(error)
}

/// Stored bytes are not what was written.
pub(crate) fn damaged(what: impl fmt::Display, segment: u64, offset: u64) -> StoreError {
    StoreError::corrupt(format!(
        "the log is damaged, {what}; restore it from a backup: segment={segment} offset={offset}"
    ))
}

/// A file of the index is not what was written. The log is whole, so that it can be made anew.
pub(crate) fn damaged_index(name: &str, offset: u64) -> StoreError {
    StoreError::corrupt(format!(
        "a file of the index is damaged, remove it and open the store again, which makes it anew \
         from the log: file={name} offset={offset}"
    ))
}
