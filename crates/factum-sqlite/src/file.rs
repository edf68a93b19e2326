//! Opening the file: what is there, whose it is, and how SQLite is to treat it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use factum_core::{Lineage, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{
    error,
    schema::{self, Identity},
    sql,
    wal::CHECKPOINT_PAGES,
};

/// What the writer's connection keeps of the file in memory, in KiB: the upper levels of the
/// indexes and the leaves in use. A reader keeps [`READER_CACHE_KIB`].
const WRITER_CACHE_KIB: u32 = 64 << 10;
const READER_CACHE_KIB: u32 = 4 << 10;
/// More than there are statements, so that each is compiled once per connection.
const STATEMENTS_CACHED: usize = 80;
/// How often the switch to a write-ahead log is tried while others hold the file.
const WAL_ATTEMPTS: u32 = 20;

/// The path as it will be named in errors, whatever folder the program moves to.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    if path.as_os_str().is_empty() || path == Path::new(":memory:") {
        return Err(StoreError::invalid(
            "a SQLite store lives in a file, name one such as sqlite:./events.db, or use memory:",
        ));
    }
    let invalid =
        |e| StoreError::invalid(format!("no such path: path={}", path.display())).with_source(e);
    let path = std::path::absolute(path).map_err(invalid)?;
    if path.is_dir() {
        return Err(StoreError::invalid(format!(
            "the path is a folder, name a file in it: path={}",
            path.display()
        )));
    }
    Ok(path)
}

/// Opens the file for writing, makes it if it is not there, and brings its tables up to date.
pub(crate) fn open_writer(
    path: &Path,
    busy_timeout: Duration,
    file_bytes_max: Option<u64>,
    lineage: Lineage,
) -> Result<Connection, StoreError> {
    make_folder(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = open(path, flags, busy_timeout, WRITER_CACHE_KIB)?;
    // Before anything is changed: it may be somebody else's file.
    let identity = schema::identify(&connection, path)?;
    let at = |e| error::at(path, e);
    if connection.is_readonly("main").map_err(at)? {
        return Err(StoreError::unavailable(format!(
            "the database can't be written, check its permissions, or open it with ?mode=read: \
             path={}",
            path.display()
        )));
    }
    prepare_writing(&connection, file_bytes_max).map_err(at)?;
    if identity != Identity::Factum(schema::SCHEMA_VERSION) {
        schema::migrate(&mut connection, path, lineage)?;
    }
    Ok(connection)
}

/// Opens the file for reading only; it must be there and up to date.
pub(crate) fn open_reader(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let shown = path.display();
    if !path.exists() {
        let message = format!("there is no database to read, check the path: path={shown}");
        return Err(StoreError::invalid(message));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = open(path, flags, busy_timeout, READER_CACHE_KIB)?;
    match schema::identify(&connection, path)? {
        Identity::Factum(schema::SCHEMA_VERSION) => Ok(connection),
        Identity::Factum(version) => Err(StoreError::invalid(format!(
            "the database is of an older version, open it for writing once: schema={version} \
             known={} path={shown}",
            schema::SCHEMA_VERSION
        ))),
        Identity::Empty => Err(StoreError::invalid(format!(
            "there is nothing to read, open the database for writing first: path={shown}"
        ))),
    }
}

fn open(
    path: &Path,
    flags: OpenFlags,
    busy_timeout: Duration,
    cache_kib: u32,
) -> Result<Connection, StoreError> {
    let at = |e| error::at(path, e);
    // A connection is used by one thread at a time, so SQLite's own lock around it is not needed.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(at)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.busy_timeout(busy_timeout).map_err(at)?;
    // A negative size is one in KiB. A file from elsewhere may hold triggers; it is not trusted.
    let pragmas = format!("PRAGMA cache_size = -{cache_kib}; PRAGMA trusted_schema = OFF;");
    connection.execute_batch(&pragmas).map_err(at)?;
    Ok(connection)
}

/// Sets how the writer writes: durable on power loss, a bounded write-ahead log, and erased bytes
/// overwritten.
fn prepare_writing(connection: &Connection, file_bytes_max: Option<u64>) -> rusqlite::Result<()> {
    switch_to_wal(connection)?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {};",
        u64::from(CHECKPOINT_PAGES) * 4_096 * 2
    ))?;
    if let Some(bytes) = file_bytes_max {
        let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        // The largest number of pages that SQLite knows.
        let pages = (bytes / u64::from(page)).clamp(1, 4_294_967_294);
        connection.execute_batch(&format!("PRAGMA max_page_count = {pages}"))?;
    }
    Ok(())
}

/// The switch needs the file for itself, and SQLite does not wait for that by itself when several
/// processes make the same file at once.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    for _ in 0..WAL_ATTEMPTS {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                // Beginning to write does wait, for as long as the timeout says.
                connection.execute_batch(sql::BEGIN_WRITE)?;
                connection.execute_batch(sql::ROLLBACK)?;
            }
            done => return done,
        }
    }
    connection.pragma_update(None, "journal_mode", "wal")
}

/// Makes the folders on the way to a file, durably: a file is not safe in a folder whose own entry
/// is not.
fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| !folder.exists()) else { return Ok(()) };
    let made = fs::create_dir_all(folder).and_then(|()| sync_entries(folder));
    made.map_err(|e| {
        StoreError::invalid(format!("the folder can't be made: path={}", folder.display()))
            .with_source(e)
    })
}

fn sync_entries(folder: &Path) -> io::Result<()> {
    for above in folder.ancestors().skip(1) {
        // Not every system lets a folder be opened, nor every folder be read.
        if let Ok(above) = File::open(above) {
            above.sync_all().or_else(|e| match e.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Ok(()),
                _ => Err(e),
            })?;
        }
    }
    Ok(())
}
