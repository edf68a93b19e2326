//! The meaning of SQLite's errors for a consumer.

use std::{error::Error, iter::successors, sync::Arc};

use factum_consumer::{HandleError, TargetError};
use rusqlite::{ErrorCode, ffi};

/// The error of a statement before the commit: nothing is stored.
pub(crate) fn before_commit(error: rusqlite::Error) -> TargetError {
    if error.sqlite_error_code().is_some_and(is_temporary) {
        TargetError::Unavailable(Arc::new(error))
    } else {
        TargetError::Refused(Arc::new(error))
    }
}

/// The error of a commit. A constraint that is checked only at the commit is the event's failure.
pub(crate) fn at_commit(error: rusqlite::Error) -> TargetError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => TargetError::Refused(Arc::new(error)),
        _ => TargetError::Unknown(Arc::new(error)),
    }
}

pub(crate) fn refused(text: &str) -> TargetError {
    TargetError::Refused(Arc::from(HandleError::from(text)))
}

/// Returns true if a later attempt may succeed although nothing was changed.
fn is_temporary(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly
            | ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted
            | ErrorCode::SchemaChanged
    )
}

/// Returns true if a handler's error comes from a statement that would have committed the batch.
pub(crate) fn is_forbidden_commit(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| (**error).source()).any(|link| {
        let found = match link.downcast_ref::<rusqlite::Error>() {
            Some(error) => error.sqlite_error(),
            None => link.downcast_ref::<ffi::Error>(),
        };
        found.is_some_and(|error| error.extended_code == ffi::SQLITE_CONSTRAINT_COMMITHOOK)
    })
}

/// Returns true if one error in a handler's chain of sources is a temporary error of SQLite. If a
/// transparent enum of the user wraps rusqlite's error, only the source of that error is in the
/// chain.
pub(crate) fn is_outage(link: &(dyn Error + 'static)) -> bool {
    if let Some(error) = link.downcast_ref::<rusqlite::Error>() {
        return error.sqlite_error_code().is_some_and(is_temporary);
    }
    link.downcast_ref::<ffi::Error>().is_some_and(|error| is_temporary(error.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Users {
        #[error(transparent)]
        Sql(#[from] rusqlite::Error),
    }

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn an_outage_is_found_through_a_transparent_enum() {
        let outage = |code| {
            let error = Users::from(failure(code));
            error.source().is_some_and(is_outage)
        };
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_FULL, ffi::SQLITE_PROTOCOL, ffi::SQLITE_SCHEMA] {
            assert!(outage(code), "{code}");
        }
        for code in [ffi::SQLITE_CONSTRAINT, ffi::SQLITE_ERROR, ffi::SQLITE_CORRUPT] {
            assert!(!outage(code), "{code}");
        }
    }
}
