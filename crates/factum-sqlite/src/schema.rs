//! The tables, their version, and the migrations from an older version to the present one.

use std::path::Path;

use factum_kernel::{Lineage, StoreError};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{error, sql};

/// The program's mark in the file's header: `FACT`.
pub const APPLICATION_ID: i32 = i32::from_be_bytes(*b"FACT");
/// The version of the tables, in the file's header as `user_version`.
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// The migration to version n+1, at index n. A released migration is never changed.
const MIGRATIONS: &[&str] = &[include_str!("schema/v1.sql")];

/// The identity of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A database without content.
    Empty,
    /// A Factum database with this schema.
    Factum(i32),
}

/// Identifies the file, if this program may use it.
pub(crate) fn identify(connection: &Connection, path: &Path) -> Result<Identity, StoreError> {
    // In one snapshot: another process may give an empty file its tables between two statements.
    let snapshot = Transaction::new_unchecked(connection, TransactionBehavior::Deferred);
    snapshot.map_err(|e| error::at(path, e)).and_then(|snapshot| identify_in(&snapshot, path))
}

/// Identifies the file at the moment that a transaction sees.
fn identify_in(snapshot: &Transaction<'_>, path: &Path) -> Result<Identity, StoreError> {
    let header = |name| snapshot.pragma_query_value(None, name, |row| row.get(0));
    let read = || {
        let tables: i64 = snapshot.query_row(sql::COUNT_TABLES, [], |row| row.get(0))?;
        Ok((header("application_id")?, header("user_version")?, tables))
    };
    let (application, version, tables) = read().map_err(|e| error::at(path, e))?;
    let path = path.display();
    match (application, version) {
        (0, 0) if tables == 0 => Ok(Identity::Empty),
        (APPLICATION_ID, version) if version > SCHEMA_VERSION => Err(StoreError::invalid(format!(
            "the database was written by a newer program, use that one or a newer: \
             schema={version} known={SCHEMA_VERSION} path={path}"
        ))),
        (APPLICATION_ID, version) if version > 0 => Ok(Identity::Factum(version)),
        _ => Err(StoreError::invalid(format!(
            "the file is another program's database, name another: path={path}"
        ))),
    }
}

/// Brings the tables to the present version, each migration in its own transaction, so that a crash
/// between two leaves a whole version.
pub(crate) fn migrate(
    connection: &mut Connection,
    path: &Path,
    lineage: Lineage,
) -> Result<(), StoreError> {
    loop {
        let at = |e| error::at(path, e);
        let step = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let step = step.map_err(at)?;
        // Read under the lock: another process may have migrated in the meantime.
        let version = match identify_in(&step, path)? {
            Identity::Empty => 0,
            Identity::Factum(version) => version,
        };
        if version == SCHEMA_VERSION {
            return Ok(());
        }
        take(&step, version, lineage).and_then(|()| step.commit()).map_err(at)?;
    }
}

fn take(step: &Transaction<'_>, version: i32, lineage: Lineage) -> rusqlite::Result<()> {
    step.execute_batch(MIGRATIONS[usize::try_from(version).unwrap_or(0)])?;
    step.pragma_update(None, "user_version", version + 1)?;
    if version == 0 {
        step.pragma_update(None, "application_id", APPLICATION_ID)?;
        step.execute(sql::CREATE_LOG, [&lineage.as_uuid().as_bytes()[..]])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

    use super::*;

    /// Of three statements, the first two once saw the file before it had tables, and the last one
    /// after.
    #[test]
    fn a_file_that_another_opening_is_making_is_never_another_programs() {
        for moment in ["application_id", "user_version"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.db");
            let connection = Connection::open(&path).unwrap();
            connection.pragma_update(None, "journal_mode", "wal").unwrap();
            let mut other = Some(Connection::open(&path).unwrap());
            let there = path.clone();
            let make = move |context: AuthContext<'_>| {
                let AuthAction::Pragma { pragma_name, .. } = context.action else {
                    return Authorization::Allow;
                };
                if pragma_name == moment
                    && let Some(mut other) = other.take()
                {
                    migrate(&mut other, &there, Lineage::new(uuid::Uuid::nil())).unwrap();
                }
                Authorization::Allow
            };
            connection.authorizer(Some(make)).unwrap();
            identify(&connection, &path).unwrap_or_else(|error| panic!("{moment}: {error}"));
            let there = identify(&connection, &path).unwrap();
            assert_eq!(there, Identity::Factum(SCHEMA_VERSION), "{moment}");
        }
    }
}
