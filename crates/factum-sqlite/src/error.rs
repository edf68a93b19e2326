//! The meaning of SQLite's errors for the caller of a store.

use std::{fmt, path::Path};

use factum_backend::CommitError;
use factum_kernel::{StoreError, StoreErrorKind, WriteError};
use rusqlite::{Connection, Error, ErrorCode, types::FromSqlError};

/// An error inside the store, before its file is named.
#[derive(Debug)]
pub(crate) enum Fault {
    Sqlite(Error),
    /// The data that was read differs from what was written.
    Damage(String),
    /// An error that already names the remedy.
    Store(StoreError),
}

pub(crate) type Result<T> = std::result::Result<T, Fault>;

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<FromSqlError> for Fault {
    fn from(error: FromSqlError) -> Self {
        Self::Sqlite(error.into())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// The error with the name of the connection's file.
    pub(crate) fn in_file(self, connection: &Connection) -> StoreError {
        // SQLite has no path only if it is not UTF-8.
        let path = connection.path().unwrap_or("?");
        match self {
            Self::Store(error) => error,
            Self::Damage(text) => {
                let remedy = "the database is damaged, restore it from a backup";
                StoreError::corrupt(format!("{remedy}: {text} path={path}"))
            }
            Self::Sqlite(error) => {
                let (kind, text) = meaning(&error);
                with_echo(StoreError::new(kind, format!("{text}: path={path}")), &error)
            }
        }
    }
}

/// SQLite's own message, once: its errors repeat one another in a chain.
#[derive(Debug)]
struct Echo(String);

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Echo {}

fn with_echo(ours: StoreError, error: &Error) -> StoreError {
    match error.sqlite_error_code() {
        // The store's own sentence says the same.
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::NotADatabase) => ours,
        _ => ours.with_source(Echo(error.to_string())),
    }
}

/// The error with the name of its file, for errors while a store is opened.
pub(crate) fn at(path: &Path, error: Error) -> StoreError {
    let (kind, text) = match error.sqlite_error_code() {
        // While a file is opened, this means that it is another kind of file, not a damaged store.
        Some(ErrorCode::NotADatabase) => {
            (StoreErrorKind::Invalid, "the file is no SQLite database, name another")
        }
        _ => meaning(&error),
    };
    with_echo(StoreError::new(kind, format!("{text}: path={}", path.display())), &error)
}

fn meaning(error: &Error) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Corrupt, Internal, Invalid, Unavailable};
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => (Unavailable, "another process holds the database's lock, try again"),
        Some(ErrorCode::DiskFull) => {
            (Unavailable, "no room is left for the database, make some and try again")
        }
        Some(ErrorCode::SystemIoFailure) => {
            (Unavailable, "the disk reported an error, look into the system's log")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            (Unavailable, "the database can't be opened, check its permissions and its folder's")
        }
        Some(ErrorCode::ReadOnly) => {
            (Unavailable, "the database can't be written, check its permissions and its folder's")
        }
        Some(
            ErrorCode::OperationAborted
            | ErrorCode::OperationInterrupted
            | ErrorCode::SchemaChanged,
        ) => (Unavailable, "another statement of the database was in the way, try again"),
        Some(ErrorCode::TooBig) => (Invalid, "a value is larger than the database may hold"),
        Some(ErrorCode::OutOfMemory) => (Unavailable, "no memory is left, try again"),
        Some(
            ErrorCode::DatabaseCorrupt
            | ErrorCode::NotADatabase
            | ErrorCode::ConstraintViolation
            | ErrorCode::TypeMismatch,
        ) => (Corrupt, "the database contradicts itself, restore it from a backup"),
        Some(_) => (Internal, "the database refused a statement"),
        // Without a code the error is about a row that was read: missing, or of the wrong shape.
        None => (Corrupt, "the database holds what this program never wrote, restore a backup"),
    }
}

/// Returns whether a `COMMIT` that failed with this error has certainly stored nothing.
///
/// After a write to a full disk, the last page of the group is missing, or one before it. So the
/// WAL has no complete commit record. After any other error the record may be complete, and a crash
/// before the next commit overwrites it would make the group take effect.
pub(crate) fn stored_nothing(error: &Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy))
}

pub(crate) fn write_error(error: CommitError) -> WriteError {
    match error {
        CommitError::NotStored(error) => WriteError::Store(error),
        CommitError::Unknown(error) => WriteError::Indeterminate(error),
    }
}
