//! The meaning of PostgreSQL's errors for a consumer.

use std::{borrow::Cow, error::Error, io, iter::successors, sync::Arc};

use factum_consumer::{HandleError, TargetError};
use sqlx::error::DatabaseError;

/// The error of a statement without a handler's effects: nothing is stored, and no event is the
/// cause. Every error that is not known to be permanent is tried again.
pub(crate) fn before_commit(error: sqlx::Error) -> TargetError {
    if is_permanent(&error) {
        TargetError::Refused(Arc::new(error))
    } else {
        TargetError::Unavailable(Arc::new(error))
    }
}

/// The error of a statement in a batch's transaction: nothing is stored. An event of the batch is
/// the cause unless the error is known to be temporary, because triggers of the user have codes of
/// their own.
pub(crate) fn of_batch(error: sqlx::Error) -> TargetError {
    if is_temporary(&error) {
        TargetError::Unavailable(Arc::new(error))
    } else {
        TargetError::Refused(Arc::new(error))
    }
}

/// The error of a commit: the batch may be stored.
pub(crate) fn at_commit(error: sqlx::Error) -> TargetError {
    if is_answer(&error) { of_batch(error) } else { TargetError::Unknown(Arc::new(error)) }
}

pub(crate) fn refused(text: &str) -> TargetError {
    TargetError::Refused(Arc::from(HandleError::from(text)))
}

/// Returns true if a later attempt may succeed although nothing was changed.
fn is_temporary(error: &sqlx::Error) -> bool {
    use sqlx::Error::{BeginFailed, Database, Io, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    match error {
        Database(error) => error.code().is_some_and(|code| is_temporary_code(&code)),
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | WorkerCrashed | BeginFailed => true,
        _ => false,
    }
}

/// Returns true if a person has to change something before the same statement can succeed.
fn is_permanent(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(error) => error.code().is_some_and(|code| is_permanent_code(&code)),
        None => !is_temporary(error),
    }
}

/// Returns true if the server has answered that it did not commit.
fn is_answer(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    // With these codes the server may have committed, and stopped or ended the session before it
    // could answer.
    code.is_some_and(|code| {
        !starts(&code, &["08", "53", "57P", "58", "XX", "25P03", "25P04", "40003"])
    })
}

/// Errors of the connection, resources, shutdown or disk; serialization failures and deadlocks; a
/// lock that is not available, an object in use; a snapshot that is too old; a standby that was the
/// primary; a statement, session or transaction that the server ended because it took too long.
fn is_temporary_code(code: &str) -> bool {
    let is_broken_constraint = code == "40002";
    !is_broken_constraint
        && starts(
            code,
            &["08", "25006", "25P03", "25P04", "40", "53", "55006", "55P03", "57", "58", "72"],
        )
}

/// Errors that the statement, the schema, the role or the data cause: features, syntax, names,
/// rights, constraints, values, limits, triggers of the user; damaged data.
fn is_permanent_code(code: &str) -> bool {
    !is_temporary_code(code)
        && starts(
            code,
            &[
                "09", "0A", "0L", "0P", "21", "22", "23", "25", "27", "28", "2B", "38", "39", "3D",
                "3F", "40002", "42", "44", "54", "F0", "P0", "XX001", "XX002",
            ],
        )
}

fn starts(code: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| code.starts_with(prefix))
}

/// The server's code, if an error in a handler's chain of sources has one.
pub(crate) fn code_in(error: &(dyn Error + 'static)) -> Option<String> {
    successors(Some(error), |error| (**error).source()).find_map(|link| {
        let found = match link.downcast_ref::<sqlx::Error>() {
            Some(error) => error.as_database_error(),
            None => link.downcast_ref::<Box<dyn DatabaseError>>().map(|error| &**error),
        };
        found?.code().map(Cow::into_owned)
    })
}

/// Returns true if one error in a handler's chain of sources is a temporary error of sqlx. If a
/// transparent enum of the user wraps sqlx's error, only the source and the text of that error are
/// in the chain.
pub(crate) fn is_outage(link: &(dyn Error + 'static)) -> bool {
    if let Some(error) = link.downcast_ref::<sqlx::Error>() {
        // A protocol error may be the statement's own: too many parameters.
        let may_be_the_statements = matches!(error, sqlx::Error::Protocol(_));
        return is_temporary(error) && !may_be_the_statements
            || matches!(error, sqlx::Error::PoolClosed);
    }
    if let Some(error) = link.downcast_ref::<Box<dyn DatabaseError>>() {
        return error.code().is_some_and(|code| is_temporary_code(&code));
    }
    reads_as_outage(link)
}

/// Returns true if the error has the text of a temporary error of sqlx that has no source, or only
/// the source of the disk or the network.
fn reads_as_outage(link: &(dyn Error + 'static)) -> bool {
    use sqlx::Error::{BeginFailed, Io, PoolClosed, PoolTimedOut, WorkerCrashed};
    let text = link.to_string();
    match link.source() {
        None => [PoolTimedOut, PoolClosed, WorkerCrashed, BeginFailed]
            .iter()
            .any(|error| error.to_string() == text),
        Some(source) => source
            .downcast_ref::<io::Error>()
            .is_some_and(|io| Io(io::Error::other(io.to_string())).to_string() == text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_errors_are_no_fault_of_an_event() {
        for code in [
            "40001", "40P01", "57P01", "08006", "53300", "55P03", "55006", "57014", "25P03",
            "25P04", "25006", "72000",
        ] {
            assert!(is_temporary_code(code), "{code}");
            assert!(!is_permanent_code(code), "{code}");
        }
        for code in ["23505", "23503", "22003", "25P02", "42P01", "40002", "P0001"] {
            assert!(!is_temporary_code(code), "{code}");
            assert!(is_permanent_code(code), "{code}");
        }
    }

    #[test]
    fn an_unknown_code_is_the_events_fault_and_stops_no_consumer() {
        for code in ["XX000", "26000", "AB123"] {
            assert!(!is_temporary_code(code), "{code}");
            assert!(!is_permanent_code(code), "{code}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    enum Users {
        #[error(transparent)]
        Sql(#[from] sqlx::Error),
    }

    #[test]
    fn an_outage_reads_the_same_through_a_transparent_enum() {
        use sqlx::Error::{BeginFailed, Io, PoolClosed, PoolTimedOut, RowNotFound, WorkerCrashed};
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        for error in [Io(refused()), PoolTimedOut, PoolClosed, WorkerCrashed, BeginFailed] {
            assert!(is_outage(&Users::from(error)));
        }
        assert!(!is_outage(&Users::from(RowNotFound)));
        // The error of another service that the handler calls, such as a webhook.
        assert!(!is_outage(&refused()));
    }
}
