//! What an error of SQLite's means to a consumer.

use std::{error::Error, iter::successors, sync::Arc};

use factum_consumer::{HandleError, TargetError};
use rusqlite::{ErrorCode, ffi};

/// Nothing is stored.
pub(crate) fn before_commit(error: rusqlite::Error) -> TargetError {
    if error.sqlite_error_code().is_some_and(passes) {
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

/// Whether a later try may succeed although nothing was changed.
fn passes(code: ErrorCode) -> bool {
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

/// Whether an error in a handler's chain of sources is that of a statement which would have
/// committed a batch.
pub(crate) fn is_forbidden_commit(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| (**error).source()).any(|link| {
        let found = match link.downcast_ref::<rusqlite::Error>() {
            Some(error) => error.sqlite_error(),
            None => link.downcast_ref::<ffi::Error>(),
        };
        found.is_some_and(|error| error.extended_code == ffi::SQLITE_CONSTRAINT_COMMITHOOK)
    })
}

/// Whether an error in a handler's chain of sources is one of SQLite's that passes. In a
/// transparent enum of the user's only the source of rusqlite's error is left in the chain.
pub(crate) fn is_outage(link: &(dyn Error + 'static)) -> bool {
    if let Some(error) = link.downcast_ref::<rusqlite::Error>() {
        return error.sqlite_error_code().is_some_and(passes);
    }
    link.downcast_ref::<ffi::Error>().is_some_and(|error| passes(error.code))
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
