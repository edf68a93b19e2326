//! The meaning of PostgreSQL's errors for the caller of a store.

use std::fmt;

use factum_backend::CommitError;
use factum_kernel::{StoreError, StoreErrorKind, WriteError};
use tokio_postgres::{
    Error,
    error::{DbError, Severity},
};

/// The server's own message as one text: the driver's errors hide it in their source.
#[derive(Debug)]
struct Echo(String);

impl fmt::Display for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Echo {}

fn echo(error: &Error) -> Echo {
    let source = std::error::Error::source(error);
    Echo(source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
}

/// The error, with the place that it is about.
pub(crate) fn at(place: &str, error: &Error) -> StoreError {
    let Some(refusal) = error.as_db_error() else {
        let text = format!("the server can't be reached, check that it runs: {place}");
        return StoreError::unavailable(text).with_source(echo(error));
    };
    let code = refusal.code().code();
    // The schema's functions raise this code, with a complete sentence as message.
    if code == "FC001" {
        return StoreError::invalid(format!("{}: {place}", refusal.message()));
    }
    let (kind, text) = meaning(code);
    StoreError::new(kind, format!("{text}: code={code} {place}")).with_source(echo(error))
}

const CONTRADICTS: &str = "the log contradicts itself, restore it from a backup";

/// Codes: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn meaning(code: &str) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Corrupt, Internal, Invalid, Unavailable};
    match code {
        "55P03" => (Unavailable, "another writer holds the log's lock, try again"),
        "57014" => (Unavailable, "the statement took too long and was cancelled, try again"),
        "25P03" | "25P04" => {
            (Unavailable, "the server ended the session because it took too long, try again")
        }
        "55006" => (Unavailable, "another session uses an object of the log, try again"),
        "25006" => (
            Unavailable,
            "the server takes no writes, it is a standby or its default is read-only: connect to \
             the primary, or open with mode=read",
        ),
        "42501" => (Invalid, "the role lacks a right, grant it or use another role"),
        "3D000" => (Invalid, "there is no such database, create it"),
        "53300" => (Unavailable, "the server has no connection left, try again"),
        "53100" => (Unavailable, "no room is left on the server's disk, make some and try again"),
        "42P01" | "42883" | "3F000" | "42704" => {
            (Corrupt, "tables or functions of the log are missing, restore them from a backup")
        }
        // XX000 is no damage: two sessions that change the same object of the catalog get it too.
        "XX001" | "XX002" => (Corrupt, CONTRADICTS),
        "58030" => (Unavailable, "the server's disk reported an error, look into its log"),
        _ => match &code[..2] {
            "08" | "53" | "57" | "40" | "72" => {
                (Unavailable, "the server can't do it now, try again")
            }
            "28" => (Invalid, "the server refuses the role or its password, correct the URL"),
            "23" => (Corrupt, CONTRADICTS),
            _ => (Internal, "the server refused a statement"),
        },
    }
}

/// The knowledge about a statement that ended in this error. Only an error of severity ERROR proves
/// that the transaction was rolled back. With any other error, the commit may have happened.
pub(crate) fn outcome(place: &str, error: &Error) -> CommitError {
    let severity = error.as_db_error().and_then(DbError::parsed_severity);
    let is_connection = error.code().is_none_or(|code| code.code().starts_with("57P"));
    let error = at(place, error);
    match severity {
        Some(Severity::Error) if !is_connection => CommitError::NotStored(error),
        _ => CommitError::Unknown(error),
    }
}

/// The error of a statement that stores nothing, whether it ran or not.
pub(crate) fn of_read(error: CommitError) -> StoreError {
    match error {
        CommitError::NotStored(error) | CommitError::Unknown(error) => error,
    }
}

pub(crate) fn write_error(error: CommitError) -> WriteError {
    match error {
        CommitError::NotStored(error) => WriteError::Store(error),
        CommitError::Unknown(error) => WriteError::Indeterminate(error),
    }
}

/// The error for a row whose shape the schema's functions never give.
pub(crate) fn strange(error: Error) -> StoreError {
    StoreError::corrupt("a function of the log gave a wrong answer, restore it")
        .with_source(echo(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_never_said_to_be_permanent() {
        for code in [
            "57014", "25P03", "25P04", "55P03", "55006", "40001", "40P01", "57P01", "57P05",
            "53300", "08006", "25006", "58030", "72000", "XX000", "0Z002",
        ] {
            assert!(!meaning(code).0.is_permanent(), "{code}");
        }
        for code in ["42501", "3D000", "28P01", "42P01", "23505", "XX001", "XX002"] {
            assert!(meaning(code).0.is_permanent(), "{code}");
        }
        assert_eq!(meaning("25P03").0, StoreErrorKind::Unavailable);
        assert_eq!(meaning("25P04").0, StoreErrorKind::Unavailable);
    }
}
