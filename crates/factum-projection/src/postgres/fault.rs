//! What an error of PostgreSQL's means to a consumer.

use std::{borrow::Cow, error::Error, io, iter::successors, sync::Arc};

use factum_consumer::{HandleError, TargetError};
use sqlx::error::DatabaseError;

/// Of a statement without a handler's effects: nothing is stored, and no event can be at fault.
/// Whatever is not known to be permanent is tried again.
pub(crate) fn before_commit(error: sqlx::Error) -> TargetError {
    if is_permanent(&error) {
        TargetError::Refused(Arc::new(error))
    } else {
        TargetError::Unavailable(Arc::new(error))
    }
}

/// Of a statement in a batch's transaction: nothing is stored. An event of the batch is at fault,
/// unless the error is known to be temporary: triggers of the user's have codes of their own.
pub(crate) fn of_batch(error: sqlx::Error) -> TargetError {
    if passes(&error) {
        TargetError::Unavailable(Arc::new(error))
    } else {
        TargetError::Refused(Arc::new(error))
    }
}

/// The commit was asked for.
pub(crate) fn at_commit(error: sqlx::Error) -> TargetError {
    if is_answer(&error) { of_batch(error) } else { TargetError::Unknown(Arc::new(error)) }
}

pub(crate) fn refused(text: &str) -> TargetError {
    TargetError::Refused(Arc::from(HandleError::from(text)))
}

/// Whether a later try may succeed although nothing was changed.
fn passes(error: &sqlx::Error) -> bool {
    use sqlx::Error::{BeginFailed, Database, Io, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    match error {
        Database(error) => error.code().is_some_and(|code| is_passing(&code)),
        Io(_) | Tls(_) | Protocol(_) | PoolTimedOut | WorkerCrashed | BeginFailed => true,
        _ => false,
    }
}

/// Whether a person has to change something before the same comes through.
fn is_permanent(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        Some(error) => error.code().is_some_and(|code| is_permanent_code(&code)),
        None => !passes(error),
    }
}

/// Whether the server has said that it did not commit.
fn is_answer(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    // It may have committed, and then stopped, or ended the session, before it could say so.
    code.is_some_and(|code| {
        !starts(&code, &["08", "53", "57P", "58", "XX", "25P03", "25P04", "40003"])
    })
}

/// Trouble with connection, resources, shutdown, disk; serialization failure, deadlock; a lock not
/// available, an object in use; a snapshot too old; a standby that was the primary; a statement,
/// session or transaction that the server ended because it took too long.
fn is_passing(code: &str) -> bool {
    let is_broken_constraint = code == "40002";
    !is_broken_constraint
        && starts(
            code,
            &["08", "25006", "25P03", "25P04", "40", "53", "55006", "55P03", "57", "58", "72"],
        )
}

/// What the statement, the schema, the role or the data are not fit for: features, syntax, names,
/// rights, constraints, values, limits, triggers of the user's; damaged data.
fn is_permanent_code(code: &str) -> bool {
    !is_passing(code)
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

/// The server's code of an error in a handler's chain of sources.
pub(crate) fn code_in(error: &(dyn Error + 'static)) -> Option<String> {
    successors(Some(error), |error| (**error).source()).find_map(|link| {
        let found = match link.downcast_ref::<sqlx::Error>() {
            Some(error) => error.as_database_error(),
            None => link.downcast_ref::<Box<dyn DatabaseError>>().map(|error| &**error),
        };
        found?.code().map(Cow::into_owned)
    })
}

/// Whether an error in a handler's chain of sources is one of sqlx's that passes. In a transparent
/// enum of the user's only the source of sqlx's error is left in the chain, and its text.
pub(crate) fn is_outage(link: &(dyn Error + 'static)) -> bool {
    if let Some(error) = link.downcast_ref::<sqlx::Error>() {
        // What sqlx calls so may be the statement's: more parameters than there may be.
        let may_be_its_own = matches!(error, sqlx::Error::Protocol(_));
        return passes(error) && !may_be_its_own || matches!(error, sqlx::Error::PoolClosed);
    }
    if let Some(error) = link.downcast_ref::<Box<dyn DatabaseError>>() {
        return error.code().is_some_and(|code| is_passing(&code));
    }
    reads_as_outage(link)
}

/// Whether an error has the text of one of sqlx's that has no source, or only the disk's or the
/// network's own.
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
    fn what_passes_is_told_from_what_is_an_events_fault() {
        for code in [
            "40001", "40P01", "57P01", "08006", "53300", "55P03", "55006", "57014", "25P03",
            "25P04", "25006", "72000",
        ] {
            assert!(is_passing(code), "{code}");
            assert!(!is_permanent_code(code), "{code}");
        }
        for code in ["23505", "23503", "22003", "25P02", "42P01", "40002", "P0001"] {
            assert!(!is_passing(code), "{code}");
            assert!(is_permanent_code(code), "{code}");
        }
    }

    #[test]
    fn a_code_that_is_not_known_is_an_events_fault_and_stops_nothing() {
        for code in ["XX000", "26000", "AB123"] {
            assert!(!is_passing(code), "{code}");
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
        // Of another service that an event is about, perhaps: its webhook.
        assert!(!is_outage(&refused()));
    }
}
