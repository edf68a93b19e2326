//! The errors of the disk and of damaged files, as errors of the kernel.

use std::{error::Error, fmt, io, path::Path};

use factum_kernel::StoreError;

/// The error for a failed operation of the disk.
pub(crate) fn disk(doing: &str, name: &str, error: io::Error) -> StoreError {
    let message = |text: &str| format!("{text}: doing={doing} file={name}");
    let error_is = match error.kind() {
        _ if is_full(&error) => {
            StoreError::unavailable(message("the disk is full, make room and try again"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::unavailable(message("the disk does not permit it, check its permissions"))
        }
        _ => StoreError::unavailable(message("the disk failed, look at the system's log")),
    };
    error_is.with_source(error)
}

/// The error for a folder that is not where it was opened: other processes don't find its content.
pub(crate) fn moved(path: &Path) -> StoreError {
    StoreError::unavailable(format!(
        "the journal's folder was moved, removed or replaced while it was open; move it back, or \
         close the store and open what is there now: path={}",
        path.display()
    ))
}

/// Returns whether the error says that the disk is full, or the user's quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Returns whether the error says that a file does not exist.
pub(crate) fn is_gone(error: &StoreError) -> bool {
    let source = error.source().and_then(Error::source);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The reason why an event can't be read that was there a moment ago.
#[derive(Debug)]
struct LeftOut;

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its segment was rewritten without it")
    }
}

impl Error for LeftOut {}

/// The error for an event that was erased, and its space reclaimed, after the reader took its view.
pub(crate) fn left_out(position: u64) -> StoreError {
    let message = "an event was erased while it was read, read again";
    StoreError::unavailable(format!("{message}: position={position}")).with_source(LeftOut)
}

/// Returns whether an error is that of [`left_out`]. A read with a new view finds the event erased.
pub(crate) fn is_left_out(error: &StoreError) -> bool {
    error.source().and_then(Error::source).is_some_and(<dyn Error>::is::<LeftOut>)
}

/// The error for stored bytes that differ from what was written.
pub(crate) fn damaged(what: impl fmt::Display, segment: u64, offset: u64) -> StoreError {
    StoreError::corrupt(format!(
        "the log is damaged, {what}; restore it from a backup: segment={segment} offset={offset}"
    ))
}

/// The error for a damaged file of the index. The log is whole, so the file can be rebuilt.
pub(crate) fn damaged_index(name: &str, offset: u64) -> StoreError {
    StoreError::corrupt(format!(
        "a file of the index is damaged, remove it and open the store again, which rebuilds it \
        from the log: file={name} offset={offset}"
    ))
}

/// The error for a file of documents that is missing or damaged. Its content is stored nowhere
/// else.
pub(crate) fn damaged_documents(name: &str, what: impl fmt::Display) -> StoreError {
    StoreError::corrupt(format!(
        "documents are lost, {what}; restore the journal from a backup: file=documents/{name}"
    ))
}
