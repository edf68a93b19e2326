//! The opening of the file: its content, its owner, and SQLite's settings for it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use factum_backend::{IfAbsent, JOURNAL_MARKER, absent, check_outside};
use factum_kernel::{Lineage, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use crate::{
    error::{self, Fault},
    options::{Access, SqliteOptions},
    place,
    schema::{self, Identity},
    sql,
    wal::CHECKPOINT_PAGES,
};

/// The size of the writer's cache of the file, in KiB: enough for the upper levels of the indexes
/// and the leaves in use. A reader's is [`READER_CACHE_KIB`].
const WRITER_CACHE_KIB: u32 = 64 << 10;
const READER_CACHE_KIB: u32 = 4 << 10;
/// More than there are statements, so that each is compiled once per connection.
const STATEMENTS_CACHED: usize = 80;
/// The header of a database: <https://www.sqlite.org/fileformat.html>.
const HEADER_BYTES: u64 = 100;
/// The endings of a database's file and of those that SQLite keeps beside it.
const OF_DATABASES: [&str; 4] = ["", "-wal", "-shm", "-journal"];
/// The name that an empty file system has at its root.
const MOUNTED: &str = "lost+found";
/// The number of attempts to switch to a write-ahead log while other processes hold the file.
const WAL_ATTEMPTS: u32 = 20;

/// The real path of the file, without links, whatever the program's working folder is later. For a
/// new file, the folder is made if it does not exist.
pub(crate) fn resolve(options: &SqliteOptions) -> Result<PathBuf, StoreError> {
    let path = &options.path;
    if path.as_os_str().is_empty() || path == Path::new(":memory:") {
        return Err(StoreError::invalid(
            "a SQLite store lives in a file, name one such as sqlite:./events.db, or use memory:",
        ));
    }
    let invalid =
        |e| StoreError::invalid(format!("no such path: path={}", path.display())).with_source(e);
    let path = std::path::absolute(path).map_err(invalid)?;
    if path.is_dir() {
        let remedy = match path.join(JOURNAL_MARKER).is_file() {
            true => "a journal: open it as one, or name a file outside",
            false => "a folder, name a file in it",
        };
        return Err(StoreError::invalid(format!("the path is {remedy}: path={}", path.display())));
    }
    if options.access == Access::ReadWrite && !path.exists() {
        if options.if_absent == IfAbsent::Refuse {
            return Err(absent(&path));
        }
        check_outside(&path)?;
        make_folder(&path)?;
    }
    place::real(&path)
}

/// Opens the file for writing, makes it if it may be made, and brings its tables up to date.
pub(crate) fn open_writer(
    path: &Path,
    options: &SqliteOptions,
    lineage: Lineage,
) -> Result<Connection, StoreError> {
    let makes = options.if_absent == IfAbsent::Make;
    let create = if makes { OpenFlags::SQLITE_OPEN_CREATE } else { OpenFlags::empty() };
    let at = |e| error::at(path, e);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | create)?;
    prepare(&connection, options.busy_timeout, WRITER_CACHE_KIB).map_err(at)?;
    // Before anything is changed, because it may be another program's file.
    let identity = schema::identify(&connection, path)?;
    if identity == Identity::Empty && !makes {
        return Err(absent(path));
    }
    if connection.is_readonly("main").map_err(at)? {
        return Err(StoreError::invalid(format!(
            "the database can't be written, check its permissions, or open it with ?mode=read: \
             path={}",
            path.display()
        )));
    }
    prepare_writing(&connection, options.file_bytes_max).map_err(at)?;
    if identity != Identity::Factum(schema::SCHEMA_VERSION) {
        schema::migrate(&mut connection, path, lineage)?;
    }
    check_last(&connection)?;
    Ok(connection)
}

/// A connection for reading.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) connection: Connection,
    /// True if it opened the file as one that never changes; use it for one page only.
    pub(crate) is_immutable: bool,
}

/// Opens the file for reading only; it must exist and be up to date.
///
/// A closed database in a folder that can't be written is read as a file that never changes: SQLite
/// has no place for the file through which readers and a writer know of each other.
pub(crate) fn open_reader(path: &Path, busy_timeout: Duration) -> Result<Reader, StoreError> {
    let shown = path.display();
    if !path.exists() {
        let message = format!("there is no database to read, check the path: path={shown}");
        return Err(StoreError::invalid(message));
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let mut connection = connect(path, flags)?;
    let is_immutable = !is_shareable(&connection);
    if is_immutable {
        if has_wal(path) {
            return Err(StoreError::invalid(format!(
                "the database was not closed and its folder can't be written, open it where \
                 it can, or copy it with the files beside it: path={shown}"
            )));
        }
        flags |= OpenFlags::SQLITE_OPEN_URI;
        connection = connect(path, flags)?;
    }
    prepare(&connection, busy_timeout, READER_CACHE_KIB).map_err(|e| error::at(path, e))?;
    match schema::identify(&connection, path)? {
        Identity::Factum(schema::SCHEMA_VERSION) => {
            check_last(&connection)?;
            Ok(Reader { connection, is_immutable })
        }
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

/// Checks that the table and one of its indexes end at the same event. Any other missing event
/// leaves a gap in the log. A missing last event could go unnoticed, and its position be given
/// again.
fn check_last(connection: &Connection) -> Result<(), StoreError> {
    let position =
        |row: &Row<'_>, index| row.get::<_, Option<i64>>(index).map(Option::unwrap_or_default);
    let last = connection
        .query_row(sql::LAST_TWICE, [], |row| Ok((position(row, 0)?, position(row, 1)?)))
        .map_err(|e| Fault::from(e).in_file(connection))?;
    if last.0 != last.1 {
        let text = format!("the log's end is missing: table={} index={}", last.0, last.1);
        return Err(Fault::Damage(text).in_file(connection));
    }
    Ok(())
}

/// Returns whether SQLite finds a place for the file that it shares with other processes.
fn is_shareable(connection: &Connection) -> bool {
    let read = connection.query_row(sql::COUNT_TABLES, [], |_| Ok(()));
    let code = read.err().and_then(|e| e.sqlite_error_code());
    !matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

/// Returns whether a file is a SQLite database, and not an empty one.
///
/// This asks SQLite, which reads only the beginning of the file. Opening and closing the file in
/// another way would release every lock that this process has on it:
/// <https://www.sqlite.org/howtocorrupt.html>.
pub(crate) fn is_database(path: &Path) -> bool {
    let has_header = fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() >= HEADER_BYTES);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    if !has_header {
        return false;
    }
    connect(path, flags).is_ok_and(|connection| {
        let read = connection.query_row(sql::COUNT_TABLES, [], |_| Ok(()));
        let code = read.err().and_then(|e| e.sqlite_error_code());
        // A damaged database is still a database.
        !matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::CannotOpen))
    })
}

/// The file of this name in a folder that holds nothing else, if it is a database or an empty file:
/// the folder is then a store as a whole. A folder that also holds other things is not.
pub(crate) fn alone_in(folder: &Path, name: &str) -> Option<PathBuf> {
    let file = folder.join(name);
    let is_its = |found: &OsString| {
        let rest = found.to_str().and_then(|found| found.strip_prefix(name));
        rest.is_some_and(|rest| OF_DATABASES.contains(&rest)) || found == MOUNTED
    };
    let mut entries = fs::read_dir(folder).ok()?;
    let is_alone = entries.all(|entry| entry.is_ok_and(|entry| is_its(&entry.file_name())));
    // An opening that was interrupted leaves an empty file.
    let is_empty = || fs::metadata(&file).is_ok_and(|it| it.is_file() && it.len() == 0);
    (is_alone && (is_empty() || is_database(&file))).then_some(file)
}

/// Returns whether the database has a write-ahead log with content.
pub(crate) fn has_wal(path: &Path) -> bool {
    fs::metadata(place::wal_of(path)).is_ok_and(|wal| wal.len() > 0)
}

/// The path as SQLite's URI for a file that never changes: <https://www.sqlite.org/uri.html>.
fn immutable(path: &Path) -> PathBuf {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

/// Opens the file; with `SQLITE_OPEN_URI`, as one that never changes.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    // One thread at a time uses a connection, so SQLite's own lock around it is not needed.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let is_uri = flags.contains(OpenFlags::SQLITE_OPEN_URI);
    let name = if is_uri { immutable(path) } else { path.to_owned() };
    Connection::open_with_flags(name, flags).map_err(|e| error::at(path, e))
}

/// Makes the settings that a writer's and a reader's connection share.
fn prepare(
    connection: &Connection,
    busy_timeout: Duration,
    cache_kib: u32,
) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    connection.busy_timeout(busy_timeout)?;
    // A negative size is in KiB. A file from elsewhere may hold triggers, so its schema is not
    // trusted.
    let pragmas = format!("PRAGMA cache_size = -{cache_kib}; PRAGMA trusted_schema = OFF;");
    connection.execute_batch(&pragmas)
}

/// Makes the settings for writing: durable on power loss, a bounded write-ahead log, and
/// overwriting of erased bytes.
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
        // The largest number of pages that SQLite allows.
        let pages = (bytes / u64::from(page)).clamp(1, 4_294_967_294);
        connection.execute_batch(&format!("PRAGMA max_page_count = {pages}"))?;
    }
    Ok(())
}

/// Switches to a write-ahead log. The switch needs the file alone, and SQLite does not wait for
/// that when several processes make the same file at once.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<()> {
    for _ in 0..WAL_ATTEMPTS {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                // The beginning of a write does wait, up to the timeout.
                connection.execute_batch(sql::BEGIN_WRITE)?;
                connection.execute_batch(sql::ROLLBACK)?;
            }
            done => return done,
        }
    }
    connection.pragma_update(None, "journal_mode", "wal")
}

/// Makes the folders on the path of a file, durably: a file is not safe in a folder whose own entry
/// is not durable.
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
        // Not every system can open a folder, and not every folder can be read.
        if let Ok(above) = File::open(above) {
            above.sync_all().or_else(|e| match e.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Ok(()),
                _ => Err(e),
            })?;
        }
    }
    Ok(())
}
