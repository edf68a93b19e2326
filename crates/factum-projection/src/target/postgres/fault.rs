//! What an error of PostgreSQL's means to a consumer.

use std::{error::Error, sync::Arc};

use crate::{error::HandleError, target::TargetError};

/// Nothing is stored.
pub(crate) fn before_commit(error: sqlx::Error) -> TargetError {
    if passes(&error) {
        TargetError::Unavailable(Arc::new(error))
    } else {
        TargetError::Refused(Arc::new(error))
    }
}

/// The commit was asked for.
pub(crate) fn at_commit(error: sqlx::Error) -> TargetError {
    if is_answer(&error) { before_commit(error) } else { TargetError::Unknown(Arc::new(error)) }
}

pub(crate) fn refused(text: &str) -> TargetError {
    TargetError::Refused(Arc::from(HandleError::from(text)))
}

/// Whether the same may come through another time, though nobody mends anything.
pub(crate) fn passes(error: &sqlx::Error) -> bool {
    use sqlx::Error::{BeginFailed, Database, Io, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    match error {
        Database(error) => error.code().is_some_and(|code| is_passing(&code)),
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | WorkerCrashed | BeginFailed => true,
        _ => false,
    }
}

/// Whether the server has said that it did not commit.
fn is_answer(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // It may have committed, and then stopped before it could say so.
    code.is_some_and(|code| {
        !["08", "53", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
            && code != "40003"
    })
}

/// Serialization failure, deadlock, lock not available, a standby that was the primary; trouble
/// with connection, resources, shutdown, disk.
fn is_passing(code: &str) -> bool {
    ["40001", "40P01", "55P03", "25006"].contains(&code)
        || ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class))
}

/// The error of sqlx's in what a handler said, which may have wrapped it.
pub(crate) fn in_chain(error: &HandleError) -> Option<&sqlx::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(&**error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<sqlx::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_is_an_events_fault() {
        for code in ["40001", "40P01", "57P01", "08006", "53300", "55P03"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["23505", "23503", "22003", "25P02", "42P01", "57014", "40002"] {
            assert!(!is_passing(code), "{code}");
        }
    }

    #[test]
    fn an_error_is_found_however_it_is_wrapped() {
        #[derive(Debug, thiserror::Error)]
        #[error("the total was not written")]
        struct Wrapped(#[source] sqlx::Error);
        let wrapped = HandleError::from(Wrapped(sqlx::Error::PoolTimedOut));
        assert!(in_chain(&wrapped).is_some_and(passes));
        assert!(in_chain(&HandleError::from("another")).is_none());
    }
}
