//! What an error of SQLite's means to a consumer.

use std::{error::Error, sync::Arc};

use rusqlite::ErrorCode;

use crate::{error::HandleError, target::TargetError};

/// Nothing is stored.
pub(crate) fn before_commit(error: rusqlite::Error) -> TargetError {
    if passes(&error) {
        TargetError::Unavailable(Arc::new(error))
    } else {
        TargetError::Refused(Arc::new(error))
    }
}

/// The commit was tried. A constraint that is looked at only then is the event's fault.
pub(crate) fn at_commit(error: rusqlite::Error) -> TargetError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => TargetError::Refused(Arc::new(error)),
        _ => TargetError::Unknown(Arc::new(error)),
    }
}

pub(crate) fn refused(text: &str) -> TargetError {
    TargetError::Refused(Arc::from(HandleError::from(text)))
}

/// Whether the same may come through another time, though nobody changes the event.
pub(crate) fn passes(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::OperationInterrupted
        )
    )
}

/// Whether a statement would have committed a batch.
pub(crate) fn is_forbidden_commit(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(rusqlite::ffi::SQLITE_CONSTRAINT_COMMITHOOK)
}

/// The error of rusqlite's in what a handler said, which may have wrapped it.
pub(crate) fn in_chain(error: &HandleError) -> Option<&rusqlite::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(&**error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rusqlite::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
