//! The file: opening it, making its tables, reading the stored progress of a consumer.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use factum_consumer::{Fence, Opened, TargetError};
use factum_kernel::StreamId;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use super::{SqliteSynchronous, build_file::BuildFile, fault};

/// The time that a batch waits for another batch in the same file.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of compiled statements that a connection keeps.
const STATEMENTS_CACHED: usize = 64;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS factum_consumer (
        consumer TEXT PRIMARY KEY,
        fence INTEGER NOT NULL,
        progress BLOB,
        mark BLOB
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS factum_dead_letter (
        consumer TEXT NOT NULL,
        stream TEXT NOT NULL,
        letter BLOB NOT NULL,
        PRIMARY KEY (consumer, stream)
    ) WITHOUT ROWID;";
const ENTER: &str =
    "INSERT INTO factum_consumer (consumer, fence) VALUES (?1, 0) ON CONFLICT DO NOTHING";
const CONSUMER: &str = "SELECT fence, progress, mark FROM factum_consumer WHERE consumer = ?1";
const LETTERS: &str = "SELECT stream, letter FROM factum_dead_letter WHERE consumer = ?1";

const ARE_TABLES_THERE: &str = "SELECT count(*) = 2 FROM sqlite_schema
    WHERE name IN ('factum_consumer', 'factum_dead_letter')";

/// Opens a file for writing, and makes it if it does not exist and `is_made` is true.
pub(crate) fn open_writer(
    path: &Path,
    how: SqliteSynchronous,
    is_made: bool,
) -> Result<Connection, TargetError> {
    let open = || {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, is_made);
        let connection = connect(path, flags)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let how = match how {
            SqliteSynchronous::Full => "FULL",
            SqliteSynchronous::Normal => "NORMAL",
        };
        connection.pragma_update(None, "synchronous", how)?;
        Ok(connection)
    };
    open().map_err(fault::before_commit)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(connection)
}

pub(crate) fn are_tables_there(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row(ARE_TABLES_THERE, [], |row| row.get(0))
}

/// Makes the tables, and reads the stored progress and dead letters of a consumer.
pub(crate) fn make(
    connection: &mut Connection,
    consumer: &str,
    setup: Option<&str>,
    build: Option<&BuildFile>,
) -> Result<Opened, TargetError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = tx.map_err(fault::before_commit)?;
    if let Some(build) = build {
        build.enter(&tx)?;
    }
    let made = tx.execute_batch(TABLES).and_then(|()| match setup {
        Some(setup) => tx.execute_batch(setup),
        None => Ok(()),
    });
    made.and_then(|()| tx.execute(ENTER, [consumer])).map_err(fault::before_commit)?;
    let opened = opened(&tx, consumer)?;
    tx.commit().map_err(fault::at_commit)?;
    Ok(opened)
}

/// Reads the stored progress and dead letters of a consumer, and makes nothing.
pub(crate) fn look(path: &Path, consumer: &str) -> Result<Opened, TargetError> {
    if !path.exists() {
        return Ok(Opened::default());
    }
    let mut connection = open_reader(path).map_err(fault::before_commit)?;
    let tx = connection.transaction().map_err(fault::before_commit)?;
    match are_tables_there(&tx).map_err(fault::before_commit)? {
        true => opened(&tx, consumer),
        false => Ok(Opened::default()),
    }
}

fn opened(tx: &Transaction<'_>, consumer: &str) -> Result<Opened, TargetError> {
    let opened = tx.query_row(CONSUMER, [consumer], |row| {
        let bytes = |at| row.get::<_, Option<Vec<u8>>>(at).map(|it| it.map(Bytes::from));
        let fence = Fence(row.get::<_, i64>(0)?.cast_unsigned());
        Ok(Opened { fence, progress: bytes(1)?, mark: bytes(2)?, letters: Vec::new() })
    });
    let mut opened = opened.optional().map_err(fault::before_commit)?.unwrap_or_default();
    for (stream, letter) in letters(tx, consumer).map_err(fault::before_commit)? {
        let stream = stream.parse::<StreamId>();
        let stream = stream.map_err(|e| fault::refused(&e.to_string()))?;
        opened.letters.push((stream, letter.into()));
    }
    Ok(opened)
}

fn letters(
    tx: &Transaction<'_>,
    consumer: &str,
) -> Result<Vec<(String, Vec<u8>)>, rusqlite::Error> {
    let mut statement = tx.prepare(LETTERS)?;
    statement.query_map([consumer], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
