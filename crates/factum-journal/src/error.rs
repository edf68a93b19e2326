//! What the disk says, in the kernel's words.

use std::{error::Error, fmt, io, path::Path};

use factum_kernel::StoreError;

/// An error of the disk while something was done.
pub(crate) fn disk(doing: &str, name: &str, error: io::Error) -> StoreError {
    let message = |text: &str| format!("{text}: doing={doing} file={name}");
    let error_is = match error.kind() {
        _ if is_full(&error) => {
            StoreError::unavailable(message("the disk is full, make room and try again"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::unavailable(message("the disk does not permit it, check its permissions"))
        }
        _ => StoreError::unavailable(message("the disk refused, look at the system's own log")),
    };
    error_is.with_source(error)
}

/// A folder is not where it was opened, and who looks there does not find what it holds.
pub(crate) fn moved(path: &Path) -> StoreError {
    StoreError::unavailable(format!(
        "the journal's folder was moved, removed or replaced while it was open; move it back, or \
         close the store and open what is there now: path={}",
        path.display()
    ))
}

/// Whether the disk has no room, for anybody or for this user.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error is that of a file which is not there.
pub(crate) fn is_gone(error: &StoreError) -> bool {
    let source = error.source().and_then(Error::source);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Why an event can't be read that was there a moment ago.
#[derive(Debug)]
struct LeftOut;

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its segment was rewritten without it")
    }
}

impl Error for LeftOut {}

/// An event was erased and its bytes given back since the reader looked at what there is.
pub(crate) fn left_out(position: u64) -> StoreError {
    let message = "an event was erased while it was read, read again";
    StoreError::unavailable(format!("{message}: position={position}")).with_source(LeftOut)
}

/// Whether an error is that of [`left_out`]: a second look finds the event erased.
pub(crate) fn is_left_out(error: &StoreError) -> bool {
    error.source().and_then(Error::source).is_some_and(<dyn Error>::is::<LeftOut>)
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

/// A file of documents is missing or not what was written, and its content is nowhere else.
pub(crate) fn damaged_documents(name: &str, what: impl fmt::Display) -> StoreError {
    StoreError::corrupt(format!(
        "documents are lost, {what}; restore the journal from a backup: file=documents/{name}"
    ))
}
